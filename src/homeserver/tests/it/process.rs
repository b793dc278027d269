//! Running the program `myelin` as an operator does.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// A place where nothing is yet, and the program run in it.
pub(crate) struct Place {
    dir: TempDir,
}

/// What a command came to.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// What a command that must succeed printed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// What a command that must fail said.
    #[track_caller]
    pub(crate) fn failed(self) -> String {
        assert_eq!(self.code, Some(1), "{}{}", self.stdout, self.stderr);
        self.stderr
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("there is a temporary directory"),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program with these arguments, in this place, without settings from the tests' own environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MYELIN_") {
                command.env_remove(name);
            }
        }
        command.args(arguments).current_dir(self.path());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "")
    }

    /// Runs a command to its end with something to read.
    pub(crate) fn run_with(&self, arguments: &[&str], stdin: &str) -> Ran {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut input = child.stdin.take().expect("standard input is a pipe");
        // A command that reads nothing may have ended already.
        input.write_all(stdin.as_bytes()).ok();
        drop(input);
        finished(child.wait_with_output().expect("the program ends"))
    }

    /// Starts a server on a free port, for the first time in this place, and waits until it is ready.
    pub(crate) fn first_start(&self, arguments: &[&str]) -> Serving {
        let mut all = vec!["serve", "--listen", "127.0.0.1:0"];
        all.extend(arguments);
        // Into a file: a pipe that nobody empties would stop the server when it is full.
        let log = self.join("serve.log");
        let stderr = File::create(&log).expect("a file can be made");
        let mut child = self
            .command(&all)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("the program starts");
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let mut greeting = String::new();
        let mut lines = BufReader::new(stdout).lines();
        while !greeting.contains("user create") {
            match lines.next() {
                Some(Ok(line)) => greeting = format!("{greeting}{line}\n"),
                _ => panic!("the server did not start: {greeting}{}", read(&log)),
            }
        }
        Serving {
            child: Some(child),
            greeting,
            log,
        }
    }
}

/// A server in a process of its own; killed when dropped.
pub(crate) struct Serving {
    child: Option<Child>,
    log: PathBuf,
    pub(crate) greeting: String,
}

impl Serving {
    /// Ends it with SIGTERM and waits for it.
    pub(crate) fn terminate(mut self) -> Ran {
        let child = self
            .child
            .take()
            .expect("the server has not been ended yet");
        let pid = i32::try_from(child.id()).expect("process ids are small");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("our child takes signals");
        let mut ran = finished(child.wait_with_output().expect("the server ends"));
        ran.stderr = read(&self.log);
        ran
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).expect("the log was made before the server")
}

fn finished(output: Output) -> Ran {
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
