//! What a client does at a homeserver, in the words of the client-server API.
//!
//! Every call answers what the server said and how long it took; anything but success is an error that quotes the path and
//! the beginning of the body. Nothing here knows which server it speaks to.
//!
//! Large answers are searched, not parsed: the driver shares the machine with the server, and what it spends is taken from
//! what it measures.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode};
use memchr::memmem;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use url::form_urlencoded::byte_serialize;

use crate::http::{Answer, Connection, Host, HttpError};

/// The password of every user that the driver makes.
pub(crate) const PASSWORD: &str = "correct horse battery staple";
/// How long an answer may take: a busy peer needs minutes for some.
pub(crate) const PATIENCE: Duration = Duration::from_mins(10);
/// How many stages of registering are tried: no server asks for more than two that the driver can do.
const STAGES: usize = 4;

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
    #[error(
        "{method} {path}: the server limits how often one may ask (429); it can only be measured with its rate limits off"
    )]
    Limited { method: Method, path: String },
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

/// What a sync is asked for, ready for the query.
#[derive(Clone)]
pub(crate) struct Filter(String);

impl Filter {
    /// No more than `timeline` events a room, members only as needed, no presence.
    pub(crate) fn lazy(timeline: usize) -> Self {
        let filter = json!({
            "room": { "timeline": { "limit": timeline }, "state": { "lazy_load_members": true } },
            "presence": { "not_types": ["*"] },
        });
        Self(encoded(&filter.to_string()))
    }
}

/// What a server asks for before it registers somebody (user-interactive authentication).
#[derive(Deserialize)]
struct Challenge {
    #[serde(default)]
    flows: Vec<Flow>,
    #[serde(default)]
    completed: Vec<String>,
    session: Option<String>,
}

#[derive(Deserialize)]
struct Flow {
    stages: Vec<String>,
}

impl Challenge {
    /// The `auth` of the next request: the next stage of the first flow that can be gone to its end.
    fn next(&self, registration: &Registration) -> Option<Value> {
        let auth = |stage: &str| match (stage, registration) {
            ("m.login.dummy" | "m.login.terms", _) => {
                Some(json!({ "type": stage, "session": self.session }))
            }
            ("m.login.registration_token", Registration::Token(token)) => {
                Some(json!({ "type": stage, "session": self.session, "token": token }))
            }
            _ => None,
        };
        let mut flows = self.flows.iter();
        let flow = flows.find(|flow| flow.stages.iter().all(|stage| auth(stage).is_some()))?;
        let stage = flow
            .stages
            .iter()
            .find(|&stage| !self.completed.contains(stage));
        auth(stage?)
    }

    fn stages(&self) -> String {
        let flows: Vec<String> = self
            .flows
            .iter()
            .map(|flow| flow.stages.join(" + "))
            .collect();
        flows.join(" or ")
    }
}

/// Somebody with an account and a device.
pub(crate) struct Account {
    pub(crate) localpart: String,
    token: String,
}

impl Account {
    /// Registers somebody.
    pub(crate) async fn register(
        connection: &mut Connection,
        localpart: &str,
        registration: &Registration,
    ) -> Result<Arc<Self>, CallError> {
        let path = "/_matrix/client/v3/register";
        let mut body = json!({
            "username": localpart, "password": PASSWORD, "initial_device_display_name": "bench",
        });
        let mut asked = exchange(connection, &Method::POST, path, None, Some(&body)).await?;
        for _ in 0..STAGES {
            if asked.status != StatusCode::UNAUTHORIZED {
                break;
            }
            let Ok(challenge) = serde_json::from_slice::<Challenge>(&asked.body) else {
                break;
            };
            let auth = challenge.next(registration);
            body["auth"] = auth.ok_or_else(|| CallError::Registration(challenge.stages()))?;
            asked = exchange(connection, &Method::POST, path, None, Some(&body)).await?;
        }
        let answer = accept(&Method::POST, path, asked)?;
        let token = text(&Method::POST, path, &answer, "access_token")?;
        Ok(Arc::new(Self {
            localpart: localpart.to_owned(),
            token,
        }))
    }
}

/// Somebody who holds one connection and does one thing at a time.
pub(crate) struct User {
    account: Arc<Account>,
    host: Host,
    connection: Connection,
}

/// Makes transaction ids unique over all users.
static TRANSACTIONS: AtomicU64 = AtomicU64::new(0);

impl User {
    pub(crate) fn new(host: &Host, account: &Arc<Account>) -> Self {
        Self {
            account: Arc::clone(account),
            host: host.clone(),
            connection: Connection::new(host.clone()),
        }
    }

    /// The same session on a connection of its own, to do another thing at the same time.
    pub(crate) fn beside(&self) -> Self {
        Self::new(&self.host, &self.account)
    }

    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Goes on as somebody else on the same connection, as requests do that come through a proxy. For filling: thousands
    /// of connections for one request each would be nobody's load.
    pub(crate) fn speak_as(&mut self, account: &Arc<Account>) {
        self.account = Arc::clone(account);
    }

    /// Logs in with the password, on a new device and with a connection that nobody has used. Answers how long it took,
    /// connecting included.
    pub(crate) async fn login(&self) -> Result<Duration, CallError> {
        let body = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": self.account.localpart },
            "password": PASSWORD,
        });
        let mut connection = Connection::new(self.host.clone());
        let path = "/_matrix/client/v3/login";
        let answer = call(&mut connection, &Method::POST, path, None, Some(&body)).await?;
        text(&Method::POST, path, &answer, "access_token")?;
        Ok(answer.took)
    }

    /// Creates a public room of the server's default version.
    pub(crate) async fn create_room(&mut self) -> Result<String, CallError> {
        self.create_room_as(json!({})).await
    }

    /// Creates a public room of the server's default version with `more` in the request.
    pub(crate) async fn create_room_as(&mut self, more: Value) -> Result<String, CallError> {
        let mut body = more;
        body["preset"] = "public_chat".into();
        body["name"] = "Bench".into();
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
        filter: &Filter,
        wait: Duration,
    ) -> Result<Synced, CallError> {
        let mut path = format!(
            "/_matrix/client/v3/sync?timeout={}&set_presence=offline&filter={}",
            wait.as_millis(),
            filter.0
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
        let end = top_level_text(&answer.body, "end");
        Ok(Page { end, answer })
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
        let token = Some(self.account.token.as_str());
        call(&mut self.connection, method, path, token, body).await
    }
}

/// The answer of a sync.
pub(crate) struct Synced {
    pub(crate) next_batch: String,
    pub(crate) answer: Answer,
}

/// A page of a room's history.
pub(crate) struct Page {
    /// Where the next one begins; none at the end.
    pub(crate) end: Option<String>,
    pub(crate) answer: Answer,
}

impl Page {
    /// Its events as they came.
    pub(crate) fn events(&self) -> Vec<Box<RawValue>> {
        #[derive(Deserialize)]
        struct Said {
            chunk: Vec<Box<RawValue>>,
        }

        serde_json::from_slice(&self.answer.body)
            .map_or_else(|_| Vec::new(), |said: Said| said.chunk)
    }
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
    top_level_text(&answer.body, field).ok_or_else(|| CallError::Answer {
        method: method.clone(),
        path: shown(path),
        field,
    })
}

/// The text of a field of the outermost object. The first place that looks like the field is taken for it, since the
/// events that the driver sends have no field of such a name; only when there is none, or it is written in an unusual
/// way, the whole is read.
fn top_level_text(body: &[u8], field: &str) -> Option<String> {
    written_plainly(body, field).or_else(|| {
        let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(body).ok()?;
        serde_json::from_str(fields.get(field)?.get()).ok()
    })
}

fn written_plainly(body: &[u8], field: &str) -> Option<String> {
    let before = format!("\"{field}\":\"");
    let rest = &body[memmem::find(body, before.as_bytes())? + before.len()..];
    let value = &rest[..memchr::memchr2(b'"', b'\\', rest)?];
    let ended = rest.get(value.len()) == Some(&b'"');
    String::from_utf8(value.to_vec()).ok().filter(|_| ended)
}

/// A path without its query, which can be as long as a filter.
fn shown(path: &str) -> String {
    path.split('?').next().unwrap_or_default().to_owned()
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
    if answer.status == StatusCode::TOO_MANY_REQUESTS {
        return Err(CallError::Limited {
            method: method.clone(),
            path: shown(path),
        });
    }
    let body = String::from_utf8_lossy(&answer.body);
    Err(CallError::Refused {
        method: method.clone(),
        path: shown(path),
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
        path: shown(path),
        cause,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_field_of_the_outermost_object() {
        let check = |body: &str, expected: Option<&str>| {
            assert_eq!(top_level_text(body.as_bytes(), "end").as_deref(), expected);
        };
        check(r#"{"chunk":[],"end":"t1_2"}"#, Some("t1_2"));
        check(r#"{ "end" : "t1_2" }"#, Some("t1_2"));
        check(r#"{"end":"a\"b"}"#, Some("a\"b"));
        check(r#"{"chunk":[{"end_":"x"}],"start":"s"}"#, None);
        check(r#"{"end":7}"#, None);
        check("no JSON", None);
    }

    #[test]
    fn goes_the_first_way_of_registering_that_it_can_go() {
        let challenge: Challenge = serde_json::from_value(json!({
            "flows": [
                { "stages": ["m.login.recaptcha"] },
                { "stages": ["m.login.registration_token", "m.login.dummy"] },
            ],
            "completed": ["m.login.registration_token"],
            "session": "s",
        }))
        .expect("it has the fields of a challenge");
        let token = Registration::Token("t".to_owned());
        let auth = challenge.next(&token);
        assert_eq!(
            auth,
            Some(json!({ "type": "m.login.dummy", "session": "s" }))
        );
        assert_eq!(challenge.next(&Registration::Open), None);
    }
}
