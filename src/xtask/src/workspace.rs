//! Where things lie in the repository, and what its root manifest says.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::failure::{Failure, Outcome};

/// The root of the work tree.
pub(crate) fn root() -> PathBuf {
    // Set by `cargo run`; the compiled-in path serves a binary that is started by hand.
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package
        .ancestors()
        .nth(2)
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Where cargo puts what it builds, and where the tasks keep what can be made again.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The text of the file at `path`.
pub(crate) fn read(path: &Path) -> Outcome<String> {
    fs::read_to_string(path).map_err(|cause| Failure::file("read", path, &cause))
}

/// Replaces the file at `path`, so that a reader finds the old text or the new one.
pub(crate) fn write(path: &Path, text: &str) -> Outcome {
    let draft = path.with_extension("new");
    fs::write(&draft, text).map_err(|cause| Failure::file("write", &draft, &cause))?;
    fs::rename(&draft, path).map_err(|cause| Failure::file("replace", path, &cause))
}

/// The directories of the workspace's members, in the order of the manifest: from leaf to root.
pub(crate) fn members(manifest: &str) -> Vec<String> {
    manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| !line.starts_with("members = ["))
        .skip(1)
        .take_while(|line| !line.starts_with(']'))
        .filter_map(|line| {
            line.trim_end_matches(',')
                .strip_prefix('"')?
                .strip_suffix('"')
        })
        .map(str::to_owned)
        .collect()
}

/// The files below `dir`, sorted, without what is built, installed or hidden (`.ci` and `.cargo` are part of the project).
pub(crate) fn files(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        let failed = |cause| Failure::file("list", &dir, &cause);
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                let hidden = name.starts_with('.') && name != ".ci" && name != ".cargo";
                let made = [
                    "target",
                    "node_modules",
                    "__pycache__",
                    "myelin-data",
                    "book",
                ];
                if !hidden && !made.contains(&name.as_str()) {
                    open.push(entry.path());
                }
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::members;

    #[test]
    fn members_are_read_in_their_order() {
        let manifest = "[workspace]\nmembers = [\n    \"src/types\",\n    \"src/store\",\n]\ndefault-members = [\"src/store\"]\n";
        assert_eq!(members(manifest), ["src/types", "src/store"]);
    }
}
