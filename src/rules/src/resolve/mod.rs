//! State resolution: one state out of several that differ. Spec: "State resolution" of room versions 1, 2 and 12.
//!
//! Only what the states differ in is handed in; what they agree in is asked for through [`Graph`] where the algorithms
//! look at it, and so is the difference of the auth chains, which who keeps them as sets knows without a walk. Work is
//! therefore proportional to the difference.

mod v1;
mod v2;

use std::collections::{BTreeMap, BTreeSet};

use crate::{Pdu, RoomVersion, auth::AuthEvents, auth::auth_types, version};

/// Type and state key of an entry of a state.
pub type Key = (String, String);

/// An event as resolution sees it.
#[derive(Clone, Debug)]
pub struct Known {
    /// The event.
    pub event: Pdu,
    /// Whether it was rejected.
    pub rejected: bool,
}

/// The room around the states that are to be resolved.
pub trait Graph {
    /// Why the room could not be read.
    type Error;

    /// An event of the room by id; none if it is not known.
    fn event(&self, event_id: &str) -> Result<Option<Known>, Self::Error>;

    /// The entry of this key if all states agree in it.
    fn agreed(&self, event_type: &str, state_key: &str) -> Result<Option<Pdu>, Self::Error>;

    /// The auth difference: the ids of the events that are in the full auth chains of some of the states and not of all. A
    /// state's own events are in its chain. Those that are not known need not be in it.
    fn auth_difference(&self) -> Result<BTreeSet<String>, Self::Error>;
}

/// What one state has under the keys in which it differs from any other of the states.
pub type Differing = BTreeMap<Key, Pdu>;

/// Resolves states that differ in the given entries. A key that a state lacks is not in its map.
///
/// The answer has the event for every key in which the states differ and that is not without one afterwards, and may have
/// further keys that none of the states had.
pub fn resolve<G: Graph>(
    version: RoomVersion,
    states: &[Differing],
    graph: &G,
) -> Result<BTreeMap<Key, Pdu>, G::Error> {
    match version.rules().state_resolution {
        version::StateResolution::V1 => v1::resolve(states, graph),
        version::StateResolution::V2 => v2::resolve(states, graph, v2::Variant::V2),
        version::StateResolution::V2_1 => v2::resolve(states, graph, v2::Variant::V2_1),
    }
}

/// The keys that an event's authorisation looks at.
fn needed(event: &Pdu) -> Vec<Key> {
    auth_types(
        event.version(),
        event.event_type(),
        event.sender(),
        event.state_key(),
        event.content(),
    )
    .into_iter()
    .map(|(event_type, state_key)| (event_type.to_owned(), state_key))
    .collect()
}

fn key(event: &Pdu) -> Option<Key> {
    Some((event.event_type().to_owned(), event.state_key()?.to_owned()))
}

/// The room's create event: an auth event of `event`, or from version 12 on the one that the room id names.
fn create_of<G: Graph>(graph: &G, event: &Pdu) -> Result<Option<Pdu>, G::Error> {
    if event.version().rules().room_id_is_create_hash {
        let id = event.room_id().strip_prefix('!').unwrap_or_default();
        return Ok(graph.event(&format!("${id}"))?.map(|known| known.event));
    }
    for id in event.auth_events() {
        if let Some(known) = graph.event(id)?
            && known.event.is_state("m.room.create", "")
        {
            return Ok(Some(known.event));
        }
    }
    Ok(None)
}

/// Sets what authorisation looks at to what `state` has.
fn overlay<E>(
    auth: &mut AuthEvents,
    event: &Pdu,
    mut state: impl FnMut(&Key) -> Result<Option<Pdu>, E>,
) -> Result<(), E> {
    for key in needed(event) {
        if let Some(found) = state(&key)? {
            auth.insert(found);
        }
    }
    Ok(())
}
