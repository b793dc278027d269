//! Where the timelines of rooms ended at the client's token, looked up once an answer.

use std::{cell::RefCell, collections::HashMap};

use myelin_data::rooms::Place;
use myelin_rooms::read::RoomView;
use myelin_state::Root;
use myelin_store::StoreError;
use myelin_types::{Pos, RoomNum};

/// The ends of timelines at one position.
#[derive(Default)]
pub(crate) struct Ends(RefCell<HashMap<RoomNum, Option<(Place, Root)>>>);

impl Ends {
    /// [`RoomView::end_at`], which costs several reads. `pos` is the same for all rooms.
    pub(crate) fn of(
        &self,
        room: &RoomView<'_>,
        pos: Pos,
    ) -> Result<Option<(Place, Root)>, StoreError> {
        if let Some(end) = self.0.borrow().get(&room.num()) {
            return Ok(*end);
        }
        let end = room.end_at(pos)?;
        self.0.borrow_mut().insert(room.num(), end);
        Ok(end)
    }
}
