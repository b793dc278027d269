//! `GET /_matrix/client/v3/keys/changes`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3keyschanges>

use axum::{Json, extract::State};
use myelin_rooms::token::Token;
use myelin_sync::{DeviceLists, Sync};
use ruma::api::client::keys::get_key_changes::v3::Request as Operation;

use crate::{
    error::{Refusal, Result},
    extract::Request,
    shared::{token, viewer},
};

/// Lists whose devices changed since `from`. What changed since `to` is among it: the client hears of that once more with its
/// next sync, which does no harm.
pub(crate) async fn changes(
    State(sync): State<Sync>,
    request: Request<Operation>,
) -> Result<Json<DeviceLists>> {
    let Request { body, caller, .. } = request;
    token(Some(&body.to))?;
    let from = match token(Some(&body.from))? {
        Some(Token::Sync(from)) => from.pos,
        Some(Token::Timeline(from)) => from.pos,
        None => return Err(Refusal::missing("from is missing.")),
    };
    let lists = sync
        .device_lists(viewer(&caller), from)
        .await
        .map_err(Refusal::internal)?;
    Ok(Json(lists))
}
