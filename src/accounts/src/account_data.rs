//! Account data, global and per room. Spec: client-server API, "Client Config", "Ignoring Users", "Fully read markers".

use std::collections::BTreeSet;

use myelin_data::{
    RawJson,
    accounts::{AccountData, AccountDataByPos, DatedJson},
    topic::Changed,
};
use myelin_store::{Batch, Scan, Step, StoreError, View};
use myelin_types::{Pos, RoomNum, UserNum};
use ruma::{EventId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Accounts, Failure};

/// Up to where a room was read; set by the read markers.
pub const FULLY_READ: &str = "m.fully_read";
/// Whom a user does not want to hear.
pub const IGNORED_USERS: &str = "m.ignored_user_list";
/// The push rules; set by their own endpoints.
pub const PUSH_RULES: &str = "m.push_rules";
/// Whether a user wants invitations.
const INVITE_PERMISSION: &str = "m.invite_permission_config";
/// The tags of a room.
pub const TAGS: &str = "m.tag";

/// How a device notifies, by the device's id: nobody reads it once the device has gone. MSC3890, with the name that it has
/// until it is accepted and the one after that.
const NOTIFICATION_SETTINGS: [&str; 2] = [
    "m.local_notification_settings",
    "org.matrix.msc3890.local_notification_settings",
];

/// The longest type, in bytes: as for events.
const MAX_TYPE: usize = 255;

/// Account data that changed, or is there.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountDataChange {
    /// The room it is of; [`RoomNum::NONE`] if it is global.
    pub room: RoomNum,
    /// Its type.
    pub kind: String,
    /// Its content.
    pub content: RawJson,
    /// Where it was last changed; [`Pos::ZERO`] for what a user has without having set it.
    pub pos: Pos,
}

/// Why account data was not set.
#[derive(Debug, thiserror::Error)]
pub enum AccountDataError {
    /// The content is not a JSON object. (`M_BAD_JSON`)
    #[error("account data must be a JSON object")]
    NotAnObject,
    /// The type is empty or has more than 255 bytes. (`M_INVALID_PARAM`)
    #[error("the type must have 1 to 255 bytes")]
    InvalidType,
    /// Clients set this type by other endpoints only. (405 `M_BAD_JSON`)
    #[error("{0} cannot be set through this API")]
    ServerManaged(&'static str),
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(AccountDataError);

/// Whether clients set this type by other endpoints only, for a room or globally.
pub fn is_server_managed(kind: &str) -> bool {
    matches!(kind, FULLY_READ | PUSH_RULES)
}

impl Accounts {
    /// Sets account data, for a room or ([`RoomNum::NONE`]) globally. Setting what is there already changes nothing.
    pub async fn set_account_data(
        &self,
        user: UserNum,
        room: RoomNum,
        kind: &str,
        content: RawJson,
    ) -> Result<(), AccountDataError> {
        match kind {
            FULLY_READ => return Err(AccountDataError::ServerManaged(FULLY_READ)),
            PUSH_RULES => return Err(AccountDataError::ServerManaged(PUSH_RULES)),
            _ => {}
        }
        if kind.is_empty() || kind.len() > MAX_TYPE {
            return Err(AccountDataError::InvalidType);
        }
        if !content.get().starts_with('{') {
            return Err(AccountDataError::NotAnObject);
        }
        self.replace_account_data(user, room, kind, move |_| Ok(Some(content.clone())))
            .await
    }

    /// Sets up to where `user` has read `room`.
    pub async fn set_fully_read(
        &self,
        user: UserNum,
        room: RoomNum,
        event_id: &EventId,
    ) -> Result<(), AccountDataError> {
        let content = RawJson::of(&json!({ "event_id": event_id })).map_err(Failure::from)?;
        self.replace_account_data(user, room, FULLY_READ, move |_| Ok(Some(content.clone())))
            .await
    }

    /// Account data of one type, for a room or ([`RoomNum::NONE`]) globally. Everybody has push rules.
    pub fn account_data(
        &self,
        view: &View,
        user: UserNum,
        room: RoomNum,
        kind: &str,
    ) -> Result<Option<RawJson>, StoreError> {
        if kind == PUSH_RULES && room == RoomNum::NONE {
            return self.push_rules_content(view, user).map(Some);
        }
        let row = view.get::<AccountData>(&(user, room, kind.to_owned()))?;
        Ok(row.map(|row| row.json))
    }

    /// Whether a user wants no invitations. Spec: client-server API, "Invite permission".
    pub fn blocks_invitations(&self, view: &View, user: UserNum) -> Result<bool, StoreError> {
        let config = self.account_data(view, user, RoomNum::NONE, INVITE_PERMISSION)?;
        let config = config.and_then(|config| serde_json::from_str::<Value>(config.get()).ok());
        Ok(config.is_some_and(|config| config["default_action"] == "block"))
    }

    /// All account data of a room or ([`RoomNum::NONE`]) all that is global, push rules included.
    pub fn account_data_of(
        &self,
        view: &View,
        user: UserNum,
        room: RoomNum,
    ) -> Result<Vec<AccountDataChange>, StoreError> {
        let mut all = rows(view, Scan::prefix(&(user, room)))?;
        if room == RoomNum::NONE {
            all.push(self.push_rules_change(view, user)?);
        }
        Ok(all)
    }

    /// All account data of `user`, global and of all rooms, push rules included.
    pub fn all_account_data(
        &self,
        view: &View,
        user: UserNum,
    ) -> Result<Vec<AccountDataChange>, StoreError> {
        let mut all = rows(view, Scan::prefix(&user))?;
        all.push(self.push_rules_change(view, user)?);
        Ok(all)
    }

    /// Push rules are there whether or not somebody set them.
    fn push_rules_change(
        &self,
        view: &View,
        user: UserNum,
    ) -> Result<AccountDataChange, StoreError> {
        Ok(AccountDataChange {
            room: RoomNum::NONE,
            kind: PUSH_RULES.to_owned(),
            content: self.push_rules_content(view, user)?,
            pos: self.push_rules_pos(view, user)?,
        })
    }

    /// The account data of `user`, global and of all rooms, that changed after `since`, in the order of change.
    pub fn account_data_since(
        &self,
        view: &View,
        user: UserNum,
        since: Pos,
    ) -> Result<Vec<AccountDataChange>, StoreError> {
        let scan = Scan::prefix(&user).after(&(user, since));
        let mut changes = Vec::new();
        for key in view.keys::<AccountDataByPos>(scan) {
            let (_, pos, room, kind) = key?;
            // The two tables change together, so there is a row.
            if let Some(content) = self.account_data(view, user, room, &kind)? {
                changes.push(AccountDataChange {
                    room,
                    kind,
                    content,
                    pos,
                });
            }
        }
        Ok(changes)
    }

    /// Whom `user` ignores. What clients wrote wrongly is passed over.
    pub fn ignored_users(
        &self,
        view: &View,
        user: UserNum,
    ) -> Result<BTreeSet<OwnedUserId>, StoreError> {
        #[derive(Deserialize)]
        struct List {
            ignored_users: serde_json::Map<String, serde_json::Value>,
        }
        let content = self.account_data(view, user, RoomNum::NONE, IGNORED_USERS)?;
        let list = content.and_then(|content| serde_json::from_str::<List>(content.get()).ok());
        let ids = list.into_iter().flat_map(|list| list.ignored_users);
        Ok(ids.filter_map(|(id, _)| id.try_into().ok()).collect())
    }

    /// Where [that list](Accounts::ignored_users) was last changed; [`Pos::ZERO`] if there is none.
    pub fn ignored_users_pos(&self, view: &View, user: UserNum) -> Result<Pos, StoreError> {
        let row = view.get::<AccountData>(&(user, RoomNum::NONE, IGNORED_USERS.to_owned()))?;
        Ok(row.map_or(Pos::ZERO, |row| row.pos))
    }

    /// Writes what `change` makes of the content that is there; None leaves it.
    pub(crate) async fn replace_account_data<E>(
        &self,
        user: UserNum,
        room: RoomNum,
        kind: &str,
        change: impl Fn(Option<&RawJson>) -> Result<Option<RawJson>, E> + Send + Sync + 'static,
    ) -> Result<(), E>
    where
        E: From<StoreError> + From<myelin_store::CommitError> + Send + 'static,
    {
        let key = (user, room, kind.to_owned());
        self.0
            .store
            .change(move |view| {
                let row = view.get::<AccountData>(&key)?;
                let before = row.as_ref().map(|row| &row.json);
                let Some(after) = change(before)?.filter(|after| Some(after) != before) else {
                    return Ok(Step::nothing(()));
                };
                let (user, room, kind) = key.clone();
                let mut batch = Batch::new();
                batch.expect::<AccountData>(&key, row.as_ref());
                if let Some(row) = &row {
                    batch.delete::<AccountDataByPos>(&(user, row.pos, room, kind.clone()));
                }
                let dated = DatedJson {
                    pos: Pos::AT_COMMIT,
                    json: after,
                };
                batch.put::<AccountData>(&key, &dated);
                let by_pos = (user, Pos::AT_COMMIT, room, kind);
                batch.put::<AccountDataByPos>(&by_pos, &myelin_data::Present);
                batch.touch(Changed::User(user).into());
                Ok(Step::write(batch, ()))
            })
            .await
    }
}

/// Deletes the account data that is about a device, which goes in the same batch.
pub(crate) fn delete_notification_settings(
    view: &View,
    batch: &mut Batch,
    user: UserNum,
    device_id: &str,
) -> Result<(), StoreError> {
    let keys =
        NOTIFICATION_SETTINGS.map(|kind| (user, RoomNum::NONE, format!("{kind}.{device_id}")));
    for (key, row) in keys.iter().zip(view.multi_get::<AccountData>(&keys)?) {
        batch.expect::<AccountData>(key, row.as_ref());
        if let Some(row) = row {
            batch.delete::<AccountData>(key);
            batch.delete::<AccountDataByPos>(&(user, row.pos, RoomNum::NONE, key.2.clone()));
        }
    }
    Ok(())
}

/// The account data that `scan` describes, but for push rules.
fn rows(view: &View, scan: Scan) -> Result<Vec<AccountDataChange>, StoreError> {
    let mut all = Vec::new();
    for row in view.scan::<AccountData>(scan) {
        let ((_, room, kind), DatedJson { pos, json }) = row?;
        if !(kind == PUSH_RULES && room == RoomNum::NONE) {
            all.push(AccountDataChange {
                room,
                kind,
                content: json,
                pos,
            });
        }
    }
    Ok(all)
}
