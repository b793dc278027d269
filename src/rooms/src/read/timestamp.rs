//! `GET /rooms/{roomId}/timestamp_to_event`: the event nearest to a time.

use myelin_data::rooms::Place;
use myelin_store::StoreError;
use myelin_types::Millis;
use ruma::{EventId, RoomId, api::Direction};
use serde::Serialize;

use super::{Access, ReadError, RoomView, Sight, Span, Viewer, event::visible_event};
use crate::{Event, Rooms};

/// An event and when it was sent, as the specification's response body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventAt {
    /// The event.
    pub event_id: String,
    /// When its server says it was sent.
    pub origin_server_ts: Millis,
}

/// How far around the time events are looked at one by one: servers' clocks differ, so that times do not ascend
/// strictly along a timeline.
const SLACK: i64 = 100;

/// What the server knows of the event that is nearest to a time.
#[derive(Clone, Debug)]
pub struct NearestKnown {
    /// The event, if there is one that the user may see.
    pub event: Option<EventAt>,
    /// The segment of the timeline before which something is missing that may be nearer.
    pub gap: Option<u32>,
}

impl Rooms {
    /// As [`Rooms::timestamp_to_event`], and whether something nearer may be missing.
    pub async fn nearest_known(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
        at: Millis,
        direction: Direction,
    ) -> Result<NearestKnown, ReadError> {
        self.read_room(viewer, room_id, move |room, viewer| {
            let access = Access::of(room, viewer.user)?;
            if matches!(access, Access::None(_)) {
                return Err(ReadError::NotInRoom);
            }
            let mut sight = Sight::new(room, access, viewer)?;
            let event = nearest(room, at, direction, |event| sight.sees(event))?;
            Ok(NearestKnown {
                event: event.map(|(_, event)| event),
                gap: gap_at(room, at)?,
            })
        })
        .await
    }

    /// An event with the time at which it was sent, if `viewer` may see it.
    pub async fn time_of(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<EventAt, ReadError> {
        let event_id = event_id.to_owned();
        self.read_room(viewer, room_id, move |room, viewer| {
            let access = Access::of(room, viewer.user)?;
            let mut sight = Sight::new(room, access, viewer)?;
            Ok(EventAt::from(&*visible_event(room, &mut sight, &event_id)?))
        })
        .await
    }

    /// The first event that `viewer` may see at or after `at`, or going backwards the last at or before it.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] when there is none.
    pub async fn timestamp_to_event(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
        at: Millis,
        direction: Direction,
    ) -> Result<EventAt, ReadError> {
        let known = self.nearest_known(viewer, room_id, at, direction).await?;
        known.event.ok_or(ReadError::NotFound)
    }
}

/// The first event at or after a time that `sees` lets through, or going backwards the last at or before it.
pub(crate) fn nearest(
    room: &RoomView<'_>,
    at: Millis,
    direction: Direction,
    mut sees: impl FnMut(&Event) -> Result<bool, StoreError>,
) -> Result<Option<(Place, EventAt)>, StoreError> {
    let middle = first_at(room, at)?;
    let span = match direction {
        Direction::Forward => Span {
            start: moved(middle, -SLACK),
            ..Span::ALL
        },
        Direction::Backward => Span {
            end: moved(middle, SLACK),
            ..Span::ALL
        },
    };
    let page = room.walk(span, direction, 1, |event| {
        let sent = event.pdu.origin_server_ts();
        let on_this_side = match direction {
            Direction::Forward => sent >= at,
            Direction::Backward => sent <= at,
        };
        Ok(on_this_side && sees(event)?)
    })?;
    let found = page.events.first();
    Ok(found.and_then(|event| Some((event.header.place?, EventAt::from(&**event)))))
}

/// The gap in which something may be missing that was sent at about a time: between the last event before it and the
/// first one after it.
fn gap_at(room: &RoomView<'_>, at: Millis) -> Result<Option<u32>, StoreError> {
    if room.last_gap()?.is_none() {
        return Ok(None);
    }
    let beside = |direction| nearest(room, at, direction, |_| Ok(true));
    let low = beside(Direction::Backward)?.map_or(Place::START, |(place, _)| place);
    let high = match beside(Direction::Forward)? {
        Some((place, _)) => Some(place),
        None => room.last()?.map(|(place, _)| place),
    };
    match high {
        Some(high) => room.gap_between(low, high),
        None => Ok(None),
    }
}

impl From<&Event> for EventAt {
    fn from(event: &Event) -> Self {
        Self {
            event_id: event.pdu.event_id().to_owned(),
            origin_server_ts: event.pdu.origin_server_ts(),
        }
    }
}

fn moved(place: Place, by: i64) -> Place {
    Place {
        index: place.index.saturating_add(by),
        ..place
    }
}

/// About where the events begin that were sent at or after a time.
fn first_at(room: &RoomView<'_>, at: Millis) -> Result<Place, StoreError> {
    let mut end = match room.last()? {
        Some((place, _)) => place.next(),
        None => return Ok(Place::START),
    };
    loop {
        let front = room.walk(
            Span {
                start: Place {
                    index: i64::MIN,
                    ..end
                },
                end,
            },
            Direction::Forward,
            1,
            |_| Ok(true),
        )?;
        let Some(first) = front.events.first() else {
            return Ok(end);
        };
        let front = first.header.place.unwrap_or(end);
        if first.pdu.origin_server_ts() >= at {
            match room.last_before(front)? {
                Some((place, _)) => {
                    end = place.next();
                    continue;
                }
                None => return Ok(front),
            }
        }
        let (mut low, mut high) = (front.index, end.index);
        while high - low > 1 {
            let index = low + (high - low) / 2;
            let Some((_, entry)) = room.last_before(Place { index, ..end }.next())? else {
                break;
            };
            if room.event(entry.event)?.pdu.origin_server_ts() >= at {
                high = index;
            } else {
                low = index;
            }
        }
        return Ok(Place { index: high, ..end });
    }
}
