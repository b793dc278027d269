//! The image that Complement starts: built from the binary that the tests use, and tried once on both of its ports.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    engine,
    failure::{Failure, Outcome},
    machine::{self, Beside},
    process, workspace,
};

/// The name under which the engine knows our image.
pub(crate) const TAG: &str = "complement-myelin:latest";

/// How long a container may take until it answers. Complement starts hundreds of them, so the aim is far below.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Builds the server and the image around it.
pub(crate) fn build() -> Outcome {
    let binary = machine::build_server(Beside::Nothing)?;
    engine::prepare()?;
    pack(&binary)?;
    println!("Built {TAG}.");
    Ok(())
}

/// Builds the image from what lies in `complement/` and a stripped copy of `binary`.
fn pack(binary: &Path) -> Outcome {
    let context = workspace::target().join("complement-image");
    if context.exists() {
        fs::remove_dir_all(&context).map_err(|cause| Failure::file("remove", &context, &cause))?;
    }
    fs::create_dir_all(&context).map_err(|cause| Failure::file("create", &context, &cause))?;
    let source = workspace::root().join("complement");
    for name in ["Dockerfile", "start", "myelin.toml"] {
        let (from, to) = (source.join(name), context.join(name));
        fs::copy(&from, &to).map_err(|cause| Failure::file("copy", &from, &cause))?;
    }
    // Without its line tables the binary is a fraction of the size, and each test run copies layers about.
    process::run(
        process::command("strip")
            .arg("-o")
            .arg(context.join("myelin"))
            .arg(binary),
    )?;
    // Captured, since the engine's advice about builders concerns nobody here; a failure shows all of it.
    process::output(
        engine::docker()
            .args(["build", "--quiet", "--tag", TAG])
            .arg(&context),
    )
    .map(|_| ())
}

/// Builds the image, starts one container of it as Complement would, and asks it for `/versions` on both ports: over plain
/// HTTP, and over TLS trusting only the authority whose key it was given. Where no container engine can be had, it says so
/// and is content.
pub(crate) fn check() -> Outcome {
    let binary = machine::build_server(Beside::Tests)?;
    if let Err(reason) = engine::prepare() {
        println!("The image is not checked: {reason}");
        return Ok(());
    }
    machine::prepare(machine::IMAGE)?;
    pack(&binary)?;

    let authority = workspace::target().join("complement-ca");
    fs::create_dir_all(&authority).map_err(|cause| Failure::file("create", &authority, &cause))?;
    process::output(
        process::command("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
            ])
            .args([
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=An authority for one check",
                "-keyout",
            ])
            .arg(authority.join("ca.key"))
            .arg("-out")
            .arg(authority.join("ca.crt")),
    )?;

    let id = process::output(engine::docker().args(["create", "--env", "SERVER_NAME=hs1", TAG]))?;
    let container = Container(id);
    // Copied in rather than mounted, as Complement does: the daemon need not see our file system.
    for name in ["ca.crt", "ca.key"] {
        process::output(
            engine::docker()
                .arg("cp")
                .arg(authority.join(name))
                .arg(format!("{}:/complement/ca/{name}", container.0)),
        )?;
    }
    let mut waited = Duration::ZERO;
    // Twice over the same data, since the suite stops and starts its containers.
    for _ in 0..2 {
        process::output(engine::docker().args(["start", &container.0]))?;
        waited = wait_for_answers(&container)?;
        process::output(engine::docker().args(["stop", "--time", "10", &container.0]))?;
        let status = process::output(engine::docker().args([
            "inspect",
            "--format",
            "{{.State.ExitCode}}",
            &container.0,
        ]))?;
        if status != "0" {
            return Err(Failure::new(format!(
                "the container was asked to stop and exited with {status}; its log:\n{}",
                container.log()
            )));
        }
    }
    println!(
        "The image answers on both ports {} ms after its start, and again over the same data.",
        waited.as_millis()
    );
    Ok(())
}

/// A container that is removed when the check is over, however it ends.
struct Container(String);

impl Container {
    /// What `curl` prints inside the container: its ports need not be reachable from here.
    fn ask(&self, arguments: &[&str]) -> Outcome<String> {
        process::output(
            engine::docker()
                .args([
                    "exec",
                    &self.0,
                    "curl",
                    "--silent",
                    "--show-error",
                    "--fail",
                ])
                .args(arguments),
        )
    }

    /// The end of its log, which the server writes to standard error.
    fn log(&self) -> String {
        let mut logs = engine::docker();
        logs.args(["logs", "--tail", "40", &self.0]);
        match logs.output() {
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(cause) => format!("(its log cannot be read: {cause})"),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        process::succeeds(engine::docker().args(["rm", "--force", "--volumes", &self.0]));
    }
}

fn wait_for_answers(container: &Container) -> Outcome<Duration> {
    let started = Instant::now();
    loop {
        let plain = container.ask(&["http://127.0.0.1:8008/_matrix/client/versions"]);
        let secure = plain.and_then(|_| {
            container.ask(&[
                "--cacert",
                "/complement/ca/ca.crt",
                "--resolve",
                "hs1:8448:127.0.0.1",
                "https://hs1:8448/_matrix/client/versions",
            ])
        });
        match secure {
            Ok(answer) if answer.contains("\"versions\"") => return Ok(started.elapsed()),
            Ok(answer) => {
                return Err(Failure::new(format!("/versions answers {answer}")));
            }
            Err(reason) if started.elapsed() > START_LIMIT => {
                return Err(Failure::new(format!(
                    "the container does not answer: {reason}\n{}",
                    container.log()
                )));
            }
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}
