//! `PUT /_matrix/federation/v1/3pid/onbind`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv13pidonbind>
//!
//! Identity servers do not sign requests, so that anybody can call this. Nothing is believed for it: whoever sent an
//! invitation, and the rules of its room, check what the identity server signed.

use axum::extract::State;
use http::StatusCode;
use myelin_federation::{BoundInvite, Federation, MOST_BOUND};
use myelin_rooms::JsonObject;
use ruma::api::{
    error::{ErrorKind, LimitExceededErrorData},
    federation::thirdparty::bind_callback::v1::{Request as Operation, Response},
};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

/// Has the invitations redeemed that an address got before it was bound to a user of this server.
pub(crate) async fn put(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let body = request.body;
    if !federation.rooms().is_local(&body.mxid) {
        return Err(Refusal::forbidden("The user is none of this server."));
    }
    if body.invites.len() > MOST_BOUND {
        return Err(Refusal::invalid(format!(
            "At most {MOST_BOUND} invitations are redeemed at once."
        )));
    }
    let mut invites = Vec::new();
    for invite in body.invites {
        let signed: JsonObject = serde_json::from_str(invite.signed.json().get())
            .map_err(|error| Refusal::invalid(format!("`signed` is malformed: {error}.")))?;
        let mxid = signed.get("mxid").and_then(|mxid| mxid.as_str());
        if invite.mxid != body.mxid || mxid != Some(body.mxid.as_str()) {
            return Err(Refusal::invalid("An invitation is for another user."));
        }
        invites.push(BoundInvite {
            room_id: invite.room_id,
            sender: invite.sender,
            target: invite.mxid,
            signed,
        });
    }
    if federation.redeem_invites(invites) {
        Ok(Reply(Response::new()))
    } else {
        Err(Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            ErrorKind::LimitExceeded(LimitExceededErrorData::new()),
            "Too many addresses are being bound; try again later.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use crate::{outsiders::ALICE, testing::Here};

    async fn bind(here: &Here, mxid: &str, invites: Value) -> crate::testing::Answer {
        let body = json!({
            "medium": "email", "address": "a@example.org", "mxid": mxid, "invites": invites,
        });
        let path = "/_matrix/federation/v1/3pid/onbind";
        here.send(Method::PUT, path, None, body.to_string()).await
    }

    fn invite(mxid: &str, signed_for: &str) -> Value {
        json!({
            "medium": "email", "address": "a@example.org", "mxid": mxid,
            "room_id": "!room:there.example", "sender": "@bob:there.example",
            "signed": { "mxid": signed_for, "token": "abc", "signatures": {} },
        })
    }

    #[tokio::test]
    async fn whatever_is_bound_must_be_of_a_user_of_ours() {
        let here = Here::new().await;
        bind(&here, ALICE, json!([])).await.ok();
        bind(&here, ALICE, json!([invite(ALICE, ALICE)])).await.ok();
        bind(&here, "@x:there.example", json!([]))
            .await
            .refused(403, "M_FORBIDDEN");
        let other = "@bob:here.example";
        for invites in [
            json!([invite(other, other)]),
            json!([invite(ALICE, other)]),
            Value::Array(vec![invite(ALICE, ALICE); 21]),
        ] {
            bind(&here, ALICE, invites)
                .await
                .refused(400, "M_INVALID_PARAM");
        }
    }
}
