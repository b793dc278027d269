//! For tests of memberships: what users of both servers do, and rooms of which the server under test knows nothing.

use std::sync::Arc;

use http::Method;
use myelin_rooms::{SendState, remote::InviteDraft};
use myelin_rules::{EventBuilder, EventRef, Pdu, RoomVersion};
use ruma::{OwnedRoomId, RoomId, user_id};
use serde_json::{Value, json, value::RawValue};

use crate::testing::{CHARLIE, Here, NOW, there_path};

/// A user of the server under test.
pub(crate) const ALICE: &str = "@alice:here.example";

impl Here {
    /// From now on the user wants no invitations.
    pub(crate) async fn block_invitations(&self, user: &str) {
        let user = <&ruma::UserId>::try_from(user).expect("a user id");
        let num = self.rooms.interner().user(user).await.expect("interns");
        let content = myelin_data::RawJson::of(&json!({ "default_action": "block" }));
        self.accounts()
            .set_account_data(
                num,
                myelin_types::RoomNum::NONE,
                "m.invite_permission_config",
                content.expect("it is JSON"),
            )
            .await
            .expect("it is allowed");
    }

    /// What a user is shown of a room outside of which he waits.
    pub(crate) async fn shown_to(&self, user: &str, room: &RoomId) -> Vec<Value> {
        let user = <&ruma::UserId>::try_from(user).expect("a user id");
        let num = self.rooms.interner().user(user).await.expect("interns");
        let view = self.rooms.store().view();
        let Some(handle) = self.rooms.find(&view, room).expect("the store reads") else {
            return Vec::new();
        };
        let shown = self.rooms.shown_to(&view, num, &[handle.num]);
        let shown = shown.expect("the store reads").pop().unwrap_or_default();
        let shown = shown.iter().map(|event| serde_json::from_str(event.get()));
        shown.map(|event| event.expect("it is JSON")).collect()
    }

    /// Alice sets a piece of state.
    pub(crate) async fn set_state(&self, room: &RoomId, kind: &str, key: &str, content: Value) {
        let Value::Object(content) = content else {
            panic!("a content is an object");
        };
        self.rooms
            .send_state(SendState {
                room_id: room.to_owned(),
                sender: user_id!("@alice:here.example").to_owned(),
                event_type: kind.to_owned(),
                state_key: key.to_owned(),
                content,
            })
            .await
            .expect("Alice may do that");
    }

    /// Whoever wants may knock from now on.
    pub(crate) async fn let_knock(&self, room: &RoomId) {
        let rule = json!({ "join_rule": "knock" });
        self.set_state(room, "m.room.join_rules", "", rule).await;
    }

    /// Alice invites Charlie, and his server signs it.
    pub(crate) async fn invite_charlie(&self, room: &RoomId) {
        let content = json!({ "membership": "invite" });
        let drawn = self
            .rooms
            .draw_up_invite(InviteDraft {
                room_id: room.to_owned(),
                sender: user_id!("@alice:here.example").to_owned(),
                target: user_id!("@charlie:there.example").to_owned(),
                content: content.as_object().expect("an object").clone(),
            })
            .await
            .expect("Alice may invite");
        let signed = drawn.event.countersigned(&self.there);
        let signed = RawValue::from_string(signed.json().to_owned()).expect("it is JSON");
        let fetch = Arc::new(self.federation.clone());
        self.rooms
            .complete_invite(fetch, drawn.event, signed)
            .await
            .expect("it is signed");
    }

    /// The event that comes of a template, signed by the other server.
    pub(crate) async fn filled_in(
        &self,
        operation: &str,
        room: &RoomId,
        user: &str,
        query: &str,
    ) -> Pdu {
        let path = there_path(&format!("v1/{operation}"), room, user);
        let path = format!("{path}{query}");
        let answer = self.signed(Method::GET, &path, None).await.ok();
        let event = &answer["event"];
        let references = |field: &str| {
            let ids = event[field].as_array().expect("a list of events");
            ids.iter()
                .map(|id| EventRef::id(id.as_str().expect("an id")))
                .collect()
        };
        let builder = EventBuilder {
            room_id: Some(room.to_string()),
            sender: user.to_owned(),
            event_type: "m.room.member".to_owned(),
            state_key: Some(user.to_owned()),
            content: event["content"].as_object().expect("a content").clone(),
            redacts: None,
            prev_events: references("prev_events"),
            auth_events: references("auth_events"),
            depth: event["depth"].as_i64().expect("a depth"),
            origin_server_ts: NOW,
        };
        builder
            .sign(RoomVersion::V11, &self.there)
            .expect("the template is sound")
    }

    /// What a user is in a room, as its state says.
    pub(crate) fn membership(&self, room: &RoomId, user: &str) -> &'static str {
        let user = <&ruma::UserId>::try_from(user).expect("a user id");
        let view = self.rooms.store().view();
        let room = myelin_rooms::read::RoomView::find(&self.rooms, &view, room)
            .expect("the store reads")
            .expect("the room is there");
        let state = room.current().expect("the store reads");
        let membership = room.membership(state, user);
        membership.expect("the store reads").as_str()
    }
}

/// A room of the other server's, of which the server under test knows nothing.
pub(crate) struct Theirs<'a> {
    here: &'a Here,
    /// Its version.
    pub(crate) version: RoomVersion,
    /// Its id.
    pub(crate) room: OwnedRoomId,
    create: Pdu,
}

impl<'a> Theirs<'a> {
    /// A room of this version.
    pub(crate) fn new(here: &'a Here, version: &str) -> Self {
        let version: RoomVersion = version.parse().expect("a version of ours");
        let create = Self::create(here, version, version.as_str());
        let room = OwnedRoomId::try_from(create.room_id()).expect("a room id");
        Self {
            here,
            version,
            room,
            create,
        }
    }

    fn create(here: &Here, version: RoomVersion, named: &str) -> Pdu {
        let by_hash = version.rules().room_id_is_create_hash;
        let content = json!({ "room_version": named, "creator": CHARLIE });
        let builder = EventBuilder {
            room_id: (!by_hash).then(|| "!theirs:there.example".to_owned()),
            sender: CHARLIE.to_owned(),
            event_type: "m.room.create".to_owned(),
            state_key: Some(String::new()),
            content: content.as_object().expect("an object").clone(),
            redacts: None,
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 1,
            origin_server_ts: NOW,
        };
        builder
            .sign(version, &here.there)
            .expect("the event is sound")
    }

    /// A state event of Charlie's.
    pub(crate) fn event(&self, kind: &str, key: &str, content: Value) -> Pdu {
        let create = EventRef::from(&self.create);
        let in_auth = !self.version.rules().room_id_is_create_hash;
        let builder = EventBuilder {
            room_id: Some(self.room.to_string()),
            sender: CHARLIE.to_owned(),
            event_type: kind.to_owned(),
            state_key: Some(key.to_owned()),
            content: content.as_object().expect("an object").clone(),
            redacts: None,
            prev_events: vec![create.clone()],
            auth_events: in_auth.then_some(create).into_iter().collect(),
            depth: 2,
            origin_server_ts: NOW,
        };
        builder
            .sign(self.version, &self.here.there)
            .expect("the event is sound")
    }

    /// A membership event of Charlie's.
    pub(crate) fn member(&self, user: &str, content: Value) -> Pdu {
        self.event("m.room.member", user, content)
    }

    /// An invitation by Charlie.
    pub(crate) fn invite(&self, user: &str, mut content: Value) -> Pdu {
        content["membership"] = json!("invite");
        self.member(user, content)
    }

    /// What his server tells of the room.
    pub(crate) fn state(&self) -> Vec<Value> {
        let name = self.event("m.room.name", "", json!({ "name": "Theirs" }));
        let events = [&self.create, &name].map(|event| serde_json::from_str(event.json()));
        events.map(|event| event.expect("an event is JSON")).into()
    }

    /// The create event of such a room that says it had another version.
    pub(crate) fn create_of_version(&self, named: &str) -> Value {
        let create = Self::create(self.here, self.version, named);
        serde_json::from_str(create.json()).expect("an event is JSON")
    }
}
