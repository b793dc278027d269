//! Syncs against a real store in a temporary directory.

mod lazy;
mod model;
mod partial;
mod sections;
mod support;
mod unread;
mod unread_model;
mod waiting;
