//! Which rooms the public directory lists.

use myelin_data::{Present, rooms::Published};
use myelin_rules::Membership;
use myelin_store::{Batch, StoreError, View};
use myelin_types::RoomNum;
use ruma::{RoomId, UserId};
use thiserror::Error;

use crate::{Failure, Rooms, Visibility, error::lock_errors, head::membership_of};

/// Why a room's visibility was not changed.
#[derive(Clone, Debug, Error)]
pub enum SetVisibilityError {
    /// The server does not know the room.
    #[error("the room is not known")]
    RoomNotFound,
    /// The user is not in the room, or may not send its `m.room.canonical_alias` (`M_FORBIDDEN`).
    #[error("the user may not change the room's visibility")]
    NotAllowed,
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

lock_errors!(SetVisibilityError);

impl Rooms {
    /// Whether the directory lists a room (`GET /directory/list/room/{roomId}`).
    pub fn visibility(&self, view: &View, room: RoomNum) -> Result<Visibility, StoreError> {
        Ok(match view.get::<Published>(&room)? {
            Some(Present) => Visibility::Public,
            None => Visibility::Private,
        })
    }

    /// Lists a room or takes it off the list (`PUT /directory/list/room/{roomId}`). `admin` stands above the room's power
    /// levels.
    pub async fn set_visibility(
        &self,
        room_id: &RoomId,
        user: &UserId,
        visibility: Visibility,
        admin: bool,
    ) -> Result<(), SetVisibilityError> {
        let (rooms, room_id, user) = (self.clone(), room_id.to_owned(), user.to_owned());
        self.run(async move {
            let guard = rooms.lock_known(&room_id).await?;
            if !admin {
                let member = guard.member(&user).await?;
                let joined = membership_of(member.as_ref()) == Membership::Join;
                let may = guard
                    .state()
                    .may_send_state(user.as_str(), "m.room.canonical_alias");
                if !joined || !may {
                    return Err(SetVisibilityError::NotAllowed);
                }
            }
            let mut batch = Batch::new();
            match visibility {
                Visibility::Public => batch.put::<Published>(&guard.num(), &Present),
                Visibility::Private => batch.delete::<Published>(&guard.num()),
            }
            let commit = rooms.0.store.commit(batch);
            drop(guard);
            commit.await.map_err(Failure::from)?;
            Ok(())
        })
        .await
    }
}
