//! Policy servers, as they are asked. Spec: server-server API, "Asking for a Policy Server signature on an event".

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::Method;
use myelin_rooms::remote::{AskPolicy, FetchError, Fetching, NotSigned};
use myelin_rules::{Pdu, sign::POLICY_KEY_ID};
use ruma::ServerName;
use serde_json::Value;

use crate::client::{Call, Client, RequestError};

/// How long a policy server may take: somebody waits who wants to send a message.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The greatest answer, in bytes: it is one signature.
const LIMIT: usize = 16 << 10;

/// Asks policy servers. Knows no rooms, so that rooms may hold it.
pub(crate) struct Policies(pub(crate) Arc<Client>);

impl Policies {
    async fn ask(&self, via: &ServerName, event: &Pdu) -> Result<String, RequestError> {
        let event: Value = serde_json::from_str(event.json()).map_err(RequestError::Malformed)?;
        let call = Call {
            method: &Method::POST,
            path: &["_matrix", "policy", "v1", "sign"],
            query: &[],
            content: Some(&event),
            signed: true,
            limit: LIMIT,
            timeout: TIMEOUT,
        };
        let answer = self.0.send(via, call).await?;
        let answer: BTreeMap<String, BTreeMap<String, String>> =
            serde_json::from_slice(&answer).map_err(RequestError::Malformed)?;
        let signature = answer
            .get(via.as_str())
            .and_then(|keys| keys.get(POLICY_KEY_ID));
        // An empty one fits nothing.
        Ok(signature.cloned().unwrap_or_default())
    }
}

impl AskPolicy for Policies {
    fn sign<'a>(
        &'a self,
        via: &'a ServerName,
        event: &'a Pdu,
    ) -> Fetching<'a, Result<String, NotSigned>> {
        Box::pin(async move {
            let answer = self.ask(via, event).await;
            answer.map_err(|error| match &error {
                RequestError::Refused { errcode, .. } if errcode == "M_FORBIDDEN" => {
                    let otherwise = "The policy server of the room does not recommend the event.";
                    NotSigned::Refused(error.said(otherwise))
                }
                _ => NotSigned::Failed(FetchError::from(error)),
            })
        })
    }
}
