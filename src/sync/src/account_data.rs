//! The account data sections: global and per room.

use std::collections::HashMap;

use myelin_accounts::AccountDataChange;
use myelin_data::RawJson;
use myelin_rooms::read::EventMatcher;
use myelin_store::{StoreError, View};
use myelin_types::{Pos, RoomNum, UserNum};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::{Events, Inner};

/// A user's account data that he has not been told of yet.
#[derive(Default)]
pub(crate) struct Changes {
    /// By room.
    changes: HashMap<RoomNum, Vec<AccountDataChange>>,
    /// Whether that is everything there is, and not only what changed.
    all: bool,
}

/// The same, with where the rest can be found.
pub(crate) struct News<'a> {
    pub(crate) sync: &'a Inner,
    pub(crate) view: &'a View,
    pub(crate) user: UserNum,
    pub(crate) changes: &'a Changes,
}

impl Changes {
    /// What changed after `since`, or without it everything.
    pub(crate) fn since(
        sync: &Inner,
        view: &View,
        user: UserNum,
        since: Option<Pos>,
    ) -> Result<Self, StoreError> {
        let found = match since {
            None => sync.accounts.all_account_data(view, user)?,
            Some(since) => sync.accounts.account_data_since(view, user, since)?,
        };
        let mut changes: HashMap<RoomNum, Vec<AccountDataChange>> = HashMap::new();
        for change in found {
            changes.entry(change.room).or_default().push(change);
        }
        Ok(Self {
            changes,
            all: since.is_none(),
        })
    }

    /// The rooms for which there is something.
    pub(crate) fn rooms(&self) -> impl Iterator<Item = RoomNum> + '_ {
        let changes = self.changes.keys().copied();
        changes.filter(|room| *room != RoomNum::NONE)
    }
}

impl News<'_> {
    /// Whether there may be something for a room.
    pub(crate) fn has(&self, room: RoomNum) -> bool {
        self.changes.all || self.changes.changes.contains_key(&room)
    }

    /// All of a room, whatever of it was told before.
    pub(crate) fn all(&self, room: RoomNum, matcher: &EventMatcher) -> Result<Events, StoreError> {
        if self.changes.all {
            return self.of(room, matcher);
        }
        let rows = self
            .sync
            .accounts
            .account_data_of(self.view, self.user, room)?;
        events(rows.iter().filter(|row| is_there(row)), matcher)
    }

    /// What is new of a room, or with [`RoomNum::NONE`] what is new and global.
    pub(crate) fn of(&self, room: RoomNum, matcher: &EventMatcher) -> Result<Events, StoreError> {
        let changes = self.changes.changes.get(&room).into_iter().flatten();
        events(
            changes.filter(|change| !self.changes.all || is_there(change)),
            matcher,
        )
    }
}

/// Deleted data is told as an empty object to those who had it, and not at all to others.
fn is_there(change: &AccountDataChange) -> bool {
    change.content.get() != "{}"
}

fn events<'a>(
    changes: impl Iterator<Item = &'a AccountDataChange>,
    matcher: &EventMatcher,
) -> Result<Events, StoreError> {
    let wanted = changes.filter(|change| matcher.takes_type(&change.kind));
    let events = wanted.map(|change| event(&change.kind, &change.content));
    Ok(Events {
        events: events.collect::<Result<_, StoreError>>()?,
    })
}

/// An event of a type and content alone, as account data and ephemeral events are.
fn event(kind: &str, content: &RawJson) -> Result<Box<RawValue>, StoreError> {
    #[derive(Serialize)]
    struct Event<'a> {
        content: &'a RawValue,
        r#type: &'a str,
    }
    to_raw_value(&Event {
        content: &content.0,
        r#type: kind,
    })
    .map_err(|_| StoreError::Missing("account_data"))
}
