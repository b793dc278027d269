//! `[registration]`: who may create an account.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    macros::{Invalid, Section, SectionDoc, section},
    values::Secret,
};

/// Who may create an account for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistrationMode {
    /// Nobody: accounts are made with `myelin user create`.
    Closed,
    /// Whoever knows the registration token.
    Token,
    /// Anybody.
    Open,
}

section! {
    /// Who may create an account through a client. The operator can always do so with `myelin user create`.
    pub struct Registration in "registration" {
        /// "closed": nobody. "token": whoever knows the token below. "open": anybody; an open server is found and
        /// used by spammers within days.
        #[serde(default = "default_mode")]
        pub mode: RegistrationMode,
        /// The token for mode "token": give it here or in a file, exactly one of the two. Letters, digits and
        /// `.`, `_`, `~`, `-`, at most 64 of them.
        pub token: Option<Secret> => r#""a-token-that-is-hard-to-guess""#,
        /// The file which holds the token. White space at its end does not count.
        pub token_file: Option<PathBuf> => r#""/run/secrets/registration_token""#,
    }
}

fn default_mode() -> RegistrationMode {
    RegistrationMode::Closed
}

impl Section for Registration {
    const DOC: SectionDoc = Self::SECTION;

    fn validate(&self) -> Result<(), Invalid> {
        match (self.mode, &self.token) {
            (RegistrationMode::Token, None) => Err(Invalid::new(
                "token",
                "or token_file is required by mode \"token\"",
            )),
            // The grammar of the spec's registration_tokens.yaml.
            (_, Some(token)) if !is_token(token.expose()) => Err(Invalid::new(
                "token",
                "must be 1 to 64 of the characters A-Z a-z 0-9 . _ ~ -",
            )),
            _ => Ok(()),
        }
    }
}

fn is_token(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte))
}
