//! Profiles. Spec: client-server API, "Profiles".

use myelin_data::{
    RawJson,
    accounts::{Accounts as AccountRows, Profiles},
    topic::Changed,
};
use myelin_store::{Batch, Step, StoreError, View};
use myelin_types::UserNum;
use serde_json::{Map, Value};

use crate::{Accounts, Failure};

/// The field that names a user.
pub const DISPLAY_NAME: &str = "displayname";
/// The field that shows him.
pub const AVATAR_URL: &str = "avatar_url";

const TIME_ZONE: &str = "m.tz";

/// A profile is smaller than this, in bytes of JSON.
const MAX_PROFILE: usize = 64 * 1024;
/// The longest name of a field, in bytes.
const MAX_KEY: usize = 255;
/// The longest display name, in characters, and avatar URL, in bytes: both go into every membership event.
const MAX_DISPLAY_NAME: usize = 256;
const MAX_AVATAR_URL: usize = 1000;

/// A user's profile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Its fields, by name.
    pub fields: Map<String, Value>,
}

impl Profile {
    /// The user's display name.
    pub fn display_name(&self) -> Option<&str> {
        self.fields.get(DISPLAY_NAME).and_then(Value::as_str)
    }

    /// The user's avatar, an `mxc:` URI.
    pub fn avatar_url(&self) -> Option<&str> {
        self.fields.get(AVATAR_URL).and_then(Value::as_str)
    }
}

/// Why a profile was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The name of the field has more than 255 bytes. (`M_KEY_TOO_LARGE`)
    #[error("the name of the profile field is too long")]
    KeyTooLarge,
    /// The name of the field does not follow the grammar. (`M_INVALID_PARAM`)
    #[error("this is no name of a profile field")]
    InvalidKey,
    /// The field cannot have this value. (`M_BAD_JSON`)
    #[error("{0}")]
    InvalidValue(&'static str),
    /// The profile would become 64 KiB or larger. (`M_PROFILE_TOO_LARGE`)
    #[error("the profile would be too large")]
    TooLarge,
    /// There is no such account, or it was deactivated. (`M_FORBIDDEN`)
    #[error("there is no such account")]
    NoAccount,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(ProfileError);

/// Checks that a profile may have a field called `key`: one of the three that the spec defines, or a name of the Common
/// Namespaced Identifier Grammar with a namespace.
///
/// # Errors
/// [`ProfileError::KeyTooLarge`] and [`ProfileError::InvalidKey`].
pub fn check_profile_key(key: &str) -> Result<(), ProfileError> {
    if key.len() > MAX_KEY {
        return Err(ProfileError::KeyTooLarge);
    }
    let legal =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    let namespaced = key.starts_with(|first: char| first.is_ascii_lowercase())
        && key.contains('.')
        && key.bytes().all(legal)
        && key.split('.').all(|part| !part.is_empty());
    if namespaced || matches!(key, DISPLAY_NAME | AVATAR_URL) {
        Ok(())
    } else {
        Err(ProfileError::InvalidKey)
    }
}

impl Accounts {
    /// The profile of a local user; empty if he has none.
    pub fn profile(&self, view: &View, user: UserNum) -> Result<Profile, StoreError> {
        let row = view.get::<Profiles>(&user)?;
        Ok(row.as_ref().map(decode).unwrap_or_default())
    }

    /// Sets a field of a user's profile. An empty display name or avatar removes it, as clients have always done.
    ///
    /// Returns the whole profile if the change is one that his rooms must be told of.
    pub async fn set_profile_field(
        &self,
        user: UserNum,
        key: &str,
        value: Value,
    ) -> Result<Option<Profile>, ProfileError> {
        check_profile_key(key)?;
        check_value(key, &value)?;
        let removes = matches!(key, DISPLAY_NAME | AVATAR_URL) && value.as_str() == Some("");
        let value = (!removes).then_some(value);
        self.change_profile(user, key, value).await
    }

    /// Removes a field of a user's profile; it need not be there.
    ///
    /// Returns the whole profile if the change is one that his rooms must be told of.
    pub async fn delete_profile_field(
        &self,
        user: UserNum,
        key: &str,
    ) -> Result<Option<Profile>, ProfileError> {
        check_profile_key(key)?;
        self.change_profile(user, key, None).await
    }

    async fn change_profile(
        &self,
        user: UserNum,
        key: &str,
        value: Option<Value>,
    ) -> Result<Option<Profile>, ProfileError> {
        let key = key.to_owned();
        self.0
            .store
            .change(move |view| {
                let account = view
                    .get::<AccountRows>(&user)?
                    .filter(|account| !account.deactivated)
                    .ok_or(ProfileError::NoAccount)?;
                let row = view.get::<Profiles>(&user)?;
                let mut profile = row.as_ref().map(decode).unwrap_or_default();
                let before = match &value {
                    Some(value) => profile.fields.insert(key.clone(), value.clone()),
                    None => profile.fields.remove(&key),
                };
                if before == value {
                    return Ok(Step::nothing(None));
                }
                let after = RawJson::of(&profile.fields).map_err(Failure::from)?;
                if value.is_some() && after.get().len() >= MAX_PROFILE {
                    return Err(ProfileError::TooLarge);
                }
                let mut batch = Batch::new();
                // Deactivation removes the profile, and it must not come back.
                batch.expect::<AccountRows>(&user, Some(&account));
                batch.expect::<Profiles>(&user, row.as_ref());
                if profile.fields.is_empty() {
                    batch.delete::<Profiles>(&user);
                } else {
                    batch.put::<Profiles>(&user, &after);
                }
                batch.touch(Changed::User(user).into());
                let shown = matches!(key.as_str(), DISPLAY_NAME | AVATAR_URL);
                Ok(Step::write(batch, shown.then_some(profile)))
            })
            .await
    }
}

fn decode(row: &RawJson) -> Profile {
    // What we wrote is an object; anything else shows no field.
    Profile {
        fields: serde_json::from_str(row.get()).unwrap_or_default(),
    }
}

fn check_value(key: &str, value: &Value) -> Result<(), ProfileError> {
    let refused = match (key, value) {
        (DISPLAY_NAME, Value::String(name)) => (name.chars().count() > MAX_DISPLAY_NAME)
            .then_some("a display name has at most 256 characters"),
        (DISPLAY_NAME, _) => Some("a display name is a string"),
        // That it is an mxc: URI is up to the client, which shows nothing for anything else; servers have never looked.
        (AVATAR_URL, Value::String(url)) => {
            (url.len() > MAX_AVATAR_URL).then_some("an avatar URL has at most 1000 bytes")
        }
        (AVATAR_URL, _) => Some("an avatar URL is a string"),
        (TIME_ZONE, value) => (!value.is_string()).then_some("a time zone is a string"),
        _ => None,
    };
    refused.map_or(Ok(()), |reason| Err(ProfileError::InvalidValue(reason)))
}

#[cfg(test)]
mod tests {
    use super::{ProfileError, check_profile_key};

    #[test]
    fn fields_are_named_by_the_grammar() {
        for legal in [
            "displayname",
            "avatar_url",
            "m.tz",
            "com.example.pro-nouns",
            "a.b_1",
        ] {
            assert!(check_profile_key(legal).is_ok(), "{legal}");
        }
        for illegal in [
            "", "name", "M.tz", "a.B", ".a", "a.", "a..b", "1.a", "a/b", "a.ä",
        ] {
            assert!(
                matches!(check_profile_key(illegal), Err(ProfileError::InvalidKey)),
                "{illegal}"
            );
        }
        let long = format!("a.{}", "b".repeat(254));
        assert!(matches!(
            check_profile_key(&long),
            Err(ProfileError::KeyTooLarge)
        ));
    }
}
