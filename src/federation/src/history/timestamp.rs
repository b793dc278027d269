//! The event nearest to a time, also where this server's history has a gap.

use myelin_rooms::read::{Direction, EventAt, ReadError, Viewer};
use myelin_types::Millis;
use ruma::{OwnedEventId, RoomId};
use serde::Deserialize;

use crate::Federation;

/// How many servers are asked.
const MOST_ASKED: usize = 3;

/// The answer to `timestamp_to_event`.
#[derive(Deserialize)]
struct Nearest {
    event_id: OwnedEventId,
    origin_server_ts: u64,
}

impl Federation {
    /// The first event that `viewer` may see at or after `at`, or going backwards the last at or before it.
    ///
    /// Where something nearer may be missing here, other servers are asked; what they name is fetched and looked at before
    /// it is believed.
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
        let rooms = &self.0.rooms;
        let known = rooms.nearest_known(viewer, room_id, at, direction).await?;
        let mut best = known.event;
        if let Some(segment) = known.gap
            && let Some(handle) = self.room(room_id).await?
        {
            let servers = rooms.history_servers(&handle, Some(segment)).await;
            let servers = servers.unwrap_or_else(|error| {
                tracing::error!(%room_id, error = crate::chain(&error), "the servers of a room cannot be read");
                Vec::new()
            });
            for server in self.not_resting(&handle, servers).take(MOST_ASKED) {
                let query = vec![
                    ("ts", at.to_string()),
                    ("dir", direction_name(direction).to_owned()),
                ];
                let path = ["timestamp_to_event", room_id.as_str()];
                let Ok(nearest) = self.ask::<Nearest>(&server, path, query).await else {
                    continue;
                };
                let claimed = Millis(nearest.origin_server_ts);
                if !is_nearer(at, direction, claimed, best.as_ref()) {
                    break;
                }
                let event_id = &nearest.event_id;
                let time_of = || rooms.time_of(viewer, room_id, event_id);
                let found = match time_of().await {
                    Err(ReadError::NotFound) if self.bring(viewer, room_id, event_id).await? => {
                        time_of().await
                    }
                    other => other,
                };
                match found {
                    Ok(found)
                        if is_nearer(at, direction, found.origin_server_ts, best.as_ref()) =>
                    {
                        best = Some(found);
                        break;
                    }
                    Ok(_) | Err(ReadError::NotFound) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        best.ok_or(ReadError::NotFound)
    }
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Forward => "f",
        Direction::Backward => "b",
    }
}

/// Whether a time lies on the wanted side of another and nearer to it than an event does.
fn is_nearer(at: Millis, direction: Direction, time: Millis, than: Option<&EventAt>) -> bool {
    let than = than.map(|event| event.origin_server_ts);
    match direction {
        Direction::Forward => time >= at && than.is_none_or(|than| time < than),
        Direction::Backward => time <= at && than.is_none_or(|than| time > than),
    }
}

#[cfg(test)]
mod tests {
    use myelin_types::Millis;

    use super::{Direction, EventAt, is_nearer};

    #[test]
    fn only_what_is_nearer_on_the_same_side_counts() {
        let at = Millis(100);
        let event = |time| EventAt {
            event_id: "$a".to_owned(),
            origin_server_ts: Millis(time),
        };
        for (direction, time, than, nearer) in [
            (Direction::Forward, 100, None, true),
            (Direction::Forward, 99, None, false),
            (Direction::Forward, 105, Some(110), true),
            (Direction::Forward, 110, Some(110), false),
            (Direction::Backward, 100, None, true),
            (Direction::Backward, 101, None, false),
            (Direction::Backward, 95, Some(90), true),
            (Direction::Backward, 85, Some(90), false),
        ] {
            let than = than.map(event);
            let found = is_nearer(at, direction, Millis(time), than.as_ref());
            assert_eq!(found, nearer, "{direction:?} {time}");
        }
    }
}
