//! The algorithm of room versions 2 to 11, and that of version 12, which differs in three points.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet},
};

use myelin_types::Millis;

use super::{Differing, Graph, Key, Known, create_of, key, overlay};
use crate::{
    Pdu,
    auth::{self, AuthEvents, Membership, PowerLevel, PowerLevels},
};

/// Which of the two algorithms.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Variant {
    V2,
    /// Starts from an empty state, and takes in the conflicted state subgraph.
    V2_1,
}

/// Events by id, as far as they were looked at.
struct Events<'a, G> {
    graph: &'a G,
    known: HashMap<String, Option<Known>>,
}

impl<G: Graph> Events<'_, G> {
    fn get(&mut self, id: &str) -> Result<Option<Known>, G::Error> {
        if let Some(known) = self.known.get(id) {
            return Ok(known.clone());
        }
        let known = self.graph.event(id)?;
        self.known.insert(id.to_owned(), known.clone());
        Ok(known)
    }
}

pub(super) fn resolve<G: Graph>(
    states: &[Differing],
    graph: &G,
    variant: Variant,
) -> Result<BTreeMap<Key, Pdu>, G::Error> {
    let mut events = Events {
        graph,
        known: HashMap::new(),
    };
    let conflicted: BTreeMap<String, Pdu> = states
        .iter()
        .flat_map(BTreeMap::values)
        .map(|event| (event.event_id().to_owned(), event.clone()))
        .collect();
    let mut full: BTreeSet<String> = conflicted.keys().cloned().collect();
    full.extend(graph.auth_difference()?);
    if variant == Variant::V2_1 {
        full.extend(subgraph(&mut events, &conflicted)?);
    }
    // An event that is not there, or is no state, can be no part of a state.
    let mut set = HashMap::new();
    for id in full {
        if let Some(known) = events.get(&id)?
            && known.event.state_key().is_some()
        {
            set.insert(id, known);
        }
    }

    // 1. and 2.
    let power = power_events(&set);
    let sorted = power_order(&mut events, &power)?;
    let mut state = Partial {
        graph,
        variant,
        entries: BTreeMap::new(),
    };
    state.apply(&mut events, sorted.into_iter().map(|id| &set[id]))?;

    // 3. and 4.
    let rest: Vec<&Known> = set
        .iter()
        .filter(|(id, _)| !power.contains_key(id.as_str()))
        .map(|(_, known)| known)
        .collect();
    let levels = state.get(&("m.room.power_levels".to_owned(), String::new()))?;
    let rest = mainline_order(&mut events, levels, rest)?;
    state.apply(&mut events, rest.into_iter())?;

    // 5.
    let mut resolved = BTreeMap::new();
    for (key, event) in state.entries {
        if graph.agreed(&key.0, &key.1)?.is_none() {
            resolved.insert(key, event);
        }
    }
    Ok(resolved)
}

/// Everything on a path along auth events from one conflicted event to another.
fn subgraph<G: Graph>(
    events: &mut Events<'_, G>,
    conflicted: &BTreeMap<String, Pdu>,
) -> Result<HashSet<String>, G::Error> {
    // Forwards: what can be reached from conflicted events, with the edges turned round.
    let mut cited_by: HashMap<String, Vec<String>> = HashMap::new();
    let mut left: Vec<String> = conflicted.keys().cloned().collect();
    let mut seen: HashSet<String> = left.iter().cloned().collect();
    while let Some(id) = left.pop() {
        let Some(known) = events.get(&id)? else {
            continue;
        };
        for auth in known.event.auth_events() {
            cited_by
                .entry(auth.to_owned())
                .or_default()
                .push(id.clone());
            if seen.insert(auth.to_owned()) {
                left.push(auth.to_owned());
            }
        }
    }
    // Backwards from the conflicted events that were reached: everything that is met lies on such a path.
    let mut on_path = HashSet::new();
    let mut left: Vec<&str> = conflicted.keys().map(String::as_str).collect();
    while let Some(id) = left.pop() {
        if on_path.insert(id.to_owned()) {
            left.extend(cited_by.get(id).into_iter().flatten().map(String::as_str));
        }
    }
    Ok(on_path)
}

/// The power events of a set, and what of the set is in their auth chains.
fn power_events(set: &HashMap<String, Known>) -> HashMap<&str, &Known> {
    let mut power: HashMap<&str, &Known> = HashMap::new();
    let mut left: Vec<&str> = set
        .iter()
        .filter(|(_, known)| is_power_event(&known.event))
        .map(|(id, _)| id.as_str())
        .collect();
    while let Some(id) = left.pop() {
        let Some((id, known)) = set.get_key_value(id) else {
            continue;
        };
        if power.insert(id, known).is_none() {
            left.extend(known.event.auth_events());
        }
    }
    power
}

fn is_power_event(event: &Pdu) -> bool {
    match event.event_type() {
        // The create event is one in all implementations: it orders before whatever names it anyway.
        "m.room.power_levels" | "m.room.join_rules" | "m.room.create" => {
            event.state_key() == Some("")
        }
        "m.room.member" => {
            matches!(Membership::of(event), Membership::Leave | Membership::Ban)
                && event.state_key() != Some(event.sender())
        }
        _ => false,
    }
}

/// The reverse topological power ordering, by Kahn's algorithm.
fn power_order<'a, G: Graph>(
    events: &mut Events<'_, G>,
    power: &HashMap<&'a str, &'a Known>,
) -> Result<Vec<&'a str>, G::Error> {
    type Rank<'a> = (Reverse<PowerLevel>, Millis, &'a str);

    let mut ranks: HashMap<&str, Rank<'a>> = HashMap::new();
    let mut waiting_for: HashMap<&str, usize> = HashMap::new();
    let mut cited_by: HashMap<&str, Vec<&'a str>> = HashMap::new();
    for (&id, known) in power {
        let level = sender_level(events, &known.event)?;
        ranks.insert(id, (Reverse(level), known.event.origin_server_ts(), id));
        let cited: BTreeSet<&'a str> = known
            .event
            .auth_events()
            .filter(|auth| power.contains_key(auth))
            .collect();
        waiting_for.insert(id, cited.len());
        for auth in cited {
            cited_by.entry(auth).or_default().push(id);
        }
    }
    let mut ready: BinaryHeap<Reverse<Rank<'a>>> = waiting_for
        .iter()
        .filter(|(_, count)| **count == 0)
        .map(|(id, _)| Reverse(ranks[id]))
        .collect();
    let mut sorted = Vec::with_capacity(power.len());
    while let Some(Reverse((_, _, id))) = ready.pop() {
        sorted.push(id);
        for citing in cited_by.get(id).into_iter().flatten() {
            if let Some(count) = waiting_for.get_mut(citing) {
                *count -= 1;
                if *count == 0 {
                    ready.push(Reverse(ranks[citing]));
                }
            }
        }
    }
    Ok(sorted)
}

/// The power level of an event's sender by the event's own auth events.
fn sender_level<G: Graph>(events: &mut Events<'_, G>, event: &Pdu) -> Result<PowerLevel, G::Error> {
    let levels = power_levels_of(events, event)?;
    let create = if event.is_state("m.room.create", "") {
        Some(event.clone())
    } else {
        create_of(events.graph, event)?
    };
    Ok(create.map_or(PowerLevel::Level(0), |create| {
        PowerLevels::new(&create, levels.as_ref()).user(event.sender())
    }))
}

/// The power levels event among an event's auth events.
fn power_levels_of<G: Graph>(
    events: &mut Events<'_, G>,
    event: &Pdu,
) -> Result<Option<Pdu>, G::Error> {
    for id in event.auth_events() {
        if let Some(known) = events.get(id)?
            && known.event.is_state("m.room.power_levels", "")
        {
            return Ok(Some(known.event));
        }
    }
    Ok(None)
}

/// The mainline ordering based on `levels`.
fn mainline_order<'a, G: Graph>(
    events: &mut Events<'_, G>,
    levels: Option<Pdu>,
    rest: Vec<&'a Known>,
) -> Result<Vec<&'a Known>, G::Error> {
    let mut mainline: HashMap<String, usize> = HashMap::new();
    let mut next = levels;
    while let Some(event) = next {
        if mainline.contains_key(event.event_id()) {
            break;
        }
        mainline.insert(event.event_id().to_owned(), mainline.len());
        next = power_levels_of(events, &event)?;
    }
    let mut ranked = Vec::with_capacity(rest.len());
    for known in rest {
        let mut position = usize::MAX;
        let mut seen = HashSet::new();
        let mut next = power_levels_of(events, &known.event)?;
        while let Some(event) = next {
            if let Some(index) = mainline.get(event.event_id()) {
                position = *index;
                break;
            }
            if !seen.insert(event.event_id().to_owned()) {
                break;
            }
            next = power_levels_of(events, &event)?;
        }
        ranked.push((Reverse(position), known.event.origin_server_ts(), known));
    }
    ranked.sort_by(|one, other| {
        (one.0, one.1, one.2.event.event_id()).cmp(&(other.0, other.1, other.2.event.event_id()))
    });
    Ok(ranked.into_iter().map(|(_, _, known)| known).collect())
}

/// A partially resolved state.
struct Partial<'a, G> {
    graph: &'a G,
    variant: Variant,
    /// What was applied, over what the states agree in.
    entries: BTreeMap<Key, Pdu>,
}

impl<G: Graph> Partial<'_, G> {
    fn get(&self, key: &Key) -> Result<Option<Pdu>, G::Error> {
        match self.entries.get(key) {
            Some(event) => Ok(Some(event.clone())),
            None if self.variant == Variant::V2 => self.graph.agreed(&key.0, &key.1),
            None => Ok(None),
        }
    }

    /// The iterative auth checks.
    fn apply<'e>(
        &mut self,
        events: &mut Events<'_, G>,
        list: impl Iterator<Item = &'e Known>,
    ) -> Result<(), G::Error> {
        for Known { event, .. } in list {
            let mut auth = AuthEvents::default();
            for id in event.auth_events() {
                if let Some(known) = events.get(id)?
                    && !known.rejected
                {
                    auth.insert(known.event);
                }
            }
            if let Some(create) = create_of(self.graph, event)? {
                auth.insert(create);
            }
            overlay(&mut auth, event, |key| self.get(key))?;
            if auth::check(event, &auth).is_ok()
                && let Some(key) = key(event)
            {
                self.entries.insert(key, event.clone());
            }
        }
        Ok(())
    }
}
