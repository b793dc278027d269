//! `GET /_matrix/client/v3/sync`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync>

mod body;

use std::{sync::Arc, time::Duration};

use axum::{extract::State, response::Response};
use myelin_accounts::{Accounts, Requester};
use myelin_rooms::{
    Rooms,
    token::{SyncToken, Token},
};
use myelin_sync::{Sync, SyncError, SyncRequest};
use ruma::api::client::{
    filter::FilterDefinition,
    sync::sync_events::v3::{Filter, Request as Operation},
};

use crate::{
    Limit,
    error::{Refusal, Result},
    extract::Request,
    routes::Routes,
    shared::{presence_state, token, viewer},
};

/// The longest that a request waits. Proxies give up on requests that are silent for longer.
const MAX_WAIT: Duration = Duration::from_secs(90);

/// The routes of this family.
pub(crate) fn routes(routes: Routes) -> Routes {
    routes.operation::<Operation, _, _>(Limit::Read, sync)
}

fn refuse(error: SyncError) -> Refusal {
    match error {
        SyncError::Store(cause) => Refusal::internal(cause),
        SyncError::TooSlow => Refusal::internal(error),
    }
}

/// Answers with what is new for the caller, waiting for it if there is nothing yet.
async fn sync(
    State(sync): State<Sync>,
    State(accounts): State<Accounts>,
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Response> {
    let Request { body, caller, .. } = request;
    // Held until there is an answer.
    let _syncing = rooms.presence().syncing(
        caller.user,
        caller.device_id.as_str(),
        presence_state(&body.set_presence)?,
    );
    let (response, rest) = sync
        .begin(SyncRequest {
            viewer: viewer(&caller),
            since: since(body.since.as_deref())?,
            filter: filter(&rooms, &accounts, &caller, body.filter).await?,
            full_state: body.full_state,
            timeout: body.timeout.unwrap_or_default().min(MAX_WAIT),
            use_state_after: body.use_state_after,
        })
        .await
        .map_err(refuse)?;
    Ok(body::answer(response, rest))
}

fn since(text: Option<&str>) -> Result<Option<SyncToken>> {
    match token(text)? {
        None => Ok(None),
        Some(Token::Sync(since)) => Ok(Some(since)),
        Some(Token::Timeline(_)) => Err(Refusal::invalid("since is a token of a room's history.")),
    }
}

async fn filter(
    rooms: &Rooms,
    accounts: &Accounts,
    caller: &Requester,
    filter: Option<Filter>,
) -> Result<Arc<FilterDefinition>> {
    match filter {
        None => Ok(Arc::default()),
        Some(Filter::FilterDefinition(definition)) => Ok(Arc::new(definition)),
        Some(Filter::FilterId(id)) => {
            let (accounts, user) = (accounts.clone(), caller.user);
            rooms
                .store()
                .read(move |view| accounts.filter_definition(view, user, &id))
                .await
                .map_err(Refusal::internal)?
                .map(Arc::new)
                .ok_or_else(|| Refusal::invalid("There is no such filter."))
        }
        Some(_) => Err(Refusal::invalid(
            "This is neither a filter nor the id of one.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;
    use serde_json::{Value, json};

    use crate::testing::{Answer, Server, User, encode, in_room, text};

    const WITH_LEFT: &str = "filter=%7B%22room%22%3A%7B%22include_leave%22%3Atrue%7D%7D";

    fn since(sync: &Value) -> String {
        format!("since={}", text(&sync["next_batch"]))
    }

    #[tokio::test]
    async fn a_room_comes_whole_and_then_what_is_new() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let room = server.room(&alice, &json!({})).await;
        let first = server.sync(&alice, "").await;
        let joined = &first["rooms"]["join"][&room];
        for section in ["timeline", "state", "ephemeral", "account_data"] {
            assert!(joined[section]["events"].is_array(), "{section}");
        }
        assert!(joined["timeline"]["prev_batch"].is_string());
        assert_eq!(joined["timeline"]["events"][0]["type"], "m.room.create");
        assert!(joined["timeline"]["events"][0].get("room_id").is_none());
        let rules = &first["account_data"]["events"];
        assert!(
            rules.as_array().is_some_and(|events| {
                events.iter().any(|event| event["type"] == "m.push_rules")
            })
        );
        for _ in 0..2 {
            let sync = server.sync(&alice, &since(&first)).await;
            assert_eq!(sync["rooms"], json!({}));
        }
        let event = server.say(&room, &alice, "new").await;
        let sync = server.sync(&alice, &since(&first)).await;
        let events = &sync["rooms"]["join"][&room]["timeline"]["events"];
        assert_eq!(events.as_array().map(Vec::len), Some(1));
        assert_eq!(events[0]["event_id"], event);
        let full = server
            .sync(&alice, &format!("full_state=true&{}", since(&sync)))
            .await;
        assert!(full["rooms"]["join"][&room]["state"]["events"].is_array());
    }

    #[tokio::test]
    async fn a_filter_is_given_itself_or_by_its_id() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({})).await;
        server.say(&room, &alice, "first").await;
        let last = server.say(&room, &alice, "last").await;
        let filter = json!({ "room": { "timeline": { "limit": 1, "types": ["m.room.message"] } } });
        let stored = server
            .post("/user/@alice:hs1/filter", &alice, &filter)
            .await
            .ok();
        let id = text(&stored["filter_id"]);
        for given in [&encode(&filter.to_string()), &id] {
            let sync = server.sync(&alice, &format!("filter={given}")).await;
            let timeline = &sync["rooms"]["join"][&room]["timeline"];
            assert_eq!(timeline["events"].as_array().map(Vec::len), Some(1));
            assert_eq!(timeline["events"][0]["event_id"], last);
            assert_eq!(timeline["limited"], true);
        }
        let get = async |query: &str, user: &User| -> Answer {
            server.get(&format!("/sync?{query}"), user).await
        };
        get(&format!("filter={id}"), &bob)
            .await
            .refused(400, "M_INVALID_PARAM");
        for query in [
            "filter=0",
            "filter=%7B",
            "since=nonsense",
            "since=t1_1_0",
            "timeout=x",
        ] {
            get(query, &alice).await.refused(400, "M_INVALID_PARAM");
        }
    }

    #[tokio::test]
    async fn a_summary_counts_the_members() {
        let (server, alice, bob) = Server::with_two_users().await;
        let before = server.sync(&alice, "").await;
        let request = json!({ "preset": "public_chat", "invite": [bob.id] });
        let room = server.room(&alice, &request).await;
        let sync = server.sync(&alice, &since(&before)).await;
        let counts = |sync: &Value, joined: u64, invited: u64| {
            let summary = &sync["rooms"]["join"][&room]["summary"];
            assert_eq!(summary["m.joined_member_count"], joined);
            assert_eq!(summary["m.invited_member_count"], invited);
        };
        counts(&sync, 1, 1);
        assert_eq!(
            sync["rooms"]["join"][&room]["summary"]["m.heroes"],
            json!(["@bob:hs1"])
        );
        server.join(&room, &bob).await;
        counts(&server.sync(&alice, &since(&sync)).await, 2, 0);
        counts(&server.sync(&bob, "").await, 2, 0);
    }

    #[tokio::test]
    async fn a_request_that_waits_is_woken() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        let event = server.say(&room, &alice, "first").await;
        let of_room = |rest: &str| in_room(&room, rest);
        let alias = encode("!foo:example.com");
        let rule = format!("/pushrules/global/room/{alias}");
        let receipt = of_room(&format!("/receipt/m.read/{}", encode(&event)));
        let typing = of_room(&format!("/typing/{}", encode(&alice.id)));
        for (by, method, path, body) in [
            (&bob, Method::POST, of_room("/join"), json!({})),
            (&alice, Method::PUT, of_room("/send/a.b/1"), json!({})),
            (&alice, Method::PUT, of_room("/state/a.b"), json!({})),
            (&alice, Method::POST, receipt, json!({})),
            (
                &alice,
                Method::PUT,
                typing,
                json!({ "typing": true, "timeout": 10_000 }),
            ),
            (
                &bob,
                Method::PUT,
                rule.clone(),
                json!({ "actions": ["notify"] }),
            ),
            (
                &bob,
                Method::PUT,
                format!("{rule}/enabled"),
                json!({ "enabled": false }),
            ),
            (
                &bob,
                Method::PUT,
                format!("{rule}/enabled"),
                json!({ "enabled": true }),
            ),
            (
                &bob,
                Method::PUT,
                format!("{rule}/actions"),
                json!({ "actions": [] }),
            ),
            (
                &bob,
                Method::PUT,
                "/user/@bob:hs1/account_data/a.b".to_owned(),
                json!({ "a": 1 }),
            ),
            (
                &alice,
                Method::POST,
                of_room("/kick"),
                json!({ "user_id": bob.id }),
            ),
        ] {
            let before = server.sync(&bob, "").await;
            let wait = format!("/sync?timeout=30000&{}", since(&before));
            let waiting = async { server.get(&wait, &bob).await.ok() };
            let acting = async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                server.call(method, &path, by, &body).await.ok();
            };
            let (sync, ()) = tokio::join!(waiting, acting);
            let news = sync["rooms"] != json!({}) || sync["account_data"]["events"] != json!([]);
            assert!(news, "{path}");
        }
    }

    #[tokio::test]
    async fn a_left_room_shows_what_was_until_then() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.join(&room, &bob).await;
        let start = server.sync(&bob, "").await;
        for when in ["before", "after"] {
            server.say(&room, &alice, when).await;
            let state = json!({ "my_key": when });
            server
                .set_state(&room, &alice, "a.madeup.state", &state)
                .await
                .ok();
            if when == "before" {
                server.leave(&room, &bob).await;
            }
        }
        let types = json!({
            "timeline": { "types": ["m.room.message", "a.madeup.state"] },
            "state": { "types": ["a.madeup.state"] },
            "include_leave": true,
        });
        let filter = encode(&json!({ "room": types }).to_string());
        for query in [
            format!("filter={filter}"),
            format!("filter={filter}&{}", since(&start)),
        ] {
            let sync = server.sync(&bob, &query).await;
            let left = &sync["rooms"]["leave"][&room];
            assert_eq!(left["state"]["events"], json!([]), "{query}");
            let events = left["timeline"]["events"].as_array().expect("a timeline");
            assert_eq!(events.len(), 2, "{query}");
            assert_eq!(events[0]["content"]["body"], "before");
        }
        let none = json!({ "timeline": { "limit": 0 }, "include_leave": true });
        let filter = encode(&json!({ "room": none }).to_string());
        let sync = server.sync(&bob, &format!("filter={filter}")).await;
        let left = &sync["rooms"]["leave"][&room];
        assert_eq!(left["timeline"]["events"], json!([]));
        let state = left["state"]["events"].as_array().expect("a state");
        let entry = |kind: &str, key: &str| {
            let of = |event: &&Value| event["type"] == kind && event["state_key"] == key;
            state.iter().find(of).expect("it is there")["content"].clone()
        };
        assert_eq!(entry("a.madeup.state", ""), json!({ "my_key": "before" }));
        assert_eq!(entry("m.room.member", &bob.id)["membership"], "leave");
    }

    #[tokio::test]
    async fn a_room_that_was_left_is_not_lost_behind_a_busy_one() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let quiet = server.room(&alice, &json!({})).await;
        let busy = server.room(&alice, &json!({})).await;
        let room = json!({ "timeline": { "limit": 1 }, "include_leave": true });
        let filter = format!("filter={}", encode(&json!({ "room": room }).to_string()));
        let start = server.sync(&alice, &filter).await;
        server.leave(&quiet, &alice).await;
        for number in 0..5 {
            server.say(&busy, &alice, &number.to_string()).await;
        }
        let sync = server
            .sync(&alice, &format!("{filter}&{}", since(&start)))
            .await;
        assert!(sync["rooms"]["leave"][&quiet].is_object());
        assert_eq!(sync["rooms"]["join"][&busy]["timeline"]["limited"], true);
    }

    #[tokio::test]
    async fn events_say_what_the_viewer_was_to_the_room_then() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.say(&room, &alice, "prejoin").await;
        server.join(&room, &bob).await;
        server.say(&room, &alice, "postjoin").await;
        let sync = server.sync(&bob, "").await;
        let events = sync["rooms"]["join"][&room]["timeline"]["events"].clone();
        let mut joined = false;
        for event in events.as_array().expect("a timeline") {
            joined |= event["type"] == "m.room.member" && event["state_key"] == bob.id;
            let membership = if joined { "join" } else { "leave" };
            assert_eq!(event["unsigned"]["membership"], membership, "{event}");
        }
        assert!(joined);
    }

    #[tokio::test]
    async fn rooms_stand_in_the_section_of_the_last_membership() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        let start = server.sync(&bob, "").await;
        let mut last = start.clone();
        for (act, section) in [
            ("invite", "invite"),
            ("leave", "leave"),
            ("join", "join"),
            ("leave", "leave"),
            ("join", "join"),
        ] {
            match act {
                "invite" => drop(server.act("invite", &room, &alice, &bob).await.ok()),
                "leave" => server.leave(&room, &bob).await,
                _ => server.join(&room, &bob).await,
            }
            for query in [since(&last), format!("full_state=true&{}", since(&last))] {
                let sync = server.sync(&bob, &query).await;
                for other in ["invite", "leave", "join"] {
                    let found = sync["rooms"][other].get(&room).is_some();
                    assert_eq!(found, other == section, "{act}: {other}, {query}");
                }
            }
            last = server.sync(&bob, &since(&last)).await;
        }
        let sync = server.sync(&bob, &since(&start)).await;
        assert!(sync["rooms"].get("leave").is_none());
    }

    #[tokio::test]
    async fn a_left_room_is_shown_once_or_on_demand() {
        let (server, alice, bob) = Server::with_two_users().await;
        let visibility = json!({
            "type": "m.room.history_visibility",
            "content": { "history_visibility": "joined" },
        });
        let request = json!({ "preset": "public_chat", "initial_state": [visibility] });
        let room = server.room(&alice, &request).await;
        server.join(&room, &bob).await;
        let before = server.sync(&alice, "").await;
        server.leave(&room, &alice).await;
        server.say(&room, &bob, "unseen").await;
        let sync = server.sync(&alice, &since(&before)).await;
        let left = &sync["rooms"]["leave"][&room];
        let events = left["timeline"]["events"].as_array().expect("a timeline");
        assert_eq!(events.len(), 1);
        assert_eq!(events[0]["sender"], alice.id);
        assert_eq!(events[0]["content"]["membership"], "leave");
        assert_eq!(left["state"]["events"], json!([]));
        let later = server.sync(&alice, &since(&sync)).await;
        assert_eq!(later["rooms"], json!({}));
        let later = server
            .sync(&alice, &format!("{WITH_LEFT}&{}", since(&sync)))
            .await;
        assert_eq!(later["rooms"].get("leave"), None);
        let whole = server.sync(&alice, WITH_LEFT).await;
        assert!(whole["rooms"]["leave"][&room].is_object());
        let whole = server.sync(&alice, "").await;
        assert_eq!(whole["rooms"].get("leave"), None);
    }
}
