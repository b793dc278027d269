//! Resolution in generated networks: some servers with users of their own send events into one room, which reach the others
//! late, out of order or never; they ban each other and fight for power; one of them follows no rules, forges depths and
//! timestamps, and lets its events grow out of any point of the past. Wherever branches meet, `ruma` must come to the same
//! state, and whoever knows the same events to the same, whichever came first.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use myelin_rules::{
    EventRef, Pdu, RoomVersion,
    auth::{self, AuthEvent, AuthEvents},
};
use myelin_types::Millis;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    resolution::{State, expected, ids, resolved},
    support::{CREATOR, Room},
};

/// The users of each server. The creator's server comes first; the last one is the one that forges.
const USERS: [&[&str]; 4] = [
    &[CREATOR, "@anna:a.org"],
    &["@bob:b.org", "@ben:b.org"],
    &["@carl:c.org", "@cora:c.org"],
    &["@dan:d.org", "@dora:d.org"],
];
const FORGER: usize = USERS.len() - 1;

/// Something that happens in the network.
#[derive(Clone, Debug)]
enum Step {
    /// A user of a server does something.
    Act {
        server: usize,
        user: prop::sample::Index,
        deed: Deed,
        /// How its server's clock goes.
        skew: i64,
        forgery: Forgery,
    },
    /// An event reaches another server, and what it follows with it.
    Arrive {
        from: usize,
        to: usize,
        event: prop::sample::Index,
    },
}

/// What the server without rules makes of an event; the others make none of it.
#[derive(Clone, Debug)]
struct Forgery {
    depth: i64,
    timestamp: Option<u64>,
    /// What it follows instead of the latest events, and whose state authorises it.
    follows: Option<prop::sample::Index>,
    by: Option<prop::sample::Index>,
}

#[derive(Clone, Debug)]
enum Deed {
    Membership(&'static str, &'static str),
    Own(&'static str),
    Power(&'static str, i64),
    Threshold(&'static str, i64),
    JoinRule(&'static str),
    Text(&'static str, u8),
    Message,
}

fn anybody() -> impl Strategy<Value = &'static str> {
    prop::sample::select(USERS.concat())
}

fn deed() -> impl Strategy<Value = Deed> {
    let select = prop::sample::select::<&'static str>;
    prop_oneof![
        4 => (anybody(), select(vec!["ban", "ban", "leave", "invite"])).prop_map(|(user, to)| Deed::Membership(user, to)),
        2 => select(vec!["join", "join", "leave"]).prop_map(Deed::Own),
        5 => (anybody(), prop::sample::select(vec![0, 50, 99, 100])).prop_map(|(user, level)| Deed::Power(user, level)),
        2 => (select(vec!["ban", "invite", "state_default", "users_default"]), prop::sample::select(vec![0, 50, 100]))
            .prop_map(|(what, level)| Deed::Threshold(what, level)),
        1 => select(vec!["public", "invite"]).prop_map(Deed::JoinRule),
        4 => (select(vec!["m.room.name", "m.room.topic"]), 0..3_u8).prop_map(|(what, text)| Deed::Text(what, text)),
        1 => Just(Deed::Message),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let forgery = (
        prop_oneof![1..100_i64, Just(i64::from(u32::MAX))],
        prop::option::of(prop::sample::select(vec![
            0,
            1_700_000_000_000,
            1_900_000_000_000,
        ])),
        prop::option::of(any::<prop::sample::Index>()),
        prop::option::weighted(0.2, any::<prop::sample::Index>()),
    )
        .prop_map(|(depth, timestamp, follows, by)| Forgery {
            depth,
            timestamp,
            follows,
            by,
        });
    let server = 0..USERS.len();
    let act = (
        server.clone(),
        any::<prop::sample::Index>(),
        deed(),
        -20..20_i64,
        forgery,
    );
    let arrive = (server.clone(), server, any::<prop::sample::Index>());
    prop_oneof![
        3 => act.prop_map(|(server, user, deed, skew, forgery)| Step::Act { server, user, deed, skew, forgery }),
        2 => arrive.prop_map(|(from, to, event)| Step::Arrive { from, to, event }),
    ]
}

/// An event, and what everybody who has it thinks of it.
struct Node {
    event: Pdu,
    rejected: bool,
    after: State,
}

/// What one server knows.
#[derive(Clone, Default)]
struct Server {
    /// In the order of arrival: each event after those that it follows.
    known: Vec<String>,
    heads: BTreeSet<String>,
}

struct Network {
    version: RoomVersion,
    nodes: HashMap<String, Node>,
    /// The same events, as the oracle wants them.
    events: HashMap<String, Pdu>,
    servers: Vec<Server>,
}

impl Network {
    /// A room in which all users are, and all servers know it.
    fn new(version: RoomVersion) -> Self {
        let mut room = Room::created(version);
        let mut users = json!({ "@bob:b.org": 100, "@carl:c.org": 50, "@dan:d.org": 100 });
        if version < RoomVersion::V12 {
            users[CREATOR] = json!(100);
        }
        // Every level is given, since absent ones are read differently by the oracle.
        room.add(CREATOR, "m.room.power_levels", Some(""), json!({
            "users_default": 0, "events_default": 0, "state_default": 50, "ban": 50, "redact": 50, "kick": 50,
            "invite": 0, "users": users, "events": { "m.room.topic": 0 }, "notifications": {},
        }));
        room.join_rule("public");
        for user in USERS
            .iter()
            .copied()
            .flatten()
            .filter(|user| **user != CREATOR)
        {
            let join = json!({ "membership": "join" });
            room.add(user, "m.room.member", Some(user), join);
        }
        let mut network = Self {
            version,
            nodes: HashMap::new(),
            events: HashMap::new(),
            servers: vec![Server::default(); USERS.len()],
        };
        for event in room.history() {
            network.judge(event.clone());
            for server in 0..USERS.len() {
                network.receive(server, event.event_id());
            }
        }
        network
    }

    /// The one state after some events. Each time that it has to be resolved, the oracle is asked too.
    fn merged<'a>(&mut self, ends: impl Iterator<Item = &'a String>) -> State {
        let mut states: Vec<State> = Vec::new();
        for end in ends {
            let state = &self.nodes[end].after;
            if !states.iter().any(|other| ids(other) == ids(state)) {
                states.push(state.clone());
            }
        }
        match states.len() {
            0 => State::new(),
            1 => states.remove(0),
            _ => self.resolve(states),
        }
    }

    fn resolve(&mut self, mut states: Vec<State>) -> State {
        let found = resolved(self.version, &states, &self.events);
        // The oracle knows no version 1.
        if self.version > RoomVersion::V1 {
            assert_eq!(ids(&found), expected(self.version, &states, &self.events));
        }
        states.reverse();
        let again = resolved(self.version, &states, &self.events);
        assert_eq!(ids(&found), ids(&again), "the order of the states matters");
        found
    }

    /// Checks an event as everybody does who gets it.
    fn judge(&mut self, event: Pdu) {
        if self.nodes.contains_key(event.event_id()) {
            return;
        }
        let prev: Vec<String> = event.prev_events().map(str::to_owned).collect();
        let before = self.merged(prev.iter());
        let cited: Vec<AuthEvent<'_>> = event
            .auth_events()
            .map(|id| {
                let node = &self.nodes[id];
                AuthEvent {
                    event: &node.event,
                    rejected: node.rejected,
                }
            })
            .collect();
        let mut by_cited: AuthEvents = cited.iter().map(|auth| auth.event.clone()).collect();
        // From version 12 on the create event is no auth event, and yet part of what the rules look at.
        if self.version >= RoomVersion::V12
            && let Some(create) = before.get(&("m.room.create".to_owned(), String::new()))
        {
            by_cited.insert(create.clone());
        }
        let by_state: AuthEvents = before.values().cloned().collect();
        let allowed = auth::check_auth_events(&event, &cited).is_ok()
            && auth::check(&event, &by_cited).is_ok()
            && auth::check(&event, &by_state).is_ok();
        let mut after = before;
        if let Some(state_key) = event.state_key().filter(|_| allowed) {
            let key = (event.event_type().to_owned(), state_key.to_owned());
            after.insert(key, event.clone());
        }
        let id = event.event_id().to_owned();
        self.events.insert(id.clone(), event.clone());
        let node = Node {
            event,
            rejected: !allowed,
            after,
        };
        self.nodes.insert(id, node);
    }

    /// An event reaches a server, which knows what it follows.
    fn receive(&mut self, server: usize, id: &str) {
        let here = &mut self.servers[server];
        here.known.push(id.to_owned());
        let heads: Vec<String> = here.heads.iter().cloned().collect();
        let node = &self.nodes[id];
        let mut kept_out = node.rejected;
        if !kept_out && !heads.is_empty() {
            // What the current state does not allow is kept out.
            let event = node.event.clone();
            let current: AuthEvents = self.merged(heads.iter()).into_values().collect();
            kept_out = auth::check(&event, &current).is_err();
        }
        if !kept_out {
            let past = self.past(id);
            let here = &mut self.servers[server];
            here.heads.retain(|head| !past.contains(head));
            here.heads.insert(id.to_owned());
        }
    }

    /// Everything before an event.
    fn past(&self, id: &str) -> HashSet<String> {
        let mut past = HashSet::new();
        let mut left = vec![id.to_owned()];
        while let Some(id) = left.pop() {
            for prev in self.nodes[&id].event.prev_events() {
                if past.insert(prev.to_owned()) {
                    left.push(prev.to_owned());
                }
            }
        }
        past
    }

    fn step(&mut self, at: u64, step: Step) {
        match step {
            Step::Act {
                server,
                user,
                deed,
                skew,
                forgery,
            } => {
                let time = 1_700_000_100_000_u64.saturating_add_signed(at as i64 * 5 + skew);
                let users: &[&str] = USERS[server];
                self.act(server, user.get::<&str>(users), &deed, time, &forgery);
            }
            Step::Arrive { from, to, event } => {
                let known: HashSet<&String> = self.servers[to].known.iter().collect();
                let new: Vec<String> = self.servers[from]
                    .known
                    .iter()
                    .filter(|id| !known.contains(id))
                    .cloned()
                    .collect();
                if new.is_empty() {
                    return;
                }
                let chosen = event.get(&new);
                let mut arriving = self.past(chosen);
                arriving.insert(chosen.clone());
                for id in new.iter().filter(|id| arriving.contains(*id)) {
                    self.receive(to, id);
                }
            }
        }
    }

    fn act(&mut self, server: usize, user: &str, deed: &Deed, time: u64, forgery: &Forgery) {
        let forges = server == FORGER;
        let known = &self.servers[server].known;
        let follows = forgery
            .follows
            .filter(|_| forges)
            .map(|index| index.get(known).clone());
        let by = forgery
            .by
            .filter(|_| forges)
            .map(|index| index.get(known).clone());
        let prev: Vec<String> = match follows {
            Some(id) => vec![id],
            None => self.servers[server].heads.iter().cloned().collect(),
        };
        let before = self.merged(prev.iter());
        let authority = match by {
            Some(id) => self.nodes[&id].after.clone(),
            None => before,
        };
        let mut room = Room::empty(self.version);
        room.state = authority.into_values().collect();
        let Some((kind, state_key, content)) = deed.content(user, &room.state) else {
            return;
        };
        let prev: Vec<&Pdu> = prev.iter().map(|id| &self.nodes[id].event).collect();
        let event = room.build(user, kind, state_key.as_deref(), content, |event| {
            event.prev_events = prev.iter().map(|event| EventRef::from(*event)).collect();
            event.depth = prev.iter().map(|event| event.depth()).max().unwrap_or(0) + 1;
            event.origin_server_ts = Millis(time);
            if forges {
                event.depth = forgery.depth;
                event.origin_server_ts = Millis(forgery.timestamp.unwrap_or(time));
            }
        });
        if !forges && auth::check(&event, &room.state).is_err() {
            return;
        }
        if self.nodes.contains_key(event.event_id()) {
            return;
        }
        let id = event.event_id().to_owned();
        self.judge(event);
        self.receive(server, &id);
    }

    /// What a server comes to that takes in everything, whatever it thinks of it now.
    fn end(&mut self) {
        let mut followed = HashSet::new();
        let mut ends: BTreeMap<&String, &Node> = BTreeMap::new();
        for (id, node) in self.nodes.iter().filter(|(_, node)| !node.rejected) {
            followed.extend(self.past(id));
            ends.insert(id, node);
        }
        let ends: Vec<String> = ends
            .into_keys()
            .filter(|id| !followed.contains(*id))
            .cloned()
            .collect();
        self.merged(ends.iter());
    }
}

impl Deed {
    /// Type, state key and content of the event; none if there is nothing to do.
    fn content(
        &self,
        user: &str,
        state: &AuthEvents,
    ) -> Option<(&'static str, Option<String>, Value)> {
        let member = |target: &str, membership: &str| {
            let content = json!({ "membership": membership });
            ("m.room.member", Some(target.to_owned()), content)
        };
        let levels = |change: &dyn Fn(&mut Value)| {
            let current = auth::AuthState::get(state, "m.room.power_levels", "")?;
            let mut content = Value::Object(current.content().clone());
            change(&mut content);
            Some(("m.room.power_levels", Some(String::new()), content))
        };
        match self {
            Self::Membership(target, membership) => Some(member(target, membership)),
            Self::Own(membership) => Some(member(user, membership)),
            Self::Power(target, level) => {
                levels(&|content| content["users"][*target] = json!(level))
            }
            Self::Threshold(what, level) => levels(&|content| content[*what] = json!(level)),
            Self::JoinRule(rule) => Some((
                "m.room.join_rules",
                Some(String::new()),
                json!({ "join_rule": rule }),
            )),
            Self::Text(kind, text) => Some((kind, Some(String::new()), json!({ "text": text }))),
            Self::Message => Some(("m.room.message", None, json!({ "body": "Hello" }))),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn whoever_knows_the_same_comes_to_the_same(
        version in prop::sample::select(vec![
            RoomVersion::V1, RoomVersion::V2, RoomVersion::V6, RoomVersion::V10, RoomVersion::V11, RoomVersion::V12,
        ]),
        steps in prop::collection::vec(step(), 5..30),
    ) {
        let mut network = Network::new(version);
        for (at, step) in steps.into_iter().enumerate() {
            network.step(at as u64, step);
        }
        network.end();
    }
}
