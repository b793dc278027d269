//! Stored events, decoded once and shared; and the nodes of state trees.

use std::{
    collections::HashSet,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use myelin_data::rooms::{
    Bytes, EventHeader, EventIds, EventRecord, EventStatus, Events, StateNodes,
};
use myelin_rules::{Pdu, RoomVersion, event::block};
use myelin_state::{CachedNodes, Node, NodeHash, Nodes, Root, TreeError};
use myelin_store::{CodecError, RowPart, StoreError, Table, View};
use myelin_types::{EventNum, Pos, RoomNum};
use parking_lot::RwLock;
use quick_cache::{Weighter, sync::Cache};
use ruma::EventId;

use crate::{RoomHandle, Rooms};

/// What the cache itself takes for an event: its row, half of a row that is free, its share of the index.
const CACHE_ROW: usize = 128;
/// What the cache is presumed to hold per event when it sizes its own tables.
const TYPICAL_EVENT: u64 = 2048;

/// A stored event, decoded. Redacted ones come pruned.
#[derive(Clone)]
pub struct Event {
    /// Its room.
    pub room: RoomNum,
    /// Its number.
    pub num: EventNum,
    /// The position of the batch that stored it; [`Pos::AT_COMMIT`] before it is durable.
    pub pos: Pos,
    /// What the server knows of it besides its own text.
    pub header: EventHeader,
    /// The event itself.
    pub pdu: Pdu,
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Event")
            .field("room", &self.room)
            .field("num", &self.num)
            .field("pos", &self.pos)
            .field("event_id", &self.header.event_id)
            .finish_non_exhaustive()
    }
}

impl Event {
    /// Whether it is known by itself with the state around it, while what lies between it and the timeline is not.
    pub fn is_point(&self) -> bool {
        self.header.status == EventStatus::Outlier && self.header.after() != Root::EMPTY
    }

    pub(crate) fn decode(
        version: RoomVersion,
        room: RoomNum,
        num: EventNum,
        record: EventRecord,
    ) -> Result<Event, StoreError> {
        let damaged = |what| StoreError::Codec {
            table: Events::NAME,
            part: RowPart::Value,
            source: CodecError::Invalid(what),
        };
        let json = std::str::from_utf8(&record.json).map_err(|_| damaged("event is not UTF-8"))?;
        let pdu = Pdu::from_stored(version, &record.header.event_id, json)
            .map_err(|_| damaged("event does not parse"))?;
        Ok(Event {
            room,
            num,
            pos: record.pos,
            header: record.header,
            pdu,
        })
    }

    /// The event as it is kept in memory once it is durable at `pos`. Of a message nobody will ask for more than its text, so
    /// that what was decoded to check it is not kept; the content of state events is asked for by every authorisation.
    pub(crate) fn kept(&self, pos: Pos) -> Event {
        let state = self.pdu.state_key().is_some();
        Event {
            room: self.room,
            num: self.num,
            pos,
            header: self.header.clone(),
            pdu: if state {
                self.pdu.clone()
            } else {
                self.pdu.undecoded()
            },
        }
    }

    /// Bytes of memory that the event takes where it is shared.
    fn memory(&self) -> usize {
        let header = &self.header;
        let sent_by = header.transaction.as_ref();
        let strings = [
            Some(&header.event_id),
            header.thread.as_ref(),
            sent_by.map(|sent| &sent.device_id),
            sent_by.map(|sent| &sent.transaction_id),
        ];
        let strings = strings.into_iter().flatten();
        block(size_of::<Event>() + 2 * size_of::<usize>())
            + strings.map(|text| block(text.capacity())).sum::<usize>()
            + self.pdu.memory()
    }

    /// The row that stores this event.
    pub(crate) fn record(&self) -> EventRecord {
        EventRecord {
            pos: self.pos,
            header: self.header.clone(),
            json: self.pdu.json().as_bytes().to_vec(),
        }
    }
}

/// An event in the cache. Its weight is taken once: an event that is looked at grows, and the cache has to find the weight
/// again that it has counted.
#[derive(Clone)]
struct Cached {
    event: Arc<Event>,
    weight: u64,
}

impl From<Arc<Event>> for Cached {
    fn from(event: Arc<Event>) -> Self {
        let weight = (event.memory() + CACHE_ROW) as u64;
        Self { event, weight }
    }
}

#[derive(Clone)]
struct ByMemory;

impl Weighter<EventNum, Cached> for ByMemory {
    fn weight(&self, _: &EventNum, cached: &Cached) -> u64 {
        cached.weight
    }
}

/// Decoded events by number, bounded by the memory that they take.
///
/// An event changes once in its life, when it is redacted. From the moment its redaction is queued until it is durable
/// the event is not cached; after that, only views that contain the redaction may put it in again.
pub(crate) struct EventCache {
    events: Cache<EventNum, Cached, ByMemory>,
    /// Events whose redaction is on its way to the disk.
    being_redacted: RwLock<HashSet<EventNum>>,
    /// The position of the newest redaction: what an older view read may not be cached.
    last_redaction: AtomicU64,
}

impl EventCache {
    pub(crate) fn new(bytes: u64) -> Self {
        let items = usize::try_from(bytes / TYPICAL_EVENT).unwrap_or(usize::MAX);
        Self {
            events: Cache::with_weighter(items.max(64), bytes, ByMemory),
            being_redacted: RwLock::default(),
            last_redaction: AtomicU64::new(0),
        }
    }

    fn get(&self, num: EventNum) -> Option<Arc<Event>> {
        self.events.get(&num).map(|cached| cached.event)
    }

    fn may_hold(&self, num: EventNum, as_of: Pos) -> bool {
        as_of.0 >= self.last_redaction.load(Ordering::SeqCst)
            && !self.being_redacted.read().contains(&num)
    }

    /// Caches an event as a view at `as_of` shows it.
    pub(crate) fn insert(&self, event: &Arc<Event>, as_of: Pos) {
        let num = event.num;
        if !self.may_hold(num, as_of) {
            return;
        }
        self.events.insert(num, Arc::clone(event).into());
        // A redaction may have begun, or even ended, between the check and the insertion.
        if !self.may_hold(num, as_of) {
            self.events.remove(&num);
        }
    }

    /// The event's redaction is about to be queued.
    pub(crate) fn redacting(&self, num: EventNum) {
        self.being_redacted.write().insert(num);
        self.events.remove(&num);
    }

    /// The event's redaction is durable at `pos`, or has failed (`None`).
    pub(crate) fn redacted(&self, num: EventNum, pos: Option<Pos>) {
        if let Some(pos) = pos {
            self.last_redaction.fetch_max(pos.0, Ordering::SeqCst);
        }
        self.being_redacted.write().remove(&num);
    }

    /// The bytes that the cached events take.
    pub(crate) fn used(&self) -> u64 {
        self.events.weight()
    }
}

/// The nodes of one room's state trees as a view has them, through the shared cache.
#[derive(Clone, Copy)]
pub struct TreeNodes<'a> {
    cache: CachedNodes<'a, StoredNodes<'a>>,
}

#[derive(Clone, Copy)]
struct StoredNodes<'a> {
    view: &'a View,
    room: RoomNum,
}

impl Nodes for StoredNodes<'_> {
    type Error = StoreError;

    fn node(&self, hash: NodeHash) -> Result<Arc<Node>, TreeError<StoreError>> {
        let stored = self
            .view
            .get::<StateNodes>(&(self.room, hash.0))
            .map_err(TreeError::Store)?;
        Node::found(hash, stored.as_ref().map(|Bytes(bytes)| bytes.as_slice()))
    }
}

impl Nodes for TreeNodes<'_> {
    type Error = StoreError;

    fn node(&self, hash: NodeHash) -> Result<Arc<Node>, TreeError<StoreError>> {
        self.cache.node(hash)
    }
}

/// A tree that cannot be read is a damaged table of nodes.
pub(crate) fn tree_error(error: TreeError<StoreError>) -> StoreError {
    match error {
        TreeError::Store(error) => error,
        TreeError::Missing { .. } => StoreError::Missing(StateNodes::NAME),
        TreeError::Corrupt { .. } => StoreError::Codec {
            table: StateNodes::NAME,
            part: RowPart::Value,
            source: CodecError::Invalid("state node does not decode"),
        },
    }
}

impl Rooms {
    /// An event by number.
    pub fn event(
        &self,
        view: &View,
        room: RoomNum,
        event: EventNum,
    ) -> Result<Option<Arc<Event>>, StoreError> {
        Ok(self.events(view, room, &[event])?.pop().flatten())
    }

    /// Many events of a room by number, in the order asked for, in one read of the store.
    pub fn events(
        &self,
        view: &View,
        room: RoomNum,
        events: &[EventNum],
    ) -> Result<Vec<Option<Arc<Event>>>, StoreError> {
        self.events_at(view, events.iter().map(|num| (room, *num)))
    }

    /// Many events of several rooms, in the order asked for, in one read of the store.
    pub fn events_of_rooms(
        &self,
        view: &View,
        events: &[(RoomNum, EventNum)],
    ) -> Result<Vec<Option<Arc<Event>>>, StoreError> {
        self.events_at(view, events.iter().copied())
    }

    fn events_at(
        &self,
        view: &View,
        events: impl Iterator<Item = (RoomNum, EventNum)> + Clone,
    ) -> Result<Vec<Option<Arc<Event>>>, StoreError> {
        let mut found: Vec<Option<Arc<Event>>> = events
            .clone()
            .map(|(room, num)| self.0.events.get(num).filter(|event| event.room == room))
            .collect();
        let missing: Vec<(RoomNum, EventNum)> = events
            .zip(&found)
            .filter(|(_, event)| event.is_none())
            .map(|(key, _)| key)
            .collect();
        if missing.is_empty() {
            return Ok(found);
        }
        let records = view.multi_get::<Events>(&missing)?;
        let slots = found.iter_mut().filter(|slot| slot.is_none());
        let mut handle: Option<RoomHandle> = None;
        for ((slot, (room, num)), record) in slots.zip(missing).zip(records) {
            let Some(record) = record else { continue };
            let version = match &handle {
                Some(handle) if handle.num == room => handle.version,
                _ => handle.insert(self.handle(view, room)?).version,
            };
            let event = Arc::new(Event::decode(version, room, num, record)?);
            self.0.events.insert(&event, view.pos());
            *slot = Some(event);
        }
        Ok(found)
    }

    /// The number of an event of this room.
    pub fn event_num(
        &self,
        view: &View,
        room: RoomNum,
        event_id: &EventId,
    ) -> Result<Option<EventNum>, StoreError> {
        let number = view.get::<EventIds>(&(room, event_id.to_string()))?;
        Ok(number.map(|number| number.0))
    }

    /// The numbers of events of this room, in the order asked for.
    pub(crate) fn event_nums(
        view: &View,
        room: RoomNum,
        ids: &[String],
    ) -> Result<Vec<Option<EventNum>>, StoreError> {
        let keys: Vec<(RoomNum, String)> = ids.iter().map(|id| (room, id.clone())).collect();
        let numbers = view.multi_get::<EventIds>(&keys)?;
        Ok(numbers
            .into_iter()
            .map(|number| number.map(|number| number.0))
            .collect())
    }

    /// Events of this room by id, whatever became of them, in the order asked for.
    pub(crate) fn events_by_id(
        &self,
        view: &View,
        room: RoomNum,
        ids: &[String],
    ) -> Result<Vec<Option<Arc<Event>>>, StoreError> {
        let numbers = Self::event_nums(view, room, ids)?;
        let present: Vec<EventNum> = numbers.iter().flatten().copied().collect();
        let mut events = self.events(view, room, &present)?.into_iter();
        Ok(numbers
            .into_iter()
            .map(|number| number.and_then(|_| events.next().flatten()))
            .collect())
    }

    /// The nodes of the room's state trees, for the functions of `myelin_state`.
    pub fn nodes<'a>(&'a self, view: &'a View, room: RoomNum) -> TreeNodes<'a> {
        TreeNodes {
            cache: CachedNodes::new(&self.0.nodes, StoredNodes { view, room }),
        }
    }
}

/// The version that a room's row names.
pub(crate) fn stored_version(version: &str) -> Result<RoomVersion, StoreError> {
    RoomVersion::from_str(version).map_err(|_| StoreError::Codec {
        table: myelin_data::rooms::Rooms::NAME,
        part: RowPart::Value,
        source: CodecError::Invalid("room version is not supported"),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use allocation_counter::measure;
    use myelin_data::rooms::{EventHeader, EventRecord, EventStatus, SentBy};
    use myelin_rules::{EventBuilder, EventRef, PowerLevels, RoomVersion, Signer, SigningKey};
    use myelin_types::{EventNum, Millis, Pos, RoomNum, UserNum};
    use quick_cache::Weighter as _;
    use serde_json::{Value, json};

    use super::{ByMemory, CACHE_ROW, Cached, Event};

    const ROOM: &str = "!w0jRqQdLOeNZ2dGqYcqDmAkpzBNMAVNJ5DFMTWIWcrs";

    fn record(kind: &str, state_key: Option<&str>, content: Value) -> EventRecord {
        let Value::Object(content) = content else {
            panic!("the cases are objects");
        };
        let id = "$7Rb3vzVYIJ7vqDJ3h2Lq8iOOkmcxqUIUB0BmPq1XkUc";
        let signer = Signer::new("example.org", SigningKey::from_seed("a_test", [7; 32]));
        let pdu = EventBuilder {
            // The create event of this version makes the room's id.
            room_id: (kind != "m.room.create").then(|| ROOM.to_owned()),
            sender: "@somebody:example.org".to_owned(),
            event_type: kind.to_owned(),
            state_key: state_key.map(str::to_owned),
            content,
            redacts: None,
            prev_events: vec![EventRef::id(id)],
            auth_events: vec![EventRef::id(id); 4],
            depth: 1,
            origin_server_ts: Millis(0),
        }
        .sign(RoomVersion::V12, &signer)
        .expect("a small event");
        EventRecord {
            pos: Pos(7),
            header: EventHeader {
                event_id: pdu.event_id().to_owned(),
                sender: UserNum(1),
                place: None,
                status: EventStatus::Accepted,
                state_before: None,
                state_after: [1; 16],
                replaces: None,
                redacted_by: None,
                transaction: Some(SentBy {
                    device_id: "ABCDEFGHIJ".to_owned(),
                    transaction_id: "m1732474000000.12".to_owned(),
                }),
                current: None,
                thread: None,
            },
            json: pdu.json().as_bytes().to_vec(),
        }
    }

    fn decoded(record: EventRecord) -> Arc<Event> {
        let event = Event::decode(RoomVersion::V12, RoomNum(1), EventNum(1), record);
        Arc::new(event.expect("it was just built"))
    }

    /// What is asked of an event makes it grow, so the cache has to have counted that from the beginning.
    #[test]
    fn a_cached_event_takes_no_more_than_the_cache_counts() {
        let members = |count: u32| -> Value {
            let level = |number| (format!("@member{number}:example.org"), json!(50));
            (0..count)
                .map(level)
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let message = |bytes| json!({ "msgtype": "m.text", "body": "x".repeat(bytes) });
        let join = json!({ "membership": "join", "displayname": "Somebody", "avatar_url": null });
        let levels = |count| json!({ "users": members(count), "events": { "m.room.name": 50 } });
        let deep = json!({ "a": { "b": { "c": { "d": [[1], [2, 3], [], {}] } } } });
        for (kind, state_key, content) in [
            ("m.room.message", None, message(0)),
            ("m.room.message", None, message(1_000)),
            ("m.room.message", None, message(30_000)),
            ("m.room.member", Some("@somebody:example.org"), join),
            ("m.room.power_levels", Some(""), levels(1)),
            ("m.room.power_levels", Some(""), levels(300)),
            ("m.room.create", Some(""), json!({ "room_version": "12" })),
            ("org.example.deep", Some(""), deep.clone()),
            ("org.example.deep", None, deep),
        ] {
            let record = record(kind, state_key, content);
            let mut counted = 0;
            let taken = measure(|| {
                let event = decoded(record.clone());
                counted = Cached::from(Arc::clone(&event)).weight;
                // What reading it, and authorising others by it, leaves behind.
                if event.pdu.state_key().is_some() {
                    event.pdu.content();
                    drop(PowerLevels::new(&event.pdu, Some(&event.pdu)));
                } else {
                    event.pdu.content_value("m.relates_to");
                }
                std::mem::forget(event);
            });
            let taken = u64::try_from(taken.bytes_current).expect("nothing was freed");
            assert!(taken <= counted, "{kind}: {taken} bytes, {counted} counted");
            let most = 3 * taken + CACHE_ROW as u64;
            assert!(counted <= most, "{kind}: {counted} counted, {taken} bytes");
        }
    }

    /// A message is checked before it is kept, which decodes all of it.
    #[test]
    fn a_sent_message_is_kept_without_what_was_decoded_of_it() {
        let content = json!({ "msgtype": "m.text", "body": "x".repeat(1_000) });
        let event = decoded(record("m.room.message", None, content));
        let cached = Cached::from(Arc::clone(&event));
        let before = cached.weight;
        event.pdu.content();
        assert!(Cached::from(Arc::clone(&event)).weight > before + 1_000);
        assert_eq!(ByMemory.weight(&event.num, &cached), before);
        let kept = Arc::new(event.kept(Pos(9)));
        assert_eq!(Cached::from(Arc::clone(&kept)).weight, before);
        assert_eq!((kept.pos, kept.pdu.json()), (Pos(9), event.pdu.json()));
    }
}
