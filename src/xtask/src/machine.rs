//! What the machine must have: looking for it, installing it through apt-get where that is allowed, and otherwise saying
//! in one line what to type. Also the shortest way from a clone to a running server.

use std::{
    env, fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    failure::{Failure, Outcome},
    process, workspace,
};

/// Something a task cannot do without.
pub(crate) struct Part {
    /// What a person calls it.
    name: &'static str,
    present: fn() -> bool,
    /// Debian's packages that bring it.
    packages: &'static [&'static str],
}

/// What compiling the workspace needs: RocksDB is C++, and its bindings are generated with libclang.
pub(crate) const BUILD: &[Part] = &[
    Part {
        name: "a C and C++ compiler",
        present: || process::on_path("cc") && process::on_path("c++"),
        packages: &["build-essential"],
    },
    Part {
        name: "clang",
        present: || process::on_path("clang"),
        packages: &["clang"],
    },
    Part {
        name: "libclang",
        present: has_libclang,
        packages: &["libclang-dev"],
    },
];

/// What the matrix-js-sdk tests need. Whether the Node found is new enough is asked afterwards.
pub(crate) const NODE: &[Part] = &[Part {
    name: "Node.js with npm",
    present: || process::on_path("node") && process::on_path("npm"),
    packages: &["nodejs", "npm"],
}];

/// What the matrix-nio tests need.
pub(crate) const PYTHON: &[Part] = &[Part {
    name: "Python 3 with venv",
    present: || {
        process::succeeds(process::command("python3").args(["-c", "import venv, ensurepip"]))
    },
    packages: &["python3", "python3-venv"],
}];

/// What compiling Synapse's binding to PostgreSQL needs, beside a compiler.
pub(crate) const PYTHON_HEADERS: &[Part] = &[
    Part {
        name: "Python's header files",
        present: || {
            let ask = "import os, sys, sysconfig; \
                       sys.exit(not os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h')))";
            process::succeeds(process::command("python3").args(["-c", ask]))
        },
        packages: &["python3-dev"],
    },
    Part {
        name: "PostgreSQL's client library",
        present: || process::on_path("pg_config"),
        packages: &["libpq-dev"],
    },
];

/// The database of Synapse and Dendrite. Clusters of it are made as they are needed; one that runs already is left alone.
pub(crate) const POSTGRES: &[Part] = &[Part {
    name: "PostgreSQL",
    present: || postgres().is_some(),
    packages: &["postgresql"],
}];

/// The allocator that Synapse's documentation recommends.
pub(crate) const JEMALLOC: &[Part] = &[Part {
    name: "jemalloc",
    present: || jemalloc().is_some(),
    packages: &["libjemalloc2"],
}];

/// What building Dendrite needs. Debian's may be too old, which `go` then says.
pub(crate) const GO: &[Part] = &[Part {
    name: "Go",
    present: || process::on_path("go"),
    packages: &["golang-go"],
}];

/// What starting containers needs, and building their base image from Debian's packages.
pub(crate) const ENGINE: &[Part] = &[
    Part {
        name: "Docker",
        present: || process::on_path("docker") && process::on_path("dockerd"),
        packages: &["docker.io"],
    },
    Part {
        name: "iptables",
        present: || process::on_path("iptables") || Path::new("/usr/sbin/iptables").is_file(),
        packages: &["iptables"],
    },
    Part {
        name: "debootstrap",
        present: || process::on_path("debootstrap") || Path::new("/usr/sbin/debootstrap").is_file(),
        packages: &["debootstrap"],
    },
];

/// What checking the image needs beside the engine: the authority that signs its certificate is made with it.
pub(crate) const IMAGE: &[Part] = &[Part {
    name: "OpenSSL's command line",
    present: || process::on_path("openssl"),
    packages: &["openssl"],
}];

/// Sees to it that every one of `parts` is there.
pub(crate) fn prepare(parts: &[Part]) -> Outcome {
    let missing: Vec<&Part> = parts.iter().filter(|part| !(part.present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|part| part.name).collect();
    let names = names.join(", ");
    let mut packages: Vec<&str> = missing
        .iter()
        .flat_map(|part| part.packages)
        .copied()
        .collect();
    // Nothing fails without ccache, but the second build of RocksDB takes minutes less with it.
    if packages.contains(&"clang") && !process::on_path("ccache") {
        packages.push("ccache");
    }
    let Some(apt) = Apt::find() else {
        return Err(Failure::new(format!(
            "this machine lacks {names}. On Debian and Ubuntu this installs it:\n\n    sudo apt-get install -y {}\n",
            packages.join(" ")
        )));
    };
    println!("Installing {names} ({}).", packages.join(" "));
    apt.install(&packages)?;
    match parts.iter().find(|part| !(part.present)()) {
        None => Ok(()),
        Some(part) => Err(Failure::new(format!(
            "{} is still missing after its packages were installed",
            part.name
        ))),
    }
}

/// A cargo that compiles C and C++ through ccache where there is one and the caller has not chosen compilers.
pub(crate) fn cargo() -> Command {
    let mut cargo = process::cargo();
    if process::on_path("ccache") {
        for (variable, compiler) in [("CC", "ccache cc"), ("CXX", "ccache c++")] {
            if env::var_os(variable).is_none() {
                cargo.env(variable, compiler);
            }
        }
    }
    cargo
}

/// What the server is built with. Cargo unites the features of dependencies over everything it is asked to build, so the
/// two differ in some of them, and each is quick where the other has not been built before.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Beside {
    /// Nothing: the least to compile for somebody who wants a server.
    Nothing,
    /// The workspace's tests: nothing to compile for somebody who has just run them.
    Tests,
}

/// Builds the server and answers where the binary lies.
pub(crate) fn build_server(beside: Beside) -> Outcome<PathBuf> {
    prepare(BUILD)?;
    let mut build = cargo();
    build.arg("build");
    match beside {
        Beside::Nothing => build.args(["--package", "myelin-homeserver", "--bin", "myelin"]),
        Beside::Tests => build.args(["--workspace", "--bins", "--tests"]),
    };
    process::run(&mut build)?;
    Ok(server_binary())
}

/// Where cargo leaves the server.
fn server_binary() -> PathBuf {
    workspace::target().join("debug/myelin")
}

/// Builds the server and runs a command of it, in the directory where the caller stands.
pub(crate) fn run_server(command: &str, arguments: &[String]) -> Outcome {
    if !server_binary().exists() {
        println!(
            "Building Myelin. This first time takes several minutes, most of them for RocksDB."
        );
    }
    let binary = build_server(Beside::Nothing)?;
    // The server takes this process's place: signals reach it alone, and its exit status is the one seen outside.
    let cause = Command::new(&binary).arg(command).args(arguments).exec();
    Err(Failure::file("run", &binary, &cause))
}

/// Where PostgreSQL's programs lie: of the newest version where there are several.
pub(crate) fn postgres() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let newest = versions
        .map(|entry| entry.path())
        .filter(|dir| dir.join("bin/initdb").is_file())
        .max_by_key(|dir| dir.file_name()?.to_str()?.parse::<u32>().ok())
        .map(|dir| dir.join("bin"));
    // Other distributions have them on the search path.
    newest.or_else(|| {
        let path = env::var_os("PATH")?;
        env::split_paths(&path).find(|dir| dir.join("initdb").is_file())
    })
}

/// Where the library jemalloc lies.
pub(crate) fn jemalloc() -> Option<PathBuf> {
    let places = ["/usr/lib", "/usr/lib64"].map(PathBuf::from).into_iter();
    // Debian keeps one directory an architecture.
    let inner = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut places = places.chain(inner.map(|entry| entry.path()));
    let place = places.find(|place| place.join("libjemalloc.so.2").is_file())?;
    Some(place.join("libjemalloc.so.2"))
}

fn has_libclang() -> bool {
    if env::var_os("LIBCLANG_PATH").is_some() {
        return true;
    }
    let mut places: Vec<PathBuf> = ["/usr/lib", "/usr/lib64", "/usr/local/lib"]
        .map(PathBuf::from)
        .into();
    // Debian keeps one directory a version (`/usr/lib/llvm-14/lib`) and one an architecture.
    for entry in fs::read_dir("/usr/lib").into_iter().flatten().flatten() {
        places.push(entry.path());
        places.push(entry.path().join("lib"));
    }
    places.iter().any(|place| {
        fs::read_dir(place)
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.starts_with("libclang.so")
                    || name.starts_with("libclang-") && name.contains(".so")
            })
    })
}

/// apt-get, with the right to use it.
struct Apt {
    sudo: bool,
}

impl Apt {
    fn find() -> Option<Self> {
        if !process::on_path("apt-get") {
            return None;
        }
        let root = process::output(process::command("id").arg("-u")).is_ok_and(|id| id == "0");
        if root {
            return Some(Self { sudo: false });
        }
        let may = process::on_path("sudo")
            && process::succeeds(process::command("sudo").args(["-n", "true"]));
        may.then_some(Self { sudo: true })
    }

    fn install(&self, packages: &[&str]) -> Outcome {
        // Old lists name versions that the mirror no longer has; but where they cannot be refreshed, installing is still worth a try.
        if !process::succeeds(self.command().args(["update", "-qq"])) {
            println!("apt-get update did not succeed; going on with the lists that are there.");
        }
        process::run(
            self.command()
                .args(["install", "-y", "-qq", "--no-install-recommends"])
                .args(packages)
                .stdout(Stdio::null()),
        )
    }

    fn command(&self) -> Command {
        let mut command = process::command(if self.sudo { "sudo" } else { "env" });
        if self.sudo {
            command.args(["-n", "env"]);
        }
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        command
    }
}
