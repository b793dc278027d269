//! The leave section: a room that the user left, was taken out of, or whose invitation is gone.

use myelin_data::rooms::{Membership, Place, UserRoom};
use myelin_rooms::read::{Access, Departure, RoomView, Shaper, Sight, Span};
use myelin_state::Root;
use myelin_store::StoreError;

use crate::{
    Events, LeftRoom, Timeline,
    answer::{Context, Notes},
    state::{self, StateChange},
    timeline, unread,
};

/// What the client is told of a room that the user left: the end of his stay, and nothing of what came after it.
pub(crate) fn left_room(
    context: &Context<'_>,
    room: &RoomView<'_>,
    relation: &UserRoom,
    notes: &mut Notes,
) -> Result<Option<LeftRoom>, StoreError> {
    let departure = Departure::of(room, relation)?;
    if relation.place == Place::NOWHERE && !(context.full_state && departure.is_some()) {
        return outside(context, room, relation, notes).map(Some);
    }
    // What came from outside after a stay is in no timeline, which ends where the stay did.
    let place = match departure {
        Some(departure) if relation.place == Place::NOWHERE => departure.place,
        _ => relation.place,
    };
    let access = departure.map_or(Access::None(Some(relation.membership)), Access::Departed);
    let known = match context.since {
        Some(since) => context.ends.of(room, since.pos)?,
        None => None,
    };
    let (known_place, known_state) = known.unwrap_or((Place::START, Root::EMPTY));
    let was_in = context.since.is_some()
        && room.membership(known_state, &context.viewer.user_id)? == Membership::Join;
    // The stay as far as the client has not seen it. Who knew nothing of it gets it like a room that he just joined.
    let (start, known_state, stay) = match departure {
        Some(departure) if was_in => (known_place, known_state, Some(departure)),
        Some(departure) if departure.place >= known_place => {
            (Place::START, Root::EMPTY, Some(departure))
        }
        // An old stay, asked for again in full: its state, and no timeline that the client has seen.
        Some(departure) if context.full_state && !context.is_new(relation.pos) => {
            (place.next(), Root::EMPTY, Some(departure))
        }
        // He was never in, or the client knows that he left; only his membership is news.
        _ => (place, Root::EMPTY, None),
    };
    let span = Span {
        start,
        end: place.next(),
    };
    let mut sight = Sight::new(room, access, context.viewer)?;
    let mut recent = timeline::recent(context, room, &mut sight, span)?;
    if let Some(departure) = stay
        && !context.state_after
    {
        recent = recent.without_outdated_state(room, departure.state, departure.place)?;
    }
    let shaper = Shaper::new(room, context.viewer, context.filters.format)
        .with_fields(context.filters.fields);

    let state = match stay {
        None => Vec::new(),
        Some(departure) => {
            let start = if recent.start == start {
                known_state
            } else {
                room.state_before(recent.start)?
            };
            let whole = context.full_state || known_state.is_empty();
            let members = if whole {
                vec![context.viewer.user_id.to_string()]
            } else {
                Vec::new()
            };
            let change = StateChange {
                known: known_state,
                whole,
                start,
                end: departure.state,
                timeline: &recent.events,
                members: &members,
            };
            state::events(context, room, &change, &shaper, notes)?
        }
    };
    let state = Some(Events { events: state });
    let account_data = if context.filters.account_data.takes_room(room.room_id()) {
        context
            .account_data
            .of(room.num(), &context.filters.account_data)?
    } else {
        Events::default()
    };
    let mut left = LeftRoom {
        timeline: Timeline {
            events: shaper.timeline(&mut sight, &recent.events)?,
            limited: recent.limited || (context.since.is_some() && stay.is_some() && !was_in),
            prev_batch: Some(room.token(recent.start)),
        },
        account_data,
        ..LeftRoom::default()
    };
    if unread::is_saved(room, context.viewer.user)? {
        notes.unread.gone.push(room.num());
    }
    if context.state_after {
        left.state_after = state;
    } else {
        left.state = state;
    }
    Ok(Some(left))
}

/// What the client is told when an invitation or a knock has ended that came to nothing, in a room that this server is not
/// in: the event that ended it.
fn outside(
    context: &Context<'_>,
    room: &RoomView<'_>,
    relation: &UserRoom,
    notes: &mut Notes,
) -> Result<LeftRoom, StoreError> {
    let shaper = Shaper::new(room, context.viewer, context.filters.format)
        .with_fields(context.filters.fields);
    let event = room.event(relation.event)?;
    let wanted = context.filters.timeline.takes_room(room.room_id())
        && context.filters.timeline.takes(&event);
    let events = if wanted {
        shaper.state(&[event])?
    } else {
        Vec::new()
    };
    if unread::is_saved(room, context.viewer.user)? {
        notes.unread.gone.push(room.num());
    }
    Ok(LeftRoom {
        timeline: Timeline {
            events,
            limited: false,
            prev_batch: None,
        },
        ..LeftRoom::default()
    })
}
