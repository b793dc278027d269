//! Resolution of states of generated histories, against `ruma`; of room version 1, which it does not know, by example.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    convert::Infallible,
};

use myelin_rules::{
    Pdu, RoomVersion,
    auth::AuthEvents,
    resolve::{self, Differing, Graph, Key, Known},
};
use myelin_types::Millis;
use proptest::prelude::*;
use ruma::{
    EventId, OwnedEventId, RoomVersionId,
    state_res::{self, StateMap, utils::event_id_set::EventIdSet},
};
use serde_json::{Value, json};

use crate::{
    authorisation_oracle::{OracleEvent, user, valid_levels},
    support::{CREATOR, MOD, OTHER, Room, USER},
};

pub(crate) type State = BTreeMap<Key, Pdu>;

/// All events of a room, some states of it, and what these agree in.
struct Around<'a> {
    events: HashMap<String, Pdu>,
    states: &'a [State],
    agreed: State,
}

impl Graph for Around<'_> {
    type Error = Infallible;

    fn event(&self, event_id: &str) -> Result<Option<Known>, Infallible> {
        Ok(self.events.get(event_id).map(|event| Known {
            event: event.clone(),
            rejected: false,
        }))
    }

    fn agreed(&self, event_type: &str, state_key: &str) -> Result<Option<Pdu>, Infallible> {
        let key = (event_type.to_owned(), state_key.to_owned());
        Ok(self.agreed.get(&key).cloned())
    }

    fn auth_difference(&self) -> Result<BTreeSet<String>, Infallible> {
        let chains: Vec<HashSet<String>> = self
            .states
            .iter()
            .map(|state| full_chain(&self.events, state))
            .collect();
        let in_all = |id: &&String| chains.iter().all(|chain| chain.contains(*id));
        let some = chains.iter().flatten();
        Ok(some.filter(|id| !in_all(id)).cloned().collect())
    }
}

fn state_of(events: &AuthEvents) -> State {
    events
        .iter()
        .filter_map(|event| {
            let state_key = event.state_key()?.to_owned();
            Some(((event.event_type().to_owned(), state_key), event.clone()))
        })
        .collect()
}

pub(crate) fn ids(state: &State) -> BTreeMap<Key, String> {
    state
        .iter()
        .map(|(key, event)| (key.clone(), event.event_id().to_owned()))
        .collect()
}

/// The whole state that our resolution comes to.
pub(crate) fn resolved(
    version: RoomVersion,
    states: &[State],
    events: &HashMap<String, Pdu>,
) -> State {
    let mut agreed = states[0].clone();
    agreed.retain(|key, event| {
        states.iter().all(|state| {
            state
                .get(key)
                .is_some_and(|other| other.event_id() == event.event_id())
        })
    });
    let differing: Vec<Differing> = states
        .iter()
        .map(|state| {
            let mut state = state.clone();
            state.retain(|key, _| !agreed.contains_key(key));
            state
        })
        .collect();
    let around = Around {
        events: events.clone(),
        states,
        agreed,
    };
    let Ok(mut state) = resolve::resolve(version, &differing, &around);
    for key in state.keys() {
        assert!(
            !around.agreed.contains_key(key),
            "{key:?} is not in question"
        );
    }
    state.extend(around.agreed);
    state
}

fn chain(events: &HashMap<String, Pdu>, from: &[&Pdu]) -> HashSet<String> {
    let mut left: Vec<String> = from
        .iter()
        .flat_map(|event| event.auth_events().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let mut seen = HashSet::new();
    while let Some(id) = left.pop() {
        if seen.insert(id.clone()) {
            left.extend(events[&id].auth_events().map(str::to_owned));
        }
    }
    seen
}

/// The full auth chain of a state, with its own events.
fn full_chain(events: &HashMap<String, Pdu>, state: &State) -> HashSet<String> {
    let mut chain = chain(events, &state.values().collect::<Vec<_>>());
    chain.extend(state.values().map(|event| event.event_id().to_owned()));
    chain
}

/// The whole state that the oracle comes to.
pub(crate) fn expected(
    version: RoomVersion,
    states: &[State],
    events: &HashMap<String, Pdu>,
) -> BTreeMap<Key, String> {
    let id = |id: &str| OwnedEventId::try_from(id).expect("an event id");
    let maps: Vec<StateMap<OwnedEventId>> = states
        .iter()
        .map(|state| {
            state
                .iter()
                .map(|((kind, key), event)| {
                    ((kind.as_str().into(), key.clone()), id(event.event_id()))
                })
                .collect()
        })
        .collect();
    let chains = states
        .iter()
        .map(|state| {
            full_chain(events, state)
                .iter()
                .map(|text| id(text))
                .collect()
        })
        .collect();
    let rules = RoomVersionId::try_from(version.as_str())
        .expect("the oracle knows the version")
        .rules()
        .expect("the oracle knows its rules");
    let found = state_res::resolve(
        &rules.authorization,
        rules.state_res.v2_rules().expect("not version 1"),
        &maps,
        chains,
        |id: &EventId| events.get(id.as_str()).map(OracleEvent::new),
        |conflicted: &StateMap<Vec<OwnedEventId>>| {
            let conflicted: HashSet<&str> = conflicted
                .values()
                .flatten()
                .map(|id| id.as_str())
                .collect();
            let from: Vec<&Pdu> = conflicted.iter().map(|id| &events[*id]).collect();
            let reached = chain(events, &from);
            let on_path: EventIdSet<OwnedEventId> = reached
                .iter()
                .map(String::as_str)
                .chain(conflicted.iter().copied())
                .filter(|id| {
                    let before = chain(events, &[&events[*id]]);
                    conflicted.contains(id)
                        || before.iter().any(|id| conflicted.contains(id.as_str()))
                })
                .map(id)
                .collect();
            Some(on_path)
        },
    )
    .expect("the oracle resolves");
    found
        .into_iter()
        .map(|((kind, key), id)| ((kind.to_string(), key), id.to_string()))
        .collect()
}

/// Something that a user tries in a branch.
#[derive(Clone, Debug)]
struct Act {
    sender: &'static str,
    kind: &'static str,
    state_key: &'static str,
    content: Value,
    /// Clocks are not to be trusted.
    late: u64,
}

fn act() -> impl Strategy<Value = Act> {
    let membership = prop::sample::select(vec!["join", "join", "leave", "invite", "ban", "ban"]);
    let member = (user(), user(), membership, any::<bool>());
    let member = member.prop_map(|(sender, target, membership, own)| {
        let state_key = if own { sender } else { target };
        (
            "m.room.member",
            sender,
            state_key,
            json!({ "membership": membership }),
        )
    });
    let levels = (prop::sample::select(vec![CREATOR, MOD]), valid_levels())
        .prop_map(|(sender, content)| ("m.room.power_levels", sender, "", content));
    let rule = prop::sample::select(vec!["public", "invite"]);
    let rules = (prop::sample::select(vec![CREATOR, MOD]), rule).prop_map(|(sender, rule)| {
        (
            "m.room.join_rules",
            sender,
            "",
            json!({ "join_rule": rule }),
        )
    });
    let other = prop::sample::select(vec!["m.room.name", "m.room.topic"]);
    let other = (user(), other, 0..3)
        .prop_map(|(sender, kind, text)| (kind, sender, "", json!({ "text": text })));
    let any = prop_oneof![4 => member, 2 => levels, 1 => rules, 3 => other];
    (any, 0..5_u64).prop_map(|((kind, sender, state_key, content), late)| Act {
        sender,
        kind,
        state_key,
        content,
        late,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn resolves_as_ruma_does(
        version in prop::sample::select(vec![RoomVersion::V6, RoomVersion::V10, RoomVersion::V11, RoomVersion::V12]),
        branches in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(act(), 1..8)), 2..5),
    ) {
        let mut base = Room::peopled(version);
        let mut users = json!({ MOD: 50 });
        if version < RoomVersion::V12 {
            users[CREATOR] = json!(100);
        }
        // Every level is given, since absent ones are read differently by the oracle.
        base.add(CREATOR, "m.room.power_levels", Some(""), json!({
            "users_default": 0, "events_default": 0, "state_default": 50, "ban": 50, "redact": 50, "kick": 50,
            "invite": 0, "users": users, "events": { "m.room.topic": 0 }, "notifications": {},
        }));
        let mut events: HashMap<String, Pdu> = HashMap::new();
        events.extend(base.history().iter().map(|event| (event.event_id().to_owned(), event.clone())));

        let mut points = vec![(base.state.clone(), base.last.clone())];
        let mut ends = Vec::new();
        for (start, acts) in branches {
            let (state, last) = start.get(&points).clone();
            let mut room = Room::empty(version);
            (room.state, room.last) = (state, last);
            for act in acts {
                let event = room.build(act.sender, act.kind, Some(act.state_key), act.content, |event| {
                    event.origin_server_ts = Millis(1_700_000_100_000 + act.late);
                });
                if myelin_rules::auth::check(&event, &room.state).is_ok() {
                    events.insert(event.event_id().to_owned(), event.clone());
                    room.state.insert(event.clone());
                    room.last = Some(event);
                }
                points.push((room.state.clone(), room.last.clone()));
            }
            ends.push(state_of(&room.state));
        }
        let found = ids(&resolved(version, &ends, &events));
        prop_assert_eq!(found, expected(version, &ends, &events));
    }
}

#[test]
fn version_1_lets_deeper_events_win_and_checks_them() {
    let version = RoomVersion::V1;
    let base = Room::peopled(version);
    let branch = || {
        let mut room = Room::empty(version);
        (room.state, room.last) = (base.state.clone(), base.last.clone());
        room
    };
    let mut events: HashMap<String, Pdu> = HashMap::new();
    let mut one = branch();
    let name = json!({ "name": "One" });
    one.add(MOD, "m.room.name", Some(""), name);
    let topic = one.add(CREATOR, "m.room.topic", Some(""), json!({ "topic": "One" }));
    let mut other = branch();
    let ban = other.add(
        CREATOR,
        "m.room.member",
        Some(USER),
        json!({ "membership": "ban" }),
    );
    let left = other.add(
        OTHER,
        "m.room.member",
        Some(OTHER),
        json!({ "membership": "leave" }),
    );
    let deeper = other.add(MOD, "m.room.name", Some(""), json!({ "name": "Other" }));
    for event in base.history().iter().chain([&topic, &ban, &left, &deeper]) {
        events.insert(event.event_id().to_owned(), event.clone());
    }
    let states = [state_of(&one.state), state_of(&other.state)];
    let found = resolved(version, &states, &events);
    let entry = |kind: &str, key: &str| {
        let key = (kind.to_owned(), key.to_owned());
        found.get(&key).map(|event| event.event_id().to_owned())
    };
    let id = |event: &Pdu| Some(event.event_id().to_owned());
    assert_eq!(entry("m.room.name", ""), id(&deeper));
    assert_eq!(
        entry("m.room.topic", ""),
        id(&topic),
        "only one branch has it"
    );
    assert_eq!(entry("m.room.member", USER), id(&ban));
    assert_eq!(entry("m.room.member", OTHER), id(&left));
}
