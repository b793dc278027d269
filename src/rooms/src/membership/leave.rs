//! Getting out of rooms: leaving, forgetting, leaving everything.

use myelin_data::{
    rooms::{Membership as Stored, UserRooms},
    topic::Changed,
};
use myelin_rules::Membership;
use myelin_store::{Batch, StoreError, View};
use ruma::{RoomId, UserId};

use super::{ForgetError, LeaveError, content};
use crate::{Failure, Rooms, head::membership_of};

/// How many rooms are left at a time before their commits are waited for.
const AT_ONCE: usize = 64;

impl Rooms {
    /// Leaves a room, declines an invitation or takes a knock back (`POST /rooms/{roomId}/leave`). Leaving a room that
    /// was left already does nothing.
    pub async fn leave(
        &self,
        room_id: &RoomId,
        user: &UserId,
        reason: Option<String>,
    ) -> Result<(), LeaveError> {
        let (rooms, room_id, user) = (self.clone(), room_id.to_owned(), user.to_owned());
        self.run(async move {
            let guard = rooms.lock_known(&room_id).await?;
            let member = guard.member(&user).await?.ok_or(LeaveError::NotInRoom)?;
            match Membership::of(&member.pdu) {
                Membership::Leave => {
                    guard.already(&member)?.durable().await?;
                    return Ok(());
                }
                Membership::Ban => return Err(LeaveError::NotInRoom),
                Membership::Join | Membership::Invite | Membership::Knock => {}
            }
            let content = content(Stored::Leave, None, reason.as_deref());
            let sent = guard.send_member(&user, &user, content).await?;
            sent.durable().await?;
            Ok(())
        })
        .await
    }

    /// Leaves every room, declines every invitation and takes back every knock, as deactivation of the account demands.
    /// Rooms whose rules do not let the user go are skipped.
    pub async fn leave_all(&self, user: &UserId) -> Result<(), Failure> {
        let (rooms, user) = (self.clone(), user.to_owned());
        self.run(async move {
            let present = {
                let (reader, user) = (rooms.clone(), user.clone());
                let read = move |view: &View| {
                    reader.rooms_of(view, &user, |membership| {
                        matches!(membership, Stored::Join | Stored::Invite | Stored::Knock)
                    })
                };
                rooms.0.store.read(read).await?
            };
            for chunk in present.chunks(AT_ONCE) {
                let mut sent = Vec::new();
                for room in chunk {
                    let handle = rooms.handle_now(*room).await?;
                    let guard = rooms.lock(&handle).await?;
                    let member = guard.member(&user).await?;
                    if matches!(
                        membership_of(member.as_ref()),
                        Membership::Leave | Membership::Ban
                    ) {
                        continue;
                    }
                    let content = content(Stored::Leave, None, None);
                    match guard.send_member(&user, &user, content).await {
                        Ok(batch) => sent.push(batch),
                        Err(crate::AppendError::Failure(failure)) => return Err(failure),
                        Err(refusal) => {
                            tracing::warn!(room = %handle.room.room_id, %user, %refusal, "user cannot leave the room");
                        }
                    }
                }
                for batch in sent {
                    batch.durable().await?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Forgets a room that the user has left (`POST /rooms/{roomId}/forget`). Forgetting twice is well.
    pub async fn forget(&self, room_id: &RoomId, user: &UserId) -> Result<(), ForgetError> {
        let (rooms, room_id, user) = (self.clone(), room_id.to_owned(), user.to_owned());
        self.run(async move {
            // Under the lock, so that no membership changes meanwhile.
            let guard = rooms.lock_known(&room_id).await?;
            let room = guard.num();
            let member = guard.member(&user).await?;
            if !matches!(
                membership_of(member.as_ref()),
                Membership::Leave | Membership::Ban
            ) {
                return Err(ForgetError::StillInRoom);
            }
            let row = {
                let (reader, user) = (rooms.clone(), user.clone());
                let read = move |view: &View| match reader.0.interner.find_user(view, &user)? {
                    Some(num) => Ok(view.get::<UserRooms>(&(num, room))?.map(|row| (num, row))),
                    None => Ok::<_, StoreError>(None),
                };
                rooms.0.store.read(read).await.map_err(Failure::from)?
            };
            let Some((num, mut row)) = row else {
                return Ok(());
            };
            // The leave is on its way to the disk, and its sender has not been told of it yet.
            if !matches!(row.membership, Stored::Leave | Stored::Ban) {
                return Err(ForgetError::StillInRoom);
            }
            if row.forgotten {
                return Ok(());
            }
            let mut batch = Batch::new();
            batch.expect::<UserRooms>(&(num, room), Some(&row));
            row.forgotten = true;
            batch.put::<UserRooms>(&(num, room), &row);
            batch.touch(Changed::User(num).into());
            let commit = rooms.0.store.commit(batch);
            drop(guard);
            commit.await.map_err(Failure::from)?;
            Ok(())
        })
        .await
    }
}
