//! A room in memory: builds events on top of its state, as a server would.

use myelin_rules::{
    AuthError, EventBuilder, EventRef, Object, Pdu, RoomVersion, Signer, SigningKey,
    auth::{self, AuthEvents, AuthState},
};
use myelin_types::Millis;
use serde_json::{Value, json};

pub(crate) const CREATOR: &str = "@creator:a.org";
pub(crate) const MOD: &str = "@mod:a.org";
pub(crate) const USER: &str = "@user:a.org";
pub(crate) const OTHER: &str = "@other:b.org";
pub(crate) const STRANGER: &str = "@stranger:b.org";

/// The key that the spec's test vectors use, as a key of `server_name`.
pub(crate) fn signer(server_name: &str) -> Signer {
    let key = SigningKey::from_file_format("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
        .expect("the spec's seed is a seed");
    Signer::new(server_name, key)
}

pub(crate) fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        other => panic!("not an object: {other}"),
    }
}

pub(crate) struct Room {
    pub(crate) version: RoomVersion,
    pub(crate) state: AuthEvents,
    pub(crate) last: Option<Pdu>,
    signer: Signer,
    events: u64,
    history: Vec<Pdu>,
}

impl Room {
    /// A room of which nothing exists.
    pub(crate) fn empty(version: RoomVersion) -> Self {
        Self {
            version,
            state: AuthEvents::default(),
            last: None,
            signer: signer("a.org"),
            events: 0,
            history: Vec::new(),
        }
    }

    /// A room with the creator in it.
    pub(crate) fn created(version: RoomVersion) -> Self {
        let mut room = Self::empty(version);
        room.add(CREATOR, "m.room.create", Some(""), create_content(version));
        room.add(
            CREATOR,
            "m.room.member",
            Some(CREATOR),
            json!({ "membership": "join" }),
        );
        room
    }

    /// A public room with creator (100), moderator (50), and two users, one of another server.
    pub(crate) fn peopled(version: RoomVersion) -> Self {
        let mut room = Self::created(version);
        let mut users = json!({ MOD: 50 });
        if version < RoomVersion::V12 {
            users[CREATOR] = json!(100);
        }
        room.add(
            CREATOR,
            "m.room.power_levels",
            Some(""),
            json!({ "users": users, "invite": 50, "events": { "m.room.name": 50, "only.admin": 100 } }),
        );
        room.join_rule("public");
        for user in [MOD, USER, OTHER] {
            room.add(
                user,
                "m.room.member",
                Some(user),
                json!({ "membership": "join" }),
            );
        }
        room
    }

    pub(crate) fn join_rule(&mut self, rule: &str) {
        self.add(
            CREATOR,
            "m.room.join_rules",
            Some(""),
            json!({ "join_rule": rule }),
        );
    }

    /// An event that follows the last one.
    pub(crate) fn event(
        &mut self,
        sender: &str,
        event_type: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> Pdu {
        self.build(sender, event_type, state_key, content, |_| {})
    }

    pub(crate) fn build(
        &mut self,
        sender: &str,
        event_type: &str,
        state_key: Option<&str>,
        content: Value,
        change: impl FnOnce(&mut EventBuilder),
    ) -> Pdu {
        self.events += 1;
        let content = object(content);
        let auth_events = auth::auth_types(self.version, event_type, sender, state_key, &content)
            .iter()
            .filter_map(|(event_type, state_key)| self.state.get(event_type, state_key))
            .map(EventRef::from)
            .collect();
        let mut builder = EventBuilder {
            room_id: self.room_id(event_type),
            sender: sender.to_owned(),
            event_type: event_type.to_owned(),
            state_key: state_key.map(str::to_owned),
            content,
            redacts: None,
            prev_events: self.last.iter().map(EventRef::from).collect(),
            auth_events,
            depth: self.last.as_ref().map_or(1, |last| last.depth() + 1),
            origin_server_ts: Millis(1_700_000_000_000 + self.events),
        };
        change(&mut builder);
        builder
            .sign(self.version, &self.signer)
            .expect("the event is well formed")
    }

    /// Checks an event as if it came next.
    pub(crate) fn check(
        &mut self,
        sender: &str,
        event_type: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> Result<(), AuthError> {
        let event = self.event(sender, event_type, state_key, content);
        auth::check(&event, &self.state)
    }

    /// Checks a membership event as if it came next.
    pub(crate) fn check_member(
        &mut self,
        sender: &str,
        target: &str,
        membership: &str,
    ) -> Result<(), AuthError> {
        let content = json!({ "membership": membership });
        self.check(sender, "m.room.member", Some(target), content)
    }

    /// Adds an event, which must be allowed.
    pub(crate) fn add(
        &mut self,
        sender: &str,
        event_type: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> Pdu {
        let event = self.event(sender, event_type, state_key, content);
        auth::check(&event, &self.state)
            .unwrap_or_else(|error| panic!("{event:?} is not allowed: {error}"));
        self.apply(event.clone());
        event
    }

    /// Adds an event, allowed or not.
    pub(crate) fn force(
        &mut self,
        sender: &str,
        event_type: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> Pdu {
        let event = self.event(sender, event_type, state_key, content);
        self.apply(event.clone());
        event
    }

    /// Sets a membership, allowed or not.
    pub(crate) fn force_member(&mut self, user: &str, membership: &str) {
        let content = json!({ "membership": membership });
        self.force(user, "m.room.member", Some(user), content);
    }

    /// Everything that was added.
    pub(crate) fn history(&self) -> &[Pdu] {
        &self.history
    }

    fn apply(&mut self, event: Pdu) {
        self.history.push(event.clone());
        if event.state_key().is_some() {
            self.state.insert(event.clone());
        }
        self.last = Some(event);
    }

    fn room_id(&self, event_type: &str) -> Option<String> {
        match self.state.create() {
            Some(create) if event_type != "m.room.create" => Some(create.room_id().to_owned()),
            _ if self.version >= RoomVersion::V12 => None,
            _ => Some("!room:a.org".to_owned()),
        }
    }
}

pub(crate) fn create_content(version: RoomVersion) -> Value {
    if version < RoomVersion::V11 {
        json!({ "creator": CREATOR, "room_version": version })
    } else {
        json!({ "room_version": version })
    }
}
