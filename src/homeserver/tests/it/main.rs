//! The program and the composed server, as operators, browsers and clients meet them.

mod backup;
mod crash;
mod federated;
mod joins;
mod listeners;
mod pages;
mod presence;
mod process;
mod program;
mod rooms;
mod shutdown;
mod users;
