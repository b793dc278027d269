//! Profiles.

mod delete_field;
mod get_field;
mod get_profile;
mod set_field;

use http::Method;
use myelin_accounts::{Profile, ProfileError};
use myelin_federation::LookUpProfileError;
use myelin_rooms::Rooms;
use ruma::{UserId, api::error::ErrorKind};

use crate::{
    Access, Limit,
    error::{Refusal, Result},
    routes::Routes,
    shared::refuse_failure,
};

const FIELD: &str = "/_matrix/client/v3/profile/{user_id}/{key_name}";
const OLD_FIELD: &str = "/_matrix/client/r0/profile/{user_id}/{key_name}";
const PROFILE: &str = "/_matrix/client/v3/profile/{user_id}";
const OLD_PROFILE: &str = "/_matrix/client/r0/profile/{user_id}";

/// The routes of this family.
pub(crate) fn routes(mut routes: Routes) -> Routes {
    for path in [PROFILE, OLD_PROFILE] {
        routes = routes.path(
            &Method::GET,
            path,
            Access::Public,
            Limit::Read,
            get_profile::get,
        );
    }
    for path in [FIELD, OLD_FIELD] {
        routes = routes
            .path(
                &Method::GET,
                path,
                Access::Public,
                Limit::Read,
                get_field::get,
            )
            .path(
                &Method::PUT,
                path,
                Access::User,
                Limit::Send,
                set_field::set,
            );
    }
    routes.path(
        &Method::DELETE,
        FIELD,
        Access::User,
        Limit::Send,
        delete_field::delete,
    )
}

/// What a look at a profile is refused with.
fn refuse_look(error: LookUpProfileError) -> Refusal {
    match error {
        LookUpProfileError::NotFound => Refusal::not_found("There is no such user."),
        LookUpProfileError::Forbidden => {
            Refusal::forbidden("The user's server does not show this profile.")
        }
        // The specification has no other answer: whether there is such a user cannot be told now.
        LookUpProfileError::Query(cause) => {
            tracing::debug!(error = %cause, "a profile could not be asked for");
            Refusal::not_found("The user's server cannot be asked.")
        }
        LookUpProfileError::Store(cause) => Refusal::internal(cause),
    }
}

/// What a change of a profile is refused with.
fn refuse(error: ProfileError) -> Refusal {
    match error {
        ProfileError::KeyTooLarge => Refusal::bad_request(
            ErrorKind::KeyTooLarge,
            "The name of the field has more than 255 bytes.",
        ),
        ProfileError::InvalidKey => Refusal::invalid("This is no name of a profile field."),
        ProfileError::InvalidValue(what) => Refusal::bad_request(ErrorKind::BadJson, what),
        ProfileError::TooLarge => Refusal::bad_request(
            ErrorKind::ProfileTooLarge,
            "The profile would be 64 KiB or larger.",
        ),
        ProfileError::NoAccount => Refusal::forbidden("The account was deactivated."),
        ProfileError::Failed(cause) => Refusal::internal(cause),
    }
}

/// Refuses to change anybody's profile but the caller's own.
fn own_profile(caller: &UserId, user_id: &UserId) -> Result<()> {
    if caller == user_id {
        Ok(())
    } else {
        Err(Refusal::forbidden("You can change your own profile alone."))
    }
}

/// Tells the user's rooms of a changed name or avatar.
async fn tell_rooms(rooms: &Rooms, user_id: &UserId, changed: Option<Profile>) -> Result<()> {
    let Some(profile) = changed else {
        return Ok(());
    };
    let profile = myelin_rooms::Profile {
        displayname: profile.display_name().map(str::to_owned),
        avatar_url: profile.avatar_url().map(str::to_owned),
    };
    rooms
        .update_profile(user_id, &profile)
        .await
        .map_err(refuse_failure)
}
