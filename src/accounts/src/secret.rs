//! Passwords and tokens in memory, and what stands for them in the store.

use std::fmt;

use myelin_types::{Random, random_string};
use ring::digest;
use subtle::ConstantTimeEq;

/// A password or token: readable on purpose only, and never printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the answer to its owner.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text itself, for the answer to its owner.
    pub fn into_exposed(self) -> String {
        self.0
    }

    /// A new access token: `mye_` and 43 letters and digits, 256 bits of chance.
    pub(crate) fn access_token(random: &dyn Random) -> Self {
        Self(format!("mye_{}", random_string(random, 43)))
    }

    /// A new refresh token: `myr_` and 43 letters and digits.
    pub(crate) fn refresh_token(random: &dyn Random) -> Self {
        Self(format!("myr_{}", random_string(random, 43)))
    }

    /// What stands for a token in the store.
    pub(crate) fn hash(&self) -> [u8; 32] {
        hash(self.0.as_bytes())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// The SHA-256 of `bytes`.
pub(crate) fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn a_secret_is_not_printed() {
        let shown = format!("{:?}", Some(Secret::new("hunter2")));
        assert_eq!(shown, "Some(Secret(hidden))");
    }
}
