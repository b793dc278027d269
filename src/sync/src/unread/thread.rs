//! Which thread an event belongs to. Spec: client-server API, "Threaded read receipts".

use myelin_rooms::{Event, read::RoomView};
use myelin_store::StoreError;
use ruma::EventId;

/// How many relations are followed in search of an event's thread (as the specification recommends).
const MOST_HOPS: usize = 3;

/// The root of the thread that an event belongs to: by its own relation, or by that of an event that it relates to.
pub(super) fn thread_of(room: &RoomView<'_>, event: &Event) -> Result<Option<String>, StoreError> {
    let mut relation = Relation::of(event);
    for _ in 0..MOST_HOPS {
        let Some(Relation { kind, target }) = relation else {
            return Ok(None);
        };
        if kind == "m.thread" {
            return Ok(Some(target));
        }
        let Ok(target) = EventId::parse(&target) else {
            return Ok(None);
        };
        relation = room
            .event_by_id(&target)?
            .and_then(|event| Relation::of(&event));
    }
    Ok(match relation {
        Some(relation) if relation.kind == "m.thread" => Some(relation.target),
        _ => None,
    })
}

struct Relation {
    kind: String,
    target: String,
}

impl Relation {
    fn of(event: &Event) -> Option<Relation> {
        let relation = event.pdu.content().get("m.relates_to")?;
        let text = |name| Some(relation.get(name)?.as_str()?.to_owned());
        Some(Relation {
            kind: text("rel_type")?,
            target: text("event_id")?,
        })
    }
}
