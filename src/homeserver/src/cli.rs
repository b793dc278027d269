//! The words of the command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use ruma::OwnedServerName;

/// A Matrix homeserver.
#[derive(Debug, Parser)]
#[command(name = "myelin", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) settings: SettingArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the settings come from.
#[derive(Debug, Args)]
pub(crate) struct SettingArgs {
    /// The file with the settings [default: myelin.toml]
    #[arg(long, short, global = true, env = "MYELIN_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The server's name, as server.name
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) server_name: Option<String>,
    /// The data directory, as server.data_dir
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<String>,
    /// Any setting; can be given several times
    #[arg(long = "set", global = true, value_name = "SECTION.SETTING=VALUE", value_parser = setting)]
    pub(crate) set: Vec<(String, String)>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server; without a settings file, write one first
    Serve {
        /// Answer plain HTTP here, as listen.addresses; can be given several times
        #[arg(long, value_name = "ADDRESS")]
        listen: Vec<SocketAddr>,
    },
    /// Print a settings file with all settings, their meaning and their defaults
    GenerateConfig,
    /// Read the settings and say what is wrong with them
    CheckConfig,
    /// Manage the users of this server, whether it is running or not
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Look into rooms
    Room {
        #[command(subcommand)]
        command: RoomCommand,
    },
    /// Look into how this server and others work together
    Federation {
        #[command(subcommand)]
        command: FederationCommand,
    },
    /// Make a copy of the data directory that can be used in its place, whether the server is running or not
    Backup {
        /// The directory to make; it must not exist yet
        directory: PathBuf,
    },
    /// Ask the running server how it is; the exit code is 0 when all is well
    Health,
}

/// What to do about rooms.
#[derive(Debug, Subcommand)]
pub(crate) enum RoomCommand {
    /// Examine a room: whether what is stored of it is what its events say
    ///
    /// Nothing is changed, and the room can be used meanwhile. The exit code is 0 when all is well, 2 when something is
    /// wrong with the room, and 1 when it could not be examined.
    Check {
        /// The room's id, or an alias of this server
        room: String,
        /// Also ask other servers of the room for their state, and explain the differences
        #[arg(long)]
        compare: bool,
        /// How many servers are asked at most
        #[arg(long, default_value_t = 5, requires = "compare", value_name = "NUMBER")]
        servers: usize,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

/// What to do about other servers.
#[derive(Debug, Subcommand)]
pub(crate) enum FederationCommand {
    /// Show every step of reaching a server, and what is wrong; the exit code is 0 when it can be reached
    ///
    /// Give the name of this server to see whether others can reach it, as far as this machine can tell.
    Check {
        /// The server's name, as it stands behind the colon of its users' ids
        server: OwnedServerName,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Sign with a new key from now on
    ///
    /// The key of before is published as an old one, so that what it signed still counts. Other servers learn of the new
    /// key by themselves. Make a backup afterwards.
    RotateKey,
}

/// What to do with users.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Create a user; the password is asked for, or read from standard input
    Create {
        /// The name: what stands before the colon, or the whole user id
        name: String,
        /// Make them an administrator of this server
        #[arg(long)]
        admin: bool,
        /// Make up a password and print it
        #[arg(long)]
        generate_password: bool,
    },
    /// List all users
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Give a user another password; it is asked for, or read from standard input
    SetPassword {
        /// The name: what stands before the colon, or the whole user id
        name: String,
        /// Make up a password and print it
        #[arg(long)]
        generate_password: bool,
        /// Leave the user's devices logged in
        #[arg(long)]
        keep_sessions: bool,
    },
    /// Close a user's account for good: log out all devices, leave all rooms; nobody gets the name again
    Deactivate {
        /// The name: what stands before the colon, or the whole user id
        name: String,
        /// Also delete what the user keeps on this server
        #[arg(long)]
        erase: bool,
    },
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
        None => Err("write SECTION.SETTING=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn settings_are_split_at_the_first_equals_sign() {
        let pair = setting("rate_limits.login={ burst = 1, per_second = 2 }");
        let expected = (
            "rate_limits.login".to_owned(),
            "{ burst = 1, per_second = 2 }".to_owned(),
        );
        assert_eq!(pair, Ok(expected));
        assert!(setting("nothing").is_err());
    }
}
