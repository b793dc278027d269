//! What a user's membership opens to him in a room.

use myelin_data::rooms::{Membership, Place, UserRoom, UserRooms};
use myelin_rules::visibility::HistoryVisibility;
use myelin_state::Root;
use myelin_store::StoreError;
use myelin_types::UserNum;

use super::{ReadError, RoomView, room_view::membership_of};

/// A user's access to a room as a whole; single events are then judged by [`Sight`](super::Sight).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// He is in the room.
    Joined,
    /// He was in the room and left it: he sees it as it was then.
    Departed(Departure),
    /// He never was in the room, or forgot it, but everybody may read it.
    Peeking,
    /// He has no business there; his membership, if he ever had one.
    None(Option<Membership>),
}

/// Where somebody left a room for the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// The place of the event that ended his last stay.
    pub place: Place,
    /// The state after that event.
    pub state: Root,
}

/// How many of a user's memberships are followed back in search of his last stay. Nobody is invited and refused so
/// often without somebody joining, unless to make this slow.
const MOST_MEMBERSHIPS: usize = 100;

impl Access {
    /// The access of a user.
    pub fn of(room: &RoomView<'_>, user: UserNum) -> Result<Access, StoreError> {
        let relation = room.view().get::<UserRooms>(&(user, room.num()))?;
        match &relation {
            Some(relation) if relation.membership == Membership::Join => return Ok(Access::Joined),
            Some(relation) if !relation.forgotten => {
                if let Some(departure) = Departure::of(room, relation)? {
                    return Ok(Access::Departed(departure));
                }
            }
            _ => {}
        }
        if visibility_in(room, room.current()?)? == HistoryVisibility::WorldReadable {
            return Ok(Access::Peeking);
        }
        Ok(Access::None(relation.map(|relation| relation.membership)))
    }

    /// The state that the user may read: the current one, or that at his leaving.
    pub fn state(&self, room: &RoomView<'_>) -> Result<Root, ReadError> {
        match self {
            Access::Joined | Access::Peeking => Ok(room.current()?),
            Access::Departed(departure) => Ok(departure.state),
            Access::None(_) => Err(ReadError::NotInRoom),
        }
    }

    /// Whether the user joined, or stayed, at any time after what stands at `place`. Of what has no place in the timeline
    /// that is known only of those who are in the room now.
    pub(super) fn joined_after(&self, place: Option<Place>) -> bool {
        match self {
            Access::Joined => true,
            Access::Departed(departure) => place.is_some_and(|place| place < departure.place),
            Access::Peeking | Access::None(_) => false,
        }
    }
}

impl Departure {
    /// Where the user of `relation` left the room, if he was ever in it. A ban or a refused invitation after he left
    /// does not show him more of the room than he saw before.
    pub fn of(room: &RoomView<'_>, relation: &UserRoom) -> Result<Option<Departure>, StoreError> {
        let mut event = room.event(relation.event)?;
        for _ in 0..MOST_MEMBERSHIPS {
            let Some(replaced) = event.header.replaces else {
                return Ok(None);
            };
            let before = room.event(replaced)?;
            if membership_of(&before) == Membership::Join {
                return Ok(event.header.place.map(|place| Departure {
                    place,
                    state: event.header.after(),
                }));
            }
            event = before;
        }
        Ok(None)
    }
}

/// The history visibility of a state.
pub(super) fn visibility_in(
    room: &RoomView<'_>,
    state: Root,
) -> Result<HistoryVisibility, StoreError> {
    let event = match room.state_entry(state, "m.room.history_visibility", "")? {
        Some(event) => Some(room.event(event)?),
        None => None,
    };
    Ok(visibility_of(event.as_deref()))
}

/// The history visibility that an event sets.
pub(super) fn visibility_of(event: Option<&crate::Event>) -> HistoryVisibility {
    let value = event.and_then(|event| event.pdu.content().get("history_visibility")?.as_str());
    HistoryVisibility::from_value(value)
}
