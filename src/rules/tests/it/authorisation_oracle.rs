//! Authorisation of generated events in generated rooms, against `ruma`.

use myelin_rules::{Pdu, RoomVersion, auth};
use proptest::prelude::*;
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId,
    RoomVersionId, UInt, UserId,
    events::{StateEventType, TimelineEventType},
    state_res::{Event, check_state_dependent_auth_rules, check_state_independent_auth_rules},
};
use serde_json::{Value, json, value::RawValue};

use crate::support::{CREATOR, MOD, OTHER, Room, STRANGER, USER};

/// An event as the oracle wants it.
#[derive(Clone)]
pub(crate) struct OracleEvent {
    pub(crate) id: OwnedEventId,
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    event_type: TimelineEventType,
    content: Box<RawValue>,
    redacts: Option<OwnedEventId>,
    prev_events: Vec<OwnedEventId>,
    auth_events: Vec<OwnedEventId>,
    event: Pdu,
}

impl OracleEvent {
    pub(crate) fn new(event: &Pdu) -> Self {
        let id = |id: &str| OwnedEventId::try_from(id).expect("an event ID");
        let has_room_id = event.json().contains("\"room_id\":");
        Self {
            id: id(event.event_id()),
            room_id: has_room_id.then(|| event.room_id().try_into().expect("a room ID")),
            sender: event.sender().try_into().expect("a user ID"),
            event_type: event.event_type().into(),
            content: RawValue::from_string(event.content_json().to_owned()).expect("JSON"),
            redacts: event.redacts().map(id),
            prev_events: event.prev_events().map(id).collect(),
            auth_events: event.auth_events().map(id).collect(),
            event: event.clone(),
        }
    }
}

impl Event for OracleEvent {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.id
    }

    fn room_id(&self) -> Option<&RoomId> {
        self.room_id.as_deref()
    }

    fn sender(&self) -> &UserId {
        &self.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        let at = self.event.origin_server_ts().0;
        MilliSecondsSinceUnixEpoch(UInt::try_from(at).expect("tests happen in our days"))
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.event_type
    }

    fn content(&self) -> &RawValue {
        &self.content
    }

    fn state_key(&self) -> Option<&str> {
        self.event.state_key()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.auth_events.iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        false
    }
}

pub(crate) fn user() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![CREATOR, MOD, USER, OTHER, STRANGER])
}

fn membership() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["join", "leave", "invite", "ban", "knock", "odd"])
}

fn level() -> impl Strategy<Value = Value> {
    prop_oneof![
        8 => prop::sample::select(vec![0, 1, 40, 50, 51, 99, 100, 101, -1]).prop_map(Value::from),
        1 => prop::sample::select(vec!["50", " 100 ", "-1", "x"]).prop_map(Value::from),
    ]
}

/// Power levels with every single level given: what an absent one means is read differently by the oracle.
fn levels() -> impl Strategy<Value = Value> {
    let single = prop::array::uniform7(level());
    let users = prop::collection::btree_map(user(), level(), 0..4);
    let events = prop::collection::btree_map(
        prop::sample::select(vec![
            "m.room.name",
            "m.room.message",
            "m.room.power_levels",
            "m.room.redaction",
        ]),
        level(),
        0..3,
    );
    let notifications =
        prop::collection::btree_map(prop::sample::select(vec!["room", "x"]), level(), 0..2);
    (single, users, events, notifications).prop_map(|(single, users, events, notifications)| {
        let [users_default, events_default, state_default, ban, redact, kick, invite] = single;
        json!({
            "users_default": users_default, "events_default": events_default, "state_default": state_default,
            "ban": ban, "redact": redact, "kick": kick, "invite": invite, "users": users, "events": events,
            "notifications": notifications,
        })
    })
}

pub(crate) fn valid_levels() -> impl Strategy<Value = Value> {
    levels().prop_map(|mut levels| {
        // State events have passed the rules once: numbers are numbers.
        fn repair(value: &mut Value) {
            match value {
                Value::Object(object) => object.values_mut().for_each(repair),
                Value::String(_) => *value = json!(50),
                _ => {}
            }
        }
        repair(&mut levels);
        if let Some(users) = levels["users"].as_object_mut() {
            users.remove(CREATOR);
        }
        levels
    })
}

#[derive(Clone, Debug)]
struct Candidate {
    sender: &'static str,
    event_type: &'static str,
    state_key: Option<&'static str>,
    content: Value,
    redacts: Option<&'static str>,
    right_after_create: bool,
}

fn candidate() -> impl Strategy<Value = Candidate> {
    let member = (
        user(),
        user(),
        membership(),
        prop::option::of(user()),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(sender, target, membership, authoriser, own, right_after_create)| {
                let mut content = json!({ "membership": membership });
                if let Some(authoriser) = authoriser {
                    content["join_authorised_via_users_server"] = json!(authoriser);
                }
                Candidate {
                    sender,
                    event_type: "m.room.member",
                    state_key: Some(if own { sender } else { target }),
                    content,
                    redacts: None,
                    right_after_create,
                }
            },
        );
    let levels = (user(), levels()).prop_map(|(sender, content)| Candidate {
        sender,
        event_type: "m.room.power_levels",
        state_key: Some(""),
        content,
        redacts: None,
        right_after_create: false,
    });
    let other = (
        user(),
        prop::sample::select(vec![
            "m.room.message",
            "m.room.name",
            "m.room.third_party_invite",
            "m.room.aliases",
            "m.room.redaction",
        ]),
        prop::option::of(prop::sample::select(vec!["", "b.org", "a.org", USER, MOD])),
        prop::sample::select(vec!["$x:a.org", "$x:b.org"]),
    )
        .prop_map(|(sender, event_type, state_key, redacts)| Candidate {
            sender,
            event_type,
            state_key,
            content: json!({}),
            redacts: (event_type == "m.room.redaction").then_some(redacts),
            right_after_create: false,
        });
    prop_oneof![4 => member, 3 => levels, 2 => other]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn allows_what_ruma_allows(
        version in prop::sample::select(&RoomVersion::ALL[..]),
        join_rule in prop::sample::select(vec!["public", "invite", "knock", "restricted", "knock_restricted", "private"]),
        memberships in prop::array::uniform5(prop::option::weighted(0.8, prop::sample::select(vec!["join", "join", "leave", "invite", "ban", "knock"]))),
        levels in prop::option::weighted(0.8, valid_levels()),
        candidate in candidate(),
    ) {
        let mut room = Room::created(version);
        let create = room.state.iter().find(|event| event.event_type() == "m.room.create").cloned();
        for (user, membership) in [CREATOR, MOD, USER, OTHER, STRANGER].into_iter().zip(memberships) {
            if let Some(membership) = membership {
                room.force_member(user, membership);
            }
        }
        room.force(CREATOR, "m.room.join_rules", Some(""), json!({ "join_rule": join_rule }));
        if let Some(levels) = levels {
            room.force(CREATOR, "m.room.power_levels", Some(""), levels);
        }
        if candidate.right_after_create {
            room.last.clone_from(&create);
        }
        let event = room.build(
            candidate.sender, candidate.event_type, candidate.state_key, candidate.content.clone(),
            |event| event.redacts = candidate.redacts.map(str::to_owned),
        );

        let rules = RoomVersionId::try_from(version.as_str()).expect("ruma knows the version")
            .rules().expect("ruma knows its rules").authorization;
        let oracle = OracleEvent::new(&event);
        let state: Vec<OracleEvent> = room.state.iter().map(OracleEvent::new).collect();
        let expected = check_state_dependent_auth_rules(&rules, &oracle, |event_type: &StateEventType, state_key: &str| {
            state.iter().find(|event| event.event.is_state(&event_type.to_string(), state_key))
        });
        let found = auth::check(&event, &room.state);
        // The rules speak of `notifications` from version 6 on; the oracle reads them in all versions.
        let before_notifications = version < RoomVersion::V6;
        let read_too_early = before_notifications && format!("{expected:?}").contains("`notifications`");
        prop_assume!(!(found.is_ok() && read_too_early));
        prop_assert_eq!(found.is_ok(), expected.is_ok(), "{:?} by us, {:?} by the oracle", found, expected);

        let expected = check_state_independent_auth_rules(&rules, &oracle, |id: &EventId| {
            state.iter().find(|event| event.id == id)
        });
        let ids: Vec<&str> = event.auth_events().collect();
        let auth_events: Vec<_> = room.state.iter()
            .filter(|auth| ids.contains(&auth.event_id()))
            .map(|event| auth::AuthEvent { event, rejected: false })
            .collect();
        let found = auth::check_auth_events(&event, &auth_events);
        prop_assert_eq!(found.is_ok(), expected.is_ok(), "{:?} by us, {:?} by the oracle", found, expected);
    }
}
