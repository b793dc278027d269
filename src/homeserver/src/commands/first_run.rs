//! The first start without a settings file: write one, and say what comes next.

use std::{
    io::{self, Write as _},
    path::Path,
};

use myelin_config::{Config, example_toml};

use crate::data_dir::{DataDirError, write_private};

/// The server's name where nobody said one: good for trying it out on one machine.
const TRIAL_NAME: &str = "localhost";

/// Writes a settings file with all settings and their meaning.
pub(super) fn write_settings(path: &Path, server_name: Option<&str>) -> Result<(), DataDirError> {
    // Private, since secrets may come to stand in it.
    write_private(path, &example_toml(server_name.unwrap_or(TRIAL_NAME)))
}

/// Tells the operator what to do with a new server.
pub(super) fn greet(config: &Config, settings: &Path, address: &str) -> io::Result<()> {
    let name = &config.server.name;
    let settings = settings.display();
    let option = if settings.to_string() == super::DEFAULT_FILE {
        String::new()
    } else {
        format!(" --config {settings}")
    };
    writeln!(
        io::stdout(),
        "\n\
         A new homeserver for {name} is running.\n\
         \n\
         Settings:         {settings}\n\
         Data:             {data}\n\
         Point a client at {address}\n\
         Make a user:      myelin{option} user create alice\n",
        data = config.server.data_dir.display(),
    )
}
