//! What several endpoints need: the refusals that every operation on a room shares, and profiles as rooms show them.

use http::StatusCode;
use myelin_accounts::{Accounts, Requester};
use myelin_federation::ResolveAliasError;
use myelin_rooms::{
    AppendError, CanonicalAliasError, Failure, JsonObject, PresenceState, Profile, Rooms,
    TransactionId,
    read::{ReadError, Viewer},
    token::Token,
};
use ruma::{UserId, api::error::ErrorKind, serde::Raw};

use crate::error::{Refusal, Result};

/// For a room that is not known, or that the caller has no business in: the two are not told apart.
pub(crate) fn not_in_room() -> Refusal {
    Refusal::forbidden("You are not in this room.")
}

/// For a room that the caller named and that is not known here.
pub(crate) fn no_such_room() -> Refusal {
    Refusal::not_found("This server knows no such room.")
}

/// For a user of another server: federation is not there yet.
pub(crate) fn remote_user(user: &UserId) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        ErrorKind::NotFound,
        format!("{user} belongs to another server, which cannot be reached from here."),
    )
}

/// A fault of the server.
pub(crate) fn refuse_failure(failure: Failure) -> Refusal {
    Refusal::internal(failure)
}

/// An event that could not become part of its room.
pub(crate) fn refuse_append(error: AppendError) -> Refusal {
    match error {
        AppendError::Forbidden(reason) => Refusal::forbidden(reason),
        AppendError::Unacceptable(what) => Refusal::invalid(what),
        AppendError::TooLarge(what) => Refusal::too_large(what),
        AppendError::Malformed(what) => Refusal::bad_request(ErrorKind::BadJson, what),
        AppendError::Failure(failure) => refuse_failure(failure),
    }
}

/// A canonical alias that the room cannot have.
pub(crate) fn refuse_canonical_alias(error: CanonicalAliasError) -> Refusal {
    match error {
        CanonicalAliasError::BadContent(what) => Refusal::bad_request(ErrorKind::BadJson, what),
        CanonicalAliasError::InvalidAlias(alias) => {
            Refusal::invalid(format!("{alias:?} is not a room alias."))
        }
        CanonicalAliasError::BadAlias(alias) => Refusal::bad_request(
            ErrorKind::BadAlias,
            format!("The alias {alias} does not point to this room."),
        ),
    }
}

/// An alias that leads nowhere, or of which that cannot be told.
pub(crate) fn refuse_alias(error: ResolveAliasError) -> Refusal {
    match error {
        ResolveAliasError::NotFound => Refusal::not_found("No room has this alias."),
        // The specification has no other answer: whether there is such an alias cannot be told now.
        ResolveAliasError::Query(cause) => {
            tracing::debug!(error = %cause, "an alias could not be asked for");
            Refusal::not_found("The server of this alias cannot be asked.")
        }
        ResolveAliasError::Store(cause) => Refusal::internal(cause),
    }
}

/// Something of a room that was not read.
pub(crate) fn refuse_read(error: ReadError) -> Refusal {
    match error {
        ReadError::RoomNotFound | ReadError::NotInRoom => not_in_room(),
        ReadError::NotFound => Refusal::not_found("There is no such event, or you may not see it."),
        ReadError::Incomplete => Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Unknown,
            "The members of this room are still being fetched.",
        ),
        ReadError::Store(cause) => Refusal::internal(cause),
    }
}

/// A presence that a client names.
pub(crate) fn presence_state(state: &ruma::presence::PresenceState) -> Result<PresenceState> {
    PresenceState::parse(state.as_str())
        .ok_or_else(|| Refusal::invalid("Presence is online, unavailable or offline."))
}

/// The caller, as the reading side knows him.
pub(crate) fn viewer(requester: &Requester) -> Viewer {
    Viewer {
        user: requester.user,
        user_id: requester.user_id.clone(),
        device_id: Some(requester.device_id.to_string()),
    }
}

/// A user's profile, as membership events show it. Users of other servers have none here.
pub(crate) async fn profile(rooms: &Rooms, accounts: &Accounts, user: &UserId) -> Result<Profile> {
    let (reader, user) = (accounts.clone(), user.to_owned());
    let profile = rooms
        .store()
        .read(move |view| {
            reader
                .find_local_user(view, &user)?
                .map(|(user, _)| reader.profile(view, user))
                .transpose()
        })
        .await
        .map_err(Refusal::internal)?
        .unwrap_or_default();
    Ok(Profile {
        displayname: profile.display_name().map(str::to_owned),
        avatar_url: profile.avatar_url().map(str::to_owned),
    })
}

/// The content of an event, which must be an object.
pub(crate) fn content<T>(raw: &Raw<T>) -> Result<JsonObject> {
    serde_json::from_str(raw.json().get()).map_err(|error| {
        Refusal::bad_request(
            ErrorKind::BadJson,
            format!("The content is not an object: {error}."),
        )
    })
}

/// The longest transaction id, in bytes. The specification sets no limit; identifiers have this one.
const MAX_TRANSACTION_ID: usize = 255;

/// The transaction that a request to `path` belongs to.
pub(crate) fn transaction(requester: &Requester, path: String, id: &str) -> Result<TransactionId> {
    if id.len() > MAX_TRANSACTION_ID {
        return Err(Refusal::invalid(format!(
            "A transaction id has at most {MAX_TRANSACTION_ID} bytes."
        )));
    }
    Ok(TransactionId {
        device_id: requester.device_id.to_string(),
        path,
        id: id.to_owned(),
    })
}

/// A pagination token, if one was given.
pub(crate) fn token(text: Option<&str>) -> Result<Option<Token>> {
    text.map(str::parse)
        .transpose()
        .map_err(|_| Refusal::invalid("This is not a token of this server."))
}

/// A query's limit as a count.
pub(crate) fn count(limit: ruma::UInt) -> usize {
    usize::try_from(u64::from(limit)).unwrap_or(usize::MAX)
}
