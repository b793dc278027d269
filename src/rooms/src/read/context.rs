//! `GET /rooms/{roomId}/context/{eventId}`: what happened around an event.

use std::sync::Arc;

use myelin_data::rooms::Place;
use myelin_state::Root;
use myelin_store::StoreError;
use ruma::{
    EventId, RoomId,
    api::{
        Direction,
        client::filter::{LazyLoadOptions, RoomEventFilter},
    },
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Access, EventMatcher, Format, ReadError, RoomView, Shaper, Sight, Span, Viewer,
    event::visible_event,
    messages::{limit, senders_members},
};
use crate::{Event, Rooms};

/// An event with its surroundings, as the specification's response body.
#[derive(Clone, Debug, Serialize)]
pub struct Context {
    /// The event.
    pub event: Box<RawValue>,
    /// What came before it, the latest first.
    pub events_before: Vec<Box<RawValue>>,
    /// What came after it.
    pub events_after: Vec<Box<RawValue>>,
    /// The room's state at the last event returned.
    pub state: Vec<Box<RawValue>>,
    /// The point before everything that was returned.
    pub start: String,
    /// The point after everything that was returned.
    pub end: String,
    /// The segment of the timeline before which something is missing, if what came before the event was cut short there.
    #[serde(skip)]
    pub gap: Option<u32>,
}

impl Rooms {
    /// The event and what `viewer` may see around it: at most `limit` events, half before it and half after. The filter is
    /// for those, and for the state.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] when he may not see the event itself.
    pub async fn context(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
        event_id: &EventId,
        limit: Option<usize>,
        filter: RoomEventFilter,
    ) -> Result<Context, ReadError> {
        let event_id = event_id.to_owned();
        let context = self.read_room(viewer, room_id, move |room, viewer| {
            around(room, viewer, &event_id, limit, &filter)
        });
        match context.await {
            Err(ReadError::RoomNotFound) => Err(ReadError::NotFound),
            other => other,
        }
    }
}

fn around(
    room: &RoomView<'_>,
    viewer: &Viewer,
    event_id: &EventId,
    asked: Option<usize>,
    filter: &RoomEventFilter,
) -> Result<Context, ReadError> {
    let access = Access::of(room, viewer.user)?;
    let mut sight = Sight::new(room, access, viewer)?;
    let event = visible_event(room, &mut sight, event_id)?;
    let Some(place) = event.header.place else {
        return alone(room, viewer, &mut sight, event, filter);
    };
    let matcher = EventMatcher::from(filter);
    let limit = limit(asked, filter);
    let mut side = |span, direction, limit| {
        room.walk(span, direction, limit, |event| {
            Ok(matcher.takes(event) && sight.sees(event)?)
        })
    };
    let before = Span {
        end: place,
        ..Span::ALL
    };
    let stretch = room.stretch(before, Direction::Backward, &[])?;
    let before = side(stretch.span, Direction::Backward, limit / 2)?;
    let gap = stretch.gap.filter(|_| !before.more);
    let after = Span {
        start: place.next(),
        ..Span::ALL
    };
    let after = room.stretch(after, Direction::Forward, &[])?.span;
    let after = side(after, Direction::Forward, limit - limit / 2)?;

    let last = after.events.last().unwrap_or(&event);
    let shown: Vec<Arc<Event>> = before
        .events
        .iter()
        .chain([&event])
        .chain(&after.events)
        .cloned()
        .collect();
    let events = state_at(room, &mut sight, last, &shown, filter)?;
    let shaper = Shaper::new(room, viewer, Format::Client);
    let mut shaped = shaper.timeline(&mut sight, &[Arc::clone(&event)])?;
    Ok(Context {
        event: shaped.pop().ok_or(ReadError::NotFound)?,
        events_before: shaper.timeline(&mut sight, &before.events)?,
        events_after: shaper.timeline(&mut sight, &after.events)?,
        state: shaper.state(&events)?,
        start: room.token(before.next),
        end: room.token(after.next),
        gap,
    })
}

/// An event that is known by itself: what lies between it and the timeline is not. Whoever goes on from there comes to the
/// newest gap, behind which it is.
fn alone(
    room: &RoomView<'_>,
    viewer: &Viewer,
    sight: &mut Sight<'_>,
    event: Arc<Event>,
    filter: &RoomEventFilter,
) -> Result<Context, ReadError> {
    let shown = [event];
    let events = state_at(room, sight, &shown[0], &shown, filter)?;
    let gap = room.last_gap()?;
    let front = Place {
        segment: gap.unwrap_or(0),
        index: i64::MIN,
    };
    let point = room.first_from(front)?.map_or(front, |(place, _)| place);
    let shaper = Shaper::new(room, viewer, Format::Client);
    let mut shaped = shaper.timeline(sight, &shown)?;
    Ok(Context {
        event: shaped.pop().ok_or(ReadError::NotFound)?,
        events_before: Vec::new(),
        events_after: Vec::new(),
        state: shaper.state(&events)?,
        start: room.token(point),
        end: room.token(point),
        gap,
    })
}

/// The room's state after an event, as far as the filter wants it. `shown` are all events that are shown.
fn state_at(
    room: &RoomView<'_>,
    sight: &mut Sight<'_>,
    last: &Event,
    shown: &[Arc<Event>],
    filter: &RoomEventFilter,
) -> Result<Vec<Arc<Event>>, StoreError> {
    let matcher = EventMatcher::from(filter);
    // Who sees an event only because it is about himself sees nothing of the room.
    let state = if sight.shown_by_rules(last)? {
        last.header.after()
    } else {
        Root::EMPTY
    };
    let mut events = match filter.lazy_load_options {
        LazyLoadOptions::Disabled => {
            let entries: Vec<_> = room
                .state_entries(state)?
                .iter()
                .map(|entry| entry.1)
                .collect();
            room.events(&entries)?
        }
        LazyLoadOptions::Enabled { .. } => {
            let entries: Vec<_> = room
                .state_without_members(state)?
                .iter()
                .map(|entry| entry.1)
                .collect();
            let mut events = room.events(&entries)?;
            events.extend(senders_members(room, state, shown)?);
            events
        }
    };
    events.retain(|event| matcher.takes(event));
    Ok(events)
}
