//! The client-server API over HTTP.
//!
//! Is: axum routers, one file per endpoint, ruma's types at the edge, and the one place where an operation's errors
//! become statuses and errcodes.
//! Is not: a place for rules, storage or anything that outlives a request, but for the rate limits' counters.

mod account;
mod account_data;
mod backup;
mod body;
#[cfg(test)]
mod budgets;
mod dehydrated;
mod device;
mod directory;
mod discovery;
mod ephemeral;
mod error;
mod extract;
mod filter;
mod keys;
mod limiter;
mod membership;
mod presence;
mod profile;
mod push_rules;
mod room;
mod routes;
mod session;
mod shared;
mod state;
mod sync;
#[cfg(test)]
mod testing;
mod timeline;
mod to_device;
mod uia;

use std::sync::Arc;

use axum::{Router, extract::FromRef};
use http::{Method, header};
use myelin_accounts::Accounts;
use myelin_config::TrustedProxies;
use myelin_e2ee::E2ee;
use myelin_federation::Federation;
use myelin_rooms::Rooms;
use myelin_sync::Sync;
use tower_http::cors::{Any, CorsLayer};

pub use account::{DeactivateError, end_account};
pub use discovery::About;
pub use error::Refusal;
pub use limiter::{Limit, Limiter};
use routes::Routes;
pub use routes::{Access, Route};

/// What the endpoints work with. Each handler asks for the pieces that it needs.
#[derive(Clone, Debug, FromRef)]
pub struct AppState {
    /// Users, devices and what they keep here.
    pub accounts: Accounts,
    /// Rooms and their events.
    pub rooms: Rooms,
    /// Keys of devices and users, and messages to devices.
    pub e2ee: E2ee,
    /// Other servers.
    pub federation: Federation,
    /// What is new for a user.
    pub sync: Sync,
    /// What the server says of itself.
    pub about: Arc<About>,
    /// The rate limits in force.
    pub limiter: Arc<Limiter>,
    /// The greatest body in bytes.
    #[from_ref(skip)]
    pub max_body: usize,
    /// Peers whose `X-Forwarded-For` is believed.
    #[from_ref(skip)]
    pub trusted_proxies: Arc<TrustedProxies>,
}

/// The router of all endpoints, and the table of its routes.
pub fn router(state: AppState) -> (Router, Vec<Route>) {
    let (router, table) = routes().finish();
    let router = router.layer(cors()).with_state(state);
    (router, table)
}

/// All endpoints, family by family.
fn routes() -> Routes {
    let families = [
        discovery::routes,
        session::routes,
        account::routes,
        device::routes,
        dehydrated::routes,
        backup::routes,
        keys::routes,
        profile::routes,
        account_data::routes,
        filter::routes,
        push_rules::routes,
        room::routes,
        membership::routes,
        state::routes,
        timeline::routes,
        directory::routes,
        ephemeral::routes,
        presence::routes,
        sync::routes,
        to_device::routes,
    ];
    families
        .into_iter()
        .fold(Routes::new(), |routes, family| family(routes))
}

/// Web clients of any origin may call every endpoint (client-server specification, "Web Browser Clients").
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::OPTIONS,
        ])
        .allow_headers([
            header::HeaderName::from_static("x-requested-with"),
            header::CONTENT_TYPE,
            header::AUTHORIZATION,
        ])
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode, header};
    use serde_json::Value;

    use crate::{Access, testing::Server};

    /// A path with something in the place of each parameter.
    fn filled(path: &str) -> String {
        path.split('/')
            .map(|segment| {
                if segment.starts_with('{') {
                    "x"
                } else {
                    segment
                }
            })
            .collect::<Vec<_>>()
            .join("/")
    }

    /// What anybody may call. It only shrinks, unless the specification opens a new operation to strangers.
    const PUBLIC: [(Method, &str); 15] = [
        (Method::GET, "/.well-known/matrix/client"),
        (Method::GET, "/.well-known/matrix/server"),
        (Method::GET, "/.well-known/matrix/support"),
        (Method::GET, "/_matrix/client/versions"),
        (Method::GET, "/login"),
        (Method::POST, "/login"),
        (Method::POST, "/refresh"),
        (Method::POST, "/register"),
        (Method::GET, "/register/available"),
        (Method::GET, "/register/m.login.registration_token/validity"),
        (Method::GET, "/profile/{user_id}"),
        (Method::GET, "/profile/{user_id}/{key_name}"),
        (Method::GET, "/directory/room/{room_alias}"),
        (Method::GET, "/directory/list/room/{room_id}"),
        (Method::GET, "/publicRooms"),
    ];

    #[tokio::test]
    async fn without_a_token_every_route_but_the_public_ones_is_refused() {
        let server = Server::new().await;
        assert!(server.table.len() > 60);
        for route in &server.table {
            let public = PUBLIC
                .iter()
                .any(|(method, path)| route.method == *method && route.path.ends_with(path));
            assert_eq!(
                route.access != Access::User,
                public,
                "{} {}",
                route.method,
                route.path
            );
            if route.access == Access::User {
                let path = filled(route.path);
                server
                    .send(route.method.clone(), &path, None, Vec::new())
                    .await
                    .refused(401, "M_MISSING_TOKEN");
                server
                    .send(route.method.clone(), &path, Some("wrong"), Vec::new())
                    .await
                    .refused(401, "M_UNKNOWN_TOKEN");
            }
        }
    }

    #[tokio::test]
    async fn unknown_paths_and_methods_are_told_apart() {
        let server = Server::new().await;
        let send = |method, path| server.send(method, path, None, Vec::new());
        send(Method::GET, "/_matrix/client/v3/nonsense")
            .await
            .refused(404, "M_UNRECOGNIZED");
        send(Method::GET, "/_matrix/nonsense")
            .await
            .refused(404, "M_UNRECOGNIZED");
        send(Method::PUT, "/_matrix/client/v3/login")
            .await
            .refused(405, "M_UNRECOGNIZED");
        send(Method::PATCH, "/_matrix/client/v3/rooms/x/leave")
            .await
            .refused(405, "M_UNRECOGNIZED");
    }

    #[tokio::test]
    async fn web_clients_of_any_origin_may_call_every_path() {
        let server = Server::new().await;
        for path in ["/_matrix/client/v3/login", "/_matrix/client/v3/nonsense"] {
            let answer = server.send(Method::OPTIONS, path, None, Vec::new()).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}");
            let header = |name| {
                answer
                    .headers
                    .get(name)
                    .and_then(|value| value.to_str().ok())
            };
            assert_eq!(header(header::ACCESS_CONTROL_ALLOW_ORIGIN), Some("*"));
            let methods = header(header::ACCESS_CONTROL_ALLOW_METHODS).unwrap_or_default();
            assert!(methods.contains("PUT") && methods.contains("DELETE"));
            assert_eq!(answer.body, Value::Null);
        }
        let refused = server
            .send(
                Method::GET,
                "/_matrix/client/v3/account/whoami",
                None,
                Vec::new(),
            )
            .await;
        assert!(
            refused
                .headers
                .contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN)
        );
    }

    #[tokio::test]
    async fn bodies_are_limited_and_must_be_json() {
        let server = Server::with(|config| {
            config.limits.max_request_body = myelin_config::ByteSize(200_000);
        })
        .await;
        let alice = server.register("alice").await;
        let path = "/_matrix/client/v3/createRoom";
        let send = |body: Vec<u8>| server.send(Method::POST, path, Some(&alice.token), body);
        send(vec![b' '; 200_001]).await.refused(413, "M_TOO_LARGE");
        send(b"{\"name\":\"\xff\"}".to_vec())
            .await
            .refused(400, "M_NOT_JSON");
        send(b"{".to_vec()).await.refused(400, "M_NOT_JSON");
        send(b"{\"name\":3}".to_vec())
            .await
            .refused(400, "M_BAD_JSON");
        send("[".repeat(500).into_bytes())
            .await
            .refused(400, "M_BAD_JSON");
    }

    #[tokio::test]
    async fn whoever_is_too_fast_is_told_how_long_to_wait() {
        let server = Server::with(|config| {
            config.rate_limits.enabled = true;
            config.rate_limits.login.burst = 2;
            config.rate_limits.login.per_second = 0.1;
        })
        .await;
        let body = serde_json::json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": "alice" },
            "password": "wrong",
        });
        for _ in 0..2 {
            let answer = server.stranger(Method::POST, "/login", &body).await;
            answer.refused(403, "M_FORBIDDEN");
        }
        let answer = server.stranger(Method::POST, "/login", &body).await;
        assert!(answer.headers.contains_key(header::RETRY_AFTER));
        let body = answer.refused(429, "M_LIMIT_EXCEEDED");
        assert!(body["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0));
    }
}
