//! The keys that this server signs with: the one in the data directory, those of before, and how one takes the place of
//! another.
//!
//! A replacement may be cut short at any moment, and no key that signed anything may be lost. So, in this order: the new key is
//! put into a file beside the old one; it begins to sign; the public half of the old one is written into the database; the
//! file of the new key takes the place of the old one's. A start that finds a new key beside the old one goes on from there.

use std::{path::Path, sync::Arc};

use myelin_config::Server;
use myelin_data::federation::{OwnOldKey, OwnOldKeys};
use myelin_federation::{Federation, KeyError};
use myelin_rules::{Signer, SigningKey, sign::OldKey};
use myelin_store::{Batch, CommitError, Scan, Store, StoreError};
use myelin_types::{Clock, Random};

use crate::data_dir::{DataDirError, adopt_signing_key, next_signing_key, prepare_signing_key};

/// Why the keys cannot be had, or not be replaced.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The files in the data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The database.
    #[error("read the database")]
    Store(#[from] StoreError),
    /// The database.
    #[error("write the database")]
    Commit(#[from] CommitError),
    /// The old key could not be written down; the replacement is completed at the next start.
    #[error("keep the old key; restart the server to complete the replacement")]
    Keep(#[source] KeyError),
}

/// What this server signs with. Completes a replacement that was cut short.
pub(crate) async fn signer(
    settings: &Server,
    store: &Store,
    key: SigningKey,
    clock: &dyn Clock,
) -> Result<Signer, SigningError> {
    let name = settings.name.as_str();
    let old = store
        .read(|view| {
            view.scan::<OwnOldKeys>(Scan::all())
                .collect::<Result<Vec<_>, StoreError>>()
        })
        .await?;
    let old = old.into_iter().map(|(id, old)| OldKey {
        id,
        key: old.key,
        expired: old.expired,
    });
    let mut old: Vec<OldKey> = old.collect();
    let Some(next) = next_signing_key(&settings.data_dir)? else {
        return Ok(Signer::with_old(name, key, old));
    };
    if old.iter().all(|old| old.id != key.id()) {
        let row = OwnOldKey {
            key: key.public_key_bytes(),
            expired: clock.now(),
        };
        let mut batch = Batch::new();
        batch.put::<OwnOldKeys>(&key.id().to_owned(), &row);
        store.commit(batch).await?;
        old.push(OldKey {
            id: key.id().to_owned(),
            key: row.key,
            expired: row.expired,
        });
    }
    adopt_signing_key(&settings.data_dir)?;
    tracing::info!(
        key_id = next.id(),
        "the replacement of the signing key was completed"
    );
    Ok(Signer::with_old(name, next, old))
}

/// Makes a new key and signs with it from now on. Returns its identifier.
pub(crate) async fn rotate(
    federation: &Federation,
    data_dir: &Path,
    random: &Arc<dyn Random>,
) -> Result<String, SigningError> {
    let key = SigningKey::generate(&**random);
    let id = key.id().to_owned();
    prepare_signing_key(data_dir, &key)?;
    federation
        .replace_key(key)
        .await
        .map_err(SigningError::Keep)?;
    adopt_signing_key(data_dir)?;
    Ok(id)
}
