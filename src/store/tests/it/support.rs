//! Tables and helpers that the tests share.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use myelin_store::{CodecError, Options, Parser, Profile, Store, Table, TableSpec, Value, Writer};
use myelin_types::{Pos, RoomNum};

/// Names to numbers.
pub(crate) struct Names;

impl Table for Names {
    const NAME: &'static str = "names";
    const PROFILE: Profile = Profile::Point;
    type Key = String;
    type Value = u64;
}

/// A log: room and position to text, with the position in the value as well.
pub(crate) struct Log;

impl Table for Log {
    const NAME: &'static str = "log";
    const PROFILE: Profile = Profile::Scan;
    type Key = (RoomNum, Pos);
    type Value = Entry;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) pos: Pos,
    pub(crate) text: String,
}

impl Value for Entry {
    const VERSION: u8 = 1;

    fn encode(&self, w: &mut Writer) {
        w.postcard(&self.text);
        w.pos(self.pos);
    }

    fn decode(_: u8, r: &mut Parser<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            text: r.postcard()?,
            pos: r.pos()?,
        })
    }
}

pub(crate) struct Blobs;

impl Table for Blobs {
    const NAME: &'static str = "blobs";
    const PROFILE: Profile = Profile::Blob;
    type Key = u64;
    type Value = Vec<u8>;
}

pub(crate) struct Queue;

impl Table for Queue {
    const NAME: &'static str = "queue";
    const PROFILE: Profile = Profile::Churn;
    type Key = (u32, u64);
    type Value = ();
}

pub(crate) struct Counts;

impl Table for Counts {
    const NAME: &'static str = "counts";
    const PROFILE: Profile = Profile::Counter;
    type Key = u32;
    type Value = u64;
}

pub(crate) fn options() -> Options {
    Options {
        memory_budget: 32 << 20,
        product: "store-test",
        schema: 3,
        tables: vec![
            TableSpec::of::<Names>(),
            TableSpec::of::<Log>(),
            TableSpec::of::<Blobs>(),
            TableSpec::of::<Queue>(),
            TableSpec::of::<Counts>(),
        ],
    }
}

pub(crate) fn open(dir: &Path) -> Store {
    Store::open(dir, options()).expect("the directory is free and ours")
}

/// A store in a directory that is removed at the end.
pub(crate) fn fresh() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("temporary directories can be made");
    let store = open(dir.path());
    (dir, store)
}

/// All files below `dir`, with their contents. Without the lock, which is empty, and which a process gives up when it
/// closes any handle to the file.
pub(crate) fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                walk(&path, files)?;
            } else if !path.ends_with("LOCK") {
                let bytes = fs::read(&path)?;
                files.insert(path, bytes);
            }
        }
        Ok(())
    }
    let mut files = BTreeMap::new();
    walk(dir, &mut files).expect("our own directory is readable");
    files
}
