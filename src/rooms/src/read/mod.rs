//! Reading rooms: events, state, members and history, as a user may see them.
//!
//! Functions over a [`View`](myelin_store::View) are plain and sync ([`RoomView`]); the async methods run them through
//! the store. Everything that one answer says is read from one view.

mod access;
mod context;
mod event;
mod filter;
mod gaps;
mod history;
mod members;
mod messages;
mod public;
mod room_view;
mod shape;
mod shown;
mod sight;
mod state;
mod timestamp;

pub use access::{Access, Departure};
pub use context::Context;
pub use filter::EventMatcher;
pub use history::{Page, Span};
pub use members::{JoinedMember, JoinedMembers, MembersQuery};
pub use messages::{Messages, MessagesQuery};
pub use public::{InvalidToken, PublicRoom, PublicRooms, PublicRoomsQuery, PublicRoomsToken};
pub use room_view::RoomView;
pub(crate) use room_view::membership_of;
pub use shape::{Format, Shaper, stripped};
pub(crate) use shape::{Stripped, stripped_pdu};
pub use sight::Sight;
pub use state::StateFormat;
pub(crate) use timestamp::nearest;
pub use timestamp::{EventAt, NearestKnown};

use std::{sync::Arc, time::Duration};

use myelin_store::{StoreError, View};
use myelin_types::UserNum;
pub use ruma::api::Direction;

use ruma::{OwnedRoomId, OwnedUserId, RoomId};
use thiserror::Error;

use crate::Rooms;

/// How many events are read together where there may be tens of thousands: what is read takes more memory than what is made of
/// it.
pub const EVENTS_AT_ONCE: usize = 256;

/// How long a read waits for the members of a room that was entered without them.
const PATIENCE: Duration = Duration::from_mins(3);

/// On whose behalf something is read.
#[derive(Clone, Debug)]
pub struct Viewer {
    /// His number.
    pub user: UserNum,
    /// His id.
    pub user_id: OwnedUserId,
    /// The device that asks, which alone is shown the transaction ids of what it sent.
    pub device_id: Option<String>,
}

/// Why something of a room was not read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The server does not know the room.
    #[error("the room is not known")]
    RoomNotFound,
    /// The user is not in the room, and what he asks for is not shown to others (`M_FORBIDDEN`).
    #[error("the user is not in the room")]
    NotInRoom,
    /// There is no such event, or the user may not see it (`M_NOT_FOUND`: the two are not told apart).
    #[error("there is no such event")]
    NotFound,
    /// Members of the room are still being fetched, and that takes long.
    #[error("the members of the room are not known yet")]
    Incomplete,
    /// The store could not be read.
    #[error("read a room")]
    Store(#[from] StoreError),
}

impl Rooms {
    /// Waits until all members of a room are known.
    async fn know_all_members(&self, room_id: &RoomId) -> Result<(), ReadError> {
        if self.wait_until_whole(room_id, PATIENCE).await? {
            Ok(())
        } else {
            Err(ReadError::Incomplete)
        }
    }

    /// Reads from one view of a room on behalf of somebody, wherever the store has it run.
    async fn read_room<R: Send + 'static>(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
        read: impl Fn(&RoomView<'_>, &Viewer) -> Result<R, ReadError> + Send + Sync + 'static,
    ) -> Result<R, ReadError> {
        let rooms = self.clone();
        let viewer = viewer.clone();
        let room_id: Arc<OwnedRoomId> = Arc::new(room_id.to_owned());
        self.store()
            .read(move |view: &View| {
                let room =
                    RoomView::find(&rooms, view, &room_id)?.ok_or(ReadError::RoomNotFound)?;
                read(&room, &viewer)
            })
            .await
    }
}
