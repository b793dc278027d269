//! Getting out of rooms: leaving, forgetting, leaving everything.

use myelin_data::{
    rooms::{Membership as Stored, UserRooms},
    topic::Changed,
};
use myelin_rules::Membership;
use myelin_store::{Batch, View};
use ruma::{RoomId, UserId};

use super::{ForgetError, LeaveError, content};
use crate::{Failure, Rooms, head::membership_of};

/// How many rooms are left at a time before their commits are waited for.
const AT_ONCE: usize = 64;

/// Whether the user with this membership waits outside.
fn is_pending(membership: Stored) -> bool {
    matches!(membership, Stored::Invite | Stored::Knock)
}

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
            let handle = rooms.find_now(&room_id).await.map_err(Failure::from)?;
            let handle = handle.ok_or(LeaveError::RoomNotFound)?;
            let mut guard = rooms.lock(&handle).await?;
            let member = guard.member(&user).await?;
            let joined = membership_of(member.as_ref()) == Membership::Join;
            if !joined && guard.is_outside(&user).await? {
                return match guard.relation(&user).await? {
                    Some((_, row)) if row.membership == Stored::Leave => Ok(()),
                    Some((_, row)) if is_pending(row.membership) => Err(LeaveError::NotResident),
                    _ => Err(LeaveError::NotInRoom),
                };
            }
            match membership_of(member.as_ref()) {
                Membership::Join | Membership::Invite | Membership::Knock => {}
                Membership::Ban => return Err(LeaveError::NotInRoom),
                Membership::Leave => {
                    // What came from outside, before the server was in the room, may be unknown in there.
                    guard.settle().await?;
                    if guard.waits(&user).await?.is_some() {
                        guard.depart_alone(&user, reason.as_deref()).await?;
                        guard.commit().durable().await?;
                        return Ok(());
                    }
                    let member = member.ok_or(LeaveError::NotInRoom)?;
                    guard.already(&member)?.durable().await?;
                    return Ok(());
                }
            }
            let content = content(Stored::Leave, None, reason.as_deref());
            let sent = guard.send_member(&user, &user, content).await?;
            sent.durable().await?;
            Ok(())
        })
        .await
    }

    /// Leaves every room, declines every invitation and takes back every knock, as deactivation of the account demands.
    /// Rooms whose rules do not let the user go are skipped, and those that the server is not in: see [`Rooms::waiting`].
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
                    match membership_of(member.as_ref()) {
                        Membership::Leave | Membership::Ban => continue,
                        Membership::Join => {}
                        Membership::Invite | Membership::Knock => {
                            if guard.is_outside(&user).await? {
                                continue;
                            }
                        }
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
            let handle = rooms.find_now(&room_id).await.map_err(Failure::from)?;
            let handle = handle.ok_or(ForgetError::RoomNotFound)?;
            let guard = rooms.lock(&handle).await?;
            let room = guard.num();
            match membership_of(guard.member(&user).await?.as_ref()) {
                Membership::Leave | Membership::Ban => {}
                Membership::Invite | Membership::Knock if guard.is_outside(&user).await? => {}
                _ => return Err(ForgetError::StillInRoom),
            }
            let row = guard.relation(&user).await?;
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
