//! A database cluster of PostgreSQL for one server alone, reached through a socket in the file system.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::signal::Signal,
    unistd::{User, geteuid},
};
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use super::{file, make, run};
use crate::server::{Part, ServerError};

/// The database's only role. Whoever reaches the socket is believed to be it; nobody else can enter its directory.
pub(super) const ROLE: &str = "bench";

/// What the settings are, for the report.
pub(super) const SETTINGS: &str = "PostgreSQL of its own over a Unix socket, in the C locale, shared_buffers 512 MB, \
     effective_cache_size 2 GB, work_mem 16 MB, maintenance_work_mem 128 MB; fsync, synchronous_commit and \
     full_page_writes are on. Its write-ahead log, which is recycled, does not count as disk per event.";

/// A cluster that runs.
pub(super) struct Postgres {
    pub(super) part: Part,
    pub(super) version: String,
    /// The directory of the socket.
    pub(super) host: PathBuf,
    /// Where the tables and indexes lie.
    pub(super) tables: PathBuf,
}

impl Postgres {
    /// Makes a cluster below `dir` with an empty database `name`, from the programs in `programs`.
    pub(super) async fn start(
        programs: &Path,
        dir: &Path,
        name: &str,
    ) -> Result<Self, ServerError> {
        let owner = owner()?;
        let owned = |path: &Path| match owner {
            None => Ok(()),
            Some((user, group)) => {
                chown(path, Some(user), Some(group)).map_err(file("give away a directory", path))
            }
        };
        let cluster = dir.join("postgres");
        make(&cluster)?;
        owned(&cluster)?;
        // The path of a socket may not have more than about a hundred bytes, and `dir` may be deep.
        let sockets = tempfile::Builder::new()
            .prefix("myelin-bench-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .map_err(file("make a directory", Path::new("for a socket")))?;
        owned(sockets.path())?;
        let host = sockets.path().to_path_buf();

        let tool = |tool: &str| {
            let mut command = Command::new(programs.join(tool));
            command.current_dir(&cluster);
            if let Some((user, group)) = owner {
                command.uid(user).gid(group);
            }
            command
        };
        let data = cluster.join("data");
        let mut make_cluster = tool("initdb");
        make_cluster
            .args(["--encoding=UTF8", "--locale=C", "--auth=trust"])
            .arg(format!("--username={ROLE}"))
            .arg("--pgdata")
            .arg(&data);
        run(&mut make_cluster).await?;

        let mut part = Part::new(
            programs.join("postgres"),
            arguments(&data, &host),
            dir.join("postgres.log"),
        );
        part.user = owner;
        part.directory = Some(cluster.clone());
        part.temporary = Some(sockets);
        // Its "fast" way of ending: it does not wait for clients.
        part.stop = Signal::SIGINT;
        part.start()?;
        wait(&mut part, &tool, &host).await?;

        let mut make_database = tool("createdb");
        make_database
            .arg("--host")
            .arg(&host)
            .args(["--username", ROLE, "--template=template0"])
            .args(["--encoding=UTF8", "--locale=C", name]);
        run(&mut make_database).await?;
        let version = run(tool("postgres").arg("--version")).await?;
        Ok(Self {
            part,
            version: version.replace("postgres (PostgreSQL)", "PostgreSQL"),
            host,
            tables: data.join("base"),
        })
    }
}

/// Waits until the cluster takes connections.
async fn wait(
    part: &mut Part,
    tool: &impl Fn(&str) -> Command,
    host: &Path,
) -> Result<(), ServerError> {
    let (begun, waited) = (Instant::now(), Duration::from_mins(1));
    while begun.elapsed() < waited {
        part.check()?;
        let mut ask = tool("pg_isready");
        ask.arg("--quiet").arg("--host").arg(host);
        if run(&mut ask).await.is_ok() {
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
    Err(ServerError::Silent {
        program: part.program.display().to_string(),
        waited,
        log: part.log.display().to_string(),
    })
}

/// What Synapse's documentation says to tune (docs/postgres.md), in sizes for a machine of a few gigabytes.
fn arguments(data: &Path, host: &Path) -> Vec<String> {
    let mut arguments = vec!["-D".to_owned(), data.display().to_string()];
    let settings = [
        ("listen_addresses", ""),
        ("unix_socket_directories", &host.display().to_string()),
        ("shared_buffers", "512MB"),
        ("effective_cache_size", "2GB"),
        ("work_mem", "16MB"),
        ("maintenance_work_mem", "128MB"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
    ];
    for (name, value) in settings {
        arguments.extend(["-c".to_owned(), format!("{name}={value}")]);
    }
    arguments
}

/// Whom it runs as: PostgreSQL refuses to run as root.
fn owner() -> Result<Option<(u32, u32)>, ServerError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let user = ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| User::from_name(name).ok().flatten())
        .ok_or(ServerError::NoUser)?;
    Ok(Some((user.uid.as_raw(), user.gid.as_raw())))
}
