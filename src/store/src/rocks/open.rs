//! Opening: whose database is it, and is it free? Both are known before anything in the directory changes.

use std::{collections::HashMap, fs, io, path::Path, sync::Arc};

use myelin_types::Pos;
use rocksdb::{ColumnFamilyDescriptor, DB, Options as DbOptions, WriteBatch};

use super::{Pools, Rocks, durably, failure, profile};
use crate::{
    engine::{Engine, EngineError, META},
    error::OpenError,
    identity::{IDENTITY_KEY, Identity, POSITION_KEY},
    store::Options,
    table::{Profile, TableSpec},
};

/// The least that RocksDB works with.
const MIN_BUDGET: usize = 8 << 20;

/// What is in a directory.
enum Found {
    /// Nothing, or what is left of an attempt to make a database in which nothing has been committed.
    Nothing,
    /// A database of ours that may be opened, with these column families.
    Ours(Vec<String>),
}

/// Opens or makes the database in `dir`. Returns it with the position of the last commit.
pub(crate) fn open(dir: &Path, options: &Options) -> Result<(Arc<dyn Engine>, Pos), OpenError> {
    let pools = Pools::new(options.memory_budget.max(MIN_BUDGET));
    let engine_error = |source| OpenError::Engine {
        dir: dir.to_owned(),
        source,
    };
    let mut settings = profile::database(&pools).map_err(engine_error)?;
    let found = inspect(dir, options, &settings)?;
    let mut names: Vec<&str> = vec![META];
    names.extend(options.tables.iter().map(|spec| spec.name));
    match &found {
        Found::Nothing => {
            fs::create_dir_all(dir).map_err(|source| directory_error(dir, source))?;
            settings.create_if_missing(true);
        }
        // Tables that the catalogue no longer has: RocksDB wants them opened all the same.
        Found::Ours(families) => {
            let known = |name: &&str| !names.contains(name);
            let dropped: Vec<&str> = families.iter().map(String::as_str).filter(known).collect();
            names.extend(dropped);
        }
    }
    settings.create_missing_column_families(true);
    let profiles: HashMap<&str, Profile> = options
        .tables
        .iter()
        .map(|TableSpec { name, profile }| (*name, *profile))
        .collect();
    let families = names.into_iter().map(|name| {
        // The store's own table: one row that every commit overwrites.
        let profile = profiles.get(name).copied().unwrap_or(Profile::Counter);
        let options = profile::column_family(profile, &pools)?;
        Ok(ColumnFamilyDescriptor::new(name, options))
    });
    let families = families
        .collect::<Result<Vec<_>, _>>()
        .map_err(engine_error)?;
    let db =
        DB::open_cf_descriptors(&settings, dir, families).map_err(|error| in_use_or(error, dir))?;
    let pos = claim(&db, options).map_err(engine_error)?;
    let engine = Rocks {
        db: Arc::new(db),
        pools,
        tables: options
            .tables
            .iter()
            .map(|spec| spec.name)
            .chain([META])
            .collect(),
    };
    Ok((Arc::new(engine), pos))
}

/// Looks without writing.
fn inspect(dir: &Path, options: &Options, settings: &DbOptions) -> Result<Found, OpenError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(source) => return Err(directory_error(dir, source)),
    };
    let names: Vec<String> = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()
        .map_err(|source| directory_error(dir, source))?;
    if !names.iter().any(|name| name == "CURRENT") {
        return if names.iter().all(|name| is_unfinished(name)) {
            Ok(Found::Nothing)
        } else {
            Err(OpenError::NotADatabase {
                dir: dir.to_owned(),
            })
        };
    }
    let engine_error = |error| OpenError::Engine {
        dir: dir.to_owned(),
        source: failure(error),
    };
    let families = DB::list_cf(settings, dir).map_err(engine_error)?;
    let db = DB::open_cf_for_read_only(settings, dir, [META], false).map_err(engine_error)?;
    let identity = db.get(IDENTITY_KEY).map_err(engine_error)?;
    let foreign = |found| OpenError::ForeignProduct {
        dir: dir.to_owned(),
        found,
        expected: options.product,
    };
    let Some(identity) = identity else {
        // Interrupted between its making and its first write, which is the identity.
        let ours =
            |name: &String| name == META || options.tables.iter().any(|spec| spec.name == name);
        return if db.latest_sequence_number() == 0 && families.iter().all(ours) {
            Ok(Found::Ours(families))
        } else {
            Err(foreign(None))
        };
    };
    let identity = Identity::decode(&identity).map_err(|_| foreign(None))?;
    if identity.product != options.product {
        return Err(foreign(Some(identity.product)));
    }
    if identity.schema > options.schema {
        return Err(OpenError::NewerSchema {
            dir: dir.to_owned(),
            found: identity.schema,
            known: options.schema,
        });
    }
    if identity.schema == options.schema
        && let Some(spec) = options
            .tables
            .iter()
            .find(|spec| families.iter().all(|name| name != spec.name))
    {
        return Err(OpenError::MissingTable {
            dir: dir.to_owned(),
            table: spec.name,
        });
    }
    Ok(Found::Ours(families))
}

/// Whether RocksDB makes a file of this name before a database exists (`CURRENT` comes last), or a file system does.
fn is_unfinished(name: &str) -> bool {
    let extension = Path::new(name).extension();
    matches!(name, "LOCK" | "IDENTITY" | "lost+found")
        || name.starts_with("MANIFEST-")
        || extension.is_some_and(|extension| extension == "dbtmp")
}

/// Makes the database ours at this schema, and finds the position of the last commit.
fn claim(db: &DB, options: &Options) -> Result<Pos, EngineError> {
    let identity = Identity {
        product: options.product.to_owned(),
        schema: options.schema,
    }
    .encode();
    if db.get(IDENTITY_KEY).map_err(failure)?.as_ref() != Some(&identity) {
        let mut batch = WriteBatch::default();
        batch.put(IDENTITY_KEY, identity);
        db.write_opt(batch, &durably()).map_err(failure)?;
    }
    match db.get(POSITION_KEY).map_err(failure)? {
        None => Ok(Pos::ZERO),
        Some(bytes) => bytes
            .try_into()
            .map(|bytes| Pos(u64::from_be_bytes(bytes)))
            .map_err(|_| EngineError::new("the stored position is not eight bytes")),
    }
}

fn directory_error(dir: &Path, source: io::Error) -> OpenError {
    OpenError::Directory {
        dir: dir.to_owned(),
        source,
    }
}

/// RocksDB has no error kind of its own for a lock that is held, only these words.
fn in_use_or(error: rocksdb::Error, dir: &Path) -> OpenError {
    let source = failure(error);
    let message = source.to_string();
    if message.contains("lock hold by current process") || message.contains("While lock file") {
        OpenError::InUse {
            dir: dir.to_owned(),
        }
    } else {
        OpenError::Engine {
            dir: dir.to_owned(),
            source,
        }
    }
}
