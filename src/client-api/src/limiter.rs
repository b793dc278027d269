//! Rate limits by class of endpoint, per user or, where nobody is logged in, per address.

use std::{
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    state::keyed::DefaultKeyedStateStore,
};
use myelin_config::{Rate, RateLimits};
use myelin_types::UserNum;

use crate::error::Refusal;

/// The class whose limit an endpoint counts towards. It stands where the endpoint's route is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Attempts to prove who one is, per address.
    Login,
    /// New accounts, per address.
    Registration,
    /// Sent events and other changes to a room, per user.
    Send,
    /// Invitations, per user.
    Invite,
    /// Joining, knocking on and creating rooms, per user.
    Join,
    /// Everything else, per user, or per address for strangers.
    Read,
    /// Not limited: what tells clients where and what the server is.
    Free,
}

/// Whose allowance a request uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// Somebody who is logged in.
    User(UserNum),
    /// Somebody at an address.
    Address(IpAddr),
}

impl Source {
    /// Whoever is behind an address. Of IPv6 a household has a whole /64, so that its parts are one source.
    pub(crate) fn of(address: IpAddr) -> Source {
        Source::Address(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => {
                Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into()
            }
        })
    }
}

type Keyed = RateLimiter<Source, DefaultKeyedStateStore<Source>, DefaultClock>;

/// The limits in force.
///
/// A source that has been quiet for as long as its allowance takes to fill up is forgotten by [`Limiter::forget_quiet`].
#[derive(Debug)]
pub struct Limiter {
    clock: DefaultClock,
    classes: Option<Classes>,
}

#[derive(Debug)]
struct Classes {
    login: Keyed,
    registration: Keyed,
    send: Keyed,
    invite: Keyed,
    join: Keyed,
    read: Keyed,
}

impl Limiter {
    /// The limits that the configuration sets; none if it turns them off.
    pub fn new(config: &RateLimits) -> Limiter {
        let classes = config.enabled.then(|| Classes {
            login: keyed(config.login),
            registration: keyed(config.registration),
            send: keyed(config.send),
            invite: keyed(config.invite),
            join: keyed(config.join),
            read: keyed(config.read),
        });
        Limiter {
            clock: DefaultClock::default(),
            classes,
        }
    }

    /// Counts a request of `source` towards `limit`, and refuses it if that is used up.
    pub(crate) fn check(&self, limit: Limit, source: Source) -> Result<(), Refusal> {
        let Some(classes) = &self.classes else {
            return Ok(());
        };
        let class = match limit {
            Limit::Login => &classes.login,
            Limit::Registration => &classes.registration,
            Limit::Send => &classes.send,
            Limit::Invite => &classes.invite,
            Limit::Join => &classes.join,
            Limit::Read => &classes.read,
            Limit::Free => return Ok(()),
        };
        class.check_key(&source).map_err(|refused| {
            let wait = refused.wait_time_from(self.clock.now());
            // A client that waits exactly as long as it is told must not be early by a rounded millisecond.
            Refusal::too_fast(wait + Duration::from_millis(1))
        })
    }

    /// Forgets sources whose allowance is full again, so that memory is bounded by who was here lately.
    pub fn forget_quiet(&self) {
        let Some(classes) = &self.classes else {
            return;
        };
        for class in [
            &classes.login,
            &classes.registration,
            &classes.send,
            &classes.invite,
            &classes.join,
            &classes.read,
        ] {
            class.retain_recent();
            class.shrink_to_fit();
        }
    }
}

fn keyed(limit: Rate) -> Keyed {
    let burst = NonZeroU32::new(limit.burst).unwrap_or(NonZeroU32::MIN);
    let period = Duration::from_secs_f64(1.0 / limit.per_second.max(0.000_1));
    let quota = Quota::with_period(period.max(Duration::from_nanos(1)))
        .unwrap_or_else(|| Quota::per_second(burst))
        .allow_burst(burst);
    RateLimiter::keyed(quota)
}

#[cfg(test)]
mod tests {
    use http::{Method, header};
    use myelin_config::Rate;
    use serde_json::{Value, json};

    use crate::testing::{PASSWORD, Server, in_room};

    /// A limit that does not refill while a test runs.
    fn only(burst: u32) -> Rate {
        Rate {
            per_second: 0.001,
            burst,
        }
    }

    #[tokio::test]
    async fn each_user_has_an_allowance_of_his_own() {
        let server = Server::with(|config| {
            config.rate_limits.enabled = true;
            config.rate_limits.send = only(2);
        })
        .await;
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let other = server.login("alice").await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.join(&room, &bob).await;
        let body = json!({ "body": "hello" });
        let send = async |user, transaction: &str| {
            let path = in_room(&room, &format!("/send/a.b/{transaction}"));
            server.put(&path, user, &body).await
        };
        send(&alice, "1").await.ok();
        send(&other, "2").await.ok();
        for user in [&alice, &other] {
            let answer = send(user, "3").await;
            assert!(answer.headers.contains_key(header::RETRY_AFTER));
            let refused = answer.refused(429, "M_LIMIT_EXCEEDED");
            assert!(
                refused["retry_after_ms"]
                    .as_u64()
                    .is_some_and(|wait| wait > 1000)
            );
        }
        send(&bob, "1").await.ok();
        // Other classes are not touched.
        server.get("/account/whoami", &alice).await.ok();
    }

    #[tokio::test]
    async fn strangers_are_counted_by_their_address() {
        let server = Server::with(|config| {
            config.rate_limits.enabled = true;
            config.rate_limits.login = only(1);
            config.listen.trusted_proxies.0 = vec!["127.0.0.1".parse().expect("a network")];
        })
        .await;
        server.register("alice").await;
        let login = async |address: &str| {
            let body = json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD });
            let request = http::Request::builder()
                .method(Method::POST)
                .uri("/_matrix/client/v3/login")
                .header("x-forwarded-for", address)
                .extension(axum::extract::ConnectInfo(std::net::SocketAddr::from((
                    [127, 0, 0, 1],
                    1,
                ))))
                .body(axum::body::Body::from(body.to_string()))
                .expect("a valid request");
            server.request(request).await
        };
        login("192.0.2.1").await.ok();
        login("192.0.2.1").await.refused(429, "M_LIMIT_EXCEEDED");
        login("192.0.2.2").await.ok();
    }

    #[tokio::test]
    async fn what_tells_where_the_server_is_has_no_limit() {
        let server = Server::with(|config| {
            config.rate_limits.enabled = true;
            config.rate_limits.read = only(1);
        })
        .await;
        for _ in 0..3 {
            let path = "/_matrix/client/versions";
            server.send(Method::GET, path, None, Vec::new()).await.ok();
        }
        server
            .stranger(Method::GET, "/login", &Value::Null)
            .await
            .ok();
        server
            .stranger(Method::GET, "/login", &Value::Null)
            .await
            .refused(429, "M_LIMIT_EXCEEDED");
    }
}
