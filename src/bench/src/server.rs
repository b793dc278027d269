//! A homeserver that is measured: its processes, what they use, and its data on disk.
//!
//! A server is one process or several (Synapse and its PostgreSQL). CPU time and memory are those of all of them and of
//! every process below them; a database server's workers come and go, and the time of those that are gone stands with
//! their parent. Memory is looked at twice a second, while the server is the one that is measured.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{
    client::{CallError, Registration},
    http::{Connection, Host, HttpError},
};

/// Why a server cannot be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    #[error("start {program}")]
    Start {
        program: String,
        #[source]
        cause: io::Error,
    },
    #[error("{program} ended before it answered ({status}); see {log}")]
    Ended {
        program: String,
        status: String,
        log: String,
    },
    #[error("{program} did not answer within {waited:?}; see {log}")]
    Silent {
        program: String,
        waited: Duration,
        log: String,
    },
    #[error("{what} in {path}")]
    File {
        what: &'static str,
        path: String,
        #[source]
        cause: io::Error,
    },
    #[error("{program}: {said}")]
    Tool { program: String, said: String },
    #[error("its programs were not given (`{0}`)")]
    NotGiven(&'static str),
    #[error("nobody knows how to start `{0}`")]
    Unknown(String),
    #[error("there is no free port")]
    NoPort,
    #[error("there is neither a user `postgres` nor `nobody`, and PostgreSQL does not run as root")]
    NoUser,
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Call(#[from] CallError),
}

/// How one process of a server is started and stopped.
pub(crate) struct Part {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// The user it runs as, where it refuses to run as root.
    pub(crate) user: Option<(u32, u32)>,
    /// Where it stands.
    pub(crate) directory: Option<PathBuf>,
    /// What is to be removed when it is.
    pub(crate) temporary: Option<TempDir>,
    /// Where its output goes.
    pub(crate) log: PathBuf,
    /// What asks it to end in good order.
    pub(crate) stop: Signal,
    /// The process, while it runs.
    pub(crate) child: Option<Child>,
}

impl Part {
    pub(crate) fn new(program: impl Into<PathBuf>, arguments: Vec<String>, log: PathBuf) -> Self {
        Self {
            program: program.into(),
            arguments,
            environment: Vec::new(),
            user: None,
            directory: None,
            temporary: None,
            log,
            stop: Signal::SIGTERM,
            child: None,
        }
    }

    pub(crate) fn start(&mut self) -> Result<(), ServerError> {
        let failed = |cause| ServerError::Start {
            program: self.program.display().to_string(),
            cause,
        };
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(failed)?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .kill_on_drop(true);
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        self.child = Some(command.spawn().map_err(failed)?);
        Ok(())
    }

    /// Asks it to end and waits for it, a minute at most. Answers the CPU time that it and everything below it used in
    /// all its life.
    pub(crate) async fn end(&mut self) -> Result<Duration, ServerError> {
        let Some(mut child) = self.child.take() else {
            return Ok(Duration::ZERO);
        };
        // What a child used is added to its parent's account when the parent has waited for it.
        let waited_for = || {
            let this = Process::read(std::process::id());
            this.map_or(Duration::ZERO, |process| process.waited_for)
        };
        let before = waited_for();
        if let Some(pid) = child.id() {
            // It may have ended by itself.
            kill(Pid::from_raw(pid.cast_signed()), self.stop).ok();
        }
        if timeout(Duration::from_mins(1), child.wait()).await.is_err() {
            child.kill().await.map_err(|cause| ServerError::Start {
                program: self.program.display().to_string(),
                cause,
            })?;
        }
        Ok(waited_for().saturating_sub(before))
    }

    /// An error when it is not running any more.
    pub(crate) fn check(&mut self) -> Result<(), ServerError> {
        let ended = match &mut self.child {
            Some(child) => match child.try_wait() {
                Ok(None) => return Ok(()),
                Ok(Some(status)) => status.to_string(),
                Err(cause) => cause.to_string(),
            },
            None => "not started".to_owned(),
        };
        Err(ServerError::Ended {
            program: self.program.display().to_string(),
            status: ended,
            log: self.log.display().to_string(),
        })
    }

    fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }
}

/// A homeserver, running.
pub(crate) struct Server {
    /// As in the figures.
    pub(crate) name: String,
    /// What it says of itself, with its version.
    pub(crate) version: String,
    /// Its database with the version, if that is a program of its own.
    pub(crate) database: Option<String>,
    /// The settings that matter for what is measured, a sentence each.
    pub(crate) settings: Vec<String>,
    pub(crate) host: Host,
    pub(crate) registration: Registration,
    /// What every local part begins with, so that a run over an old data set finds no name taken.
    pub(crate) prefix: String,
    /// Its database, if that is a program of its own. Empty for a server that somebody else started.
    pub(crate) databases: Vec<Part>,
    /// The homeserver itself.
    pub(crate) program: Option<Part>,
    /// Where its data lie.
    pub(crate) data: Vec<PathBuf>,
    /// CPU time of its processes that have ended.
    spent: Duration,
    memory: Arc<Memory>,
}

/// The highest memory seen, kept by a thread that lives until the server is dropped.
#[derive(Default)]
struct Memory {
    /// Since somebody last asked to begin anew.
    peak: AtomicU64,
    /// Ever.
    highest: AtomicU64,
    /// Whether to look at all: looking takes time that another server's measurement would lack.
    attended: AtomicBool,
    dropped: AtomicBool,
    roots: Mutex<Vec<u32>>,
}

impl Memory {
    fn look(&self) -> u64 {
        let now = memory(&self.roots.lock());
        self.peak.fetch_max(now, Ordering::Relaxed);
        self.highest.fetch_max(now, Ordering::Relaxed);
        now
    }

    fn keep_looking(&self) {
        while !self.dropped.load(Ordering::Relaxed) {
            if self.attended.load(Ordering::Relaxed) {
                self.look();
            }
            thread::sleep(Duration::from_millis(500));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.memory.dropped.store(true, Ordering::Relaxed);
    }
}

impl Server {
    pub(crate) fn new(
        name: &str,
        host: Host,
        databases: Vec<Part>,
        program: Option<Part>,
        data: Vec<PathBuf>,
    ) -> Self {
        let kept = Arc::new(Memory::default());
        if program.is_some() {
            let kept = Arc::clone(&kept);
            thread::spawn(move || kept.keep_looking());
        }
        Self {
            name: name.to_owned(),
            version: String::new(),
            database: None,
            settings: Vec::new(),
            host,
            registration: Registration::Open,
            prefix: "bench".to_owned(),
            databases,
            program,
            data,
            spent: Duration::ZERO,
            memory: kept,
        }
    }

    /// Whether the driver started it, so that its processes can be measured and restarted.
    pub(crate) fn is_ours(&self) -> bool {
        self.program.is_some()
    }

    /// Starts the homeserver and waits until it answers `/versions`. Answers how long that took.
    pub(crate) async fn start(&mut self) -> Result<Duration, ServerError> {
        let begun = Instant::now();
        if let Some(program) = &mut self.program {
            program.start()?;
        }
        *self.memory.roots.lock() = self.roots();
        let mut connection = Connection::new(self.host.clone());
        let waited = Duration::from_mins(5);
        while begun.elapsed() < waited {
            let asked = connection
                .send(
                    &http::Method::GET,
                    "/_matrix/client/versions",
                    None,
                    None,
                    Duration::from_secs(10),
                )
                .await;
            if asked.is_ok_and(|answer| answer.status.is_success()) {
                return Ok(begun.elapsed());
            }
            if let Some(program) = &mut self.program {
                program.check()?;
            }
            sleep(Duration::from_millis(2)).await;
        }
        let part = self.program.as_ref();
        Err(ServerError::Silent {
            program: self.name.clone(),
            waited,
            log: part.map_or_else(String::new, |part| part.log.display().to_string()),
        })
    }

    /// Ends the homeserver in good order; its database goes on.
    pub(crate) async fn stop(&mut self) -> Result<(), ServerError> {
        if let Some(program) = &mut self.program {
            self.spent += program.end().await?;
        }
        *self.memory.roots.lock() = self.roots();
        Ok(())
    }

    /// Ends everything of it, the database also where the homeserver could not be ended.
    pub(crate) async fn end(&mut self) -> Result<(), ServerError> {
        self.attend(false);
        let mut ended = self.stop().await;
        for part in &mut self.databases {
            ended = ended.and(part.end().await.map(drop));
        }
        ended
    }

    fn roots(&self) -> Vec<u32> {
        let parts = self.databases.iter().chain(&self.program);
        parts.filter_map(Part::pid).collect()
    }

    /// CPU time of all its processes so far, user and system. None for a server that is not ours.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        self.is_ours().then(|| {
            let processes = Processes::now();
            let tree = processes.below(&self.roots());
            let running: Duration = tree
                .iter()
                .map(|process| process.cpu + process.waited_for)
                .sum();
            self.spent + running
        })
    }

    /// Memory of all its processes at this moment in bytes, pages that several share counted once.
    pub(crate) fn memory(&self) -> Option<u64> {
        self.is_ours().then(|| self.memory.look())
    }

    /// Says whether it is the one that is measured now.
    pub(crate) fn attend(&self, attended: bool) {
        self.memory.attended.store(attended, Ordering::Relaxed);
    }

    /// Begins anew to look for the highest memory.
    pub(crate) fn watch_memory(&mut self) {
        self.memory.peak.store(0, Ordering::Relaxed);
        self.attend(true);
    }

    /// The highest memory since [`Server::watch_memory`], in bytes.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        let now = self.memory()?;
        Some(self.memory.peak.load(Ordering::Relaxed).max(now))
    }

    /// The highest memory ever, in bytes, as far as it was attended to.
    pub(crate) fn highest_memory(&self) -> Option<u64> {
        self.is_ours()
            .then(|| self.memory.highest.load(Ordering::Relaxed))
    }

    /// What its data take on disk, in bytes of allocated blocks. None for a server that is not ours.
    pub(crate) fn disk(&self) -> Option<u64> {
        self.is_ours()
            .then(|| self.data.iter().map(|dir| allocated(dir)).sum())
    }
}

/// CPU time of the driver itself so far.
pub(crate) fn own_cpu() -> Option<Duration> {
    Process::read(std::process::id()).map(|process| process.cpu)
}

/// Blocks allocated below `dir`. A file that vanishes meanwhile counts nothing.
fn allocated(dir: &Path) -> u64 {
    let mut sum = 0;
    let mut open = vec![dir.to_path_buf()];
    while let Some(path) = open.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        sum += meta.blocks() * 512;
        if meta.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            open.extend(entries.map(|entry| entry.path()));
        }
    }
    sum
}

struct Process {
    pid: u32,
    parent: u32,
    /// User and system time of its own.
    cpu: Duration,
    /// The same of its children that have ended and that it has waited for, and of theirs.
    waited_for: Duration,
}

/// The processes of this machine.
struct Processes(Vec<Process>);

impl Processes {
    fn now() -> Self {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Self(pids.filter_map(Process::read).collect())
    }

    /// `roots` and whatever descends from them.
    fn below(&self, roots: &[u32]) -> Vec<&Process> {
        let mut wanted: Vec<u32> = roots.to_vec();
        let mut index = 0;
        while let Some(&parent) = wanted.get(index) {
            let children = self.0.iter().filter(|process| process.parent == parent);
            wanted.extend(children.map(|process| process.pid));
            index += 1;
        }
        let found = self.0.iter();
        found
            .filter(|process| wanted.contains(&process.pid))
            .collect()
    }
}

impl Process {
    /// See proc_pid_stat(5). Times are in ticks of a hundredth of a second on every Linux that is in use.
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |index: usize| {
            let ticks = fields.get(index)?.parse::<u64>().ok()?;
            Some(Duration::from_millis(ticks * 10))
        };
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            // utime and stime, then cutime and cstime.
            cpu: ticks(11)? + ticks(12)?,
            waited_for: ticks(13)? + ticks(14)?,
        })
    }
}

/// The proportional set size of `roots` and all below them, in bytes.
fn memory(roots: &[u32]) -> u64 {
    let processes = Processes::now();
    let tree = processes.below(roots);
    tree.iter()
        .filter_map(|process| {
            let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid)).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
            let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kibibytes * 1024)
        })
        .sum()
}
