//! `[accounts]`: passwords and sessions.

use std::time::Duration;

use crate::{
    macros::{Invalid, Section, SectionDoc, section},
    values::Span,
};

section! {
    /// Passwords and sessions.
    pub struct Accounts in "accounts" {
        /// The shortest password that may be chosen, in characters.
        #[serde(default = "default_password_min_length")]
        pub password_min_length: usize,
        /// How long an access token lives in a session whose client can refresh it. Clients that cannot are not
        /// logged out.
        #[serde(default = "default_access_token_lifetime")]
        pub access_token_lifetime: Span,
    }
}

fn default_password_min_length() -> usize {
    8
}

fn default_access_token_lifetime() -> Span {
    Span(Duration::from_mins(5))
}

impl Section for Accounts {
    const DOC: SectionDoc = Self::SECTION;

    fn validate(&self) -> Result<(), Invalid> {
        if !(1..=512).contains(&self.password_min_length) {
            return Err(Invalid::new("password_min_length", "must be 1 to 512"));
        }
        if self.access_token_lifetime.0 < Duration::from_secs(10) {
            return Err(Invalid::new(
                "access_token_lifetime",
                "must be at least 10s",
            ));
        }
        Ok(())
    }
}
