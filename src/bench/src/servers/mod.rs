//! The servers that can be measured, each in a file: how it is configured and started.
//!
//! All that the driver starts listen on the loopback interface, keep their data below one directory, which is emptied
//! first, let anybody register, and have no rate limits. Everything else is what their own documentation recommends for
//! production.

mod dendrite;
mod floor;
mod myelin;
mod postgres;
mod synapse;
mod url;

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU16, Ordering},
};

use tokio::process::Command;

use crate::server::{Server, ServerError};

pub(crate) use url::Remote;

/// The servers that the driver can start, in the order in which a comparison measures them.
pub(crate) const NAMES: [&str; 4] = ["myelin", "floor", "synapse", "dendrite"];

/// Where the programs lie. What is not given cannot be measured.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Programs {
    /// The binary of Myelin.
    #[arg(long, value_name = "BINARY")]
    myelin: Option<PathBuf>,
    /// The binary of the floor.
    #[arg(long, value_name = "BINARY")]
    floor: Option<PathBuf>,
    /// The Python environment that Synapse is installed in.
    #[arg(long, value_name = "DIR")]
    synapse: Option<PathBuf>,
    /// The directory with the binaries `dendrite` and `generate-keys`.
    #[arg(long, value_name = "DIR")]
    dendrite: Option<PathBuf>,
    /// The directory with the binaries of PostgreSQL, for Synapse and Dendrite.
    #[arg(long, value_name = "DIR")]
    postgres: Option<PathBuf>,
    /// The allocator to load before Synapse, as its documentation recommends.
    #[arg(long, value_name = "LIBRARY")]
    jemalloc: Option<PathBuf>,
}

impl Programs {
    /// Configures and starts the server `name` with an empty `dir` for all that it writes.
    pub(crate) async fn start(&self, name: &str, dir: &Path) -> Result<Server, ServerError> {
        let given = |path: &Option<PathBuf>, flag: &'static str| {
            path.clone().ok_or(ServerError::NotGiven(flag))
        };
        empty(dir)?;
        let mut server = match name {
            "myelin" => myelin::prepare(&given(&self.myelin, "--myelin")?, dir).await?,
            "floor" => floor::prepare(&given(&self.floor, "--floor")?, dir)?,
            "synapse" => {
                let database = given(&self.postgres, "--postgres")?;
                let program = given(&self.synapse, "--synapse")?;
                synapse::prepare(&program, &database, self.jemalloc.as_deref(), dir).await?
            }
            "dendrite" => {
                let database = given(&self.postgres, "--postgres")?;
                dendrite::prepare(&given(&self.dendrite, "--dendrite")?, &database, dir).await?
            }
            other => return Err(ServerError::Unknown(other.to_owned())),
        };
        match server.start().await {
            Ok(_) => Ok(server),
            Err(cause) => {
                // Its database runs already.
                server.end().await.ok();
                Err(cause)
            }
        }
    }
}

/// Removes what is in `dir`, and creates it.
fn empty(dir: &Path) -> Result<(), ServerError> {
    match fs::remove_dir_all(dir) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(file("remove what an earlier run left", dir)(cause))
        }
        _ => make(dir),
    }
}

fn make(dir: &Path) -> Result<(), ServerError> {
    fs::create_dir_all(dir).map_err(file("make a directory", dir))
}

fn write(path: &Path, text: &str) -> Result<(), ServerError> {
    fs::write(path, text).map_err(file("write settings", path))
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ServerError {
    let path = path.display().to_string();
    move |cause| ServerError::File { what, path, cause }
}

/// A port of the loopback interface that nobody listens on. It lies below those from which the system takes the ports of
/// outgoing connections, so that none of the driver's can have it while the server is restarted.
fn free_port() -> Result<u16, ServerError> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    // Runs beside each other begin at different places.
    let begin = (std::process::id() * 97 % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let port = FIRST + (begin + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(ServerError::NoPort)
}

/// Runs a command to its end and answers what it printed, without white space at the ends.
async fn run(command: &mut Command) -> Result<String, ServerError> {
    let program = command.as_std().get_program().display().to_string();
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await;
    let output = output.map_err(|cause| ServerError::Start {
        program: program.clone(),
        cause,
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let mut last: Vec<&str> = said.lines().rev().take(3).collect();
    last.reverse();
    Err(ServerError::Tool {
        program,
        said: format!("{}: {}", output.status, last.join(" ")),
    })
}

/// A path as a string between quotes, as TOML and YAML read it too.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.display().to_string()).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{empty, free_port, quoted};

    #[test]
    fn ports_are_handed_out_once() {
        let first = free_port().expect("a free port");
        let second = free_port().expect("a free port");
        assert!(first != second && first >= 20_000 && second < 30_000);
    }

    #[test]
    fn what_an_earlier_run_left_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let run = dir.path().join("run");
        for _ in 0..2 {
            empty(&run).expect("it can be written");
            assert!(!run.join("left").exists());
            std::fs::write(run.join("left"), "").expect("it can be written");
        }
    }

    #[test]
    fn quotes_in_paths_are_escaped() {
        assert_eq!(quoted(Path::new("/a \"b\"")), r#""/a \"b\"""#);
    }
}
