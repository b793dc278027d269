//! How much memory an event takes, so that caches of events can hold to their bounds.

use super::{Inner, Pdu};

/// A node of the maps in which JSON objects are decoded: room for eleven members, however few there are.
const MAP_NODE: usize = 656;
/// A member of an object: nodes may be half empty, and its key and value are blocks of their own.
const MEMBER: usize = 160;
/// An element of a list; lists grow by doubling.
const ELEMENT: usize = 96;
/// The two counters in front of what is shared.
const COUNTERS: usize = 16;

/// What the allocator uses for a block of `bytes`: it has blocks of certain sizes, up to an eighth apart.
pub const fn block(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=16 => 16,
        _ => bytes.next_multiple_of(16) + bytes / 16,
    }
}

impl Pdu {
    /// Bytes of memory that the event takes. Of a state event with its content decoded, since authorisation looks at it
    /// sooner or later; of another as it is now.
    pub fn memory(&self) -> usize {
        let event = &*self.0;
        let lists = [&event.prev_events, &event.auth_events];
        let strings = [
            &event.event_id,
            &event.room_id,
            &event.sender,
            &event.event_type,
            &event.json,
        ];
        let strings = strings
            .into_iter()
            .chain(&event.state_key)
            .chain(&event.redacts)
            .chain(lists.into_iter().flatten());
        block(size_of::<Inner>() + COUNTERS)
            + strings.map(|text| block(text.len())).sum::<usize>()
            + lists
                .map(|ids| block(size_of_val(&**ids)))
                .iter()
                .sum::<usize>()
            + self.decoded_memory()
    }

    fn decoded_memory(&self) -> usize {
        let event = &*self.0;
        let state = event.state_key.is_some();
        if !state && event.object.get().is_none() {
            return 0;
        }
        let content = self.content_json();
        let (mut maps, mut members, mut lists, mut commas) = (0_usize, 0, 0, 0);
        let mut before = 0;
        for byte in content.bytes() {
            match (before, byte) {
                (_, b'{') => maps += 1,
                (b'"', b':') => members += 1,
                (_, b'[') => lists += 1,
                (_, b',') => commas += 1,
                _ => {}
            }
            before = byte;
        }
        // Of the commas all but those between members are between elements.
        let elements = (commas + maps + lists).saturating_sub(members);
        let object = maps * MAP_NODE + members * MEMBER + elements * ELEMENT + content.len();
        // Authorisation keeps these two in a form of its own besides.
        let twice = matches!(&*event.event_type, "m.room.create" | "m.room.power_levels");
        if state && twice { 2 * object } else { object }
    }
}
