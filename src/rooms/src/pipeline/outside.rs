//! Memberships of our users in rooms that this server is not in: invitations, knocks, and their ends. The events are
//! stored as outliers; what this server has of the room, if anything, does not change by them.

use std::sync::Arc;

use myelin_data::{
    Present, Shown,
    rooms::{EventHeader, EventStatus, Place, RoomMembers, StrippedStates, UserRoom, UserRooms},
    topic::Changed,
};
use myelin_rules::{Membership, Pdu};
use myelin_state::Root;
use myelin_store::{StoreError, View};
use myelin_types::{Pos, UserNum};
use ruma::UserId;

use super::{append::stored, guard::RoomGuard};
use crate::{AppendError, Failure, event::Event};

impl RoomGuard {
    /// A user's relation to the room. The guard must be settled.
    pub(crate) async fn relation(
        &self,
        user: &UserId,
    ) -> Result<Option<(UserNum, UserRoom)>, Failure> {
        let (rooms, room, user) = (self.rooms.clone(), self.num(), user.to_owned());
        let read = move |view: &View| match rooms.0.interner.find_user(view, &user)? {
            Some(num) => Ok(view.get::<UserRooms>(&(num, room))?.map(|row| (num, row))),
            None => Ok::<_, StoreError>(None),
        };
        Ok(self.rooms.0.store.read(read).await?)
    }

    /// Stores a membership event of one of our users that came from outside, or goes there, and makes it his membership;
    /// `shown` is what he is shown of the room while he waits outside. An event that is known has had its time, and changes
    /// nothing. The guard must be settled.
    pub(crate) async fn set_outside(
        &mut self,
        pdu: Pdu,
        shown: Option<Shown>,
    ) -> Result<(), AppendError> {
        let known = self.known(vec![pdu.event_id().to_owned()]).await?;
        if known.into_iter().flatten().next().is_some() {
            return Ok(());
        }
        let numbered = self.number(&pdu).await?;
        let Some((user_id, user)) = numbered.target else {
            return Err(AppendError::Malformed("it is no membership".to_owned()));
        };
        let before = self.relation(&user_id).await?.map(|(_, row)| row);
        let room = self.num();
        let num = self.rooms.0.interner.next_events(1).await?;
        let header = EventHeader {
            event_id: pdu.event_id().to_owned(),
            sender: numbered.sender,
            place: None,
            status: EventStatus::Outlier,
            state_before: None,
            state_after: Root::EMPTY.0.0,
            // Through it an earlier stay in the room is found.
            replaces: before.as_ref().map(|row| row.event),
            redacted_by: None,
            transaction: None,
            current: None,
            thread: None,
        };
        let membership = stored(Membership::of(&pdu));
        let event: Arc<Event> = Arc::new(self.event(num, header, pdu));
        self.put_event(&event);
        self.remember(&event);
        if self.state.head.is_none() {
            // Otherwise the members are those of the room's state as this server knows it.
            if let Some(before) = before.filter(|row| row.membership != membership) {
                self.batch
                    .delete::<RoomMembers>(&(room, before.membership, user));
            }
            self.batch
                .put::<RoomMembers>(&(room, membership, user), &Present);
        }
        self.batch.put::<UserRooms>(
            &(user, room),
            &UserRoom {
                pos: Pos::AT_COMMIT,
                membership,
                event: num,
                place: Place::NOWHERE,
                entered: Place::NOWHERE,
                forgotten: false,
            },
        );
        match shown {
            Some(shown) => self.batch.put::<StrippedStates>(&(user, room), &shown),
            None => self.batch.delete::<StrippedStates>(&(user, room)),
        }
        self.batch.touch(Changed::User(user).into());
        Ok(())
    }
}
