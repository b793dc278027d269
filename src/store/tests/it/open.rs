//! What may be opened, and what is refused before a byte changes.

use std::{fs, path::Path, process::Command};

use myelin_store::{Batch, OpenError, Options, Store, TableSpec};
use myelin_types::Pos;

use crate::support::{Counts, Names, contents, fresh, open, options};

/// Set in a child process: the directory that it shall try to open.
const CHILD_DIR: &str = "MYELIN_STORE_TEST_OPEN";

fn refused(dir: &Path, options: Options) -> OpenError {
    let before = contents(dir);
    let error = Store::open(dir, options).expect_err("must be refused");
    assert!(contents(dir) == before, "nothing was written: {error}");
    error
}

fn closed_database() -> tempfile::TempDir {
    let (dir, store) = fresh();
    let mut batch = Batch::new();
    batch.put::<Names>(&"ann".to_owned(), &1);
    store.commit(batch).wait().expect("commits");
    store.close();
    dir
}

#[test]
fn another_product_is_refused() {
    let dir = closed_database();
    let error = refused(
        dir.path(),
        Options {
            product: "another",
            ..options()
        },
    );
    assert!(matches!(
        &error,
        OpenError::ForeignProduct { found: Some(found), expected: "another", .. } if found == "store-test"
    ));
    assert!(error.to_string().contains("store-test"));
}

#[test]
fn a_newer_schema_is_refused() {
    let dir = closed_database();
    let error = refused(
        dir.path(),
        Options {
            schema: 2,
            ..options()
        },
    );
    assert!(matches!(
        error,
        OpenError::NewerSchema {
            found: 3,
            known: 2,
            ..
        }
    ));
}

#[test]
fn a_missing_table_is_refused_at_the_same_schema_and_made_at_a_newer_one() {
    let dir = tempfile::tempdir().expect("temporary directories can be made");
    let fewer = Options {
        tables: vec![TableSpec::of::<Names>()],
        ..options()
    };
    let store = Store::open(dir.path(), fewer.clone()).expect("empty directory");
    store.commit(Batch::new()).wait().expect("commits");
    drop(store);
    assert!(matches!(
        refused(dir.path(), options()),
        OpenError::MissingTable { table: "log", .. }
    ));
    let newer = Options {
        schema: 4,
        ..options()
    };
    let store = Store::open(dir.path(), newer.clone()).expect("an older schema");
    assert_eq!(store.watermark(), Pos(1));
    let mut batch = Batch::new();
    batch.put::<Counts>(&1, &1);
    store.commit(batch).wait().expect("commits");
    drop(store);
    assert!(matches!(
        refused(dir.path(), options()),
        OpenError::NewerSchema { .. }
    ));
    // Tables that were dropped from the catalogue stay where they are.
    let dropped = Options { schema: 4, ..fewer };
    drop(Store::open(dir.path(), dropped).expect("the rest is there"));
    let store = Store::open(dir.path(), newer).expect("everything is there");
    assert_eq!(store.view().get::<Counts>(&1).expect("readable"), Some(1));
}

#[test]
fn a_directory_with_other_things_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directories can be made");
    fs::write(dir.path().join("diary.txt"), "dear diary").expect("writable");
    assert!(matches!(
        refused(dir.path(), options()),
        OpenError::NotADatabase { .. }
    ));
    let file = dir.path().join("diary.txt");
    let error = Store::open(&file, options()).expect_err("a file is no directory");
    assert!(matches!(error, OpenError::Directory { .. }));
}

#[test]
fn a_rocksdb_of_another_program_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directories can be made");
    let db = rocksdb::DB::open_default(dir.path()).expect("empty directory");
    db.put("their", "row").expect("writable");
    drop(db);
    assert!(matches!(
        refused(dir.path(), options()),
        OpenError::ForeignProduct { found: None, .. }
    ));
}

#[test]
fn a_database_whose_making_was_interrupted_is_finished() {
    let dir = tempfile::tempdir().expect("temporary directories can be made");
    drop(rocksdb::DB::open_default(dir.path()).expect("empty directory"));
    drop(open(dir.path()));

    let dir = tempfile::tempdir().expect("temporary directories can be made");
    for file in ["LOCK", "IDENTITY", "MANIFEST-000001", "000001.dbtmp"] {
        fs::write(dir.path().join(file), "").expect("writable");
    }
    drop(open(dir.path()));
}

#[test]
fn after_a_flush_the_log_is_empty_and_the_rows_are_in_files() {
    let log = |dir: &Path| -> u64 {
        let entries = fs::read_dir(dir).expect("readable").flatten();
        let logs = entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "log"));
        logs.map(|entry| entry.metadata().expect("there").len())
            .sum()
    };
    let (dir, store) = fresh();
    let mut batch = Batch::new();
    batch.put::<Names>(&"ann".to_owned(), &1);
    let pos = store.commit(batch).wait().expect("commits");
    assert!(log(dir.path()) > 0);
    store.close();
    store.flush().expect("can be written");
    drop(store);
    assert_eq!(log(dir.path()), 0);

    let store = open(dir.path());
    assert_eq!(store.watermark(), pos);
    let row = store.view().get::<Names>(&"ann".to_owned());
    assert_eq!(row.expect("readable"), Some(1));
}

#[test]
fn the_names_of_tables_must_differ() {
    let dir = tempfile::tempdir().expect("temporary directories can be made");
    for table in ["names", "default"] {
        let mut options = options();
        options.tables.push(TableSpec {
            name: table,
            ..TableSpec::of::<Names>()
        });
        let error = refused(dir.path(), options);
        assert!(matches!(error, OpenError::TableName { table: found } if found == table));
    }
}

#[test]
fn a_directory_is_open_only_once_in_a_process() {
    let (dir, store) = fresh();
    store.commit(Batch::new()).wait().expect("commits");
    let error = refused(dir.path(), options());
    assert!(matches!(error, OpenError::InUse { .. }));
    store
        .commit(Batch::new())
        .wait()
        .expect("the first is unharmed");
    drop(store);
    assert_eq!(open(dir.path()).watermark(), Pos(2));
}

#[test]
fn a_second_process_is_refused() {
    let (dir, store) = fresh();
    store.commit(Batch::new()).wait().expect("commits");
    let before = contents(dir.path());
    let this = std::env::current_exe().expect("a test has a binary");
    let child = Command::new(this)
        .args(["--exact", "open::child_that_opens"])
        .env(CHILD_DIR, dir.path())
        .output()
        .expect("our own binary runs");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "the directory is in use: {said}");
    assert!(contents(dir.path()) == before, "the child wrote nothing");
    store
        .commit(Batch::new())
        .wait()
        .expect("the first is unharmed");
}

/// Not a test on its own: what `a_second_process_is_refused` starts.
#[test]
fn child_that_opens() {
    if let Some(dir) = std::env::var_os(CHILD_DIR) {
        let error = Store::open(Path::new(&dir), options()).expect_err("the parent has it");
        assert!(matches!(&error, OpenError::InUse { .. }));
        assert!(error.to_string().contains("in use"));
    }
}

/// As many tables as the whole server has; a guard against settings that make each of them expensive.
#[test]
fn many_tables_open_fast_and_small() {
    const NAMES: usize = 80;
    let names: Vec<&'static str> = (0..NAMES)
        .map(|n| -> &'static str { Box::leak(format!("table{n}").into_boxed_str()) })
        .collect();
    let options = Options {
        tables: names
            .iter()
            .map(|name| TableSpec {
                name,
                ..TableSpec::of::<Names>()
            })
            .collect(),
        ..options()
    };
    let dir = tempfile::tempdir().expect("temporary directories can be made");
    drop(Store::open(dir.path(), options.clone()).expect("empty directory"));
    let started = std::time::Instant::now();
    let store = Store::open(dir.path(), options).expect("our own");
    let took = started.elapsed();
    assert!(took.as_secs() < 3, "reopening took {took:?}");
    store.commit(Batch::new()).wait().expect("commits");
    let bytes: usize = contents(dir.path()).values().map(Vec::len).sum();
    assert!(bytes < 1 << 20, "an empty database has {bytes} bytes");
}
