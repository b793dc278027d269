//! The data directory: who owns it, the server's signing key, and the name it was made for.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use myelin_rules::{SigningKey, sign::KeyFileError};
use myelin_types::Random;
use ruma::ServerName;

/// The database's directory inside the data directory.
pub const DATABASE: &str = "database";
/// The signing key's file inside the data directory, readable by its owner only.
pub const SIGNING_KEY: &str = "signing.key";
/// The key that is to take the place of [`SIGNING_KEY`]. Where it is found at a start, its replacement was cut short and is
/// completed: events may have been signed with it already.
const NEXT_SIGNING_KEY: &str = "signing.key.next";
/// The file inside the data directory that says which server it belongs to.
pub(crate) const SERVER_NAME: &str = "server_name";
/// The socket inside the data directory through which the operator's commands reach the running server.
pub(crate) const CONTROL_SOCKET: &str = "control.sock";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The system refuses.
    #[error("{action} {path}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The directory was made for another server name.
    #[error("the data in {dir} belong to {found}; server.name cannot change", dir = dir.display())]
    OtherServer {
        /// The data directory.
        dir: PathBuf,
        /// The name it was made for.
        found: String,
    },
    /// There is a database and no key, so the key was lost.
    #[error(
        "{path} is missing although there is a database; put it back from a backup, since other servers know this \
         one by its key",
        path = path.display()
    )]
    KeyLost {
        /// Where the key should be.
        path: PathBuf,
    },
    /// The key file does not hold a key.
    #[error("read the signing key in {path}", path = path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: KeyFileError,
    },
}

/// A directory that belongs to this server.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
}

impl DataDir {
    /// Makes the directory if need be, and makes sure that it belongs to `server_name`.
    pub(crate) fn open(path: &Path, server_name: &ServerName) -> Result<Self, DataDirError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io_error("create", path))?;
        let marker = path.join(SERVER_NAME);
        match fs::read_to_string(&marker) {
            Ok(found) if found.trim() == server_name.as_str() => {}
            Ok(found) => {
                return Err(DataDirError::OtherServer {
                    dir: path.to_owned(),
                    found: found.trim().to_owned(),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_private(&marker, &format!("{server_name}\n"))?;
            }
            Err(error) => return Err(io_error("read", &marker)(error)),
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// The database's directory.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// The server's signing key; made here at the first start.
    pub(crate) fn signing_key(&self, random: &dyn Random) -> Result<SigningKey, DataDirError> {
        let path = self.path.join(SIGNING_KEY);
        match fs::read_to_string(&path) {
            Ok(text) => SigningKey::from_file_format(&text)
                .map_err(|source| DataDirError::Key { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.database().exists() {
                    return Err(DataDirError::KeyLost { path });
                }
                let key = SigningKey::generate(random);
                write_private(&path, &key.to_file_format())?;
                tracing::info!(key_id = key.id(), "signing key created");
                Ok(key)
            }
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }
}

/// The key that is to take the place of the signing key, if there is one.
pub(crate) fn next_signing_key(data_dir: &Path) -> Result<Option<SigningKey>, DataDirError> {
    let path = data_dir.join(NEXT_SIGNING_KEY);
    match fs::read_to_string(&path) {
        Ok(text) => SigningKey::from_file_format(&text)
            .map(Some)
            .map_err(|source| DataDirError::Key { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", &path)(error)),
    }
}

/// Puts a new key beside the signing key, durably. Nothing is signed with it before.
pub(crate) fn prepare_signing_key(data_dir: &Path, key: &SigningKey) -> Result<(), DataDirError> {
    let unfinished = data_dir.join(format!("{NEXT_SIGNING_KEY}.tmp"));
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", &unfinished)(error));
        }
        _ => {}
    }
    write_private(&unfinished, &key.to_file_format())?;
    rename(data_dir, &unfinished, &data_dir.join(NEXT_SIGNING_KEY))
}

/// The key that was put beside the signing key takes its place. What the one of before signed must be known by its public
/// half already.
pub(crate) fn adopt_signing_key(data_dir: &Path) -> Result<(), DataDirError> {
    let next = data_dir.join(NEXT_SIGNING_KEY);
    rename(data_dir, &next, &data_dir.join(SIGNING_KEY))
}

fn rename(data_dir: &Path, from: &Path, to: &Path) -> Result<(), DataDirError> {
    let renamed = fs::rename(from, to).and_then(|()| fs::File::open(data_dir)?.sync_all());
    renamed.map_err(io_error("rename", from))
}

/// Writes a new file that only its owner can read, durably. Never overwrites.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), DataDirError> {
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        match path.parent() {
            // The name of a file is durable when its directory is.
            Some(parent) if !parent.as_os_str().is_empty() => fs::File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    };
    write().map_err(io_error("write", path))
}

pub(crate) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> DataDirError + use<> {
    let path = path.to_owned();
    move |source| DataDirError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use myelin_types::SeededRandom;
    use ruma::server_name;

    use super::*;

    fn mode(path: &Path) -> u32 {
        let metadata = fs::metadata(path).expect("the file exists");
        metadata.permissions().mode() & 0o777
    }

    #[test]
    fn the_key_is_made_once_and_private() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("data");
        let data = DataDir::open(&path, server_name!("example.org")).expect("a new directory");
        let random = SeededRandom::new(1);
        let first = data.signing_key(&random).expect("a new key");
        let second = data.signing_key(&random).expect("the same key");
        assert_eq!(first.public_key(), second.public_key());
        assert_eq!(first.id(), second.id());
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join(SIGNING_KEY)), 0o600);
    }

    #[test]
    fn another_server_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        DataDir::open(dir.path(), server_name!("example.org")).expect("a new directory");
        let refused = DataDir::open(dir.path(), server_name!("example.com"));
        assert!(matches!(
            refused,
            Err(DataDirError::OtherServer { found, .. }) if found == "example.org"
        ));
    }

    #[test]
    fn a_key_takes_the_place_of_another() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = DataDir::open(dir.path(), server_name!("example.org")).expect("a directory");
        let random = SeededRandom::new(1);
        let first = data.signing_key(&random).expect("a new key");
        assert!(next_signing_key(dir.path()).expect("none").is_none());
        let second = SigningKey::generate(&random);
        // What a crash left behind is no obstacle.
        fs::write(dir.path().join("signing.key.next.tmp"), "ed25").expect("a file can be written");
        prepare_signing_key(dir.path(), &second).expect("it is written");
        let kept = data.signing_key(&random).expect("the first");
        assert_eq!(kept.public_key(), first.public_key());
        let next = next_signing_key(dir.path())
            .expect("it reads")
            .expect("there is one");
        assert_eq!(next.public_key(), second.public_key());
        adopt_signing_key(dir.path()).expect("it takes its place");
        let kept = data.signing_key(&random).expect("the second");
        assert_eq!(kept.public_key(), second.public_key());
        assert!(next_signing_key(dir.path()).expect("none").is_none());
        assert_eq!(mode(&dir.path().join(SIGNING_KEY)), 0o600);
    }

    #[test]
    fn a_lost_key_is_not_replaced() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = DataDir::open(dir.path(), server_name!("example.org")).expect("a directory");
        fs::create_dir(data.database()).expect("a database");
        let lost = data.signing_key(&SeededRandom::new(1));
        assert!(matches!(lost, Err(DataDirError::KeyLost { .. })));
    }
}
