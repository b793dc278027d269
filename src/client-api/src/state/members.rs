//! `GET /_matrix/client/v3/rooms/{roomId}/members`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers>

use axum::{Json, extract::State};
use myelin_data::rooms::Membership;
use myelin_rooms::{Rooms, read::MembersQuery};
use ruma::{
    api::client::membership::get_member_events::v3::Request as Operation,
    events::room::member::MembershipState,
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    error::{Refusal, Result},
    extract::Request,
    shared::{refuse_read, token, viewer},
};

/// The response body.
#[derive(Debug, Serialize)]
pub(crate) struct Members {
    /// Membership events.
    chunk: Vec<Box<RawValue>>,
}

fn membership(wanted: Option<MembershipState>) -> Result<Option<Membership>> {
    wanted
        .map(|wanted| {
            Membership::from_name(wanted.as_str())
                .ok_or_else(|| Refusal::invalid(format!("There is no membership {wanted:?}.")))
        })
        .transpose()
}

/// Lists members as of now, of `at`, or of when the caller left.
pub(crate) async fn list(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Json<Members>> {
    let query = request.body;
    let members = MembersQuery {
        at: token(query.at.as_deref())?,
        membership: membership(query.membership)?,
        not_membership: membership(query.not_membership)?,
    };
    let chunk = rooms
        .members(&viewer(&request.caller), &query.room_id, members)
        .await
        .map_err(refuse_read)?;
    Ok(Json(Members { chunk }))
}
