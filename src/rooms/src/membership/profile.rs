//! A new profile reaches the rooms of its user.

use myelin_rules::Membership;
use myelin_store::View;
use ruma::UserId;

use super::Profile;
use crate::{AppendError, Failure, Rooms};

/// How many rooms are written to at a time before their commits are waited for.
const AT_ONCE: usize = 64;

/// What in a membership event concerns the event itself and not the member: it does not pass on to the next one.
pub(super) const OF_THE_EVENT: [&str; 4] = [
    "reason",
    "is_direct",
    "third_party_invite",
    "join_authorised_via_users_server",
];

impl Rooms {
    /// Sends a membership event with the new profile to every room that a user is joined to; what else his membership
    /// events say of him is kept. Rooms whose rules refuse it are skipped. `profile` is the whole of the new profile.
    pub async fn update_profile(&self, user: &UserId, profile: &Profile) -> Result<(), Failure> {
        let (rooms, user, profile) = (self.clone(), user.to_owned(), profile.clone());
        self.run(async move {
            let joined = {
                let (reader, user) = (rooms.clone(), user.clone());
                let read = move |view: &View| reader.joined_rooms(view, &user);
                rooms.0.store.read(read).await?
            };
            for chunk in joined.chunks(AT_ONCE) {
                let mut sent = Vec::new();
                for room in chunk {
                    let handle = rooms.handle_now(*room).await?;
                    let guard = rooms.lock(&handle).await?;
                    let Some(member) = guard.member(&user).await? else {
                        continue;
                    };
                    if Membership::of(&member.pdu) != Membership::Join {
                        continue;
                    }
                    let mut content = member.pdu.content().clone();
                    for key in OF_THE_EVENT {
                        content.remove(key);
                    }
                    profile.write(&mut content);
                    match guard.send_member(&user, &user, content).await {
                        Ok(batch) => sent.push(batch),
                        Err(AppendError::Failure(failure)) => return Err(failure),
                        Err(refusal) => {
                            tracing::warn!(room = %handle.room.room_id, %user, %refusal, "new profile is refused by the room");
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
}
