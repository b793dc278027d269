//! Acts on the membership of others: kicking, banning, unbanning.

use myelin_data::rooms::Membership as Stored;
use myelin_rules::Membership;

use super::{Moderate, ModerateError, content};
use crate::{Rooms, head::membership_of};

impl Rooms {
    /// Removes somebody from a room (`POST /rooms/{roomId}/kick`): a joined or knocking user, or an invitation.
    pub async fn kick(&self, request: Moderate) -> Result<(), ModerateError> {
        self.moderate(request, Stored::Leave, |target| {
            matches!(
                target,
                Membership::Join | Membership::Invite | Membership::Knock
            )
        })
        .await
    }

    /// Bans somebody from a room (`POST /rooms/{roomId}/ban`).
    pub async fn ban(&self, request: Moderate) -> Result<(), ModerateError> {
        self.moderate(request, Stored::Ban, |_| true).await
    }

    /// Lifts a ban (`POST /rooms/{roomId}/unban`).
    pub async fn unban(&self, request: Moderate) -> Result<(), ModerateError> {
        self.moderate(request, Stored::Leave, |target| target == Membership::Ban)
            .await
    }

    async fn moderate(
        &self,
        request: Moderate,
        becomes: Stored,
        applies: fn(Membership) -> bool,
    ) -> Result<(), ModerateError> {
        let rooms = self.clone();
        self.run(async move {
            let guard = rooms.lock_known(&request.room_id).await?;
            let member = guard.member(&request.target).await?;
            if !applies(membership_of(member.as_ref())) {
                return Err(ModerateError::TargetNotInRoom);
            }
            let content = content(becomes, None, request.reason.as_deref());
            let sent = guard
                .send_member(&request.sender, &request.target, content)
                .await?;
            sent.durable().await?;
            Ok(())
        })
        .await
    }
}
