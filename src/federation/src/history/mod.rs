//! A room's past, as clients read it: where it has gaps, other servers are asked for what is missing.
//!
//! A client is answered with what is there. What is missing is fetched beside the answer, for the next page; only an
//! answer that would be empty waits for it, and never long. One request for a gap is under way at a time, whoever waits
//! for it; a gap that nobody can fill and a server that cannot help are left alone for a while, longer each time.

mod back_off;
mod fill;
mod point;
mod timestamp;

use std::time::Duration;

use myelin_rooms::read::{Context, Direction, Messages, MessagesQuery, ReadError, Viewer};
use ruma::{EventId, RoomId, api::client::filter::RoomEventFilter};
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::Federation;
pub(crate) use back_off::BackOff;
use fill::Filled;
pub(crate) use fill::Fills;

/// How long a client waits for what other servers are asked for.
const WAIT: Duration = Duration::from_secs(10);
/// How many requests for history one answer may wait for. Each brings a hundred events, of which the client may be allowed
/// to see none.
const MOST_ROUNDS: usize = 5;

impl Federation {
    /// A page of the history that `viewer` may see of a room; [`Rooms::messages`](myelin_rooms::Rooms::messages) says more.
    pub async fn messages(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
        mut query: MessagesQuery,
    ) -> Result<Messages, ReadError> {
        let deadline = Instant::now() + WAIT;
        let mut rounds = 0;
        loop {
            let rooms = &self.0.rooms;
            let page = rooms.messages(viewer, room_id, query.clone()).await?;
            let Some(segment) = page.gap else {
                return Ok(page);
            };
            if !page.chunk.is_empty() {
                // Where the client goes on, something is there by then.
                self.begin_filling(room_id, segment).await?;
                return Ok(page);
            }
            if rounds == MOST_ROUNDS {
                // Backwards the client comes again and goes on from what was fetched. Forwards only a gap that has closed
                // lets him go on: this one is too wide.
                if query.direction == Direction::Backward {
                    return Ok(page);
                }
                query.crossed.push(segment);
                continue;
            }
            rounds += 1;
            match self.filled(room_id, segment, deadline).await? {
                Filled::Some => {}
                Filled::Later => return Ok(page),
                // What is known on the other side of the gap is better than nothing.
                Filled::Nothing => query.crossed.push(segment),
            }
        }
    }

    /// The event and what `viewer` may see around it; [`Rooms::context`](myelin_rooms::Rooms::context) says more. An event
    /// that is not known is asked for.
    pub async fn context(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
        event_id: &EventId,
        limit: Option<usize>,
        filter: RoomEventFilter,
    ) -> Result<Context, ReadError> {
        let rooms = &self.0.rooms;
        let read = || rooms.context(viewer, room_id, event_id, limit, filter.clone());
        let context = match read().await {
            Err(ReadError::NotFound) if self.bring(viewer, room_id, event_id).await? => {
                read().await?
            }
            other => other?,
        };
        if let Some(segment) = context.gap {
            self.begin_filling(room_id, segment).await?;
        }
        Ok(context)
    }

    /// One event in the clients' format. One that is not known is asked for.
    pub async fn client_event(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<Box<RawValue>, ReadError> {
        let rooms = &self.0.rooms;
        match rooms.client_event(viewer, room_id, event_id).await {
            Err(ReadError::NotFound) if self.bring(viewer, room_id, event_id).await? => {
                rooms.client_event(viewer, room_id, event_id).await
            }
            other => other,
        }
    }
}
