//! The invite and knock sections: rooms that the user waits outside of.

use myelin_data::rooms::{Membership, UserRoom};
use myelin_rooms::read::RoomView;
use myelin_store::StoreError;
use myelin_types::{EventNum, RoomNum};
use ruma::api::client::filter::FilterDefinition;

use crate::{
    Events, InvitedRoom, KnockedRoom, Response,
    answer::{Context, wanted_room},
};

/// Adds the rooms that the user was invited to or knocked at and that he is to be told of. Everything that they show is
/// read together.
pub(crate) fn add_rooms(
    context: &Context<'_>,
    filter: &FilterDefinition,
    relations: &[(RoomNum, UserRoom)],
    response: &mut Response,
) -> Result<(), StoreError> {
    let mut pending: Vec<(RoomView<'_>, &UserRoom)> = Vec::new();
    for (room, relation) in relations {
        let told = context.full_state || context.is_new(relation.pos);
        let waits = matches!(relation.membership, Membership::Invite | Membership::Knock);
        if told
            && waits
            && let Some(view) = wanted_room(context, filter, *room)?
        {
            pending.push((view, relation));
        }
    }
    if pending.is_empty() {
        return Ok(());
    }
    let mut pending = without_ignored(context, pending)?;
    let waits = |relation: &UserRoom| relation.membership == Membership::Invite;
    if pending.iter().any(|(_, relation)| waits(relation))
        && context
            .sync
            .accounts
            .blocks_invitations(context.view, context.viewer.user)?
    {
        pending.retain(|(_, relation)| !waits(relation));
    }

    let nums: Vec<RoomNum> = pending.iter().map(|(room, _)| room.num()).collect();
    let rooms = &context.sync.rooms;
    let shown = rooms.shown_to(context.view, context.viewer.user, &nums)?;
    for ((room, relation), events) in pending.into_iter().zip(shown) {
        let (room, state) = (room.room_id().to_owned(), Events { events });
        if relation.membership == Membership::Knock {
            let knocked = KnockedRoom { knock_state: state };
            response.rooms.knock.insert(room, knocked);
        } else {
            let invited = InvitedRoom {
                invite_state: state,
            };
            response.rooms.invite.insert(room, invited);
        }
    }
    Ok(())
}

/// The rooms without those to which somebody whom the user ignores invited him.
fn without_ignored<'a>(
    context: &Context<'_>,
    mut pending: Vec<(RoomView<'a>, &'a UserRoom)>,
) -> Result<Vec<(RoomView<'a>, &'a UserRoom)>, StoreError> {
    let ignored = context.ignored()?;
    if ignored.is_nobody() {
        return Ok(pending);
    }
    let members: Vec<(RoomNum, EventNum)> = pending
        .iter()
        .map(|(room, relation)| (room.num(), relation.event))
        .collect();
    let rooms = &context.sync.rooms;
    let mut members = rooms
        .events_of_rooms(context.view, &members)?
        .into_iter()
        .map(|event| event.ok_or(StoreError::Missing("events")))
        .collect::<Result<Vec<_>, StoreError>>()?
        .into_iter();
    pending.retain(|(_, relation)| {
        let sender = members.next();
        let by_ignored = sender.is_some_and(|event| ignored.has(event.pdu.sender()));
        relation.membership == Membership::Knock || !by_ignored
    });
    Ok(pending)
}
