//! How users of this server are, made into EDUs. Spec: server-server API, "Presence".
//!
//! What is told is collected where presence is kept. Here it is looked up once which servers are in the rooms of those of
//! whom there is news, and each of these is told once of each user. A server that comes to a room later hears of them
//! with what changes next, within half an hour at most.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use myelin_rooms::{PresenceState, UserPresence};
use myelin_store::{StoreError, View};
use myelin_types::{Millis, RoomNum, UserNum};
use ruma::{OwnedServerName, OwnedUserId};
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    Outbound, PAUSE,
    ephemeral::{Edu, EphemeralKey},
};

/// Of how many users is told at once.
const AT_ONCE: usize = 200;

/// What there is to tell of a user: the serial, how he is, his rooms.
type News = (u64, UserPresence, Arc<[RoomNum]>);

impl Outbound {
    /// Tells other servers how users of this one are.
    pub(super) async fn tell_presence(&self, soft: CancellationToken) {
        let presence = self.0.rooms.presence().clone();
        if !presence.is_outbound() {
            return;
        }
        let mut watch = presence.watch_outgoing();
        let mut since = 0;
        loop {
            // Marked before it is read, so that what comes meanwhile wakes again.
            watch.borrow_and_update();
            let news = presence.outgoing(since, AT_ONCE);
            let Some(through) = news.last().map(|(serial, ..)| *serial) else {
                tokio::select! {
                    () = soft.cancelled() => return,
                    changed = watch.changed() => if changed.is_err() { return },
                }
                continue;
            };
            match self.tell_presence_of(news).await {
                Ok(()) => since = through,
                Err(error) => {
                    tracing::warn!(error = crate::chain(&error), "presence was not told");
                    if soft.run_until_cancelled(sleep(PAUSE)).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    async fn tell_presence_of(&self, news: Vec<News>) -> Result<(), StoreError> {
        let rooms: BTreeSet<RoomNum> = news
            .iter()
            .flat_map(|(.., rooms)| rooms.iter().copied())
            .collect();
        if rooms.is_empty() {
            return Ok(());
        }
        let users: Vec<UserNum> = news.iter().map(|(_, presence, _)| presence.user).collect();
        let outbound = self.clone();
        let read = move |view: &View| {
            let mut servers: HashMap<RoomNum, Vec<OwnedServerName>> = HashMap::new();
            for room in &rooms {
                servers.insert(*room, outbound.others(view, *room)?);
            }
            let ids = outbound.0.rooms.interner().user_ids(view, &users)?;
            Ok::<_, StoreError>((servers, ids))
        };
        let (servers, ids) = self.0.store.read(read).await?;
        let now = self.0.clock.now();
        for ((_, presence, rooms), user_id) in news.iter().zip(ids) {
            let told: BTreeSet<&OwnedServerName> = rooms
                .iter()
                .filter_map(|room| servers.get(room))
                .flatten()
                .collect();
            if told.is_empty() {
                continue;
            }
            let told: Vec<OwnedServerName> = told.into_iter().cloned().collect();
            let edu = Edu::new("m.presence", content(presence, &user_id, now));
            self.to_all(&told, &EphemeralKey::Presence(presence.user), &edu);
        }
        Ok(())
    }
}

fn content(presence: &UserPresence, user_id: &OwnedUserId, now: Millis) -> Value {
    let snapshot = &presence.snapshot;
    let mut push = json!({
        "user_id": user_id,
        "presence": snapshot.state.as_str(),
        // It is required; who never did anything did so when he was last heard of, which is now.
        "last_active_ago": snapshot.last_active.map_or(0, |at| now.0.saturating_sub(at.0)),
    });
    if snapshot.state == PresenceState::Online {
        push["currently_active"] = Value::from(snapshot.currently_active);
    }
    if let Some(status) = snapshot.status.as_deref() {
        push["status_msg"] = Value::from(status);
    }
    json!({ "push": [push] })
}
