//! `POST /_matrix/client/v3/createRoom`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom>

use axum::extract::State;
use myelin_accounts::{Accounts, Requester};
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
    shared::{content, profile, refuse_failure, remote_user},
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

/// Makes a room for the caller.
pub(crate) async fn create(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let draft = draft(&rooms, &accounts, &request.caller, request.body).await?;
    let room_id = rooms.create_room(draft).await.map_err(refuse)?;
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
    let mut draft = CreateRoom::new(
        creator.user_id.clone(),
        profile(rooms, accounts, &creator.user_id).await?,
    );
    draft.visibility = match request.visibility {
        WireVisibility::Public => Visibility::Public,
        _ => Visibility::Private,
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
