//! How long it takes to resolve two states of a room of 100,000 members that differ in a few entries: the comparison of
//! the trees, the difference of the auth chains, and the algorithm.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
    hint::black_box,
};

use criterion::{Criterion, criterion_group, criterion_main};
use myelin_rules::{
    EventBuilder, EventRef, Pdu, RoomVersion, Signer, SigningKey,
    resolve::{Differing, Graph, Key, Known, resolve},
};
use myelin_state::{
    AuthEvents, ChainCache, NoNodes, Overlay, Root, auth_difference, diff, get, update,
};
use myelin_types::{EventNum, Millis, SeededRandom, StateKeyNum};
use serde_json::{Value, json};

const MEMBERS: usize = 100_000;
const VERSION: RoomVersion = RoomVersion::V11;
const ROOM: &str = "!room:a.org";
const CREATOR: &str = "@creator:a.org";
const MODERATOR: &str = "@moderator:a.org";

/// A room in memory. An event's number is its place in `events`.
struct Room {
    signer: Signer,
    events: Vec<Pdu>,
    nums: HashMap<String, EventNum>,
    keys: HashMap<Key, StateKeyNum>,
    nodes: Overlay<NoNodes>,
}

impl Room {
    fn new() -> Self {
        let key = SigningKey::generate(&SeededRandom::new(1));
        Self {
            signer: Signer::new("a.org", key),
            events: Vec::new(),
            nums: HashMap::new(),
            keys: HashMap::new(),
            nodes: Overlay::new(NoNodes),
        }
    }

    fn key(&mut self, kind: &str, state_key: &str) -> StateKeyNum {
        let next = self.keys.len() as u32;
        let member = kind == "m.room.member";
        let pair = (kind.to_owned(), state_key.to_owned());
        *self.keys.entry(pair).or_insert(StateKeyNum(if member {
            StateKeyNum::MEMBER_BIT | next
        } else {
            next
        }))
    }

    /// Makes an event that these others authorise.
    fn event(
        &mut self,
        sender: &str,
        kind: &str,
        state_key: &str,
        content: &Value,
        auth: &[EventNum],
    ) -> (StateKeyNum, Option<EventNum>) {
        let refs = |nums: &[EventNum]| -> Vec<EventRef> {
            let event = |num: &EventNum| EventRef::from(&self.events[num.0 as usize]);
            nums.iter().map(event).collect()
        };
        let last = self.events.len().checked_sub(1);
        let prev: Vec<EventNum> = last.map(|last| EventNum(last as u64)).into_iter().collect();
        let builder = EventBuilder {
            room_id: Some(ROOM.to_owned()),
            sender: sender.to_owned(),
            event_type: kind.to_owned(),
            state_key: Some(state_key.to_owned()),
            content: content.as_object().expect("an object").clone(),
            redacts: None,
            prev_events: refs(&prev),
            auth_events: refs(auth),
            depth: self.events.len() as i64 + 1,
            origin_server_ts: Millis(1_700_000_000_000 + self.events.len() as u64),
        };
        let event = builder.sign(VERSION, &self.signer).expect("a valid event");
        let num = EventNum(self.events.len() as u64);
        self.nums.insert(event.event_id().to_owned(), num);
        self.events.push(event);
        (self.key(kind, state_key), Some(num))
    }

    fn change(&mut self, base: Root, changes: &[(StateKeyNum, Option<EventNum>)]) -> Root {
        let updated = update(&self.nodes, base, changes).expect("nothing is missing");
        self.nodes.add(&updated).expect("fresh nodes are sound");
        updated.root
    }
}

impl AuthEvents for Room {
    type Error = Infallible;

    fn auth_events(&self, events: &[EventNum]) -> Result<Vec<Vec<EventNum>>, Infallible> {
        let cited = |num: &EventNum| {
            let ids = self.events[num.0 as usize].auth_events();
            ids.map(|id| self.nums[id]).collect()
        };
        Ok(events.iter().map(cited).collect())
    }
}

struct Around<'a> {
    room: &'a Room,
    cache: &'a ChainCache,
    states: [Root; 2],
    differing: BTreeSet<StateKeyNum>,
}

impl Graph for Around<'_> {
    type Error = Infallible;

    fn event(&self, event_id: &str) -> Result<Option<Known>, Infallible> {
        let num = self.room.nums.get(event_id);
        Ok(num.map(|num| Known {
            event: self.room.events[num.0 as usize].clone(),
            rejected: false,
        }))
    }

    fn agreed(&self, event_type: &str, state_key: &str) -> Result<Option<Pdu>, Infallible> {
        let key = (event_type.to_owned(), state_key.to_owned());
        let key = self.room.keys.get(&key);
        let key = key.filter(|key| !self.differing.contains(key));
        let num = key.and_then(|key| {
            get(&self.room.nodes, self.states[0], *key).expect("nothing is missing")
        });
        Ok(num.map(|num| self.room.events[num.0 as usize].clone()))
    }

    fn auth_difference(&self) -> Result<BTreeSet<String>, Infallible> {
        let difference = auth_difference(&self.room.nodes, self.room, self.cache, &self.states);
        let difference = difference.expect("nothing is missing");
        let id = |num: u64| self.room.events[num as usize].event_id().to_owned();
        Ok(difference.iter().map(id).collect())
    }
}

fn resolved(room: &Room, cache: &ChainCache, states: [Root; 2]) -> BTreeMap<Key, Pdu> {
    let changes = diff(&room.nodes, states[0], states[1]).expect("nothing is missing");
    let mut sides = [Differing::new(), Differing::new()];
    for change in &changes {
        for (side, num) in sides.iter_mut().zip([change.old, change.new]) {
            if let Some(num) = num {
                let event = &room.events[num.0 as usize];
                let state_key = event.state_key().unwrap_or_default().to_owned();
                side.insert((event.event_type().to_owned(), state_key), event.clone());
            }
        }
    }
    let around = Around {
        room,
        cache,
        states,
        differing: changes.iter().map(|change| change.key).collect(),
    };
    let Ok(resolved) = resolve(VERSION, &sides, &around);
    resolved
}

fn conflicts(c: &mut Criterion) {
    let mut room = Room::new();
    let create = room.event(
        CREATOR,
        "m.room.create",
        "",
        &json!({ "room_version": "11" }),
        &[],
    );
    let zero = EventNum(0);
    let join = json!({ "membership": "join" });
    let creator = room.event(CREATOR, "m.room.member", CREATOR, &join, &[zero]);
    let levels = json!({ "users": { CREATOR: 100, MODERATOR: 50 } });
    let one = EventNum(1);
    let levels = room.event(CREATOR, "m.room.power_levels", "", &levels, &[zero, one]);
    let two = EventNum(2);
    let public = json!({ "join_rule": "public" });
    let rules = room.event(CREATOR, "m.room.join_rules", "", &public, &[zero, one, two]);
    let three = EventNum(3);
    let entry = [zero, two, three];
    let mut entries = vec![create, creator, levels, rules];
    let moderator = room.event(MODERATOR, "m.room.member", MODERATOR, &join, &entry);
    entries.push(moderator);
    for at in 0..MEMBERS {
        let user = format!("@user{at}:a.org");
        entries.push(room.event(&user, "m.room.member", &user, &join, &entry));
    }
    let base = room.change(Root::EMPTY, &entries);
    let four = EventNum(4);

    // Two topics; and a ban on one side, with what the banned one did on the other.
    let mut fork = |sender: &str, own: EventNum, ban: bool| {
        let topic = json!({ "topic": sender });
        let mut changes = vec![room.event(sender, "m.room.topic", "", &topic, &[zero, two, own])];
        if ban {
            let (ban, user) = (json!({ "membership": "ban" }), "@user77:a.org");
            let auth = [zero, two, own, EventNum(82)];
            changes.push(room.event(sender, "m.room.member", user, &ban, &auth));
        } else {
            let (name, user) = (
                json!({ "membership": "join", "displayname": "x" }),
                "@user77:a.org",
            );
            let auth = [zero, two, three, EventNum(82)];
            changes.push(room.event(user, "m.room.member", user, &name, &auth));
        }
        room.change(base, &changes)
    };
    let states = [fork(CREATOR, one, true), fork(MODERATOR, four, false)];

    c.bench_function("resolve 2 states of 100,000, nothing remembered", |b| {
        b.iter(|| resolved(&room, &ChainCache::new(64 << 20), black_box(states)));
    });
    let cache = ChainCache::new(64 << 20);
    c.bench_function("resolve 2 states of 100,000", |b| {
        b.iter(|| resolved(&room, &cache, black_box(states)));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = conflicts
}
criterion_main!(benches);
