//! Profiles of users, of this server and of others.

use myelin_rules::Object;
use myelin_store::StoreError;
use ruma::UserId;
use serde_json::Value;

use super::QueryError;
use crate::Federation;

/// Why a profile is not known.
#[derive(Debug, thiserror::Error)]
pub enum LookUpProfileError {
    /// There is no such user (`M_NOT_FOUND`).
    #[error("there is no such user")]
    NotFound,
    /// The user's server does not show it (`M_FORBIDDEN`).
    #[error("the user's server does not show it")]
    Forbidden,
    /// The user's server could not be asked.
    #[error("ask the user's server")]
    Query(#[source] QueryError),
    /// The store could not be read.
    #[error("read a profile")]
    Store(#[from] StoreError),
}

impl Federation {
    /// All fields of a user's profile. That of a user of another server is asked for there.
    pub async fn profile(&self, user: &UserId) -> Result<Object, LookUpProfileError> {
        if user.server_name() == self.server_name() {
            return self.own_profile(user).await;
        }
        // All of it, also for one field: so that the same answer does for every field.
        let query = vec![("user_id", user.to_string())];
        let profile: Object = self
            .ask(user.server_name(), ["query", "profile"], query)
            .await
            .map_err(|error| match error {
                QueryError::Refused { status: 404, .. } => LookUpProfileError::NotFound,
                QueryError::Refused { status: 403, .. } => LookUpProfileError::Forbidden,
                other => LookUpProfileError::Query(other),
            })?;
        Ok(as_specified(profile))
    }

    /// The profile of a user of this server.
    pub async fn own_profile(&self, user: &UserId) -> Result<Object, LookUpProfileError> {
        let (accounts, user) = (self.0.accounts.clone(), user.to_owned());
        let profile = self
            .0
            .rooms
            .store()
            .read(move |view| {
                accounts
                    .find_local_user(view, &user)?
                    .map(|(user, _)| accounts.profile(view, user))
                    .transpose()
            })
            .await?;
        let profile = profile.ok_or(LookUpProfileError::NotFound)?;
        Ok(profile.fields)
    }
}

/// A profile without what says nothing: null stands for a field that is not set, and clients rely on those that the
/// specification defines being text.
fn as_specified(mut profile: Object) -> Object {
    profile.retain(|name, value| match (name.as_str(), &*value) {
        (_, Value::Null) => false,
        ("displayname" | "avatar_url" | "m.tz", value) => value.is_string(),
        _ => true,
    });
    profile
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::as_specified;

    #[test]
    fn fields_without_meaning_are_left_out() {
        let profile = json!({
            "displayname": null, "avatar_url": 3, "m.tz": "Europe/Berlin", "org.example.job": { "a": 1 },
        });
        let profile = profile.as_object().expect("an object").clone();
        let expected = json!({ "m.tz": "Europe/Berlin", "org.example.job": { "a": 1 } });
        assert_eq!(json!(as_specified(profile)), expected);
    }
}
