//! `GET /_matrix/client/v3/sync`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync>

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State};
use myelin_accounts::{Accounts, Requester};
use myelin_rooms::{
    Rooms,
    token::{SyncToken, Token},
};
use myelin_sync::{Response, Sync, SyncError, SyncRequest};
use ruma::api::client::{
    filter::FilterDefinition,
    sync::sync_events::v3::{Filter, Request as Operation},
};

use crate::{
    Limit,
    error::{Refusal, Result},
    extract::Request,
    routes::Routes,
    shared::{token, viewer},
};

/// The longest that a request waits. Proxies give up on requests that are silent for longer.
const MAX_WAIT: Duration = Duration::from_secs(90);

/// The routes of this family.
pub(crate) fn routes(routes: Routes) -> Routes {
    routes.operation::<Operation, _, _>(Limit::Read, sync)
}

fn refuse(error: SyncError) -> Refusal {
    match error {
        SyncError::Store(cause) => Refusal::internal(cause),
    }
}

/// Answers with what is new for the caller, waiting for it if there is nothing yet.
async fn sync(
    State(sync): State<Sync>,
    State(accounts): State<Accounts>,
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Json<Response>> {
    let Request { body, caller, .. } = request;
    let response = sync
        .sync(SyncRequest {
            viewer: viewer(&caller),
            since: since(body.since.as_deref())?,
            filter: filter(&rooms, &accounts, &caller, body.filter).await?,
            full_state: body.full_state,
            timeout: body.timeout.unwrap_or_default().min(MAX_WAIT),
            use_state_after: body.use_state_after,
        })
        .await
        .map_err(refuse)?;
    Ok(Json(response))
}

fn since(text: Option<&str>) -> Result<Option<SyncToken>> {
    match token(text)? {
        None => Ok(None),
        Some(Token::Sync(since)) => Ok(Some(since)),
        Some(Token::Timeline(_)) => Err(Refusal::invalid("since is a token of a room's history.")),
    }
}

async fn filter(
    rooms: &Rooms,
    accounts: &Accounts,
    caller: &Requester,
    filter: Option<Filter>,
) -> Result<Arc<FilterDefinition>> {
    match filter {
        None => Ok(Arc::default()),
        Some(Filter::FilterDefinition(definition)) => Ok(Arc::new(definition)),
        Some(Filter::FilterId(id)) => {
            let (accounts, user) = (accounts.clone(), caller.user);
            rooms
                .store()
                .read(move |view| accounts.filter_definition(view, user, &id))
                .await
                .map_err(Refusal::internal)?
                .map(Arc::new)
                .ok_or_else(|| Refusal::invalid("There is no such filter."))
        }
        Some(_) => Err(Refusal::invalid("This is neither a filter nor the id of one.")),
    }
}
