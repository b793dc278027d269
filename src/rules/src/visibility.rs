//! Who may see which event of a room's history. Spec: client-server API, "Room history visibility".

use serde_json::Value;

use crate::{Membership, Pdu};

/// `history_visibility` of `m.room.history_visibility`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HistoryVisibility {
    /// Anyone may read.
    WorldReadable,
    /// Members may read everything; also what holds when nothing valid is set.
    #[default]
    Shared,
    /// Members may read from their invitation on.
    Invited,
    /// Members may read from their joining on.
    Joined,
}

/// The state that counts for one user, at one side of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// The room's visibility.
    pub visibility: HistoryVisibility,
    /// The user's membership; [`Membership::Leave`] when he has none.
    pub membership: Membership,
}

impl HistoryVisibility {
    /// From the value in the event; anything unknown is `shared`.
    pub fn from_value(value: Option<&str>) -> Self {
        match value {
            Some("world_readable") => Self::WorldReadable,
            Some("invited") => Self::Invited,
            Some("joined") => Self::Joined,
            _ => Self::Shared,
        }
    }

    /// What the room's `m.room.history_visibility` event sets, if there is one.
    pub fn of(event: Option<&Pdu>) -> Self {
        let value = event.and_then(|event| event.content().get("history_visibility"));
        Self::from_value(value.and_then(Value::as_str))
    }

    /// The value as in the event.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WorldReadable => "world_readable",
            Self::Shared => "shared",
            Self::Invited => "invited",
            Self::Joined => "joined",
        }
    }
}

/// Whether the user may see the event.
///
/// `before` and `after` are the state before and after the event. They differ only for state events; the rule then
/// takes the friendlier side, which is what the spec asks for `m.room.history_visibility` and for the user's own
/// `m.room.member`, the only events that change a [`Side`]. `joined_later` says whether the user joined at any point
/// after the event (in particular: he is joined now).
pub fn can_see_event(before: Side, after: Side, joined_later: bool) -> bool {
    before.allows(joined_later) || after.allows(joined_later)
}

impl Side {
    fn allows(self, joined_later: bool) -> bool {
        match (self.visibility, self.membership) {
            // 1. and 2.
            (HistoryVisibility::WorldReadable, _) | (_, Membership::Join)
            // 4.
            | (HistoryVisibility::Invited, Membership::Invite) => true,
            // 3.
            (HistoryVisibility::Shared, _) => joined_later,
            // 5.
            (HistoryVisibility::Invited | HistoryVisibility::Joined, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use HistoryVisibility::{Invited, Joined, Shared, WorldReadable};
    use Membership::{Ban, Invite, Join, Knock, Leave};

    use super::*;

    fn side(visibility: HistoryVisibility, membership: Membership) -> Side {
        Side {
            visibility,
            membership,
        }
    }

    #[test]
    fn each_visibility_with_each_membership() {
        for membership in [Leave, Join, Invite, Knock, Ban] {
            let check = |visibility, joined_later| {
                let side = side(visibility, membership);
                can_see_event(side, side, joined_later)
            };
            for joined_later in [false, true] {
                assert!(check(WorldReadable, joined_later));
                assert_eq!(check(Joined, joined_later), membership == Join);
                assert_eq!(
                    check(Invited, joined_later),
                    matches!(membership, Join | Invite)
                );
            }
            assert!(check(Shared, true));
            assert_eq!(check(Shared, false), membership == Join);
        }
    }

    #[test]
    fn a_change_of_visibility_is_seen_from_either_side() {
        let (open, closed) = (side(WorldReadable, Leave), side(Joined, Leave));
        assert!(can_see_event(open, closed, false));
        assert!(can_see_event(closed, open, false));
        assert!(!can_see_event(closed, closed, true));
    }

    #[test]
    fn users_see_their_own_joining_and_leaving() {
        assert!(can_see_event(side(Joined, Leave), side(Joined, Join), true));
        assert!(can_see_event(side(Joined, Join), side(Joined, Ban), false));
        assert!(can_see_event(
            side(Invited, Invite),
            side(Invited, Leave),
            false
        ));
        assert!(!can_see_event(
            side(Joined, Leave),
            side(Joined, Invite),
            false
        ));
    }

    #[test]
    fn what_is_not_understood_is_shared() {
        for value in [None, Some(""), Some("world-readable")] {
            assert_eq!(HistoryVisibility::from_value(value), Shared);
        }
        for visibility in [WorldReadable, Shared, Invited, Joined] {
            let round_trip = HistoryVisibility::from_value(Some(visibility.as_str()));
            assert_eq!(round_trip, visibility);
        }
    }
}
