//! The server's keys, and a request that it must believe.

use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::time::Instant;

use super::{Check, Finding};
use crate::{KeyError, RequestError, client::Call};

impl Check<'_> {
    /// Asks for the keys and judges them.
    pub(super) async fn keys(&mut self) {
        let began = Instant::now();
        let now = self.federation.clock().now();
        let asked = self.federation.0.keys.ask(self.server).await;
        let finding = match asked {
            Ok(document) if document.valid_until < now => Finding::bad(
                "the keys have expired",
                "The clock of one of the two machines is wrong, or the answer comes from a cache: see to it that \
                 /_matrix/key/ is not cached.",
            ),
            Ok(document) => {
                let ids: Vec<&str> = document.ids().map(String::as_str).collect();
                Finding::good(format!("signed by the server, with {}", ids.join(", ")))
            }
            Err(KeyError::Request(error)) => judge(&error),
            Err(error) => Finding::bad(
                crate::chain(&error),
                "Another server answers there, or one that is set up for another name: server.name must be the name \
                 that was checked.",
            ),
        };
        self.note("keys", began, finding);
    }

    /// Sends a transaction with nothing in it: a request that changes nothing and must be signed.
    pub(super) async fn signed_request(&mut self) {
        let began = Instant::now();
        let what = "signed request";
        if self.server == self.federation.server_name() {
            let finding = Finding::good("not tried: servers do not send requests to themselves");
            return self.note(what, began, finding);
        }
        let now = self.federation.clock().now();
        let content = json!({
            "origin": self.federation.server_name(),
            "origin_server_ts": now,
            "pdus": [],
        });
        let id = format!("myelin-check-{now}");
        let call = Call {
            method: &Method::PUT,
            path: &["_matrix", "federation", "v1", "send", &id],
            query: &[],
            content: Some(&content),
            signed: true,
            limit: 64 << 10,
            timeout: Duration::from_secs(30),
        };
        let finding = match self.federation.0.client.send(self.server, call).await {
            Ok(_) => Finding::good("it believes that we are who we are"),
            Err(RequestError::Refused {
                status: status @ (401 | 403),
                errcode,
                ..
            }) => Finding::bad(
                format!("refused with status {status} {errcode}"),
                format!(
                    "It could not verify the signature: it must be able to reach {} to get its key (check that from \
                     there, or with `myelin federation check {0}` from another machine), and the clocks must agree. \
                     Or it does not want to speak with this server.",
                    self.federation.server_name()
                ),
            ),
            Err(error) => judge(&error),
        };
        self.note(what, began, finding);
    }
}

fn judge(error: &RequestError) -> Finding {
    let advice = match error {
        RequestError::Refused { status: 404, .. } => {
            "A web server answers there and not a Matrix server: let the reverse proxy pass /_matrix/ on."
        }
        RequestError::Refused {
            status: 502..=504, ..
        } => "The reverse proxy does not reach the Matrix server behind it: is it running?",
        RequestError::Refused { .. } => "The server refuses; its log may say why.",
        RequestError::Malformed(_) | RequestError::TooLarge => {
            "Something answers that is no Matrix server."
        }
        RequestError::Disabled
        | RequestError::Unreachable(_)
        | RequestError::NoPublicAddress
        | RequestError::Unsigned(_) => "The connection broke; try again.",
    };
    Finding::bad(crate::chain(error), advice)
}
