//! `POST /_matrix/client/v3/createRoom`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom>

use axum::extract::State;
use myelin_accounts::{Accounts, Requester};
use myelin_federation::Federation;
use myelin_rooms::{
    CreateRoom, CreateRoomError, Invitee, JsonObject, Preset, Rooms, StateDraft, Visibility,
};
use ruma::{
    api::{
        client::room::{
            Visibility as WireVisibility,
            create_room::v3::{Request as Operation, Response, RoomPreset},
        },
        error::ErrorKind,
    },
    serde::Raw,
};
use serde::Deserialize;

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::{content, profile, refuse_canonical_alias, refuse_failure, remote_user},
};

fn refuse(error: CreateRoomError) -> Refusal {
    match error {
        CreateRoomError::UnsupportedVersion(version) => Refusal::bad_request(
            ErrorKind::UnsupportedRoomVersion,
            format!("This server does not know room version {version:?}."),
        ),
        CreateRoomError::AliasTaken => {
            Refusal::bad_request(ErrorKind::RoomInUse, "The alias is taken.")
        }
        CreateRoomError::InvalidAlias(localpart) => {
            Refusal::invalid(format!("{localpart:?} is no localpart of an alias."))
        }
        CreateRoomError::CanonicalAlias(error) => refuse_canonical_alias(error),
        CreateRoomError::RemoteInvitee(user) => remote_user(&user),
        CreateRoomError::InvalidState(what) => {
            Refusal::bad_request(ErrorKind::InvalidRoomState, what)
        }
        CreateRoomError::TooLarge(what) => Refusal::too_large(what),
        CreateRoomError::Malformed(what) => Refusal::bad_request(ErrorKind::BadJson, what),
        CreateRoomError::Failure(failure) => refuse_failure(failure),
    }
}

/// A state event of `initial_state`; its state key is empty unless it says otherwise.
#[derive(Deserialize)]
struct InitialState {
    #[serde(rename = "type")]
    event_type: String,
    #[serde(default)]
    state_key: String,
    content: JsonObject,
}

/// How many users a new room invites, and how many state events it begins with, at most: each is an event of one batch.
const MOST_AT_ONCE: usize = 100;

/// Makes a room for the caller.
pub(crate) async fn create(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let draft = draft(&rooms, &accounts, &request.caller, request.body).await?;
    let room_id = federation.create_room(draft).await.map_err(refuse)?;
    Ok(Reply(Response::new(room_id)))
}

async fn draft(
    rooms: &Rooms,
    accounts: &Accounts,
    creator: &Requester,
    request: Operation,
) -> Result<CreateRoom> {
    if !request.invite_3pid.is_empty() {
        return Err(Refusal::bad_request(
            ErrorKind::ThreepidDenied,
            "This server does not invite by e-mail address or phone number.",
        ));
    }
    if request.invite.len() > MOST_AT_ONCE || request.initial_state.len() > MOST_AT_ONCE {
        return Err(Refusal::invalid(format!(
            "At most {MOST_AT_ONCE} users are invited and {MOST_AT_ONCE} state events set at once."
        )));
    }
    let mut draft = CreateRoom::new(
        creator.user_id.clone(),
        profile(rooms, accounts, &creator.user_id).await?,
    );
    draft.visibility = match request.visibility {
        WireVisibility::Public => Visibility::Public,
        WireVisibility::Private => Visibility::Private,
        other => {
            return Err(Refusal::bad_request(
                ErrorKind::BadJson,
                format!("There is no visibility {:?}.", other.as_str()),
            ));
        }
    };
    draft.preset = request.preset.map(preset).transpose()?;
    draft.room_version = request.room_version.map(|version| version.to_string());
    draft.creation_content = object(request.creation_content.as_ref())?;
    draft.power_level_content_override = object(request.power_level_content_override.as_ref())?;
    draft.initial_state = request
        .initial_state
        .iter()
        .map(initial_state)
        .collect::<Result<_>>()?;
    draft.name = request.name;
    draft.topic = request.topic;
    draft.room_alias_name = request.room_alias_name;
    draft.is_direct = request.is_direct;
    for user_id in request.invite {
        let profile = profile(rooms, accounts, &user_id).await?;
        draft.invite.push(Invitee { user_id, profile });
    }
    Ok(draft)
}

fn preset(preset: RoomPreset) -> Result<Preset> {
    match preset {
        RoomPreset::PrivateChat => Ok(Preset::PrivateChat),
        RoomPreset::PublicChat => Ok(Preset::PublicChat),
        RoomPreset::TrustedPrivateChat => Ok(Preset::TrustedPrivateChat),
        other => Err(Refusal::bad_request(
            ErrorKind::BadJson,
            format!("There is no preset {:?}.", other.as_str()),
        )),
    }
}

fn object<T>(raw: Option<&Raw<T>>) -> Result<JsonObject> {
    raw.map_or_else(|| Ok(JsonObject::new()), content)
}

fn initial_state<T>(raw: &Raw<T>) -> Result<StateDraft> {
    let state: InitialState = serde_json::from_str(raw.json().get()).map_err(|error| {
        Refusal::bad_request(
            ErrorKind::BadJson,
            format!("An event of initial_state is malformed: {error}."),
        )
    })?;
    Ok(StateDraft {
        event_type: state.event_type,
        state_key: state.state_key,
        content: state.content,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Server, encode};

    const PATH: &str = "/createRoom";

    #[tokio::test]
    async fn a_room_is_as_it_was_ordered() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let rich = json!({
            "topic": "Test Room",
            "m.topic": { "m.text": [{ "body": "Test Room", "mimetype": "text/plain" }] },
        });
        let topic = |topic: &str| json!({ "type": "m.room.topic", "content": { "topic": topic } });
        for (request, entry, content) in [
            (
                json!({ "topic": "Test Room" }),
                "m.room.topic",
                rich.clone(),
            ),
            (
                json!({ "initial_state": [topic("Test Room")] }),
                "m.room.topic",
                json!({ "topic": "Test Room" }),
            ),
            (
                json!({ "topic": "Test Room", "initial_state": [topic("Shenanigans")] }),
                "m.room.topic",
                rich,
            ),
            (
                json!({ "name": "Test Room" }),
                "m.room.name",
                json!({ "name": "Test Room" }),
            ),
            (
                json!({ "preset": "public_chat" }),
                "m.room.join_rules",
                json!({ "join_rule": "public" }),
            ),
            (
                json!({ "visibility": "private" }),
                "m.room.join_rules",
                json!({ "join_rule": "invite" }),
            ),
            (
                json!({ "room_version": "11", "creation_content": { "m.federate": false } }),
                "m.room.create",
                json!({ "room_version": "11", "m.federate": false }),
            ),
            (
                json!({ "room_version": "2" }),
                "m.room.create",
                json!({ "room_version": "2", "creator": alice.id }),
            ),
            (
                json!({ "creation_content": { "test": "azerty", "room_version": "test" } }),
                "m.room.create",
                json!({ "room_version": "12", "test": "azerty" }),
            ),
            (
                json!({ "room_alias_name": "here" }),
                "m.room.canonical_alias",
                json!({ "alias": "#here:hs1" }),
            ),
        ] {
            let room = server.room(&alice, &request).await;
            assert_eq!(
                server.state(&room, &alice, entry).await.ok(),
                content,
                "{request}"
            );
        }
    }

    #[tokio::test]
    async fn an_initial_canonical_alias_is_checked_like_one_that_is_set_later() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        for (content, errcode) in [
            (json!({ "alias": "#missing:hs1" }), Some("M_BAD_ALIAS")),
            (json!({ "alias": "%invalid:hs1" }), Some("M_INVALID_PARAM")),
            (json!({ "alias": 1 }), Some("M_BAD_JSON")),
            (json!({ "alias": "#here:hs1" }), None),
        ] {
            let state = json!([{ "type": "m.room.canonical_alias", "content": content }]);
            let request = json!({ "room_alias_name": "here", "initial_state": state });
            let answer = server.post(PATH, &alice, &request).await;
            match errcode {
                Some(errcode) => drop(answer.refused(400, errcode)),
                None => drop(answer.ok()),
            }
        }
    }

    #[tokio::test]
    async fn whoever_is_named_is_invited() {
        let (server, alice, bob) = Server::with_two_users().await;
        let request = json!({ "invite": [bob.id], "is_direct": true, "name": "Invites room" });
        let room = server.room(&alice, &request).await;
        let entry = format!("m.room.member/{}", encode(&bob.id));
        let member = server.state(&room, &alice, &entry).await.ok();
        assert_eq!(member, json!({ "membership": "invite", "is_direct": true }));
        let sync = server.sync(&bob, "").await;
        let shown = sync["rooms"]["invite"][&room]["invite_state"]["events"]
            .as_array()
            .expect("the room's state, as far as it is shown");
        let name = shown.iter().find(|event| event["type"] == "m.room.name");
        assert_eq!(name.expect("the name")["content"]["name"], "Invites room");
    }

    #[tokio::test]
    async fn the_creator_has_power() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let room = server.room(&alice, &json!({ "room_version": "11" })).await;
        let levels = server
            .state(&room, &alice, "m.room.power_levels")
            .await
            .ok();
        for key in [
            "ban",
            "kick",
            "redact",
            "state_default",
            "events_default",
            "users_default",
        ] {
            assert!(levels[key].is_i64(), "{key}");
        }
        assert_eq!(levels["users"], json!({ "@alice:hs1": 100 }));
        assert!(
            levels["events"]
                .as_object()
                .is_some_and(|events| events.values().all(Value::is_i64))
        );
    }

    #[tokio::test]
    async fn an_alias_is_given_once() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let request = json!({ "visibility": "public", "room_alias_name": "here" });
        let room = server.room(&alice, &request).await;
        server
            .post(PATH, &alice, &request)
            .await
            .refused(400, "M_ROOM_IN_USE");
        let found = server
            .get("/directory/room/%23here%3Ahs1", &alice)
            .await
            .ok();
        assert_eq!(found["room_id"], room);
    }

    #[tokio::test]
    async fn what_cannot_be_made_is_refused() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        for (request, status, errcode) in [
            (json!({ "room_version": 1 }), 400, "M_BAD_JSON"),
            (
                json!({ "room_version": "nonsense" }),
                400,
                "M_UNSUPPORTED_ROOM_VERSION",
            ),
            (json!({ "preset": "nonsense" }), 400, "M_BAD_JSON"),
            (json!({ "visibility": "nonsense" }), 400, "M_BAD_JSON"),
            (json!({ "invite": ["nonsense"] }), 400, "M_BAD_JSON"),
            (json!({ "invite": ["@bob:hs2"] }), 404, "M_NOT_FOUND"),
            (json!({ "room_alias_name": "a:b" }), 400, "M_INVALID_PARAM"),
            (
                json!({ "initial_state": [{ "content": {} }] }),
                400,
                "M_BAD_JSON",
            ),
            (json!({ "creation_content": [] }), 400, "M_BAD_JSON"),
            (
                json!({ "power_level_content_override": { "users": { "nonsense": 100 } } }),
                400,
                "M_INVALID_ROOM_STATE",
            ),
            (json!({ "name": "x".repeat(70_000) }), 413, "M_TOO_LARGE"),
            (
                json!({ "invite_3pid": [{
                    "id_server": "a.b", "id_access_token": "x", "medium": "email", "address": "a@b.c",
                }] }),
                400,
                "M_THREEPID_DENIED",
            ),
        ] {
            server
                .post(PATH, &alice, &request)
                .await
                .refused(status, errcode);
        }
        let joined = server.get("/joined_rooms", &alice).await.ok();
        assert_eq!(joined, json!({ "joined_rooms": [] }));
    }
}
