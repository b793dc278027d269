//! What a client does at a homeserver, in the words of the client-server API.
//!
//! Every call answers what the server said and how long it took; anything but success is an error that quotes the path and
//! the beginning of the body. Nothing here knows which server it speaks to.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use url::form_urlencoded::byte_serialize;

use crate::http::{Answer, Connection, Host, HttpError};

/// The password of every user that the driver makes.
pub(crate) const PASSWORD: &str = "correct horse battery staple";
/// How long an answer may take: a busy peer needs minutes for some.
pub(crate) const PATIENCE: Duration = Duration::from_mins(10);

/// Why a call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{method} {path}")]
    Http {
        method: Method,
        path: String,
        #[source]
        cause: HttpError,
    },
    #[error("{method} {path}: {status} {body}")]
    Refused {
        method: Method,
        path: String,
        status: StatusCode,
        body: String,
    },
    #[error("{method} {path}: the answer has no `{field}`")]
    Answer {
        method: Method,
        path: String,
        field: &'static str,
    },
    #[error("the server wants `{0}` for registering, which the driver cannot do")]
    Registration(String),
}

/// How an account can be made.
#[derive(Clone, Debug)]
pub(crate) enum Registration {
    /// By anybody (`m.login.dummy`).
    Open,
    /// With a registration token.
    Token(String),
}

/// `text` for one segment of a path or one value of a query.
pub(crate) fn encoded(text: &str) -> String {
    // The only difference between a form and a path is the space.
    byte_serialize(text.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}

/// Somebody with an account, who holds one connection and does one thing at a time.
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) localpart: String,
    token: String,
    host: Host,
    connection: Connection,
}

/// Makes transaction ids unique over all users.
static TRANSACTIONS: AtomicU64 = AtomicU64::new(0);

impl User {
    /// Creates an account.
    pub(crate) async fn register(
        host: &Host,
        localpart: &str,
        registration: &Registration,
    ) -> Result<Self, CallError> {
        let mut connection = Connection::new(host.clone());
        let path = "/_matrix/client/v3/register";
        let mut body = json!({
            "username": localpart, "password": PASSWORD, "initial_device_display_name": "bench",
        });
        let asked = exchange(&mut connection, &Method::POST, path, None, Some(&body)).await?;
        let answer = if asked.status == StatusCode::UNAUTHORIZED {
            let challenge: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
            let mut auth = match registration {
                Registration::Open => json!({ "type": "m.login.dummy" }),
                Registration::Token(token) => {
                    json!({ "type": "m.login.registration_token", "token": token })
                }
            };
            let stages = challenge["flows"].to_string();
            if auth["type"].as_str().is_none_or(|stage| !stages.contains(stage)) {
                return Err(CallError::Registration(stages));
            }
            auth["session"] = challenge["session"].clone();
            body["auth"] = auth;
            call(&mut connection, &Method::POST, path, None, Some(&body)).await?
        } else {
            accept(&Method::POST, path, asked)?
        };
        let said = parsed(&answer);
        let field = |name: &'static str| {
            let value = said[name].as_str();
            value.map(str::to_owned).ok_or_else(|| CallError::Answer {
                method: Method::POST,
                path: path.to_owned(),
                field: name,
            })
        };
        Ok(Self {
            id: field("user_id")?,
            localpart: localpart.to_owned(),
            token: field("access_token")?,
            host: host.clone(),
            connection,
        })
    }

    /// The same session on a connection of its own, to do another thing at the same time.
    pub(crate) fn beside(&self) -> Self {
        Self {
            id: self.id.clone(),
            localpart: self.localpart.clone(),
            token: self.token.clone(),
            host: self.host.clone(),
            connection: Connection::new(self.host.clone()),
        }
    }

    /// Logs in with the password, on a new device and with a connection that nobody has used. Answers how long it took.
    pub(crate) async fn login(&self) -> Result<Duration, CallError> {
        let body = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": self.localpart },
            "password": PASSWORD,
        });
        let mut connection = Connection::new(self.host.clone());
        let path = "/_matrix/client/v3/login";
        let answer = call(&mut connection, &Method::POST, path, None, Some(&body)).await?;
        Ok(answer.took)
    }

    /// Creates a public room of the server's default version.
    pub(crate) async fn create_room(&mut self) -> Result<String, CallError> {
        let body = json!({ "preset": "public_chat", "name": "Bench" });
        let path = "/_matrix/client/v3/createRoom";
        let answer = self.call(&Method::POST, path, Some(&body)).await?;
        text(&Method::POST, path, &answer, "room_id")
    }

    pub(crate) async fn join(&mut self, room: &str) -> Result<Answer, CallError> {
        let path = format!("/_matrix/client/v3/rooms/{}/join", encoded(room));
        self.call(&Method::POST, &path, Some(&json!({}))).await
    }

    /// Sends an `m.room.message` whose text is `text`.
    pub(crate) async fn send(&mut self, room: &str, text: &str) -> Result<Answer, CallError> {
        let transaction = TRANSACTIONS.fetch_add(1, Ordering::Relaxed);
        let path = format!(
            "/_matrix/client/v3/rooms/{}/send/m.room.message/bench-{transaction}",
            encoded(room)
        );
        let body = json!({ "msgtype": "m.text", "body": text });
        self.call(&Method::PUT, &path, Some(&body)).await
    }

    /// Sets a piece of the room's state.
    pub(crate) async fn set_state(
        &mut self,
        room: &str,
        event_type: &str,
        state_key: &str,
        content: &Value,
    ) -> Result<Answer, CallError> {
        let path = format!(
            "/_matrix/client/v3/rooms/{}/state/{}/{}",
            encoded(room),
            encoded(event_type),
            encoded(state_key)
        );
        self.call(&Method::PUT, &path, Some(content)).await
    }

    /// Syncs. Without `since` everything; the server waits up to `wait` for news when there are none.
    pub(crate) async fn sync(
        &mut self,
        since: Option<&str>,
        filter: &str,
        wait: Duration,
    ) -> Result<Synced, CallError> {
        let mut path = format!(
            "/_matrix/client/v3/sync?timeout={}&set_presence=offline&filter={}",
            wait.as_millis(),
            encoded(filter)
        );
        if let Some(since) = since {
            path.push_str("&since=");
            path.push_str(&encoded(since));
        }
        let answer = self.call(&Method::GET, &path, None).await?;
        let next_batch = text(&Method::GET, &path, &answer, "next_batch")?;
        Ok(Synced { next_batch, answer })
    }

    /// One page of `/messages` backwards, of up to `limit` events.
    pub(crate) async fn messages(
        &mut self,
        room: &str,
        from: Option<&str>,
        limit: usize,
    ) -> Result<Page, CallError> {
        let mut path = format!(
            "/_matrix/client/v3/rooms/{}/messages?dir=b&limit={limit}",
            encoded(room)
        );
        if let Some(from) = from {
            path.push_str("&from=");
            path.push_str(&encoded(from));
        }
        let answer = self.call(&Method::GET, &path, None).await?;
        let said = parsed(&answer);
        Ok(Page {
            events: said["chunk"].as_array().map_or(0, Vec::len),
            end: said["end"].as_str().map(str::to_owned),
            answer,
        })
    }

    /// All members of a room. Answers how many there were besides.
    pub(crate) async fn members(&mut self, room: &str) -> Result<(usize, Answer), CallError> {
        let path = format!("/_matrix/client/v3/rooms/{}/members", encoded(room));
        let answer = self.call(&Method::GET, &path, None).await?;
        let members = parsed(&answer)["chunk"].as_array().map_or(0, Vec::len);
        Ok((members, answer))
    }

    async fn call(
        &mut self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, CallError> {
        call(&mut self.connection, method, path, Some(&self.token), body).await
    }
}

/// The answer of a sync.
pub(crate) struct Synced {
    pub(crate) next_batch: String,
    pub(crate) answer: Answer,
}

/// A page of a room's history.
pub(crate) struct Page {
    pub(crate) events: usize,
    /// Where the next one begins; none at the end.
    pub(crate) end: Option<String>,
    pub(crate) answer: Answer,
}

/// What an answer says; null where it is not JSON.
pub(crate) fn parsed(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

fn text(
    method: &Method,
    path: &str,
    answer: &Answer,
    field: &'static str,
) -> Result<String, CallError> {
    // Only this one field is taken out: parsing megabytes into values would be the driver's time, not the server's.
    let value = top_level_text(&answer.body, field);
    value.ok_or_else(|| CallError::Answer {
        method: method.clone(),
        path: path.to_owned(),
        field,
    })
}

fn top_level_text(body: &[u8], field: &str) -> Option<String> {
    use std::collections::BTreeMap;

    use serde_json::value::RawValue;

    let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(body).ok()?;
    serde_json::from_str(fields.get(field)?.get()).ok()
}

async fn call(
    connection: &mut Connection,
    method: &Method,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> Result<Answer, CallError> {
    let answer = exchange(connection, method, path, token, body).await?;
    accept(method, path, answer)
}

fn accept(method: &Method, path: &str, answer: Answer) -> Result<Answer, CallError> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    let body = String::from_utf8_lossy(&answer.body);
    Err(CallError::Refused {
        method: method.clone(),
        path: path.to_owned(),
        status: answer.status,
        body: body.chars().take(300).collect(),
    })
}

async fn exchange(
    connection: &mut Connection,
    method: &Method,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> Result<Answer, CallError> {
    let body = body.map(|body| Bytes::from(body.to_string()));
    let sent = connection.send(method, path, token, body, PATIENCE).await;
    sent.map_err(|cause| CallError::Http {
        method: method.clone(),
        path: path.to_owned(),
        cause,
    })
}
