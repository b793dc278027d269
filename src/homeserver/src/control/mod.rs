//! How the operator's commands reach a running server: one JSON object a line over a Unix socket in the data
//! directory, which only the owner of the directory can open.
//!
//! A client writes one [`Request`] and reads [`Answer`]s until one says that it is done or refused. The same requests are carried out without a server by
//! opening the database directly.

mod client;
mod server;

use std::{fmt, path::PathBuf};

use ruma::OwnedServerName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use client::{ClientError, ask};
pub(crate) use server::listen;

/// A password on its way to the server. Not printed.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Password(pub(crate) String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(hidden)")
    }
}

/// What an operator may ask for. Users are named by the part before the colon or by their whole id.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// How the server is: the document of `/health`.
    Health,
    /// Make a user. The answer is `{"user_id"}`.
    CreateUser {
        /// Who.
        name: String,
        /// How they log in.
        password: Password,
        /// Whether they administer the server.
        admin: bool,
    },
    /// All users: a list of `{"user_id", "created_at", "admin", "deactivated"}`.
    ListUsers,
    /// Give a user another password. The answer is `{"user_id", "logged_out"}`, the latter a number of devices.
    SetPassword {
        /// Who.
        name: String,
        /// The new one.
        password: Password,
        /// Whether their devices stay logged in.
        keep_sessions: bool,
    },
    /// Close an account for good. The answer is `{"user_id"}`.
    DeactivateUser {
        /// Who.
        name: String,
        /// Whether to delete also what they keep here.
        erase: bool,
    },
    /// Examine a room. The answer is a [`Report`](myelin_rooms::doctor::Report).
    CheckRoom {
        /// Its id, or an alias of this server.
        room: String,
        /// How many other servers are asked for their state.
        compare_with: usize,
    },
    /// Look at how another server is reached. The answer is a [`Report`](myelin_federation::check::Report).
    CheckFederation {
        /// The server.
        server: OwnedServerName,
    },
    /// Sign with a new key. The answer is `{"key_id"}`.
    RotateKey,
    /// Make a backup. The answer is `{"directory"}`.
    Backup {
        /// The directory to make, an absolute path.
        directory: PathBuf,
    },
}

/// What comes back: a value, or one sentence that says why not; before that, for what takes long, how far it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It was done.
    Done(Value),
    /// It was not, and why.
    Refused(String),
    /// It goes on: how far it is. Another answer follows.
    Going(String),
}
