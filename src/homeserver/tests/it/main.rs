//! The program and the composed server, as operators, browsers and clients meet them.

mod backup;
mod claims;
mod crash;
mod encryption;
mod federated;
mod forks;
mod history;
mod invites;
mod joins;
mod large;
mod listeners;
mod pages;
mod presence;
mod process;
mod program;
mod queries;
mod rooms;
mod shutdown;
mod users;
