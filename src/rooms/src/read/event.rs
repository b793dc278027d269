//! `GET /rooms/{roomId}/event/{eventId}`: one event.

use std::sync::Arc;

use ruma::{EventId, RoomId};
use serde_json::value::RawValue;

use super::{Access, Format, ReadError, RoomView, Shaper, Sight, Viewer};
use crate::{Event, Rooms};

impl Rooms {
    /// One event in the clients' format.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] also when the room is not known or `viewer` may not see the event.
    pub async fn client_event(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<Box<RawValue>, ReadError> {
        let event_id = event_id.to_owned();
        let event = self.read_room(viewer, room_id, move |room, viewer| {
            let access = Access::of(room, viewer.user)?;
            let mut sight = Sight::new(room, access, viewer)?;
            let event = visible_event(room, &mut sight, &event_id)?;
            let shaped =
                Shaper::new(room, viewer, Format::Client).timeline(&mut sight, &[event])?;
            shaped.into_iter().next().ok_or(ReadError::NotFound)
        });
        match event.await {
            Err(ReadError::RoomNotFound) => Err(ReadError::NotFound),
            other => other,
        }
    }
}

/// The event of an id, if it can be seen.
pub(super) fn visible_event(
    room: &RoomView<'_>,
    sight: &mut Sight<'_>,
    event_id: &EventId,
) -> Result<Arc<Event>, ReadError> {
    let event = room.event_by_id(event_id)?.ok_or(ReadError::NotFound)?;
    if sight.sees(&event)? {
        Ok(event)
    } else {
        Err(ReadError::NotFound)
    }
}
