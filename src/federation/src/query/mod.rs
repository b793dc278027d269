//! Questions to other servers that concern no event: where an alias leads, what a profile says, what happened when.
//!
//! Whoever asks what somebody else is just asking waits for the same answer. Answers are kept for a short while, and so
//! are failures, so that no client can have this server ask another one all the time.

mod alias;
mod profile;

pub use alias::{ResolveAliasError, ResolvedAlias};
pub use profile::LookUpProfileError;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Method;
use myelin_types::{Clock, Millis};
use quick_cache::{Weighter, sync::Cache};
use ruma::{OwnedServerName, ServerName};
use serde::de::DeserializeOwned;

use crate::{
    Federation,
    client::{Call, RequestError},
};

/// How long an answer counts. Short, since nobody tells us when it has become wrong.
const ANSWER_KEPT: Duration = Duration::from_secs(30);
/// How long nobody asks again after a failure.
const FAILURE_KEPT: Duration = Duration::from_secs(10);
/// How long another server may take, finding it included: a client waits for it.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The greatest answer, in bytes: a profile has at most 64 KiB, and the list of a room's servers may be long.
const ANSWER_LIMIT: usize = 256 << 10;
/// What an answer mostly takes, in bytes. When those that are kept take more than they may, those that are asked for least
/// go.
const USUAL: usize = 500;
/// What an entry takes besides the texts in it.
const OVERHEAD: usize = 200;

/// Why another server did not tell what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueryError {
    /// It answered with an error.
    #[error("the server refused with status {status} {errcode}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The Matrix error code; empty if there was none.
        errcode: String,
    },
    /// It gave no answer in time.
    #[error("the server took too long")]
    TooSlow,
    /// It could not be asked, or its answer is of no use.
    #[error("ask another server")]
    Failed(#[source] Arc<RequestError>),
}

impl From<RequestError> for QueryError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Refused {
                status, errcode, ..
            } => Self::Refused { status, errcode },
            other => Self::Failed(Arc::new(other)),
        }
    }
}

impl QueryError {
    /// Whether the server said that what it was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    server: OwnedServerName,
    /// The path below `/_matrix/federation/v1`, in its parts, not yet percent-encoded.
    path: [String; 2],
    query: Vec<(&'static str, String)>,
}

/// An answer, or a failure, and until when it counts.
#[derive(Clone, Debug)]
struct Kept {
    until: Millis,
    answer: Result<Bytes, QueryError>,
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<Question, Kept> for ByBytes {
    fn weight(&self, question: &Question, kept: &Kept) -> u64 {
        let path: usize = question.path.iter().map(String::len).sum();
        let query: usize = question.query.iter().map(|(_, value)| value.len()).sum();
        let answer = kept.answer.as_ref().map_or(0, Bytes::len);
        (OVERHEAD + path + query + answer) as u64
    }
}

/// What other servers answered lately.
pub(crate) struct Answers {
    kept: Cache<Question, Kept, ByBytes>,
    clock: Arc<dyn Clock>,
}

impl Answers {
    pub(crate) fn new(clock: Arc<dyn Clock>, bytes: usize) -> Self {
        Self {
            kept: Cache::with_weighter(bytes / USUAL, bytes as u64, ByBytes),
            clock,
        }
    }

    /// The answer to a question: the kept one, that of somebody who is asking already, or that which `ask` gets.
    async fn of(
        &self,
        question: Question,
        ask: impl AsyncFnOnce(&Question) -> Result<Bytes, QueryError>,
    ) -> Result<Bytes, QueryError> {
        loop {
            match self.kept.get_value_or_guard_async(&question).await {
                Ok(kept) if kept.until > self.clock.now() => return kept.answer,
                Ok(kept) => {
                    // Not if somebody has put a newer one there meanwhile.
                    self.kept
                        .remove_if(&question, |found| found.until == kept.until);
                }
                Err(guard) => {
                    // If whoever asks goes away, the next of those who wait asks in his place.
                    let answer = ask(&question).await;
                    let lifetime = match &answer {
                        Ok(_) => ANSWER_KEPT,
                        Err(_) => FAILURE_KEPT,
                    };
                    let kept = Kept {
                        until: self.clock.now().after(lifetime),
                        answer: answer.clone(),
                    };
                    // It is not kept if it alone is larger than the cache.
                    let _ = guard.insert(kept);
                    return answer;
                }
            }
        }
    }
}

impl Federation {
    /// Asks another server, unless that was done just now.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        server: &ServerName,
        path: [&str; 2],
        query: Vec<(&'static str, String)>,
    ) -> Result<T, QueryError> {
        let question = Question {
            server: server.to_owned(),
            path: path.map(str::to_owned),
            query,
        };
        let ask = async |question: &Question| {
            let [family, operation] = &question.path;
            let query: Vec<(&str, &str)> = question
                .query
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            let call = Call {
                method: &Method::GET,
                path: &["_matrix", "federation", "v1", family, operation],
                query: &query,
                content: None,
                signed: true,
                limit: ANSWER_LIMIT,
                timeout: TIMEOUT,
            };
            match tokio::time::timeout(TIMEOUT, self.0.client.send(&question.server, call)).await {
                Ok(answer) => Ok(answer?),
                Err(_) => Err(QueryError::TooSlow),
            }
        };
        let answer = self.0.answers.of(question, ask).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| QueryError::Failed(Arc::new(RequestError::Malformed(error))))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use bytes::Bytes;
    use myelin_types::MockClock;
    use ruma::owned_server_name;

    use super::{Answers, QueryError, Question};
    use crate::testing::NOW;

    fn question(argument: &str) -> Question {
        Question {
            server: owned_server_name!("there.example"),
            path: ["query", "directory"].map(str::to_owned),
            query: vec![("room_alias", argument.to_owned())],
        }
    }

    #[tokio::test]
    async fn who_asks_at_the_same_time_shares_one_request() {
        let answers = Answers::new(Arc::new(MockClock::new(NOW)), 64 << 10);
        let asked = AtomicUsize::new(0);
        let ask = async |_: &Question| {
            asked.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Ok(Bytes::from_static(b"{}"))
        };
        let all = futures_util::future::join_all((0..5).map(|_| answers.of(question("#a"), ask)));
        for answer in all.await {
            assert_eq!(answer.expect("an answer"), "{}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        answers.of(question("#b"), ask).await.expect("an answer");
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn answers_and_failures_are_kept_for_a_while() {
        let clock = Arc::new(MockClock::new(NOW));
        let answers = Answers::new(Arc::clone(&clock) as Arc<_>, 64 << 10);
        let asked = AtomicUsize::new(0);
        let fail = async |_: &Question| {
            asked.fetch_add(1, Ordering::SeqCst);
            Err(QueryError::TooSlow)
        };
        let succeed = async |_: &Question| {
            asked.fetch_add(1, Ordering::SeqCst);
            Ok(Bytes::from_static(b"{}"))
        };
        for _ in 0..3 {
            let answer = answers.of(question("#a"), fail).await;
            assert!(matches!(answer, Err(QueryError::TooSlow)));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        clock.advance(Duration::from_secs(11));
        for _ in 0..3 {
            assert!(answers.of(question("#a"), succeed).await.is_ok());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        clock.advance(Duration::from_secs(31));
        assert!(answers.of(question("#a"), succeed).await.is_ok());
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }
}
