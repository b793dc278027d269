//! Accounts over a real store in a temporary directory, with a clock that the test turns.

mod account_data;
mod devices;
mod filters;
mod harness;
mod login;
mod profile;
mod push_rules;
mod refresh;
mod registration;
mod tidy;
mod tokens;
mod uia;
mod users;
