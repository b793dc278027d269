//! A container engine where there is none: Docker from Debian's packages, started, and the base image of ours, built from
//! the machine's own Debian mirror, so that no image registry has to be reached.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::{
    failure::{Failure, Outcome},
    machine, process, workspace,
};

/// The image that `complement/Dockerfile` starts from.
const BASE: &str = "debian:bookworm-slim";

/// The packages that the base image has beside Debian's minimum: what the start script and the server use.
const PACKAGES: &str = "ca-certificates,curl,openssl,libstdc++6";

/// Sees to it that `docker` answers and has the base image.
pub(crate) fn prepare() -> Outcome {
    if !answers() {
        machine::prepare(machine::ENGINE)?;
        start()?;
    }
    if process::succeeds(docker().args(["image", "inspect", BASE])) {
        return Ok(());
    }
    if is_root() && machine::prepare(machine::ENGINE).is_ok() {
        return bootstrap();
    }
    // Elsewhere the engine fetches it when it is first built upon.
    Ok(())
}

/// The engine's command line.
pub(crate) fn docker() -> Command {
    process::command("docker")
}

fn answers() -> bool {
    process::succeeds(docker().arg("info"))
}

fn is_root() -> bool {
    process::output(process::command("id").arg("-u")).is_ok_and(|id| id == "0")
}

/// Starts the engine's daemon, which stays when this task has ended.
fn start() -> Outcome {
    if !is_root() {
        return Err(Failure::new(
            "no container engine answers; start one, for example with `sudo systemctl start docker`",
        ));
    }
    let path = workspace::target().join("dockerd.log");
    fs::create_dir_all(workspace::target())
        .map_err(|cause| Failure::file("create", &workspace::target(), &cause))?;
    let log = File::create(&path).map_err(|cause| Failure::file("create", &path, &cause))?;
    let also = log
        .try_clone()
        .map_err(|cause| Failure::file("open", &path, &cause))?;
    // A session of its own: the daemon must neither end with the terminal nor keep a caller's pipe open.
    process::command("setsid")
        .arg("dockerd")
        .stdout(Stdio::from(log))
        .stderr(Stdio::from(also))
        .spawn()
        .map_err(|cause| Failure::new(format!("start dockerd: {cause}")))?;
    for _ in 0..60 {
        if answers() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(500));
    }
    Err(Failure::new(format!(
        "the container engine did not start; see {}",
        path.display()
    )))
}

/// Builds the base image from Debian's packages.
fn bootstrap() -> Outcome {
    println!("Building {BASE} from Debian's packages; this happens once.");
    let sites =
        process::output(process::command("apt-get").args(["indextargets", "--format", "$(SITE)"]))?;
    let mirror = sites
        .lines()
        .find(|site| !site.contains("security"))
        .ok_or_else(|| Failure::new("apt-get names no mirror to build the base image from"))?;
    let tree = workspace::target().join("base-image");
    let clear = |tree: &Path| {
        if tree.exists() {
            fs::remove_dir_all(tree).map_err(|cause| Failure::file("remove", tree, &cause))
        } else {
            Ok(())
        }
    };
    clear(&tree)?;
    process::run(
        process::command("debootstrap")
            .args([
                "--variant=minbase",
                &format!("--include={PACKAGES}"),
                "bookworm",
            ])
            .arg(&tree)
            .arg(mirror)
            .stdout(Stdio::null()),
    )?;
    clear(&tree.join("var/cache/apt/archives"))?;
    clear(&tree.join("var/lib/apt/lists"))?;
    let mut tar = process::command("tar")
        .arg("-C")
        .arg(&tree)
        .args(["-c", "."])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|cause| Failure::new(format!("start tar: {cause}")))?;
    let mut import = docker();
    import.args(["import", "--change", "CMD [\"/bin/bash\"]", "-", BASE]);
    if let Some(packed) = tar.stdout.take() {
        import.stdin(packed);
    }
    let imported = process::run(import.stdout(Stdio::null()));
    let packed = tar
        .wait()
        .map_err(|cause| Failure::new(format!("wait for tar: {cause}")))?;
    clear(&tree)?;
    imported?;
    if packed.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("pack the base image: {packed}")))
    }
}
