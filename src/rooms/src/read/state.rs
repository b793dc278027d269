//! `GET /rooms/{roomId}/state` and `/state/{eventType}/{stateKey}`: a room's state, now or when the user left.

use ruma::{RoomId, UserId};
use serde_json::value::RawValue;

use super::{Access, Format, ReadError, Shaper, Viewer};
use crate::{Rooms, membership::MEMBER};

/// What to return of a state event (`format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateFormat {
    /// Its content.
    #[default]
    Content,
    /// The whole event.
    Event,
}

impl Rooms {
    /// The events of a room's state, as of his leaving for a user who left.
    pub async fn client_state(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
    ) -> Result<Vec<Box<RawValue>>, ReadError> {
        self.know_all_members(room_id).await?;
        self.read_room(viewer, room_id, |room, viewer| {
            let state = Access::of(room, viewer.user)?.state(room)?;
            let entries: Vec<_> = room
                .state_entries(state)?
                .iter()
                .map(|entry| entry.1)
                .collect();
            let events = room.events(&entries)?;
            Ok(Shaper::new(room, viewer, Format::Client).state(&events)?)
        })
        .await
    }

    /// One entry of a room's state.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] when the state has no such entry.
    pub async fn client_state_event(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
        event_type: &str,
        state_key: &str,
        format: StateFormat,
    ) -> Result<Box<RawValue>, ReadError> {
        // Of our own users all memberships are known.
        let ours = <&UserId>::try_from(state_key).is_ok_and(|user| self.is_local(user));
        if event_type == MEMBER && !ours {
            self.know_all_members(room_id).await?;
        }
        let key = (event_type.to_owned(), state_key.to_owned());
        self.read_room(viewer, room_id, move |room, viewer| {
            let state = Access::of(room, viewer.user)?.state(room)?;
            let event = room
                .state_entry(state, &key.0, &key.1)?
                .ok_or(ReadError::NotFound)?;
            let event = room.event(event)?;
            match format {
                StateFormat::Content => RawValue::from_string(event.pdu.content_json().to_owned())
                    .map_err(|_| ReadError::NotFound),
                StateFormat::Event => {
                    let shaped = Shaper::new(room, viewer, Format::Client).state(&[event])?;
                    shaped.into_iter().next().ok_or(ReadError::NotFound)
                }
            }
        })
        .await
    }
}
