//! The grammar of the names that users choose, and the names that are chosen for them.

use myelin_types::{Random, random_string};
use ruma::{OwnedUserId, ServerName, UserId};

/// The longest user id, in bytes, sigil and server name included. Spec: appendices, "User Identifiers".
const MAX_USER_ID: usize = 255;

/// The longest device id, in bytes. The spec sets no limit; it is part of keys.
pub(crate) const MAX_DEVICE_ID: usize = 255;

/// The longest display name of a device, in bytes.
pub(crate) const MAX_DEVICE_NAME: usize = 255;

/// Why a name cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// It is empty, too long, or has characters other than `a-z`, `0-9` and `._=-/+`. (`M_INVALID_USERNAME`)
    #[error("the user name may only contain a-z, 0-9 and ._=-/+, and must not be too long")]
    Invalid,
    /// Somebody has it, or had it once. (`M_USER_IN_USE`)
    #[error("the user name is taken")]
    InUse,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] crate::Failure),
}
crate::failure::fails!(NameError);

/// The id of the user who is to be called `localpart`. Capitals become small letters, as the spec requires.
pub(crate) fn new_user_id(localpart: &str, server: &ServerName) -> Option<OwnedUserId> {
    let localpart = localpart.to_ascii_lowercase();
    let legal =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._=-/+".contains(&byte);
    if localpart.is_empty() || !localpart.bytes().all(legal) {
        return None;
    }
    let id = format!("@{localpart}:{server}");
    if id.len() > MAX_USER_ID {
        return None;
    }
    UserId::parse(id).ok()
}

/// A localpart for somebody who asked for none.
pub(crate) fn generated_localpart(random: &dyn Random) -> String {
    random_string(random, 14).to_ascii_lowercase()
}

/// A device id for a session that asked for none: ten capital letters.
pub(crate) fn generated_device_id(random: &dyn Random) -> String {
    let mut id = String::with_capacity(10);
    while id.len() < 10 {
        let more = random_string(random, 32).to_ascii_uppercase();
        id.extend(
            more.chars()
                .filter(char::is_ascii_uppercase)
                .take(10 - id.len()),
        );
    }
    id
}

#[cfg(test)]
mod tests {
    use myelin_types::SeededRandom;
    use ruma::server_name;

    use super::{generated_device_id, generated_localpart, new_user_id};

    #[test]
    fn localparts_follow_the_grammar_of_new_users() {
        let check = |localpart: &str, id: Option<&str>| {
            let made = new_user_id(localpart, server_name!("hs1"));
            assert_eq!(made.as_ref().map(|id| id.as_str()), id, "{localpart:?}");
        };
        check("user-UPPER", Some("@user-upper:hs1"));
        for legal in ["q", "3", ".", "_", "=", "-", "/", "+"] {
            check(legal, Some(&format!("@{legal}:hs1")));
        }
        for illegal in [
            "!", "\"", ":", "?", "\\", "@", "[", "]", "{", "|", "}", "£", "é", "\n", "'", " ", ",",
        ] {
            check(&format!("user-{illegal}-no"), None);
        }
        check("", None);
        check(&"a".repeat(250), Some(&format!("@{}:hs1", "a".repeat(250))));
        check(&"a".repeat(251), None);
    }

    #[test]
    fn generated_names_are_legal() {
        let random = SeededRandom::new(3);
        assert!(new_user_id(&generated_localpart(&random), server_name!("hs1")).is_some());
        let device = generated_device_id(&random);
        assert_eq!(device.len(), 10);
        assert!(device.bytes().all(|byte| byte.is_ascii_uppercase()));
    }
}
