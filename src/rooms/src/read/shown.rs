//! What somebody who waits outside is shown of a room. Spec: client-server API, "Stripped state".

use std::sync::Arc;

use myelin_data::{Shown, rooms::StrippedStates};
use myelin_store::{StoreError, Table, View};
use myelin_types::{EventNum, RoomNum, UserNum};
use serde_json::value::RawValue;

use super::stripped;
use crate::{Event, Rooms};

impl Rooms {
    /// What a user is shown of rooms that he was invited to or knocked at, in the order of `rooms`: stripped state events,
    /// the membership event among them. Nothing of a room that shows him nothing. It is the state of that time, without
    /// what was redacted since.
    ///
    /// Reads the store twice, however many rooms there are.
    pub fn shown_to(
        &self,
        view: &View,
        user: UserNum,
        rooms: &[RoomNum],
    ) -> Result<Vec<Vec<Box<RawValue>>>, StoreError> {
        let keys: Vec<(UserNum, RoomNum)> = rooms.iter().map(|room| (user, *room)).collect();
        let rows = view.multi_get::<StrippedStates>(&keys)?;
        let mut wanted: Vec<(RoomNum, EventNum)> = Vec::new();
        for (room, row) in rooms.iter().zip(&rows) {
            if let Some(Shown::Events(nums)) = row {
                wanted.extend(nums.iter().map(|num| (*room, *num)));
            }
        }
        let mut events = self.events_of_rooms(view, &wanted)?.into_iter();
        rows.into_iter()
            .map(|row| match row {
                None => Ok(Vec::new()),
                Some(Shown::Raw { events, .. }) => serde_json::from_str(events.get())
                    .map_err(|_| StoreError::Missing(StrippedStates::NAME)),
                Some(Shown::Events(nums)) => {
                    let events: Vec<Option<Arc<Event>>> =
                        events.by_ref().take(nums.len()).collect();
                    // An event that is kept no longer is shown no longer.
                    events
                        .iter()
                        .flatten()
                        .map(|event| stripped(event))
                        .collect()
                }
            })
            .collect()
    }
}
