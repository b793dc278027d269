//! Backups of the keys that decrypt a user's messages.

mod body;
mod create_version;
mod current_version;
mod delete_keys;
mod delete_room_keys;
mod delete_session_key;
mod delete_version;
mod get_keys;
mod get_room_keys;
mod get_session_key;
mod get_version;
mod put_keys;
mod put_room_keys;
mod put_session_key;
#[cfg(test)]
mod testing;
mod update_version;

use myelin_e2ee::{Backup, BackupCounts, BackupKey};
use ruma::api::client::backup as operations;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Limit, error::Refusal, routes::Routes};

/// The routes of this family.
pub(crate) fn routes(routes: Routes) -> Routes {
    use operations::{
        add_backup_keys, add_backup_keys_for_room, add_backup_keys_for_session,
        create_backup_version, delete_backup_keys, delete_backup_keys_for_room,
        delete_backup_keys_for_session, delete_backup_version, get_backup_info, get_backup_keys,
        get_backup_keys_for_room, get_backup_keys_for_session, get_latest_backup_info,
        update_backup_version,
    };
    let read = Limit::Read;
    routes
        .operation::<create_backup_version::v3::Request, _, _>(read, create_version::create)
        .operation::<get_latest_backup_info::v3::Request, _, _>(read, current_version::get)
        .operation::<get_backup_info::v3::Request, _, _>(read, get_version::get)
        .operation::<update_backup_version::v3::Request, _, _>(read, update_version::update)
        .operation::<delete_backup_version::v3::Request, _, _>(read, delete_version::delete)
        .operation::<add_backup_keys::v3::Request, _, _>(read, put_keys::put)
        .operation::<add_backup_keys_for_room::v3::Request, _, _>(read, put_room_keys::put)
        .operation::<add_backup_keys_for_session::v3::Request, _, _>(read, put_session_key::put)
        .operation::<get_backup_keys::v3::Request, _, _>(read, get_keys::get)
        .operation::<get_backup_keys_for_room::v3::Request, _, _>(read, get_room_keys::get)
        .operation::<get_backup_keys_for_session::v3::Request, _, _>(read, get_session_key::get)
        .operation::<delete_backup_keys::v3::Request, _, _>(read, delete_keys::delete)
        .operation::<delete_backup_keys_for_room::v3::Request, _, _>(read, delete_room_keys::delete)
        .operation::<delete_backup_keys_for_session::v3::Request, _, _>(
            read,
            delete_session_key::delete,
        )
}

/// The query of everything that concerns keys.
#[derive(Deserialize)]
pub(crate) struct Version {
    version: String,
}

/// The body that describes a backup.
#[derive(Deserialize)]
pub(crate) struct Description {
    algorithm: String,
    auth_data: Box<RawValue>,
    /// In an update, the backup's name once more.
    version: Option<String>,
}

/// A key as clients send and get it.
#[derive(Deserialize, Serialize)]
pub(crate) struct KeyData {
    first_message_index: u64,
    forwarded_count: u64,
    is_verified: bool,
    session_data: Box<RawValue>,
}

impl From<KeyData> for BackupKey {
    fn from(data: KeyData) -> Self {
        Self {
            is_verified: data.is_verified,
            first_message_index: data.first_message_index,
            forwarded_count: data.forwarded_count,
            session_data: myelin_data::RawJson(data.session_data),
        }
    }
}

impl From<BackupKey> for KeyData {
    fn from(key: BackupKey) -> Self {
        Self {
            first_message_index: key.first_message_index,
            forwarded_count: key.forwarded_count,
            is_verified: key.is_verified,
            session_data: key.session_data.0,
        }
    }
}

/// What a change of keys is answered with.
#[derive(Serialize)]
pub(crate) struct Counts {
    etag: String,
    count: u64,
}

impl From<BackupCounts> for Counts {
    fn from(BackupCounts { count, etag }: BackupCounts) -> Self {
        Self { etag, count }
    }
}

/// A backup as its owner sees it.
#[derive(Serialize)]
pub(crate) struct Info {
    algorithm: String,
    auth_data: Box<RawValue>,
    #[serde(flatten)]
    counts: Counts,
    version: String,
}

impl From<Backup> for Info {
    fn from(backup: Backup) -> Self {
        Self {
            algorithm: backup.algorithm,
            auth_data: backup.auth_data.0,
            counts: backup.counts.into(),
            version: backup.version,
        }
    }
}

fn no_such_backup() -> Refusal {
    Refusal::not_found("You have no such backup.")
}
