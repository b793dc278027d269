//! The order in which events are taken in: each after those that it refers to.

use std::collections::HashMap;

use myelin_rules::Pdu;

/// Events in an order in which each follows its predecessors and auth events, as far as these are among them; apart from
/// that by depth and id.
pub(super) fn by_references(mut events: HashMap<String, Pdu>) -> Vec<Pdu> {
    let mut starts: Vec<(i64, String)> = events
        .iter()
        .map(|(id, event)| (event.depth(), id.clone()))
        .collect();
    starts.sort_unstable();
    let mut sorted = Vec::with_capacity(events.len());
    // An event that is being visited is not in `events` any more, so that cycles, which opaque ids make possible, end.
    let mut path: Vec<(Pdu, Vec<String>)> = Vec::new();
    for (_, id) in starts {
        path.extend(events.remove(&id).map(visit));
        while let Some((event, references)) = path.last_mut() {
            if let Some(id) = references.pop() {
                let next = events.remove(&id).map(visit);
                path.extend(next);
            } else {
                sorted.push(event.clone());
                path.pop();
            }
        }
    }
    sorted
}

fn visit(event: Pdu) -> (Pdu, Vec<String>) {
    let mut references: Vec<String> = event
        .auth_events()
        .chain(event.prev_events())
        .map(str::to_owned)
        .collect();
    // Taken from the end.
    references.reverse();
    (event, references)
}
