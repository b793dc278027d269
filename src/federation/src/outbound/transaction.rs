//! Transactions: what stands in one, how it is named, and what its answer says. Spec: server-server API, "Transactions".

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Method;
use myelin_rooms::Event;
use myelin_types::Millis;
use ruma::ServerName;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    book::{At, Outcome},
    ephemeral::Edu,
};
use crate::client::{Call, Client, RequestError};

/// How long a server may take for a transaction.
const TIMEOUT: Duration = Duration::from_mins(1);
/// The greatest answer that is read. It says what became of 50 events.
const ANSWER_LIMIT: usize = 1 << 20;

/// A request under way.
pub(crate) type Sending<'a> =
    std::pin::Pin<Box<dyn Future<Output = Result<Bytes, RequestError>> + Send + 'a>>;

/// What carries transactions to other servers.
pub(crate) trait Wire: Send + Sync + 'static {
    /// Sends the transaction `id`.
    fn send<'a>(&'a self, server: &'a ServerName, id: &'a str, content: &'a Value) -> Sending<'a>;
}

impl Wire for Client {
    fn send<'a>(&'a self, server: &'a ServerName, id: &'a str, content: &'a Value) -> Sending<'a> {
        Box::pin(async move {
            let call = Call {
                method: &Method::PUT,
                path: &["_matrix", "federation", "v1", "send", id],
                query: &[],
                content: Some(content),
                signed: true,
                limit: ANSWER_LIMIT,
                timeout: TIMEOUT,
            };
            Client::send(self, server, call).await
        })
    }
}

/// What EDUs add to the names of transactions. Those of another start of the server must differ, since servers remember
/// names and EDUs are not the same again; the names of events' positions say themselves what is in them.
#[derive(Debug)]
pub(super) struct Serial {
    started: Millis,
    count: u64,
}

impl Serial {
    pub(super) fn new(started: Millis) -> Self {
        Self { started, count: 0 }
    }

    fn next(&mut self) -> String {
        self.count += 1;
        format!("{}.{}", self.started, self.count)
    }
}

/// The name of a transaction. One with the same events and no EDUs has the same name, whenever it is sent: a server that
/// has it already knows that it has.
pub(super) fn name(
    first: Option<At>,
    last: Option<At>,
    edus: usize,
    serial: &mut Serial,
) -> String {
    let part = |at: At| format!("{}.{}", at.pos.0, at.index);
    match first.zip(last) {
        Some((first, last)) if edus == 0 => format!("{}-{}", part(first), part(last)),
        Some((first, last)) => format!("{}-{}-{}", part(first), part(last), serial.next()),
        None => serial.next(),
    }
}

/// The body of a transaction.
pub(super) fn content(
    origin: &ServerName,
    now: Millis,
    events: &[Arc<Event>],
    edus: &[Edu],
) -> Value {
    let pdus = events.iter().filter_map(|event| {
        let pdu = serde_json::from_str::<Value>(event.pdu.json());
        pdu.map_err(|error| {
            tracing::error!(event_id = event.header.event_id, %error, "a stored event is no JSON");
        })
        .ok()
    });
    let edus = edus.iter().map(|edu| edu.value().clone());
    json!({
        "origin": origin,
        "origin_server_ts": now.0,
        "pdus": pdus.collect::<Vec<_>>(),
        "edus": edus.collect::<Vec<_>>(),
    })
}

/// What an answer means, and how that is called in metrics.
pub(super) fn outcome(
    server: &ServerName,
    answer: Result<Bytes, RequestError>,
) -> (Outcome, &'static str) {
    match answer {
        Ok(answer) => {
            log_refusals(server, &answer);
            (Outcome::Delivered, "delivered")
        }
        // It was taken; only what was said about it is of no use.
        Err(RequestError::TooLarge | RequestError::Malformed(_)) => {
            (Outcome::Delivered, "delivered")
        }
        Err(
            error @ RequestError::Refused {
                status: 400 | 413 | 422,
                ..
            },
        ) => {
            tracing::debug!(%server, error = crate::chain(&error), "transaction refused");
            (Outcome::Refused, "refused")
        }
        Err(error) => {
            tracing::debug!(%server, error = crate::chain(&error), "transaction not delivered");
            (Outcome::Failed, "failed")
        }
    }
}

fn log_refusals(server: &ServerName, answer: &[u8]) {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        pdus: BTreeMap<String, Said>,
    }
    #[derive(Deserialize)]
    struct Said {
        error: Option<String>,
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(answer) else {
        return;
    };
    for (event_id, said) in answer.pdus {
        if let Some(error) = said.error {
            tracing::debug!(%server, event_id, error, "event refused by another server");
        }
    }
}

#[cfg(test)]
mod tests {
    use myelin_types::{Millis, Pos};

    use super::{At, Serial, name};

    #[test]
    fn names_follow_from_positions_unless_there_is_something_that_does_not_last() {
        let at = |pos, index| {
            Some(At {
                pos: Pos(pos),
                index,
            })
        };
        let serial = &mut Serial::new(Millis(5));
        assert_eq!(name(at(7, 0), at(9, 2), 0, serial), "7.0-9.2");
        assert_eq!(name(at(7, 0), at(9, 2), 0, serial), "7.0-9.2");
        assert_eq!(name(at(7, 0), at(9, 2), 1, serial), "7.0-9.2-5.1");
        assert_eq!(name(None, None, 1, serial), "5.2");
    }
}
