//! The operations of rooms, against a real store in a temporary directory.

mod aliases;
mod create;
mod doctor;
mod janitor;
mod joins;
mod membership;
mod pipeline;
mod profile;
mod read;
mod receipts;
mod redact;
mod remote;
mod send;
mod servers;
mod support;
