//! A client that says what it is told and keeps nothing but its session.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};

/// The prefix of the client-server API's paths.
const V3: &str = "/_matrix/client/v3";

/// An HTTP client without keys of its own, for loopback.
pub fn http_client() -> reqwest::Client {
    // One provider for the whole process; whoever comes second finds it installed.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_mins(1))
        .build()
        .expect("a client without certificates can be built")
}

/// `text` for use as one segment of a path or value of a query.
pub fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Somebody who talks to a server.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    user_id: String,
    device_id: String,
    access_token: Option<String>,
    transactions: AtomicU64,
}

/// What a server said.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as JSON; a string where it is not JSON.
    pub body: Value,
}

impl Reply {
    /// The body of a reply that must be a 200.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "not a success: {}", self.body);
        self.body
    }

    /// The body of a reply that must be a refusal with this status and errcode.
    #[track_caller]
    pub fn refused(self, status: u16, errcode: &str) -> Value {
        assert_eq!(
            (self.status, self.body["errcode"].as_str()),
            (status, Some(errcode)),
            "another answer: {}",
            self.body
        );
        self.body
    }
}

impl Client {
    pub(crate) fn new(http: reqwest::Client, url: String) -> Self {
        Self {
            http,
            url,
            user_id: String::new(),
            device_id: String::new(),
            access_token: None,
            transactions: AtomicU64::new(0),
        }
    }

    /// The same client in this session.
    #[must_use]
    pub fn with_session(self, user_id: String, device_id: String, access_token: String) -> Self {
        Self {
            user_id,
            device_id,
            access_token: Some(access_token),
            ..self
        }
    }

    /// The same session at another address.
    #[must_use]
    pub fn at(&self, url: String) -> Self {
        Self {
            http: self.http.clone(),
            url,
            user_id: self.user_id.clone(),
            device_id: self.device_id.clone(),
            access_token: self.access_token.clone(),
            transactions: AtomicU64::new(self.transactions.load(Ordering::Relaxed)),
        }
    }

    /// The user id; empty when not logged in.
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    /// The device id; empty when not logged in.
    pub fn device_id(&self) -> &str {
        &self.device_id
    }

    /// The access token, when logged in.
    pub fn access_token(&self) -> Option<&str> {
        self.access_token.as_deref()
    }

    /// Sends one request. `path` begins with `/` and may have a query.
    pub async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(token) = &self.access_token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        self.send_request(request).await
    }

    /// Sends a request with any body and content type.
    pub async fn raw(&self, method: Method, path: &str, kind: &str, body: Vec<u8>) -> Reply {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .header("content-type", kind)
            .body(body);
        if let Some(token) = &self.access_token {
            request = request.bearer_auth(token);
        }
        self.send_request(request).await
    }

    async fn send_request(&self, request: reqwest::RequestBuilder) -> Reply {
        let response = request.send().await.expect("the server answers");
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let bytes = response.bytes().await.expect("the answer is complete");
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Reply {
            status,
            headers,
            body,
        }
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Reply {
        self.request(Method::GET, path, None).await
    }

    /// `POST` with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.request(Method::POST, path, Some(body)).await
    }

    /// `PUT` with a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Reply {
        self.request(Method::PUT, path, Some(body)).await
    }

    /// `DELETE` without a body.
    pub async fn delete(&self, path: &str) -> Reply {
        self.request(Method::DELETE, path, None).await
    }

    /// Creates a room; returns its id.
    pub async fn create_room(&self, request: &Value) -> String {
        let body = self.post(&format!("{V3}/createRoom"), request).await.ok();
        string(&body, "room_id")
    }

    /// Joins a room by id or alias.
    pub async fn join(&self, room: &str) -> Reply {
        self.post(&format!("{V3}/join/{}", encoded(room)), &json!({}))
            .await
    }

    /// Leaves a room.
    pub async fn leave(&self, room: &str) -> Reply {
        self.post(&format!("{V3}/rooms/{}/leave", encoded(room)), &json!({}))
            .await
    }

    /// Invites somebody.
    pub async fn invite(&self, room: &str, user_id: &str) -> Reply {
        let path = format!("{V3}/rooms/{}/invite", encoded(room));
        self.post(&path, &json!({ "user_id": user_id })).await
    }

    /// Sends an event; returns its id.
    pub async fn send(&self, room: &str, kind: &str, content: &Value) -> String {
        let transaction = self.transactions.fetch_add(1, Ordering::Relaxed);
        let path = format!("{V3}/rooms/{}/send/{kind}/t{transaction}", encoded(room));
        string(&self.put(&path, content).await.ok(), "event_id")
    }

    /// Sends a text message; returns the event's id.
    pub async fn say(&self, room: &str, text: &str) -> String {
        let content = json!({ "msgtype": "m.text", "body": text });
        self.send(room, "m.room.message", &content).await
    }

    /// Sets a piece of state; returns the event's id.
    pub async fn set_state(&self, room: &str, kind: &str, key: &str, content: &Value) -> String {
        let path = format!("{V3}/rooms/{}/state/{kind}/{}", encoded(room), encoded(key));
        string(&self.put(&path, content).await.ok(), "event_id")
    }

    /// Syncs from `since`, or from the beginning, without waiting.
    pub async fn sync(&self, since: Option<&str>) -> Value {
        self.sync_with(since, "timeout=0").await
    }

    /// Syncs with a query of one's own.
    pub async fn sync_with(&self, since: Option<&str>, query: &str) -> Value {
        let since = since
            .map(|since| format!("&since={}", encoded(since)))
            .unwrap_or_default();
        self.get(&format!("{V3}/sync?{query}{since}")).await.ok()
    }

    /// Syncs until `done` says that what was awaited has come, and returns that answer. Panics after ten seconds.
    pub async fn sync_until(
        &self,
        mut since: Option<String>,
        done: impl Fn(&Value) -> bool,
    ) -> Value {
        let awaiting = async {
            loop {
                let body = self.sync_with(since.as_deref(), "timeout=2000").await;
                if done(&body) {
                    return body;
                }
                since = Some(string(&body, "next_batch"));
            }
        };
        tokio::time::timeout(Duration::from_secs(10), awaiting)
            .await
            .expect("what was awaited comes in time")
    }
}

#[track_caller]
fn string(body: &Value, key: &str) -> String {
    match body[key].as_str() {
        Some(text) => text.to_owned(),
        None => panic!("no {key} in {body}"),
    }
}
