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
pub(crate) struct News<'a> {
    sync: &'a Inner,
    view: &'a View,
    user: UserNum,
    /// By room; None when everything is asked for.
    changes: Option<HashMap<RoomNum, Vec<AccountDataChange>>>,
}

impl<'a> News<'a> {
    /// What changed after `since`, or without it everything.
    pub(crate) fn since(
        sync: &'a Inner,
        view: &'a View,
        user: UserNum,
        since: Option<Pos>,
    ) -> Result<Self, StoreError> {
        let changes = match since {
            None => None,
            Some(since) => {
                let mut by_room: HashMap<RoomNum, Vec<AccountDataChange>> = HashMap::new();
                for change in sync.accounts.account_data_since(view, user, since)? {
                    by_room.entry(change.room).or_default().push(change);
                }
                Some(by_room)
            }
        };
        Ok(Self {
            sync,
            view,
            user,
            changes,
        })
    }

    /// Whether there may be something for a room.
    pub(crate) fn has(&self, room: RoomNum) -> bool {
        match &self.changes {
            Some(changes) => changes.contains_key(&room),
            None => true,
        }
    }

    /// All of a room, whatever of it was told before.
    pub(crate) fn all(&self, room: RoomNum, matcher: &EventMatcher) -> Result<Events, StoreError> {
        let rows = self
            .sync
            .accounts
            .account_data_of(self.view, self.user, room)?;
        // Deleted data is told as an empty object to those who had it, and not at all to others.
        events(rows.iter().filter(|row| row.content.get() != "{}"), matcher)
    }

    /// What is new of a room, or with [`RoomNum::NONE`] what is new and global.
    pub(crate) fn of(&self, room: RoomNum, matcher: &EventMatcher) -> Result<Events, StoreError> {
        match &self.changes {
            None => self.all(room, matcher),
            Some(changes) => events(changes.get(&room).into_iter().flatten(), matcher),
        }
    }
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
