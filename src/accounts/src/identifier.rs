//! How a client says who it means. Spec: client-server API, "Identifier types".

use ruma::{OwnedUserId, ServerName, UserId};
use serde_json::Value;

/// Who somebody claims to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identifier {
    /// `m.id.user`: a user id or its localpart.
    User(String),
    /// `m.id.thirdparty`, `m.id.phone` and kinds unknown to us. No account of ours has such a name.
    Other,
}

impl Identifier {
    /// The identifier in `body`, which is the body of `POST /login` or an `auth` object: its `identifier`, or the
    /// deprecated `user`, or `medium` and `address`. None if there is none that can be read.
    pub fn in_body(body: &serde_json::Map<String, Value>) -> Option<Identifier> {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        match body.get("identifier") {
            Some(Value::Object(identifier)) => match identifier.get("type")?.as_str()? {
                "m.id.user" => text(identifier.get("user")).map(Identifier::User),
                _ => Some(Identifier::Other),
            },
            Some(Value::Null) | None => match (text(body.get("user")), body.get("medium")) {
                (Some(user), _) => Some(Identifier::User(user)),
                (None, Some(_)) => Some(Identifier::Other),
                (None, None) => None,
            },
            Some(_) => None,
        }
    }

    /// The ids that may be meant, the likeliest first: as given, then with small letters, since a user can be reached
    /// under a name that differs in case. None of another server.
    pub(crate) fn candidates(&self, server: &ServerName) -> Vec<OwnedUserId> {
        let Identifier::User(name) = self else {
            return Vec::new();
        };
        let id = if name.starts_with('@') {
            UserId::parse(name.as_str())
        } else {
            UserId::parse(format!("@{name}:{server}"))
        };
        let Some(id) = id.ok().filter(|id| id.server_name() == server) else {
            return Vec::new();
        };
        let lower = UserId::parse(format!("@{}:{server}", id.localpart().to_lowercase()));
        match lower {
            Ok(lower) if lower != id => vec![id, lower],
            _ => vec![id],
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;
    use serde_json::json;

    use super::Identifier;

    fn parse(body: serde_json::Value) -> Option<Identifier> {
        Identifier::in_body(body.as_object().expect("tests give objects"))
    }

    #[test]
    fn all_forms_are_read() {
        let alice = Some(Identifier::User("alice".to_owned()));
        assert_eq!(
            parse(json!({"identifier": {"type": "m.id.user", "user": "alice"}})),
            alice
        );
        assert_eq!(parse(json!({"user": "alice"})), alice);
        assert_eq!(
            parse(json!({"identifier": {"type": "m.id.phone", "country": "GB", "phone": "1"}})),
            Some(Identifier::Other)
        );
        assert_eq!(
            parse(json!({"medium": "email", "address": "a@example.org"})),
            Some(Identifier::Other)
        );
        assert_eq!(parse(json!({"identifier": {"type": "m.id.user"}})), None);
        assert_eq!(parse(json!({"identifier": "alice"})), None);
        assert_eq!(parse(json!({})), None);
    }

    #[test]
    fn case_is_forgiven_and_other_servers_are_not() {
        let candidates = |name: &str| {
            Identifier::User(name.to_owned())
                .candidates(server_name!("hs1"))
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(candidates("alice"), ["@alice:hs1"]);
        assert_eq!(candidates("@ALICE:hs1"), ["@ALICE:hs1", "@alice:hs1"]);
        assert!(candidates("@alice:hs2").is_empty());
        assert!(candidates("@alice").is_empty());
    }
}
