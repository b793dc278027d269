//! Running other programs, with failures that name the command.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use crate::{
    failure::{Failure, Outcome},
    workspace,
};

/// A command whose output goes to the terminal, started in the workspace's root and without standard input.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace::root()).stdin(Stdio::null());
    command
}

/// The cargo that runs this task.
///
/// The variables that `cargo run` sets about *this* package are taken away: build scripts that ask to be run again when
/// one of them changes (ring's does) would otherwise rebuild whenever somebody alternates between `cargo` and `cargo xtask`.
pub(crate) fn cargo() -> Command {
    let mut cargo = command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let ours = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        });
        if ours {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Runs `command` to its end; anything but success is a failure that quotes it.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let status = command
        .status()
        .map_err(|cause| Failure::new(format!("start `{}`: {cause}", shown(command))))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("`{}`: {status}", shown(command))))
    }
}

/// What `command` printed, without the white space at its ends. What it says on standard error is part of the failure.
pub(crate) fn output(command: &mut Command) -> Outcome<String> {
    let output = command
        .output()
        .map_err(|cause| Failure::new(format!("start `{}`: {cause}", shown(command))))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure::new(format!(
            "`{}`: {}\n{}",
            shown(command),
            output.status,
            said.trim()
        )))
    }
}

/// Whether `command` can be started and succeeds; what it prints is thrown away.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs `command` and hands each line of its standard output to `each`; answers whether it succeeded.
pub(crate) fn lines(command: &mut Command, mut each: impl FnMut(&str)) -> Outcome<bool> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|cause| Failure::new(format!("start `{}`: {cause}", shown(command))))?;
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader
                .read_until(b'\n', &mut line)
                .map_err(|cause| Failure::new(format!("read what a command prints: {cause}")))?;
            if read == 0 {
                break;
            }
            each(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
        }
    }
    let status = child
        .wait()
        .map_err(|cause| Failure::new(format!("wait for a command: {cause}")))?;
    Ok(status.success())
}

/// Whether a program of this name lies on the search path.
pub(crate) fn on_path(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}
