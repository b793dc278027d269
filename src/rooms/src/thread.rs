//! Which thread an event is in. Spec: client-server API, "Threaded read receipts".

use std::sync::Arc;

use myelin_rules::{Pdu, limits::is_event_id};
use myelin_store::{StoreError, View};
use serde_json::Value;

use crate::{Failure, Rooms, event::Event, pipeline::RoomGuard};

/// How many relations are followed in search of an event's thread (as the specification recommends).
const MOST_HOPS: usize = 3;

/// What an event relates to.
enum Relation {
    /// It is in the thread with this root.
    Thread(String),
    /// It is related to this event in another way, and is in the thread of that one.
    Other(String),
}

impl Relation {
    fn of(event: &Pdu) -> Option<Relation> {
        // Most events have none; what was read for this is not kept in memory for it.
        let relation = event.content_value("m.relates_to")?;
        let field = |key| relation.get(key).and_then(Value::as_str);
        let (kind, target) = (field("rel_type")?, field("event_id")?);
        // What is no event id may be longer than a key.
        let target = is_event_id(target).then(|| target.to_owned())?;
        Some(match kind {
            "m.thread" => Relation::Thread(target),
            _ => Relation::Other(target),
        })
    }
}

/// The root of the thread that a relation leads to. `find` finds events by id.
fn root<E>(
    relation: Option<Relation>,
    find: impl Fn(String) -> Result<Option<Arc<Event>>, E>,
) -> Result<Option<String>, E> {
    let mut relation = relation;
    for _ in 0..MOST_HOPS {
        let Some(Relation::Other(target)) = relation else {
            break;
        };
        relation = find(target)?.and_then(|target| Relation::of(&target.pdu));
    }
    Ok(match relation {
        Some(Relation::Thread(root)) => Some(root),
        Some(Relation::Other(_)) | None => None,
    })
}

impl RoomGuard {
    /// The root of the thread that a new event is in: by its own relation, or by that of an event that it is related to.
    /// What is not known yet leads nowhere; nor does what is not durable yet, of which nobody here can have been told.
    pub(crate) async fn thread_of(&self, pdu: &Pdu) -> Result<Option<String>, Failure> {
        let target = match Relation::of(pdu) {
            None => return Ok(None),
            Some(Relation::Thread(root)) => return Ok(Some(root)),
            Some(Relation::Other(target)) => target,
        };
        let ground = self.ground();
        let read = move |view: &View| {
            root(Some(Relation::Other(target.clone())), |id| {
                Ok::<_, StoreError>(ground.events_by_id(view, &[id])?.pop().flatten())
            })
        };
        Ok(self.rooms.0.store.read(read).await?)
    }
}

impl Rooms {
    /// The root of the thread that an event is in: what was found when it came, or else what its relations say now.
    pub(crate) fn thread_of(
        &self,
        view: &View,
        event: &Event,
    ) -> Result<Option<String>, StoreError> {
        if event.header.thread.is_some() {
            return Ok(event.header.thread.clone());
        }
        root(Relation::of(&event.pdu), |id| {
            let mut found = self.events_by_id(view, event.room, &[id])?;
            Ok(found.pop().flatten())
        })
    }
}
