//! Joins of our users into rooms that this server is in, which another server had to let in: nobody here may vouch for the
//! user, or members are missing, so that it is not known here who is banned.

use std::sync::Arc;

use myelin_rules::Pdu;
use ruma::{OwnedServerName, RoomId, ServerName};
use serde_json::value::RawValue;

use super::{
    EnterError, Fetch, Outcome,
    enter::{signed_by_both, untrusted},
    inbox::Waiting,
};
use crate::Rooms;

impl Rooms {
    /// Takes a join into its room at once, with the signature that a server has added, and what comes before it. It
    /// completes even if nobody waits.
    ///
    /// # Errors
    /// [`EnterError::Untrusted`] if the join is not accepted here.
    pub async fn take_vouched(
        &self,
        fetch: Arc<dyn Fetch>,
        server: &ServerName,
        join: Pdu,
        event: Option<Box<RawValue>>,
    ) -> Result<(), EnterError> {
        let (rooms, server) = (self.clone(), server.to_owned());
        self.run(async move { rooms.take_let_in(&*fetch, server, join, event).await })
            .await
    }

    async fn take_let_in(
        &self,
        fetch: &dyn Fetch,
        server: OwnedServerName,
        join: Pdu,
        event: Option<Box<RawValue>>,
    ) -> Result<(), EnterError> {
        let join = signed_by_both(join, event)?;
        let room = <&RoomId>::try_from(join.room_id());
        let handle = match room {
            Ok(room) => self.resident_room(room).await?,
            Err(_) => None,
        };
        let Some(handle) = handle else {
            return untrusted("this server is not in the room any more");
        };
        let Some(Ok(join)) = self.verify(fetch, vec![join]).await?.pop() else {
            return untrusted("the join lacks a signature that it needs");
        };
        let pushed = vec![(0, join.event_id().to_owned())];
        let gathered = self.gather(&handle, fetch, &server, vec![join]).await?;
        // It never stood in the inbox, so that no row goes with it.
        let mut waiting = Waiting::default();
        self.take_in(&handle, gathered, pushed, &mut waiting)
            .await?;
        match waiting.outcomes.remove(&0) {
            Some(Outcome::Accepted) => Ok(()),
            Some(Outcome::Dropped(reason) | Outcome::Postponed(reason)) => {
                Err(EnterError::Untrusted(reason))
            }
            Some(Outcome::SoftFailed | Outcome::Rejected) | None => {
                untrusted("the room as it is known here refuses the join")
            }
        }
    }
}
