//! `[well_known]`: what the `/.well-known/matrix/` documents say.

use ruma::{OwnedServerName, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{
    macros::{Invalid, Section, SectionDoc, section},
    values::BaseUrl,
};

/// Somebody who answers for this server, with at least one way to reach them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SupportContact {
    /// What they are there for: `m.role.admin`, `m.role.security` or a name in a namespace of one's own.
    pub role: String,
    /// Their e-mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_address: Option<String>,
    /// Their Matrix user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matrix_id: Option<OwnedUserId>,
}

section! {
    /// What this server says under `/.well-known/matrix/`. These documents are looked for at `https://` followed by
    /// `server.name`, on port 443: let the web server there pass `/.well-known/matrix/` on to this one.
    pub struct WellKnown in "well_known" {
        /// Where clients find the server. Without it they are told `server.public_base_url`, and nothing
        /// where that is not given either.
        pub client: Option<BaseUrl> => r#""https://matrix.example.org""#,
        /// The host and port where other servers find this one. Without it nothing is said and they come to
        /// port 8448 of `server.name`.
        pub server: Option<OwnedServerName> => r#""matrix.example.org:443""#,
        /// A page with help for the users of this server.
        pub support_page: Option<BaseUrl> => r#""https://example.org/help""#,
        /// Whom to ask: a role ("m.role.admin" for everything, "m.role.security" for security problems, or a
        /// name of your own like "org.example.abuse") and an e-mail address or a Matrix id or both.
        #[serde(default)]
        pub support_contacts: Vec<SupportContact>
            => r#"[{ role = "m.role.admin", email_address = "admin@example.org", matrix_id = "@admin:example.org" }]"#,
    }
}

impl Section for WellKnown {
    const DOC: SectionDoc = Self::SECTION;

    fn validate(&self) -> Result<(), Invalid> {
        let nameless = |contact: &SupportContact| match contact.role.strip_prefix("m.") {
            Some(role) => !matches!(role, "role.admin" | "role.security"),
            None => !contact.role.contains('.'),
        };
        if self.support_contacts.iter().any(nameless) {
            return Err(Invalid::new(
                "support_contacts",
                "a role is \"m.role.admin\", \"m.role.security\" or a name like \"org.example.abuse\"",
            ));
        }
        let unreachable = |contact: &SupportContact| {
            contact.email_address.is_none() && contact.matrix_id.is_none()
        };
        if self.support_contacts.iter().any(unreachable) {
            return Err(Invalid::new(
                "support_contacts",
                "every contact needs an email_address or a matrix_id",
            ));
        }
        Ok(())
    }
}
