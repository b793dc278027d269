//! The server-server API over HTTP.
//!
//! Is: axum routers, one file per endpoint, ruma's types at the edge, and the one place where an operation's errors
//! become statuses and errcodes for other servers.
//! Is not: a place for rules, storage or requests to other servers.

mod backfill;
mod error;
mod event;
mod event_auth;
mod exchange_third_party_invite;
mod extract;
mod invite;
mod invite_v1;
mod key_query;
mod key_query_batch;
mod key_server;
mod make_join;
mod make_knock;
mod make_leave;
mod missing_events;
mod onbind;
mod openid_userinfo;
#[cfg(test)]
mod outsiders;
mod query;
mod query_directory;
mod query_profile;
mod reads;
mod routes;
mod send;
mod send_join;
mod send_join_v1;
mod send_knock;
mod send_leave;
mod send_leave_v1;
mod state;
mod state_ids;
#[cfg(test)]
mod testing;
mod timestamp_to_event;
mod user_devices;
mod user_keys_claim;
mod user_keys_query;
mod version;

use axum::Router;
use myelin_federation::Federation;
use ruma::api::federation::{
    authorization::get_event_authorization,
    backfill::get_backfill,
    device::get_devices,
    discovery, event as reading, keys, membership, openid, query as asking,
    thirdparty::{bind_callback, exchange_invite},
    transactions,
};

pub use error::Refusal;
pub use extract::Request;
use routes::Routes;
pub use routes::{Access, Route};

/// The router of all endpoints, and the table of its routes. Paths that are not served are left to the router it is merged
/// into.
pub fn router(federation: Federation) -> (Router, Vec<Route>) {
    let (router, table) = routes().finish();
    (router.with_state(federation), table)
}

/// All endpoints.
fn routes() -> Routes {
    Routes::new()
        .operation::<discovery::get_server_keys::v2::Request, _, _>(key_server::get)
        .operation::<discovery::get_remote_server_keys::v2::Request, _, _>(key_query::get)
        .operation::<discovery::get_remote_server_keys_batch::v2::Request, _, _>(
            key_query_batch::post,
        )
        .operation::<discovery::get_server_version::v1::Request, _, _>(version::get)
        .operation::<membership::prepare_join_event::v1::Request, _, _>(make_join::get)
        .operation::<membership::create_join_event::v2::Request, _, _>(send_join::put)
        .operation::<send_join_v1::Request, _, _>(send_join_v1::put)
        .operation::<membership::prepare_leave_event::v1::Request, _, _>(make_leave::get)
        .operation::<send_leave_v1::Request, _, _>(send_leave_v1::put)
        .operation::<membership::create_leave_event::v2::Request, _, _>(send_leave::put)
        .operation::<membership::prepare_knock_event::v1::Request, _, _>(make_knock::get)
        .operation::<membership::create_knock_event::v1::Request, _, _>(send_knock::put)
        .operation::<invite_v1::Request, _, _>(invite_v1::put)
        .operation::<invite::Request, _, _>(invite::put)
        .operation::<exchange_invite::v1::Request, _, _>(exchange_third_party_invite::put)
        .operation::<bind_callback::v1::Request, _, _>(onbind::put)
        .operation::<transactions::send_transaction_message::v1::Request, _, _>(send::put)
        .operation::<reading::get_missing_events::v1::Request, _, _>(missing_events::post)
        .operation::<reading::get_room_state::v1::Request, _, _>(state::get)
        .operation::<reading::get_room_state_ids::v1::Request, _, _>(state_ids::get)
        .operation::<get_event_authorization::v1::Request, _, _>(event_auth::get)
        .operation::<get_backfill::v1::Request, _, _>(backfill::get)
        .operation::<reading::get_event::v1::Request, _, _>(event::get)
        .operation::<reading::get_event_by_timestamp::v1::Request, _, _>(timestamp_to_event::get)
        .operation::<asking::get_room_information::v1::Request, _, _>(query_directory::get)
        .operation::<asking::get_profile_information::v1::Request, _, _>(query_profile::get)
        .operation::<asking::get_custom_information::v1::Request, _, _>(query::get)
        .operation::<openid::get_openid_userinfo::v1::Request, _, _>(openid_userinfo::get)
        .operation::<get_devices::v1::Request, _, _>(user_devices::get)
        .operation::<keys::get_keys::v1::Request, _, _>(user_keys_query::post)
        .operation::<keys::claim_keys::v1::Request, _, _>(user_keys_claim::post)
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use crate::{
        Access,
        testing::{Here, NOW, OUR_NAME},
    };

    /// A path with something in the place of each parameter.
    fn filled(path: &str) -> String {
        let segments = path.split('/').map(|segment| match segment {
            "{server_name}" => OUR_NAME,
            segment if segment.starts_with('{') => "x",
            segment => segment,
        });
        segments.collect::<Vec<_>>().join("/")
    }

    #[tokio::test]
    async fn only_what_is_for_anybody_is_answered_without_a_signature() {
        let here = Here::new().await;
        let public = [
            "/_matrix/key/v2/server",
            "/_matrix/key/v2/query",
            "/_matrix/key/v2/query/{server_name}",
            "/_matrix/federation/v1/version",
            "/_matrix/federation/v1/openid/userinfo",
            "/_matrix/federation/v1/3pid/onbind",
        ];
        assert_eq!(here.table.len(), 31);
        for route in &here.table {
            let is_public = public.contains(&route.path);
            assert_eq!(route.access == Access::Public, is_public, "{}", route.path);
            let path = filled(route.path);
            let unsigned = here.send(route.method.clone(), &path, None, "").await;
            if is_public {
                assert_ne!(unsigned.errcode(), "M_UNAUTHORIZED", "{}", route.path);
            } else {
                unsigned.refused(401, "M_UNAUTHORIZED");
                for header in [
                    "Bearer x",
                    "X-Matrix origin=there.example",
                    "X-Matrix origin=there.example,destination=elsewhere.example,key=\"ed25519:there\",sig=\"AAAA\"",
                    "X-Matrix origin=there.example,destination=here.example,key=\"ed25519:there\",sig=\"AAAA\"",
                    "X-Matrix origin=here.example,destination=here.example,key=\"ed25519:here\",sig=\"AAAA\"",
                ] {
                    let forged = here.send(route.method.clone(), &path, Some(header), "");
                    forged.await.refused(401, "M_UNAUTHORIZED");
                }
            }
        }
    }

    #[tokio::test]
    async fn bodies_are_objects_and_limited() {
        let here = Here::new().await;
        let path = "/_matrix/federation/v1/send/1";
        let header = "X-Matrix origin=there.example,key=\"ed25519:there\",sig=\"AAAA\"";
        // Not even a signature: nothing is read, however large it is.
        let unread = here.send(Method::PUT, path, Some(header), " ".repeat((8 << 20) + 1));
        unread.await.refused(401, "M_UNAUTHORIZED");
        let header = &header.replace("AAAA", &"A".repeat(86));
        let send = |body: String| async { here.send(Method::PUT, path, Some(header), body).await };
        send("[]".to_owned()).await.refused(400, "M_BAD_JSON");
        send("{".to_owned()).await.refused(400, "M_NOT_JSON");
        send("[".repeat(1000)).await.refused(400, "M_BAD_JSON");
        send(" ".repeat((8 << 20) + 1))
            .await
            .refused(413, "M_TOO_LARGE");
        let refused = here
            .signed(Method::PUT, path, Some(json!({ "pdus": 1 })))
            .await;
        refused.refused(400, "M_BAD_JSON");
    }

    #[tokio::test]
    async fn bodies_of_servers_without_a_key_are_not_read() {
        let here = Here::new().await;
        let path = "/_matrix/federation/v1/send/1";
        let signature = "A".repeat(86);
        let header = format!("X-Matrix origin=\"[::1]:1\",key=\"ed25519:a\",sig=\"{signature}\"");
        let unread = here.send(Method::PUT, path, Some(&header), " ".repeat((8 << 20) + 1));
        unread.await.refused(401, "M_UNAUTHORIZED");
    }

    #[tokio::test]
    async fn large_bodies_are_read_and_proved() {
        let here = Here::new().await;
        let body = json!({ "origin": "there.example", "origin_server_ts": 0, "pdus": [], "edus": [], "filling": "x".repeat(1 << 20) });
        let path = "/_matrix/federation/v1/send/1";
        here.signed(Method::PUT, path, Some(body)).await.ok();
    }

    #[tokio::test]
    async fn this_server_vouches_for_its_own_keys_as_well() {
        let here = Here::new().await;
        let path = format!("/_matrix/key/v2/query/{OUR_NAME}");
        let one = here.send(Method::GET, &path, None, "").await.ok();
        let body = json!({ "server_keys": { OUR_NAME: {}, "not a name": {} } });
        let path = "/_matrix/key/v2/query";
        let batch = here.send(Method::POST, path, None, body.to_string()).await;
        let batch = batch.ok();
        for answer in [one, batch] {
            let keys = answer["server_keys"].as_array().expect("a list");
            assert_eq!(keys.len(), 1);
            assert_eq!(keys[0]["server_name"], OUR_NAME);
        }
        let none = here
            .send(Method::POST, path, None, "{\"server_keys\":{}}")
            .await;
        assert_eq!(none.ok(), json!({ "server_keys": [] }));
        let bad = here
            .send(Method::POST, path, None, "{\"server_keys\":1}")
            .await;
        bad.refused(400, "M_BAD_JSON");
        let bad = here.send(Method::POST, path, None, "{").await;
        bad.refused(400, "M_NOT_JSON");
    }

    #[tokio::test]
    async fn keys_are_published_by_their_owner() {
        let here = Here::new().await;
        let keys = here
            .send(Method::GET, "/_matrix/key/v2/server", None, "")
            .await
            .ok();
        assert_eq!(keys["server_name"], OUR_NAME);
        assert!(keys["verify_keys"]["ed25519:here"]["key"].is_string());
        assert!(keys["signatures"][OUR_NAME]["ed25519:here"].is_string());
    }

    #[tokio::test]
    async fn servers_in_a_room_read_it_and_no_others() {
        let here = Here::new().await;
        let room = here.public_room().await;
        let (r, nobody) = (
            room.as_str(),
            "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        );
        let all = |event: &str| {
            let wanted = json!({ "earliest_events": [], "latest_events": [event], "limit": 5 });
            let v1 = "/_matrix/federation/v1";
            [
                (
                    Method::GET,
                    format!("{v1}/state/{r}?event_id={event}"),
                    None,
                ),
                (
                    Method::GET,
                    format!("{v1}/state_ids/{r}?event_id={event}"),
                    None,
                ),
                (Method::GET, format!("{v1}/event_auth/{r}/{event}"), None),
                (Method::GET, format!("{v1}/event/{event}"), None),
                (
                    Method::GET,
                    format!("{v1}/timestamp_to_event/{r}?ts={}&dir=b", NOW.0),
                    None,
                ),
                (
                    Method::GET,
                    format!("{v1}/backfill/{r}?v={event}&limit=5"),
                    None,
                ),
                (
                    Method::POST,
                    format!("{v1}/get_missing_events/{r}"),
                    Some(wanted),
                ),
            ]
        };
        for (method, path, body) in all(nobody) {
            let status = here.signed(method, &path, body).await.status.as_u16();
            assert!(status == 403 || status == 404, "{path}: {status}");
        }
        let join = here.charlie_joins(&room).await;
        let mut answers = Vec::new();
        for (method, path, body) in all(join.event_id()) {
            answers.push(here.signed(method, &path, body).await.ok());
        }
        let [state, ids, auth, single, nearest, back, missing] = answers.as_slice() else {
            unreachable!("there is an answer to each");
        };
        let count = |list: &serde_json::Value| list.as_array().map_or(0, Vec::len);
        assert_eq!(count(&state["pdus"]), count(&ids["pdu_ids"]));
        assert_eq!(count(&state["auth_chain"]), count(&ids["auth_chain_ids"]));
        assert!(count(&state["pdus"]) >= 4);
        assert!(count(&auth["auth_chain"]) >= 3);
        assert_eq!(single["pdus"][0]["type"], "m.room.member");
        assert_eq!(count(&single["pdus"]), 1);
        assert_eq!(nearest["event_id"], join.event_id());
        assert_eq!(nearest["origin_server_ts"], NOW.0);
        assert_eq!(count(&back["pdus"]), 5);
        assert_eq!(count(&missing["events"]), 5);
        here.deny_there(&room).await;
        for (method, path, body) in all(join.event_id()) {
            let names_no_room = path.contains("/event/");
            let answer = here.signed(method, &path, body).await;
            if names_no_room {
                answer.refused(404, "M_NOT_FOUND");
            } else {
                answer.refused(403, "M_FORBIDDEN");
            }
        }
    }

    #[tokio::test]
    async fn other_methods_are_told_apart() {
        let here = Here::new().await;
        let answer = here
            .send(Method::POST, "/_matrix/federation/v1/send/1", None, "{}")
            .await;
        answer.refused(405, "M_UNRECOGNIZED");
    }
}
