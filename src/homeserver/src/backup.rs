//! A copy of the data directory that can be used in its place, made while the server runs.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use myelin_store::{Store, StoreError};

use crate::data_dir::{DATABASE, DataDirError, SERVER_NAME, SIGNING_KEY, io_error, write_private};

/// What the settings file is called inside a backup.
const SETTINGS: &str = "myelin.toml";

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// The directory was not given from the root, so it would depend on who makes it.
    #[error("the directory of a backup must be an absolute path")]
    Relative,
    /// There is something where the backup should go.
    #[error("{0} exists already")]
    Exists(PathBuf),
    /// A file could not be copied.
    #[error(transparent)]
    File(#[from] DataDirError),
    /// The database could not be copied.
    #[error("copy the database")]
    Database(#[from] StoreError),
}

/// What goes into a backup.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The database.
    pub(crate) store: Store,
    /// The data directory.
    pub(crate) data_dir: PathBuf,
    /// The settings file, where there is one.
    pub(crate) settings: Option<PathBuf>,
}

/// Makes `target` a data directory of its own, as of one moment. Blocks.
///
/// The marker with the server's name comes last, so that a backup which was cut short can be told from a whole one.
pub(crate) fn make(source: &Source, target: &Path) -> Result<(), BackupError> {
    if !target.is_absolute() {
        return Err(BackupError::Relative);
    }
    if target.exists() {
        return Err(BackupError::Exists(target.to_owned()));
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(target)
        .map_err(io_error("create", target))?;
    source.store.checkpoint(&target.join(DATABASE))?;
    copy(
        &source.data_dir.join(SIGNING_KEY),
        &target.join(SIGNING_KEY),
    )?;
    if let Some(settings) = &source.settings {
        copy(settings, &target.join(SETTINGS))?;
    }
    copy(
        &source.data_dir.join(SERVER_NAME),
        &target.join(SERVER_NAME),
    )?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), DataDirError> {
    let text = fs::read_to_string(from).map_err(io_error("read", from))?;
    write_private(to, &text)
}
