//! What is done with presence that needs the store: setting it, asking for it, and what other servers say.

use std::sync::Arc;

use myelin_data::{
    accounts::{PresenceStatus, PresenceStatuses},
    rooms::{Membership, UserRooms},
};
use myelin_store::{Batch, Scan, StoreError, View};
use myelin_types::{Millis, RoomNum, UserNum};
use ruma::{OwnedUserId, ServerName, UserId};
use thiserror::Error;

use super::{
    PresenceSnapshot, PresenceState,
    user::{Shown, User},
};
use crate::{Failure, Rooms};

/// The longest status message, in bytes.
const MOST_STATUS: usize = 1_024;

/// Why presence was not set or told.
#[derive(Clone, Debug, Error)]
pub enum PresenceError {
    /// The status message is longer than 1,024 bytes.
    #[error("the status message is too long")]
    TooLong,
    /// Whoever asks shares no room with the user (`M_FORBIDDEN`), if there is one.
    #[error("the two share no room")]
    NotShared,
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// What another server says of one of its users.
#[derive(Clone, Debug)]
pub struct RemotePresence {
    /// Who.
    pub user_id: OwnedUserId,
    /// Whether he is there.
    pub state: PresenceState,
    /// Whether he is doing something just now.
    pub currently_active: bool,
    /// How long ago he last did something.
    pub last_active_ago: Option<std::time::Duration>,
    /// What he wants others to read.
    pub status: Option<String>,
}

impl Rooms {
    /// Sets the presence of a user of this server, as he says it by a device, and his status message
    /// (`PUT /presence/{userId}/status`). Where presence is turned off nothing happens.
    pub async fn set_presence(
        &self,
        user: UserNum,
        device: &str,
        state: PresenceState,
        status: Option<String>,
    ) -> Result<(), PresenceError> {
        let presence = self.presence();
        if !presence.is_enabled() {
            return Ok(());
        }
        let status = status.filter(|status| !status.is_empty());
        if status.as_ref().is_some_and(|text| text.len() > MOST_STATUS) {
            return Err(PresenceError::TooLong);
        }
        let read = move |view: &View| view.get::<PresenceStatuses>(&user);
        let stored = self.0.store.read(read).await.map_err(Failure::from)?;
        if stored.map(|stored| stored.text) != status {
            let mut batch = Batch::new();
            match &status {
                Some(text) => {
                    let text = text.clone();
                    batch.put::<PresenceStatuses>(&user, &PresenceStatus { text });
                }
                None => batch.delete::<PresenceStatuses>(&user),
            }
            let rooms = self.clone();
            self.run(async move {
                let committed = rooms.0.store.commit(batch).await;
                committed.map_err(Failure::from)
            })
            .await?;
        }
        let shared = &presence.0.shared;
        let now = shared.clock.now();
        shared.change(|book| {
            book.change_or_add(user, now, User::local, |user| {
                user.set_status(status.map(Into::into));
                user.say(device, state, now);
            });
        });
        Ok(())
    }

    /// Forgets what a user of this server wanted others to read: he will not come again.
    pub async fn end_presence(&self, user: UserNum) -> Result<(), Failure> {
        let mut batch = Batch::new();
        batch.delete::<PresenceStatuses>(&user);
        self.0.store.commit(batch).await?;
        let shared = &self.presence().0.shared;
        let now = shared.clock.now();
        shared.change(|book| book.change(user, now, |user| user.set_status(None)));
        Ok(())
    }

    /// How a user is, for somebody who shares a room with him (`GET /presence/{userId}/status`).
    pub async fn presence_of(
        &self,
        viewer: UserNum,
        user_id: &UserId,
    ) -> Result<PresenceSnapshot, PresenceError> {
        let (rooms, user_id) = (self.clone(), user_id.to_owned());
        let read = move |view: &View| {
            let Some(user) = rooms.0.interner.find_user(view, &user_id)? else {
                return Ok(None);
            };
            if user != viewer && !share_a_room(view, viewer, user)? {
                return Ok(None);
            }
            let status = view.get::<PresenceStatuses>(&user)?;
            Ok::<_, StoreError>(Some((user, status)))
        };
        let found = self.0.store.read(read).await.map_err(Failure::from)?;
        let (user, status) = found.ok_or(PresenceError::NotShared)?;
        if !self.presence().is_enabled() {
            return Ok(PresenceSnapshot::default());
        }
        let shared = &self.presence().0.shared;
        let now = shared.clock.now();
        let book = shared.book.lock();
        let known = book.get(user);
        let shown = known.map_or_else(Shown::default, |user| user.shown(now));
        Ok(PresenceSnapshot {
            state: shown.state,
            currently_active: shown.currently_active,
            last_active: known.and_then(|user| user.last_active),
            status: shown.status.or(status.map(|status| status.text.into())),
        })
    }

    /// Takes in what another server says of its users. Of those who share no room with anybody here nothing is kept.
    pub async fn hear_presence(
        &self,
        origin: &ServerName,
        said: Vec<RemotePresence>,
    ) -> Result<(), Failure> {
        if !self.presence().is_enabled() || !self.presence().0.options.inbound {
            return Ok(());
        }
        let said: Arc<[RemotePresence]> = said
            .into_iter()
            .filter(|said| said.user_id.server_name() == origin && !self.is_local(&said.user_id))
            .collect();
        let (rooms, asked) = (self.clone(), Arc::clone(&said));
        let read = move |view: &View| {
            let users = asked.iter().map(|said| &said.user_id);
            users
                .map(|user| rooms.0.interner.find_user(view, user))
                .collect::<Result<Vec<_>, StoreError>>()
        };
        let users = self.0.store.read(read).await?;
        let shared = &self.presence().0.shared;
        let now = shared.clock.now();
        shared.change(|book| {
            for (said, user) in said.iter().zip(users) {
                let Some(user) = user else { continue };
                let ago = said.last_active_ago;
                let last_active = ago.map(|ago| Millis(now.0.saturating_sub(milliseconds(ago))));
                let status = said.status.as_deref().filter(|text| !text.is_empty());
                let status = status.filter(|text| text.len() <= MOST_STATUS);
                let hear = |user: &mut User| {
                    let status = status.map(Into::into);
                    user.hear(said.state, said.currently_active, last_active, status, now);
                };
                if said.state == PresenceState::Offline {
                    // Who was not known to be there need not be remembered for going.
                    book.change(user, now, hear);
                } else {
                    book.change_or_add(user, now, || User::remote(now), hear);
                }
            }
        });
        Ok(())
    }
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether two users are joined to a room, of any size.
fn share_a_room(view: &View, one: UserNum, other: UserNum) -> Result<bool, StoreError> {
    /// How many rooms are looked up at once.
    const AT_ONCE: usize = 256;
    let joined = |relation: &myelin_data::rooms::UserRoom| relation.membership == Membership::Join;
    let mut rows = view.scan::<UserRooms>(Scan::prefix(&one));
    loop {
        let mut keys: Vec<(UserNum, RoomNum)> = Vec::new();
        for row in rows.by_ref() {
            let ((_, room), relation) = row?;
            if joined(&relation) {
                keys.push((other, room));
            }
            if keys.len() == AT_ONCE {
                break;
            }
        }
        if keys.is_empty() {
            return Ok(false);
        }
        let relations = view.multi_get::<UserRooms>(&keys)?;
        if relations.iter().flatten().any(joined) {
            return Ok(true);
        }
    }
}
