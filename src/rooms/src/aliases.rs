//! Local aliases of rooms.

use myelin_data::{
    Present,
    rooms::{Alias, Aliases, RoomAliases},
};
use myelin_rules::{Membership, visibility::HistoryVisibility};
use myelin_store::{Batch, CommitError, Scan, StoreError, Table, View};
use ruma::{OwnedRoomAliasId, RoomAliasId, RoomId, UserId};
use serde_json::Value;
use thiserror::Error;

use crate::{
    AppendError, Failure, JsonObject, RoomHandle, Rooms,
    error::lock_errors,
    head::membership_of,
    pipeline::{Draft, RoomGuard},
};

pub(crate) const CANONICAL_ALIAS: &str = "m.room.canonical_alias";

/// Why an alias was not made.
#[derive(Clone, Debug, Error)]
pub enum CreateAliasError {
    /// The alias belongs to another server (`M_INVALID_PARAM`).
    #[error("the alias belongs to another server")]
    Remote,
    /// The alias points somewhere already (409, `M_UNKNOWN`).
    #[error("the alias exists")]
    Exists,
    /// The server does not know the room.
    #[error("the room is not known")]
    RoomNotFound,
    /// The user is not in the room (`M_FORBIDDEN`).
    #[error("the user is not in the room")]
    NotInRoom,
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Why an alias was not deleted.
#[derive(Clone, Debug, Error)]
pub enum DeleteAliasError {
    /// There is no such alias here (`M_NOT_FOUND`).
    #[error("there is no such alias")]
    NotFound,
    /// The user neither made it nor may he send `m.room.canonical_alias` in its room (`M_FORBIDDEN`).
    #[error("the alias is another user's")]
    NotAllowed,
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Why the aliases of a room are not told.
#[derive(Clone, Debug, Error)]
pub enum ListAliasesError {
    /// The server does not know the room.
    #[error("the room is not known")]
    RoomNotFound,
    /// The user is not in the room, and the room is not world-readable (`M_FORBIDDEN`).
    #[error("the user is not in the room")]
    NotInRoom,
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Why a `m.room.canonical_alias` is not sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CanonicalAliasError {
    /// It does not have the shape of such an event (`M_BAD_JSON`).
    #[error("{0}")]
    BadContent(&'static str),
    /// What it lists as an alias is none at all (`M_INVALID_PARAM`).
    #[error("{0:?} is no room alias")]
    InvalidAlias(String),
    /// An alias in it does not point to the room (`M_BAD_ALIAS`).
    #[error("the alias {0} does not point to this room")]
    BadAlias(OwnedRoomAliasId),
}

lock_errors!(CreateAliasError, ListAliasesError);

/// Puts the rows of a new alias into a batch that fails if there is such an alias already.
pub(crate) fn put_alias(batch: &mut Batch, alias: &RoomAliasId, row: &Alias) {
    let name = alias.to_string();
    batch.expect::<Aliases>(&name, None);
    batch.put::<Aliases>(&name, row);
    batch.put::<RoomAliases>(&(row.room, name), &Present);
}

/// Whether a commit failed because an alias was not as expected.
pub(crate) fn alias_changed(error: &CommitError) -> bool {
    matches!(error, CommitError::Expectation { table } if *table == Aliases::NAME)
}

impl Rooms {
    /// Makes an alias (`PUT /directory/room/{roomAlias}`).
    pub async fn create_alias(
        &self,
        alias: &RoomAliasId,
        room_id: &RoomId,
        user: &UserId,
    ) -> Result<(), CreateAliasError> {
        if alias.server_name() != self.server_name() {
            return Err(CreateAliasError::Remote);
        }
        let (rooms, alias, room_id, user) = (
            self.clone(),
            alias.to_owned(),
            room_id.to_owned(),
            user.to_owned(),
        );
        self.run(async move {
            let guard = rooms.lock_known(&room_id).await?;
            let member = guard.member(&user).await?;
            if membership_of(member.as_ref()) != Membership::Join {
                return Err(CreateAliasError::NotInRoom);
            }
            let creator = rooms.0.interner.user(&user).await.map_err(Failure::from)?;
            let room = guard.num();
            let mut batch = Batch::new();
            put_alias(&mut batch, &alias, &Alias { room, creator });
            let commit = rooms.0.store.commit(batch);
            drop(guard);
            match commit.await {
                Ok(_) => Ok(()),
                Err(error) if alias_changed(&error) => Err(CreateAliasError::Exists),
                Err(error) => Err(Failure::from(error).into()),
            }
        })
        .await
    }

    /// Deletes an alias (`DELETE /directory/room/{roomAlias}`). If it stands in the room's `m.room.canonical_alias` and the
    /// user may send that, it is taken out there too. `admin` stands above the room's power levels.
    pub async fn delete_alias(
        &self,
        alias: &RoomAliasId,
        user: &UserId,
        admin: bool,
    ) -> Result<(), DeleteAliasError> {
        let (rooms, alias, user) = (self.clone(), alias.to_owned(), user.to_owned());
        self.run(async move {
            let (reader, name) = (rooms.clone(), alias.to_string());
            let read = move |view: &View| match view.get::<Aliases>(&name)? {
                Some(row) => Ok(Some((reader.handle(view, row.room)?, row))),
                None => Ok::<_, StoreError>(None),
            };
            let found = rooms.0.store.read(read).await.map_err(Failure::from)?;
            let (handle, row) = found.ok_or(DeleteAliasError::NotFound)?;
            let creator = rooms.0.interner.user(&user).await.map_err(Failure::from)? == row.creator;
            let mut guard = rooms.lock(&handle).await?;
            let member = guard.member(&user).await?;
            let may_send = membership_of(member.as_ref()) == Membership::Join
                && guard.state().may_send_state(user.as_str(), CANONICAL_ALIAS);
            if !(creator || may_send || admin) {
                return Err(DeleteAliasError::NotAllowed);
            }
            let batch = guard.batch();
            batch.expect::<Aliases>(&alias.to_string(), Some(&row));
            batch.delete::<Aliases>(&alias.to_string());
            batch.delete::<RoomAliases>(&(row.room, alias.to_string()));
            if may_send {
                guard.unlist_alias(&alias, &user).await?;
            }
            match guard.commit().durable().await {
                Err(Failure::Commit(error)) if alias_changed(&error) => {
                    Err(DeleteAliasError::NotFound)
                }
                outcome => Ok(outcome.map(|_| ())?),
            }
        })
        .await
    }

    /// The room that a local alias points to.
    pub fn resolve_alias(
        &self,
        view: &View,
        alias: &RoomAliasId,
    ) -> Result<Option<RoomHandle>, StoreError> {
        match view.get::<Aliases>(&alias.to_string())? {
            Some(row) => self.handle(view, row.room).map(Some),
            None => Ok(None),
        }
    }

    /// The local aliases of a room (`GET /rooms/{roomId}/aliases`), for members and, if the room is world-readable, for
    /// everybody.
    pub async fn list_aliases(
        &self,
        room_id: &RoomId,
        user: &UserId,
    ) -> Result<Vec<OwnedRoomAliasId>, ListAliasesError> {
        let guard = self.lock_known(room_id).await?;
        let member = guard.member(user).await?;
        if membership_of(member.as_ref()) != Membership::Join
            && guard.state().history_visibility() != HistoryVisibility::WorldReadable
        {
            return Err(ListAliasesError::NotInRoom);
        }
        let room = guard.num();
        drop(guard);
        let read = move |view: &View| {
            view.scan::<RoomAliases>(Scan::prefix(&room))
                .map(|row| row.map(|((_, alias), _)| alias))
                .collect::<Result<Vec<_>, StoreError>>()
        };
        let aliases = self.0.store.read(read).await.map_err(Failure::from)?;
        Ok(aliases
            .into_iter()
            .filter_map(|alias| OwnedRoomAliasId::try_from(alias).ok())
            .collect())
    }
}

impl RoomGuard {
    /// Takes an alias out of the room's `m.room.canonical_alias`, if it is listed there. That a room refuses it is no
    /// reason to keep the alias.
    async fn unlist_alias(&mut self, alias: &RoomAliasId, user: &UserId) -> Result<(), Failure> {
        let Some(current) = self.state().kept_event(CANONICAL_ALIAS) else {
            return Ok(());
        };
        let Some(content) = without_alias(current.pdu.content(), alias) else {
            return Ok(());
        };
        let draft = Draft::state(user, CANONICAL_ALIAS, "", content);
        match self.append(draft).await {
            Err(AppendError::Failure(failure)) => Err(failure),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// The texts of all aliases that a canonical-alias event lists. An empty or null `alias` is none.
pub(crate) fn listed_aliases(content: &JsonObject) -> Result<Vec<&str>, CanonicalAliasError> {
    let bad = |what| Err(CanonicalAliasError::BadContent(what));
    let mut aliases = Vec::new();
    match content.get("alias") {
        None | Some(Value::Null) => {}
        Some(Value::String(alias)) if alias.is_empty() => {}
        Some(Value::String(alias)) => aliases.push(alias.as_str()),
        Some(_) => return bad("`alias` must be a string"),
    }
    match content.get("alt_aliases") {
        None | Some(Value::Null) => {}
        Some(Value::Array(list)) => {
            for alias in list {
                match alias.as_str() {
                    Some(alias) => aliases.push(alias),
                    None => return bad("`alt_aliases` must be strings"),
                }
            }
        }
        Some(_) => return bad("`alt_aliases` must be a list"),
    }
    Ok(aliases)
}

/// The alias that a text in a canonical-alias event is.
pub(crate) fn parse_alias(text: &str) -> Result<OwnedRoomAliasId, CanonicalAliasError> {
    RoomAliasId::parse(text).map_err(|_| CanonicalAliasError::InvalidAlias(text.to_owned()))
}

/// The content of a canonical-alias event without one alias; none if it does not list that one.
fn without_alias(content: &JsonObject, alias: &RoomAliasId) -> Option<JsonObject> {
    let is_it = |value: &Value| value.as_str() == Some(alias.as_str());
    let mut rest = content.clone();
    if rest.get("alias").is_some_and(is_it) {
        rest.remove("alias");
    }
    if let Some(Value::Array(list)) = rest.get_mut("alt_aliases") {
        list.retain(|value| !is_it(value));
        if list.is_empty() {
            rest.remove("alt_aliases");
        }
    }
    (rest != *content).then_some(rest)
}

#[cfg(test)]
mod tests {
    use ruma::room_alias_id;
    use serde_json::{Value, json};

    use super::without_alias;

    #[test]
    fn an_alias_is_taken_out_wherever_it_stands() {
        let check = |content: Value, expected: Option<Value>| {
            let content = content.as_object().expect("the cases are objects");
            let rest = without_alias(content, room_alias_id!("#a:x.org"));
            assert_eq!(rest.map(Value::Object), expected);
        };
        check(json!({"alias": "#a:x.org"}), Some(json!({})));
        check(
            json!({"alias": "#a:x.org", "alt_aliases": ["#a:x.org", "#b:x.org"]}),
            Some(json!({"alt_aliases": ["#b:x.org"]})),
        );
        check(
            json!({"alias": "#b:x.org", "alt_aliases": ["#a:x.org"]}),
            Some(json!({"alias": "#b:x.org"})),
        );
        check(json!({"alias": "#b:x.org"}), None);
        check(json!({"alias": null}), None);
    }
}
