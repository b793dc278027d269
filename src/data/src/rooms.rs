//! Tables of rooms: events, timelines, state, memberships, receipts, aliases.
//!
//! ```text
//! (RoomNum, event id) --EventIds--> EventNum --Events--> record {place, state root, PDU}
//! (RoomNum, segment, index) --Timeline--> {pos, EventNum, ...}
//! root --StateNodes--> ... --> StateKeyNum -> EventNum
//! ```

use myelin_state::{NodeHash, Root};
use myelin_store::{CodecError, Key, Parser, Value, Writer};
use myelin_types::{EventNum, Millis, Pos, RoomNum, StateKeyNum, UserNum};
use serde::{Deserialize, Serialize};

use crate::{Present, Shown, accounts::Number, postcard_value, table};

/// Shapes that older versions of the program stored.
mod v1 {
    use myelin_types::{EventNum, UserNum};
    use serde::Deserialize;

    use super::{EventStatus, Place, SentBy};

    #[derive(Deserialize)]
    pub(super) struct EventTraits {
        state: bool,
        notifies: bool,
        special: bool,
        threaded: bool,
    }

    impl From<EventTraits> for super::EventTraits {
        fn from(old: EventTraits) -> Self {
            Self {
                state: old.state,
                notifies: old.notifies,
                special: old.special,
                threaded: old.threaded,
                // Nothing was sent to other servers then.
                outgoing: false,
            }
        }
    }

    #[derive(Deserialize)]
    pub(super) struct EventHeader {
        event_id: String,
        sender: UserNum,
        place: Option<Place>,
        status: EventStatus,
        state_before: Option<[u8; 16]>,
        state_after: [u8; 16],
        replaces: Option<EventNum>,
        redacted_by: Option<EventNum>,
        transaction: Option<SentBy>,
        current: Option<[u8; 16]>,
    }

    impl From<EventHeader> for super::EventHeader {
        fn from(old: EventHeader) -> Self {
            Self {
                event_id: old.event_id,
                sender: old.sender,
                place: old.place,
                status: old.status,
                state_before: old.state_before,
                state_after: old.state_after,
                replaces: old.replaces,
                redacted_by: old.redacted_by,
                transaction: old.transaction,
                current: old.current,
                // It was not remembered.
                thread: None,
            }
        }
    }
}

table! {
    /// The number of a room id. Floor: the room's purge.
    RoomNums = "room_nums", Point, String => Number
}

table! {
    /// What does not change about a room. Floor: the room's purge.
    Rooms = "rooms", Point, RoomNum => Room
}

table! {
    /// Where a room's next event attaches; overwritten with every event.
    Heads = "heads", Churn, RoomNum => Head
}

table! {
    /// Events by number. Floor: the room's purge (and retention, per room).
    Events = "events", Blob, (RoomNum, EventNum) => EventRecord
}

table! {
    /// The number of an event id within its room: an event of another room is never an answer. Floor as [`Events`].
    EventIds = "event_ids", Point, (RoomNum, String) => EventNumber
}

table! {
    /// The history order of a room. New events append to the last segment; older ones prepend to the front of theirs.
    /// Within a segment, positions do not decrease from the entry where the segment was opened onwards. Floor as
    /// [`Events`].
    Timeline = "timeline", Scan, (RoomNum, Place) => TimelineEntry
}

table! {
    /// What is missing in front of a segment of a room's timeline; no row where nothing is. Floor: filling the gap, the
    /// room's purge.
    Gaps = "gaps", Scan, (RoomNum, u32) => Gap
}

table! {
    /// Redactions by the id of their target, where that is not known yet. Several may wait for the same: which of them may
    /// redact it shows when it arrives. Floor: the arrival of the target, the room's purge.
    AwaitedTargets = "awaited_targets", Scan, (RoomNum, String, EventNum) => Present
}

table! {
    /// Nodes of the room's state trees, shared by all states of all time. Floor: the room's purge; unreachable ones are
    /// collected room by room.
    StateNodes = "state_nodes", Blob, (RoomNum, [u8; 16]) => Bytes
}

table! {
    /// The number of an event type and state key. Shared by all rooms; grows with the distinct pairs, never per event.
    StateKeyNums = "state_key_nums", Point, (String, String) => Number
}

table! {
    /// The pair that a number stands for; grows with [`StateKeyNums`].
    StateKeys = "state_keys", Point, StateKeyNum => StateKeyText
}

table! {
    /// A user's relation to each room that he has one with. Floor: forgetting the room (for users who left it), its
    /// purge.
    UserRooms = "user_rooms", Scan, (UserNum, RoomNum) => UserRoom
}

table! {
    /// The users of a room by membership. One row a member: the old one is deleted in the batch that writes the new one.
    RoomMembers = "room_members", Scan, (RoomNum, Membership, UserNum) => Present
}

table! {
    /// What a user who was invited or who knocked is shown of the room. Floor: deleted with the next membership.
    StrippedStates = "stripped_states", Point, (UserNum, RoomNum) => Shown
}

table! {
    /// The last receipt of a user for each kind and thread of a room; overwritten in place.
    Receipts = "receipts", Scan, (RoomNum, UserNum, ReceiptKind, String) => Receipt
}

table! {
    /// The same, in the order of change: exactly one row for each of [`Receipts`].
    ReceiptsByPos = "receipts_by_pos", Churn, (RoomNum, Pos, UserNum, ReceiptKind, String) => Present
}

table! {
    /// The room that a local alias points to. Floor: deletion of the alias, the room's purge.
    Aliases = "aliases", Point, String => Alias
}

table! {
    /// The local aliases of a room; one row for each of [`Aliases`].
    RoomAliases = "room_aliases", Scan, (RoomNum, String) => Present
}

table! {
    /// Rooms that are listed in the public directory. Floor: unlisting, the room's purge.
    Published = "published", Scan, RoomNum => Present
}

/// What does not change about a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// The room's id.
    pub room_id: String,
    /// The id of the room's version.
    pub version: String,
    /// When this server met it.
    pub created_at: Millis,
}
postcard_value!(Room, 1);

/// Where a room's next event attaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Grows by one with every batch of the room; what the next batch expects.
    pub sequence: u64,
    /// The forward extremities, never empty: number and event id.
    pub extremities: Vec<(EventNum, String)>,
    /// The greatest depth among the forward extremities.
    pub depth: u64,
    /// The room's current state.
    pub state: [u8; 16],
    /// The last place of the timeline.
    pub last: Place,
    /// How many events up to `last` notify by the default rules.
    pub notifying: u64,
    /// How many users are joined.
    pub joined: u64,
    /// How many users are invited.
    pub invited: u64,
}
postcard_value!(Head, 1);

impl Head {
    /// The root of the current state.
    pub fn root(&self) -> Root {
        root(self.state)
    }
}

/// A stored root as the state trees know it.
pub fn root(bytes: [u8; 16]) -> Root {
    Root(NodeHash(bytes))
}

/// A place in a room's timeline.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Place {
    /// The segment: a contiguous run of events.
    pub segment: u32,
    /// The index in the segment; history that is filled in later counts down from its front.
    pub index: i64,
}

impl Place {
    /// Before everything.
    pub const START: Place = Place {
        segment: 0,
        index: i64::MIN,
    };

    /// In no timeline: of memberships in rooms that the server knows only from outside. Segments begin with 1.
    pub const NOWHERE: Place = Place {
        segment: 0,
        index: 0,
    };

    /// The following place of the same segment.
    #[must_use]
    pub fn next(self) -> Place {
        Place {
            segment: self.segment,
            index: self.index + 1,
        }
    }

    /// Whether it was filled in with history, later than its segment was opened.
    pub fn is_filled_in(self) -> bool {
        self.index < 0
    }
}

impl Key for Place {
    fn encode(&self, writer: &mut Writer) {
        (self.segment, self.index).encode(writer);
    }

    fn decode(parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        let (segment, index) = <(u32, i64)>::decode(parser)?;
        Ok(Place { segment, index })
    }
}

/// A gap in front of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The events that those at the front of the segment refer to and that are not known.
    pub missing: Vec<String>,
}
postcard_value!(Gap, 1);

/// An event's number, as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventNumber(pub EventNum);
postcard_value!(EventNumber, 1);

/// What became of an event (server-server specification, checks on receipt of a PDU).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventStatus {
    /// It is part of the room.
    Accepted,
    /// It passed its own checks but not those against the current state.
    SoftFailed,
    /// It failed the authorisation rules.
    Rejected,
    /// It is known only because another event refers to it.
    Outlier,
}

/// A stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// The position of the batch that stored it.
    pub pos: Pos,
    /// Everything about it that is not the event itself.
    pub header: EventHeader,
    /// The event in federation format as canonical JSON; pruned if the event was redacted.
    pub json: Vec<u8>,
}

/// What the server knows of an event besides its own text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventHeader {
    /// Its id.
    pub event_id: String,
    /// Who sent it.
    pub sender: UserNum,
    /// Where it stands in the timeline; none for outliers and rejected events.
    pub place: Option<Place>,
    /// What became of it.
    pub status: EventStatus,
    /// The state before it, for state events; for others it is the state after.
    pub state_before: Option<[u8; 16]>,
    /// The state after it.
    pub state_after: [u8; 16],
    /// The state event of the same type and key that it replaced.
    pub replaces: Option<EventNum>,
    /// The redaction that pruned it.
    pub redacted_by: Option<EventNum>,
    /// The transaction that sent it from here.
    pub transaction: Option<SentBy>,
    /// The room's current state once it was appended, where that is not the state after it: other branches of the room's
    /// history count as well.
    pub current: Option<[u8; 16]>,
    /// The root of the thread that it is in, as its relations said when it came; none for the main timeline.
    pub thread: Option<String>,
}

/// Which request of which device sent an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentBy {
    /// The device, which alone is shown the id.
    pub device_id: String,
    /// The transaction id that the client chose.
    pub transaction_id: String,
}

impl EventHeader {
    /// The root of the state before the event.
    pub fn before(&self) -> Root {
        root(self.state_before.unwrap_or(self.state_after))
    }

    /// The root of the state after the event.
    pub fn after(&self) -> Root {
        root(self.state_after)
    }

    /// The root of the room's current state once the event had been appended.
    pub fn current(&self) -> Root {
        root(self.current.unwrap_or(self.state_after))
    }
}

impl Value for EventRecord {
    const VERSION: u8 = 2;

    fn encode(&self, writer: &mut Writer) {
        writer.pos(self.pos);
        writer.postcard(&self.header);
        writer.bytes(&self.json);
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => Ok(EventRecord {
                pos: parser.pos()?,
                header: parser.postcard::<v1::EventHeader>()?.into(),
                json: parser.rest().to_vec(),
            }),
            2 => Ok(EventRecord {
                pos: parser.pos()?,
                header: parser.postcard()?,
                json: parser.rest().to_vec(),
            }),
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

/// One event in the history order of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimelineEntry {
    /// The position of the batch that put it here.
    pub pos: Pos,
    /// The event.
    pub event: EventNum,
    /// Who sent it.
    pub sender: UserNum,
    /// How many events of the room up to and including this one notify by the default rules: the difference of two
    /// entries is what an absence has missed, but for what [`Notables`](crate::unread::Notables) name. History that is
    /// filled in is not among them.
    pub notifying: u64,
    /// What can be known of it without reading it.
    pub traits: EventTraits,
}

/// What can be known of an event without reading it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventTraits {
    /// It is a state event.
    pub state: bool,
    /// By the default rules it notifies everybody in the room but its sender.
    pub notifies: bool,
    /// By the default rules it may notify or highlight for some users otherwise than for others: it mentions somebody,
    /// invites somebody, ends the room.
    pub special: bool,
    /// It is in a thread.
    pub threaded: bool,
    /// It is for this server to send it to the other servers of the room: it was made here, or taken for another server that
    /// joined, left or knocked through this one.
    pub outgoing: bool,
}

impl Value for TimelineEntry {
    const VERSION: u8 = 2;

    fn encode(&self, writer: &mut Writer) {
        writer.pos(self.pos);
        writer.postcard(&(self.event, self.sender, self.notifying, self.traits));
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => {
                let pos = parser.pos()?;
                let (event, sender, notifying, traits): (_, _, _, v1::EventTraits) =
                    parser.postcard()?;
                Ok(TimelineEntry {
                    pos,
                    event,
                    sender,
                    notifying,
                    traits: traits.into(),
                })
            }
            2 => {
                let pos = parser.pos()?;
                let (event, sender, notifying, traits) = parser.postcard()?;
                Ok(TimelineEntry {
                    pos,
                    event,
                    sender,
                    notifying,
                    traits,
                })
            }
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

/// Bytes whose format another crate defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Value for Bytes {
    const VERSION: u8 = 1;

    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.0);
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => Ok(Bytes(parser.rest().to_vec())),
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

/// An event type and state key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StateKeyText {
    /// The event type.
    pub event_type: String,
    /// The state key.
    pub state_key: String,
}
postcard_value!(StateKeyText, 1);

/// A membership of `m.room.member`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Membership {
    /// In the room.
    Join,
    /// Asked to come in.
    Invite,
    /// Asking to come in.
    Knock,
    /// No longer in the room, or the invitation was declined.
    Leave,
    /// Kept out.
    Ban,
}

impl Membership {
    /// The membership as the specification spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Membership::Join => "join",
            Membership::Invite => "invite",
            Membership::Knock => "knock",
            Membership::Leave => "leave",
            Membership::Ban => "ban",
        }
    }

    /// The membership that the specification spells so.
    pub fn from_name(name: &str) -> Option<Membership> {
        [
            Membership::Join,
            Membership::Invite,
            Membership::Knock,
            Membership::Leave,
            Membership::Ban,
        ]
        .into_iter()
        .find(|membership| membership.as_str() == name)
    }
}

impl Key for Membership {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(*self as u8);
    }

    fn decode(parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        Ok(match parser.u8()? {
            0 => Membership::Join,
            1 => Membership::Invite,
            2 => Membership::Knock,
            3 => Membership::Leave,
            4 => Membership::Ban,
            _ => return Err(CodecError::Invalid("membership")),
        })
    }
}

/// A user's relation to a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRoom {
    /// The position of the batch that last changed the membership.
    pub pos: Pos,
    /// What it is now.
    pub membership: Membership,
    /// The membership event.
    pub event: EventNum,
    /// Where that event stands in the timeline; [`Place::NOWHERE`] if it came from outside of what this server has of the
    /// room.
    pub place: Place,
    /// Where the event stands that began the membership: changes of the profile do not begin it anew.
    pub entered: Place,
    /// Whether the user forgot the room after leaving it.
    pub forgotten: bool,
}

impl Value for UserRoom {
    const VERSION: u8 = 2;

    fn encode(&self, writer: &mut Writer) {
        writer.pos(self.pos);
        writer.postcard(&(
            self.membership,
            self.event,
            self.place,
            self.entered,
            self.forgotten,
        ));
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => {
                let pos = parser.pos()?;
                let (membership, event, place, forgotten) = parser.postcard()?;
                Ok(UserRoom {
                    pos,
                    membership,
                    event,
                    place,
                    // It was not remembered.
                    entered: place,
                    forgotten,
                })
            }
            2 => {
                let pos = parser.pos()?;
                let (membership, event, place, entered, forgotten) = parser.postcard()?;
                Ok(UserRoom {
                    pos,
                    membership,
                    event,
                    place,
                    entered,
                    forgotten,
                })
            }
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

/// The kind of a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReceiptKind {
    /// `m.read`: everybody in the room sees it.
    Read,
    /// `m.read.private`: only the user sees it.
    ReadPrivate,
}

impl Key for ReceiptKind {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(*self as u8);
    }

    fn decode(parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match parser.u8()? {
            0 => Ok(ReceiptKind::Read),
            1 => Ok(ReceiptKind::ReadPrivate),
            _ => Err(CodecError::Invalid("kind of receipt")),
        }
    }
}

/// A receipt. The thread of its key is empty for an unthreaded one, `main`, or a thread's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The position of the batch that set it.
    pub pos: Pos,
    /// The event up to which its user has read.
    pub event_id: String,
    /// Where that event stands.
    pub place: Place,
    /// When it was sent.
    pub at: Millis,
}

impl Value for Receipt {
    const VERSION: u8 = 1;

    fn encode(&self, writer: &mut Writer) {
        writer.pos(self.pos);
        writer.postcard(&(&self.event_id, self.place, self.at));
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => {
                let pos = parser.pos()?;
                let (event_id, place, at) = parser.postcard()?;
                Ok(Receipt {
                    pos,
                    event_id,
                    place,
                    at,
                })
            }
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

/// Where a local alias points, and who made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The room.
    pub room: RoomNum,
    /// The user who may delete it besides the room's moderators.
    pub creator: UserNum,
}
postcard_value!(Alias, 1);

#[cfg(test)]
mod tests {
    use myelin_store::{Parser, Value, Writer};
    use myelin_types::{EventNum, Pos, UserNum};

    use super::{
        EventRecord, EventStatus, EventTraits, Membership, Place, SentBy, TimelineEntry, UserRoom,
    };

    const PLACE: Place = Place {
        segment: 1,
        index: 7,
    };

    fn decode<V: Value>(writer: &Writer, version: u8) -> V {
        let mut parser = Parser::new(writer.as_bytes());
        let value = V::decode(version, &mut parser).expect("what was written can be read");
        parser.finish().expect("all of it");
        value
    }

    #[test]
    fn events_of_the_first_version_are_read() {
        let sent_by = SentBy {
            device_id: "PHONE".to_owned(),
            transaction_id: "1".to_owned(),
        };
        let mut writer = Writer::new();
        writer.pos(Pos(3));
        let state = [1_u8; 16];
        writer.postcard(&(
            ("$a", UserNum(4), Some(PLACE), EventStatus::Accepted),
            (None::<[u8; 16]>, state, None::<EventNum>),
            (Some(EventNum(9)), Some(&sent_by), Some(state)),
        ));
        writer.bytes(b"{}");
        let record: EventRecord = decode(&writer, 1);
        assert_eq!((record.pos, record.json), (Pos(3), b"{}".to_vec()));
        let header = record.header;
        assert_eq!(
            (header.event_id.as_str(), header.sender, header.place),
            ("$a", UserNum(4), Some(PLACE))
        );
        assert_eq!((header.state_after, header.current), (state, Some(state)));
        assert_eq!(header.redacted_by, Some(EventNum(9)));
        assert_eq!((header.transaction, header.thread), (Some(sent_by), None));
    }

    #[test]
    fn timelines_of_the_first_version_are_read() {
        let mut writer = Writer::new();
        writer.pos(Pos(3));
        let traits = (true, false, true, false);
        writer.postcard(&(EventNum(9), UserNum(4), 17_u64, traits));
        let entry: TimelineEntry = decode(&writer, 1);
        let expected = TimelineEntry {
            pos: Pos(3),
            event: EventNum(9),
            sender: UserNum(4),
            notifying: 17,
            traits: EventTraits {
                state: true,
                special: true,
                ..EventTraits::default()
            },
        };
        assert_eq!(entry, expected);
        let mut writer = Writer::new();
        expected.encode(&mut writer);
        assert_eq!(
            decode::<TimelineEntry>(&writer, TimelineEntry::VERSION),
            expected
        );
    }

    #[test]
    fn relations_to_rooms_of_the_first_version_are_read() {
        let mut writer = Writer::new();
        writer.pos(Pos(3));
        writer.postcard(&(Membership::Join, EventNum(9), PLACE, false));
        let old: UserRoom = decode(&writer, 1);
        assert_eq!((old.place, old.entered), (PLACE, PLACE));

        let row = UserRoom {
            entered: Place::START,
            ..old
        };
        let mut writer = Writer::new();
        row.encode(&mut writer);
        assert_eq!(decode::<UserRoom>(&writer, UserRoom::VERSION), row);
    }
}
