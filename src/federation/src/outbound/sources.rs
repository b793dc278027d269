//! What users of this server do that matters only now, made into EDUs: typing and public receipts.
//!
//! Spec: server-server API, "Typing Notifications" and "Receipts".

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use myelin_data::rooms::{ReceiptKind, Receipts, ReceiptsByPos};
use myelin_store::{Scan, StoreError, View};
use myelin_types::{Millis, Pos, RoomNum, UserNum};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, ServerName};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Outbound,
    ephemeral::{Edu, EphemeralKey},
};

/// While somebody types, it is said again after this time: other servers take it for over when it is not.
const REPEAT: Duration = Duration::from_secs(20);
/// How often it is looked whether that time has come.
const LOOK: Duration = Duration::from_secs(5);
/// For how long receipts are collected before they are sent: of those that follow upon each other only the last one is.
const COLLECT: Duration = Duration::from_millis(300);
/// When more rooms than this changed while receipts were collected, their receipts are not sent.
const MOST_CHANGES: usize = 10_000;
/// How many receipts of a room are sent at once; of more the newest are.
const MOST_RECEIPTS: usize = 1_000;

/// About how many receipts a server is told that did not answer for a while: no more than wait for it at once.
const MOST_MISSED: usize = 200;

/// The typing users of this server in each room, with when that was last said.
type Typists = HashMap<RoomNum, BTreeMap<UserNum, Millis>>;

impl Outbound {
    /// Tells other servers who types here.
    pub(super) async fn tell_typing(&self, soft: CancellationToken) {
        let mut watch = self.0.rooms.typing().watch();
        let mut serial = *watch.borrow_and_update();
        let mut typists = Typists::new();
        loop {
            let look = async {
                if typists.is_empty() {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(LOOK).await;
            };
            tokio::select! {
                () = soft.cancelled() => return,
                changed = watch.changed() => if changed.is_err() { return },
                () = look => {}
            }
            let newest = *watch.borrow_and_update();
            let mut rooms = self.0.rooms.typing().changed_since(serial);
            serial = newest;
            let now = self.0.clock.now();
            let stale = |users: &BTreeMap<UserNum, Millis>| {
                users.values().any(|said| now.since(*said) >= REPEAT)
            };
            let repeated = typists.iter().filter(|(_, users)| stale(users));
            rooms.extend(repeated.map(|(room, _)| *room));
            rooms.sort_unstable();
            rooms.dedup();
            for room in rooms {
                if let Err(error) = self.tell_typing_in(room, &mut typists, now).await {
                    tracing::warn!(error = crate::chain(&error), "typing was not told");
                }
            }
        }
    }

    async fn tell_typing_in(
        &self,
        room: RoomNum,
        typists: &mut Typists,
        now: Millis,
    ) -> Result<(), StoreError> {
        let typing = self.0.rooms.typing().since(room, 0);
        let users = typing.map_or_else(Vec::new, |typing| typing.users);
        let before = typists.remove(&room).unwrap_or_default();
        let mut asked: Vec<UserNum> = users.clone();
        asked.extend(before.keys().filter(|user| !users.contains(user)));
        let Some((room_id, servers, ids)) = self.around(room, asked.clone()).await? else {
            return Ok(());
        };
        let mut after = BTreeMap::new();
        for (user, user_id) in asked.into_iter().zip(ids) {
            if !self.0.rooms.is_local(&user_id) {
                continue;
            }
            let types = users.contains(&user);
            let said = before.get(&user).copied();
            if types
                && let Some(said) = said
                && now.since(said) < REPEAT
            {
                after.insert(user, said);
                continue;
            }
            if types {
                after.insert(user, now);
            }
            let content = json!({ "room_id": room_id, "user_id": user_id, "typing": types });
            let key = EphemeralKey::Typing(room, user);
            self.to_all(&servers, &key, &Edu::new("m.typing", content));
        }
        if !after.is_empty() {
            typists.insert(room, after);
        }
        Ok(())
    }

    /// Tells other servers what users of this one have read.
    pub(super) async fn tell_receipts(&self, soft: CancellationToken) {
        let mut watch = self.0.store.watch();
        let mut since = *watch.borrow_and_update();
        loop {
            tokio::select! {
                () = soft.cancelled() => return,
                changed = watch.changed() => if changed.is_err() { return },
            }
            tokio::time::sleep(COLLECT).await;
            watch.borrow_and_update();
            match self.tell_receipts_since(since).await {
                Ok(through) => since = through,
                Err(error) => {
                    tracing::warn!(error = crate::chain(&error), "receipts were not told");
                }
            }
        }
    }

    async fn tell_receipts_since(&self, since: Pos) -> Result<Pos, StoreError> {
        let outbound = self.clone();
        let read = move |view: &View| {
            let changed = outbound.0.rooms.changed_since(view, since, MOST_CHANGES);
            let mut told = Vec::new();
            for room in changed.unwrap_or_default() {
                if outbound.0.rooms.positions(view, room)?.receipts > since {
                    told.extend(outbound.receipts(view, room, since)?);
                }
            }
            Ok::<_, StoreError>((told, view.pos()))
        };
        let (told, through) = self.0.store.read(read).await?;
        for Told { servers, key, edu } in told {
            self.to_all(&servers, &key, &edu);
        }
        self.with(|book| book.told_receipts(through));
        Ok(through)
    }

    /// Tells a server that did not answer for a while what users of this one have read since a position, as far as that still
    /// holds.
    pub(super) async fn tell_missed_receipts(
        &self,
        server: &ServerName,
        since: Pos,
    ) -> Result<(), StoreError> {
        let (outbound, name) = (self.clone(), server.to_owned());
        let read = move |view: &View| {
            let rooms = &outbound.0.rooms;
            let mut missed = Vec::new();
            for room in rooms.rooms_of_server(view, &name)? {
                if missed.len() >= MOST_MISSED {
                    break;
                }
                if rooms.positions(view, room)?.receipts > since {
                    let told = outbound.receipts(view, room, since)?.into_iter();
                    missed.extend(told.filter(|told| told.servers.contains(&name)));
                }
            }
            Ok::<_, StoreError>(missed)
        };
        let missed = self.0.store.read(read).await?;
        let server = server.to_owned();
        for Told { key, edu, .. } in missed {
            self.to_all(std::slice::from_ref(&server), &key, &edu);
        }
        Ok(())
    }

    /// The public receipts of users of this server that were set after a position.
    fn receipts(&self, view: &View, room: RoomNum, since: Pos) -> Result<Vec<Told>, StoreError> {
        let newest = Scan::prefix(&room)
            .after(&(room, since))
            .reverse()
            .limit(MOST_RECEIPTS);
        let mut rows = Vec::new();
        for key in view.keys::<ReceiptsByPos>(newest) {
            let (_, _, user, kind, thread) = key?;
            if kind == ReceiptKind::Read {
                rows.push((room, user, kind, thread));
            }
        }
        let users: Vec<UserNum> = rows.iter().map(|(_, user, ..)| *user).collect();
        let ids = self.0.rooms.interner().user_ids(view, &users)?;
        let (rows, ids): (Vec<_>, Vec<OwnedUserId>) = rows
            .into_iter()
            .zip(ids)
            .filter(|(_, user)| self.0.rooms.is_local(user))
            .unzip();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let servers = self.others(view, room)?;
        if servers.is_empty() {
            return Ok(Vec::new());
        }
        let room_id = self.0.rooms.handle(view, room)?.room_id().to_owned();
        let servers: Arc<[OwnedServerName]> = servers.into();
        let receipts = view.multi_get::<Receipts>(&rows)?;
        let told = rows.into_iter().zip(ids).zip(receipts);
        let told = told.filter_map(|(((_, user, _, thread), user_id), receipt)| {
            let receipt = receipt?;
            let mut data = json!({ "ts": receipt.at.0 });
            if !thread.is_empty() {
                data["thread_id"] = Value::from(thread.clone());
            }
            let said = json!({ "data": data, "event_ids": [receipt.event_id] });
            let content = json!({ &room_id: { "m.read": { &user_id: said } } });
            Some(Told {
                servers: Arc::clone(&servers),
                key: EphemeralKey::Receipt(room, user, thread.into()),
                edu: Edu::new("m.receipt", content),
            })
        });
        Ok(told.collect())
    }

    /// A room's id, its servers but ours, and the ids of users; none if it has no such servers.
    async fn around(
        &self,
        room: RoomNum,
        users: Vec<UserNum>,
    ) -> Result<Option<(OwnedRoomId, Vec<OwnedServerName>, Vec<OwnedUserId>)>, StoreError> {
        let outbound = self.clone();
        let read = move |view: &View| {
            let servers = outbound.others(view, room)?;
            if servers.is_empty() {
                return Ok(None);
            }
            let rooms = &outbound.0.rooms;
            let room_id = rooms.handle(view, room)?.room_id().to_owned();
            let ids = rooms.interner().user_ids(view, &users)?;
            Ok::<_, StoreError>(Some((room_id, servers, ids)))
        };
        self.0.store.read(read).await
    }

    /// The servers in a room but ours.
    pub(super) fn others(
        &self,
        view: &View,
        room: RoomNum,
    ) -> Result<Vec<OwnedServerName>, StoreError> {
        let mut servers = self.0.rooms.servers_in_room(view, room)?;
        servers.retain(|server| *server != self.0.server_name);
        Ok(servers)
    }

    pub(super) fn to_all(&self, servers: &[OwnedServerName], key: &EphemeralKey, edu: &Edu) {
        self.with(|book| {
            for server in servers {
                let id = book.id(server);
                book.ephemeral(id, key.clone(), edu.clone());
            }
        });
        self.0.wake.notify_one();
    }
}

/// An EDU and who is to have it.
struct Told {
    servers: Arc<[OwnedServerName]>,
    key: EphemeralKey,
    edu: Edu,
}
