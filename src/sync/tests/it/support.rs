//! A server without HTTP, and clients that sync with it.

use std::{sync::Arc, time::Duration};

use myelin_accounts::{Accounts, HashCost, Registration, Settings};
use myelin_data::{Interner, PRODUCT, RawJson, SCHEMA, rooms::ReceiptKind, tables};
use myelin_e2ee::E2ee;
use myelin_rooms::{
    CreateRoom, Enter, Invite, JsonObject, Moderate, NewReceipt, Options, Preset, Profile, Redact,
    Rooms, SendMessage, SendState, StateDraft, Thread, read::Viewer, token::SyncToken,
};
use myelin_rules::{Signer, SigningKey};
use myelin_store::Store;
use myelin_sync::{Response, Sync, SyncRequest};
use myelin_types::{Millis, MockClock, RoomNum, SeededRandom};
use ruma::{
    EventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId,
    api::client::filter::FilterDefinition,
};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const ALICE: &str = "@alice:here.org";
pub(crate) const BOB: &str = "@bob:here.org";
pub(crate) const CHARLIE: &str = "@charlie:here.org";

pub(crate) struct Server {
    pub(crate) store: Store,
    pub(crate) rooms: Rooms,
    pub(crate) accounts: Accounts,
    pub(crate) e2ee: E2ee,
    pub(crate) sync: Sync,
    _dir: TempDir,
}

/// A device of somebody that syncs.
pub(crate) struct Client {
    pub(crate) viewer: Viewer,
    sync: Sync,
    pub(crate) filter: Value,
    pub(crate) since: Option<SyncToken>,
    pub(crate) full_state: bool,
    pub(crate) state_after: bool,
}

pub(crate) fn user(id: &str) -> OwnedUserId {
    OwnedUserId::try_from(id).expect("test users are well-formed")
}

pub(crate) fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

pub(crate) fn profile(name: &str) -> Profile {
    Profile {
        displayname: Some(name.to_owned()),
        avatar_url: None,
    }
}

/// The key of every server.
pub(crate) fn signing_key() -> SigningKey {
    SigningKey::from_seed("a_test", [7; 32])
}

impl Server {
    pub(crate) async fn new() -> Server {
        Self::named("here.org").await
    }

    pub(crate) async fn named(name: &str) -> Server {
        let server_name = OwnedServerName::try_from(name).expect("a server name");
        let dir = TempDir::new().expect("temporary directories can be made");
        let store = Store::open(
            dir.path(),
            myelin_store::Options {
                memory_budget: 64 << 20,
                product: PRODUCT,
                schema: SCHEMA,
                tables: tables(),
            },
        )
        .expect("an empty directory can be opened");
        let clock = Arc::new(MockClock::new(Millis(1_700_000_000_000)));
        let random = Arc::new(SeededRandom::new(1));
        let interner = Interner::open(store.clone())
            .await
            .expect("the interner opens");
        let rooms = Rooms::open(
            store.clone(),
            interner.clone(),
            Arc::new(Signer::new(name, signing_key())),
            server_name.clone(),
            Arc::clone(&clock) as _,
            Arc::clone(&random) as _,
            Options::default(),
        );
        let settings = Settings {
            server_name,
            registration: Registration::Open,
            password_min_length: 8,
            access_token_lifetime: Duration::from_mins(5),
            hash_cost: HashCost::RECOMMENDED,
            hashes_at_once: 1,
            uia_lifetime: Duration::from_mins(5),
            remembered_sessions: 100,
            remembered_rulesets: 100,
        };
        let e2ee = E2ee::new(
            rooms.clone(),
            Arc::clone(&clock) as _,
            Arc::clone(&random) as _,
        );
        let accounts = Accounts::open(store.clone(), interner, clock, random, settings)
            .expect("accounts open");
        // Small parts, so that answers have several.
        let options = myelin_sync::Options {
            part_bytes: 1000,
            ..myelin_sync::Options::default()
        };
        let sync = Sync::with_options(rooms.clone(), accounts.clone(), e2ee.clone(), options);
        Server {
            store,
            rooms,
            accounts,
            e2ee,
            sync,
            _dir: dir,
        }
    }

    /// Another read side of the same server, which remembers nothing.
    pub(crate) fn other_sync(&self) -> Sync {
        Sync::new(self.rooms.clone(), self.accounts.clone(), self.e2ee.clone())
    }

    pub(crate) async fn client(&self, id: &str) -> Client {
        let user_id = user(id);
        Client {
            viewer: Viewer {
                user: self
                    .rooms
                    .interner()
                    .user(&user_id)
                    .await
                    .expect("users are numbered"),
                user_id,
                device_id: Some("DEVICE".to_owned()),
            },
            sync: self.sync.clone(),
            filter: json!({}),
            since: None,
            full_state: false,
            state_after: false,
        }
    }

    pub(crate) fn num(&self, room: &RoomId) -> RoomNum {
        let handle = self
            .rooms
            .find(&self.store.view(), room)
            .expect("rooms can be read");
        handle.expect("the room is there").num
    }

    /// A public room of Alice's.
    pub(crate) async fn room(&self) -> OwnedRoomId {
        self.room_with(Preset::PublicChat, &[]).await
    }

    pub(crate) async fn room_with(&self, preset: Preset, state: &[(&str, Value)]) -> OwnedRoomId {
        let mut request = CreateRoom::new(user(ALICE), profile("Alice"));
        request.preset = Some(preset);
        request.initial_state = state
            .iter()
            .map(|(event_type, content)| StateDraft {
                event_type: (*event_type).to_owned(),
                state_key: String::new(),
                content: object(content.clone()),
            })
            .collect();
        self.rooms
            .create_room(request)
            .await
            .expect("the room is made")
    }

    pub(crate) fn enter(room: &RoomId, who: &str) -> Enter {
        Enter {
            room_id: room.to_owned(),
            user: user(who),
            profile: profile(who),
            reason: None,
            extra: JsonObject::new(),
        }
    }

    pub(crate) async fn join(&self, room: &RoomId, who: &str) {
        self.try_join(room, who).await.expect("the user may join");
    }

    pub(crate) async fn try_join(&self, room: &RoomId, who: &str) -> Result<(), ()> {
        let joined = self.rooms.join(Self::enter(room, who)).await;
        joined.map(drop).map_err(drop)
    }

    pub(crate) async fn leave(&self, room: &RoomId, who: &str) {
        self.try_leave(room, who).await.expect("the user may leave");
    }

    pub(crate) async fn try_leave(&self, room: &RoomId, who: &str) -> Result<(), ()> {
        self.rooms.leave(room, &user(who), None).await.map_err(drop)
    }

    pub(crate) async fn invite(&self, room: &RoomId, sender: &str, target: &str) {
        self.try_invite(room, sender, target)
            .await
            .expect("the user may be invited");
    }

    pub(crate) async fn try_invite(
        &self,
        room: &RoomId,
        sender: &str,
        target: &str,
    ) -> Result<(), ()> {
        let invite = Invite {
            room_id: room.to_owned(),
            sender: user(sender),
            target: user(target),
            profile: profile(target),
            reason: None,
            is_direct: false,
        };
        self.rooms.invite(invite).await.map(drop).map_err(drop)
    }

    pub(crate) fn moderate(room: &RoomId, sender: &str, target: &str) -> Moderate {
        Moderate {
            room_id: room.to_owned(),
            sender: user(sender),
            target: user(target),
            reason: None,
        }
    }

    pub(crate) async fn say(&self, room: &RoomId, who: &str, text: &str) -> String {
        self.send(
            room,
            who,
            "m.room.message",
            json!({"msgtype": "m.text", "body": text, "m.mentions": {}}),
        )
        .await
    }

    pub(crate) async fn send(
        &self,
        room: &RoomId,
        who: &str,
        kind: &str,
        content: Value,
    ) -> String {
        self.try_send(room, who, kind, content)
            .await
            .expect("the message may be sent")
    }

    /// A message that mentions nobody.
    pub(crate) fn message(room: &RoomId, who: &str, text: &str) -> SendMessage {
        SendMessage {
            room_id: room.to_owned(),
            sender: user(who),
            event_type: "m.room.message".to_owned(),
            content: object(json!({"msgtype": "m.text", "body": text, "m.mentions": {}})),
            transaction: None,
        }
    }

    pub(crate) async fn try_send(
        &self,
        room: &RoomId,
        who: &str,
        kind: &str,
        content: Value,
    ) -> Result<String, ()> {
        let message = SendMessage {
            room_id: room.to_owned(),
            sender: user(who),
            event_type: kind.to_owned(),
            content: object(content),
            transaction: None,
        };
        let sent = self.rooms.send_message(message).await;
        sent.map(|id| id.to_string()).map_err(drop)
    }

    pub(crate) async fn set(
        &self,
        room: &RoomId,
        who: &str,
        kind: &str,
        key: &str,
        content: Value,
    ) -> String {
        self.try_set(room, who, kind, key, content)
            .await
            .expect("the state may be set")
    }

    pub(crate) async fn try_set(
        &self,
        room: &RoomId,
        who: &str,
        kind: &str,
        key: &str,
        content: Value,
    ) -> Result<String, ()> {
        let state = SendState {
            room_id: room.to_owned(),
            sender: user(who),
            event_type: kind.to_owned(),
            state_key: key.to_owned(),
            content: object(content),
        };
        let sent = self.rooms.send_state(state).await;
        sent.map(|id| id.to_string()).map_err(drop)
    }

    pub(crate) async fn redact(&self, room: &RoomId, who: &str, event: &str) {
        let redact = Redact {
            room_id: room.to_owned(),
            sender: user(who),
            event_id: EventId::parse(event).expect("event ids are well-formed"),
            content: JsonObject::new(),
            transaction: None,
        };
        let redacted = self.rooms.redact(redact).await;
        redacted.expect("the event may be redacted");
    }

    pub(crate) async fn read(
        &self,
        room: &RoomId,
        who: &str,
        event: &str,
        kind: ReceiptKind,
        thread: Thread,
    ) {
        let receipt = NewReceipt {
            kind,
            thread,
            event_id: EventId::parse(event).expect("event ids are well-formed"),
        };
        self.rooms
            .set_receipts(room, &user(who), vec![receipt])
            .await
            .expect("the receipt may be set");
    }

    pub(crate) async fn account_data(
        &self,
        who: &Client,
        room: RoomNum,
        kind: &str,
        content: Value,
    ) {
        let content = RawJson::of(&content).expect("a value is JSON");
        self.accounts
            .set_account_data(who.viewer.user, room, kind, content)
            .await
            .expect("account data may be set");
    }
}

impl Client {
    pub(crate) fn filter(mut self, filter: Value) -> Self {
        self.filter = filter;
        self
    }

    pub(crate) fn request(&self, timeout: Duration) -> SyncRequest {
        let filter: FilterDefinition =
            serde_json::from_value(self.filter.clone()).expect("a filter");
        SyncRequest {
            viewer: self.viewer.clone(),
            since: self.since,
            filter: Arc::new(filter),
            full_state: self.full_state,
            timeout,
            use_state_after: self.state_after,
        }
    }

    /// Syncs at once, and goes on from there.
    pub(crate) async fn sync(&mut self) -> Value {
        self.wait(Duration::ZERO).await
    }

    /// Syncs when there is something, and goes on from there.
    pub(crate) async fn wait(&mut self, timeout: Duration) -> Value {
        let response: Response = self
            .sync
            .sync(self.request(timeout))
            .await
            .expect("syncs are answered");
        self.since = Some(response.next_batch.parse().expect("the token is one"));
        serde_json::to_value(response).expect("a response is JSON")
    }
}

/// What a section of a response says of a room; null if nothing.
pub(crate) fn of<'a>(response: &'a Value, section: &str, room: &RoomId) -> &'a Value {
    &response["rooms"][section][room.as_str()]
}

/// The texts of messages, and the types of other events, with their state keys.
pub(crate) fn brief(events: &Value) -> Vec<String> {
    let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
    let brief = events.iter().map(|event| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match (&event["content"]["body"], &event["state_key"]) {
            (Value::String(body), _) => body.clone(),
            (_, Value::String(key)) if event["type"] == "m.room.member" => {
                format!(
                    "{} {}",
                    text(&event["content"]["membership"]),
                    key.split(':').next().unwrap_or_default()
                )
            }
            _ => text(&event["type"]),
        }
    });
    brief.collect()
}
