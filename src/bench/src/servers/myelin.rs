//! Myelin, with its default settings but for who may register and how often one may ask.

use std::path::Path;

use tokio::process::Command;

use super::{file, free_port, quoted, run, write};
use crate::{
    http::Host,
    server::{Part, Server, ServerError},
};

pub(super) async fn prepare(binary: &Path, dir: &Path) -> Result<Server, ServerError> {
    let binary = binary
        .canonicalize()
        .map_err(file("find the binary", binary))?;
    let (address, data) = (format!("127.0.0.1:{}", free_port()?), dir.join("data"));
    let config = dir.join("myelin.toml");
    write(&config, &settings(&address, &data))?;
    let arguments = ["serve", "--config"].map(str::to_owned).into_iter();
    let mut part = Part::new(
        &binary,
        arguments.chain([config.display().to_string()]).collect(),
        dir.join("myelin.log"),
    );
    part.directory = Some(dir.to_path_buf());
    let host = Host::parse(&format!("http://{address}"))?;
    let mut server = Server::new("myelin", host, Vec::new(), Some(part), vec![data]);
    let version = run(Command::new(&binary).arg("--version")).await?;
    version
        .trim_start_matches("myelin ")
        .clone_into(&mut server.version);
    server.settings = [
        "Open registration, no rate limits, log level warn; everything else as by default.",
        "An event is answered after it is in a log that is synced to disk; no setting changes that.",
    ]
    .map(str::to_owned)
    .into();
    Ok(server)
}

fn settings(address: &str, data: &Path) -> String {
    format!(
        r#"[server]
name = "localhost"
data_dir = {}

[listen]
addresses = ["{address}"]

[registration]
mode = "open"

[rate_limits]
enabled = false

[log]
filter = "warn"
"#,
        quoted(data)
    )
}
