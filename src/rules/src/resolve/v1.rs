//! The algorithm of room version 1.

use std::{cmp::Reverse, collections::BTreeMap};

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::{Differing, Graph, Key, overlay};
use crate::{
    Pdu,
    auth::{self, AuthEvents},
};

pub(super) fn resolve<G: Graph>(
    states: &[Differing],
    graph: &G,
) -> Result<BTreeMap<Key, Pdu>, G::Error> {
    let mut candidates: BTreeMap<Key, Vec<Pdu>> = BTreeMap::new();
    for (key, event) in states.iter().flatten() {
        let list = candidates.entry(key.clone()).or_default();
        if list
            .iter()
            .all(|known| known.event_id() != event.event_id())
        {
            list.push(event.clone());
        }
    }
    let mut state = BTreeMap::new();
    // A key that some states lack, and the others agree in, is no conflict.
    candidates.retain(|key, list| match list.as_slice() {
        [only] => {
            state.insert(key.clone(), only.clone());
            false
        }
        _ => true,
    });
    for event_type in ["m.room.power_levels", "m.room.join_rules", "m.room.member"] {
        let of_type: Vec<Key> = candidates
            .keys()
            .filter(|key| key.0 == event_type)
            .cloned()
            .collect();
        for key in of_type {
            let list = candidates.remove(&key).unwrap_or_default();
            resolve_auth(graph, &mut state, key, list)?;
        }
    }
    for (key, mut list) in candidates {
        // The highest depth and lowest hash first.
        list.sort_by_key(|event| (Reverse(event.depth()), sha1(event)));
        for event in list {
            if allowed(graph, &state, &event)? {
                state.insert(key, event);
                break;
            }
        }
    }
    Ok(state)
}

/// The pass for an event that others are authorised by.
fn resolve_auth<G: Graph>(
    graph: &G,
    state: &mut BTreeMap<Key, Pdu>,
    key: Key,
    mut list: Vec<Pdu>,
) -> Result<(), G::Error> {
    list.sort_by_key(|event| (event.depth(), Reverse(sha1(event))));
    let mut list = list.into_iter();
    if let Some(first) = list.next() {
        state.insert(key.clone(), first);
    }
    for event in list {
        if !allowed(graph, state, &event)? {
            break;
        }
        state.insert(key.clone(), event);
    }
    Ok(())
}

fn allowed<G: Graph>(graph: &G, state: &BTreeMap<Key, Pdu>, event: &Pdu) -> Result<bool, G::Error> {
    let mut auth = AuthEvents::default();
    overlay(&mut auth, event, |key| match state.get(key) {
        Some(event) => Ok(Some(event.clone())),
        None => graph.agreed(&key.0, &key.1),
    })?;
    Ok(auth::check(event, &auth).is_ok())
}

fn sha1(event: &Pdu) -> Vec<u8> {
    digest(&SHA1_FOR_LEGACY_USE_ONLY, event.event_id().as_bytes())
        .as_ref()
        .to_vec()
}
