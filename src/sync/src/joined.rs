//! The join section: a room that the user is in.

use myelin_data::rooms::{Membership, Place, UserRoom};
use myelin_rooms::{
    Completeness,
    read::{Access, RoomView, Shaper, Sight, Span},
};
use myelin_state::Root;
use myelin_store::StoreError;
use myelin_types::RoomNum;

use crate::{
    Events, JoinedRoom, Summary, Timeline, UnreadNotifications,
    answer::{Context, Notes},
    ephemeral,
    state::{self, StateChange},
    summary, timeline, unread,
};

/// Whether anything about the room may have changed: a comparison of positions in memory.
pub(crate) fn may_have_news(
    context: &Context<'_>,
    room: RoomNum,
    relation: &UserRoom,
) -> Result<bool, StoreError> {
    let Some(since) = context.since else {
        return Ok(true);
    };
    let known = !context.full_state
        && relation.pos <= since.pos
        && !context.account_data.has(room)
        && !context.typing.contains(&room);
    if !known {
        return Ok(true);
    }
    let positions = context.sync.rooms.positions(context.view, room)?;
    Ok(positions.timeline > since.pos || positions.receipts > since.pos)
}

/// What the client knows of a room.
struct Known {
    /// The point up to which it has seen the timeline.
    place: Place,
    /// The state there; empty if it knows nothing of the room.
    state: Root,
    /// Whether the user joined after the client's token.
    newly_joined: bool,
}

impl Known {
    const NOTHING: Known = Known {
        place: Place::START,
        state: Root::EMPTY,
        newly_joined: false,
    };

    fn of(
        context: &Context<'_>,
        room: &RoomView<'_>,
        relation: &UserRoom,
    ) -> Result<Known, StoreError> {
        let Some(since) = context.since else {
            return Ok(Known::NOTHING);
        };
        let lacked_members = context.filters.lazy.is_none()
            && matches!(
                room.rooms().completeness(room.view(), room.num())?,
                Completeness::Since(pos) if pos > since.pos
            );
        if lacked_members {
            // The room was not shown to a client that wants all members.
            return Ok(Known {
                newly_joined: true,
                ..Known::NOTHING
            });
        }
        let Some((place, state)) = context.ends.of(room, since.pos)? else {
            return Ok(Known {
                newly_joined: true,
                ..Known::NOTHING
            });
        };
        if relation.pos > since.pos
            && room.membership(state, &context.viewer.user_id)? != Membership::Join
        {
            return Ok(Known {
                newly_joined: true,
                ..Known::NOTHING
            });
        }
        Ok(Known {
            place,
            state,
            newly_joined: false,
        })
    }
}

/// What is new of a room; None if nothing is.
pub(crate) fn joined_room(
    context: &Context<'_>,
    room: &RoomView<'_>,
    relation: &UserRoom,
    notes: &mut Notes,
) -> Result<Option<JoinedRoom>, StoreError> {
    let Some(head) = room.head()? else {
        return Ok(None);
    };
    if context.filters.lazy.is_none()
        && room.rooms().completeness(room.view(), room.num())? == Completeness::Partial
    {
        // A client that wants all members is shown the room when they are known.
        return Ok(None);
    }
    let viewer = context.viewer;
    let known = Known::of(context, room, relation)?;
    let fresh = context.since.is_none() || known.newly_joined;
    let mut sight = Sight::new(room, Access::Joined, viewer)?;
    let span = Span {
        start: known.place,
        end: head.last.next(),
    };
    let mut recent = timeline::recent(context, room, &mut sight, span)?;
    if !context.state_after {
        recent = recent.without_outdated_state(room, head.root(), head.last)?;
    }

    let start = if recent.start == known.place {
        known.state
    } else {
        room.state_before(recent.start)?
    };
    let whole = context.full_state || known.state.is_empty();
    let summary = if whole || members_moved(room, known.state, head.root())? {
        summary::summary(room, head, viewer.user)?
    } else {
        Summary::default()
    };
    let mut members = summary.heroes.clone().unwrap_or_default();
    if whole {
        members.push(viewer.user_id.to_string());
    }
    let change = StateChange {
        known: known.state,
        whole,
        start,
        end: head.root(),
        timeline: &recent.events,
        members: &members,
    };
    let shaper =
        Shaper::new(room, viewer, context.filters.format).with_fields(context.filters.fields);
    let state = state::events(context, room, &change, &shaper, notes)?;

    let (ephemeral, own_receipts) = ephemeral(context, room, fresh)?;
    let account_data = if !context.filters.account_data.takes_room(room.room_id()) {
        Events::default()
    } else if fresh {
        context
            .account_data
            .all(room.num(), &context.filters.account_data)?
    } else {
        context
            .account_data
            .of(room.num(), &context.filters.account_data)?
    };
    let nothing = recent.events.is_empty()
        && !recent.is_limited(start)
        && state.is_empty()
        && ephemeral.is_empty()
        && account_data.is_empty()
        && summary.is_empty()
        && !own_receipts;
    if nothing && !fresh && !context.full_state {
        return Ok(None);
    }

    let listener = context.listener()?;
    let counted = unread::count(context.sync, room, viewer, listener, (relation, head))?;
    let mut joined = JoinedRoom {
        summary,
        timeline: Timeline {
            events: shaper.timeline(&mut sight, &recent.events)?,
            limited: recent.is_limited(start) || known.newly_joined,
            prev_batch: Some(room.token(recent.start)),
        },
        ephemeral,
        account_data,
        ..JoinedRoom::default()
    };
    let state = Some(Events { events: state });
    if context.state_after {
        joined.state_after = state;
    } else {
        joined.state = state;
    }
    if context.filters.count_threads {
        joined.unread_notifications = Some(counted.main());
        joined.unread_thread_notifications = counted.threads();
    } else {
        joined.unread_notifications = Some(counted.total());
    }
    notes.unread.counted.push(counted);
    Ok(Some(joined))
}

/// Whether memberships or the room's names differ, which the summary depends on.
fn members_moved(room: &RoomView<'_>, old: Root, new: Root) -> Result<bool, StoreError> {
    let names = [("m.room.name", ""), ("m.room.canonical_alias", "")];
    let names = room
        .rooms()
        .interner()
        .find_state_keys(room.view(), &names)?;
    let changes = room.state_diff(old, new)?;
    Ok(changes
        .iter()
        .any(|change| change.key.is_member() || names.contains(&Some(change.key))))
}

/// Receipts and typing, and whether the user set a receipt, which changes what he has not read.
fn ephemeral(
    context: &Context<'_>,
    room: &RoomView<'_>,
    fresh: bool,
) -> Result<(Events, bool), StoreError> {
    let matcher = &context.filters.ephemeral;
    let wanted = matcher.takes_room(room.room_id());
    let since = if fresh { None } else { context.since };
    let (mut events, own) = if wanted && matcher.takes_type("m.receipt") {
        ephemeral::receipts(room, context.viewer, since.map(|since| since.pos))?
    } else {
        // Unread counts follow the user's receipts, whether he wants to hear of those or not. A room that is new to him
        // is told anyway.
        let own = match since {
            Some(since) => ephemeral::has_own_receipts(room, context.viewer, since.pos)?,
            None => false,
        };
        (Vec::new(), own)
    };
    let typing = context
        .sync
        .rooms
        .typing()
        .since(room.num(), since.map_or(0, |since| since.typing));
    if let Some(snapshot) = typing
        && wanted
        && matcher.takes_type("m.typing")
        && !(since.is_none() && snapshot.users.is_empty())
    {
        events.push(ephemeral::typing(room, &snapshot, context.ignored()?)?);
    }
    Ok((Events { events }, own))
}

impl UnreadNotifications {
    /// The sum of two counts.
    #[must_use]
    pub(crate) fn plus(self, other: UnreadNotifications) -> UnreadNotifications {
        UnreadNotifications {
            highlight_count: self.highlight_count + other.highlight_count,
            notification_count: self.notification_count + other.notification_count,
        }
    }

    /// That many times this.
    #[must_use]
    pub(crate) fn times(self, number: u64) -> UnreadNotifications {
        UnreadNotifications {
            highlight_count: self.highlight_count * number,
            notification_count: self.notification_count * number,
        }
    }
}
