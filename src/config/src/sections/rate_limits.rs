//! `[rate_limits]`: how often one client may ask for something.

use serde::{Deserialize, Serialize};

use crate::macros::{Invalid, Section, SectionDoc, section};

/// A bucket that holds `burst` requests and refills with `per_second`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Requests a second in the long run.
    pub per_second: f64,
    /// Requests at once after a rest.
    pub burst: u32,
}

impl Rate {
    /// What [`Rate::is_valid`] asks for.
    pub(super) const VALID: &str = "needs per_second above 0 and a burst of at least 1";

    /// Whether such a bucket can be made.
    pub(super) fn is_valid(self) -> bool {
        self.per_second.is_finite() && self.per_second > 0.0 && self.burst > 0
    }
}

section! {
    /// How often one client may ask for something before it is told to wait. Each class is a bucket that holds
    /// `burst` requests and refills with `per_second`. Classes before a login count per IP address, the others
    /// per user.
    pub struct RateLimits in "rate_limits" {
        /// Whether any of these limits holds.
        #[serde(default = "default_enabled")]
        pub enabled: bool,
        /// Attempts to log in, per IP address.
        #[serde(default = "default_login")]
        pub login: Rate,
        /// Registrations and questions whether a name is free, per IP address.
        #[serde(default = "default_registration")]
        pub registration: Rate,
        /// Sending events: messages, state, redactions, receipts, typing.
        #[serde(default = "default_send")]
        pub send: Rate,
        /// Inviting users.
        #[serde(default = "default_invite")]
        pub invite: Rate,
        /// Joining, knocking on and creating rooms.
        #[serde(default = "default_join")]
        pub join: Rate,
        /// Reading and everything else.
        #[serde(default = "default_read")]
        pub read: Rate,
    }
}

fn default_enabled() -> bool {
    true
}

fn default_login() -> Rate {
    Rate {
        per_second: 0.2,
        burst: 10,
    }
}

fn default_registration() -> Rate {
    Rate {
        per_second: 0.1,
        burst: 5,
    }
}

fn default_send() -> Rate {
    Rate {
        per_second: 5.0,
        burst: 50,
    }
}

fn default_invite() -> Rate {
    Rate {
        per_second: 0.3,
        burst: 20,
    }
}

fn default_join() -> Rate {
    Rate {
        per_second: 0.5,
        burst: 20,
    }
}

fn default_read() -> Rate {
    Rate {
        per_second: 50.0,
        burst: 300,
    }
}

impl Section for RateLimits {
    const DOC: SectionDoc = Self::SECTION;

    fn validate(&self) -> Result<(), Invalid> {
        let classes = [
            ("login", self.login),
            ("registration", self.registration),
            ("send", self.send),
            ("invite", self.invite),
            ("join", self.join),
            ("read", self.read),
        ];
        for (field, rate) in classes {
            if !rate.is_valid() {
                return Err(Invalid::new(field, Rate::VALID));
            }
        }
        Ok(())
    }
}
