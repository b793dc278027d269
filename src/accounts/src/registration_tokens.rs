//! Registration tokens: what lets people in where registration is not open to all. Spec: client-server API,
//! "Token-authenticated registration".

use myelin_data::accounts::{RegistrationToken, RegistrationTokens};
use myelin_store::{Batch, Scan, Step, StoreError, View};
use myelin_types::Millis;

use crate::{Accounts, Failure, RegisterError, Registration, Secret};

/// Why a token was not made or deleted.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It must be 1 to 64 of the characters `A-Z a-z 0-9 . _ ~ -`. (`M_INVALID_PARAM`)
    #[error("a registration token must be 1 to 64 of the characters A-Z a-z 0-9 . _ ~ -")]
    Invalid,
    /// There is one with this text. (`M_INVALID_PARAM`)
    #[error("there is such a registration token")]
    Exists,
    /// There is none with this text. (`M_NOT_FOUND`)
    #[error("there is no such registration token")]
    NotFound,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(TokenError);

impl Accounts {
    /// Whether `token` would let somebody register now.
    ///
    /// # Errors
    /// [`RegisterError::Closed`] if nobody may register, whatever he has.
    pub async fn registration_token_valid(&self, token: &Secret) -> Result<bool, RegisterError> {
        if self.0.settings.registration == Registration::Closed {
            return Err(RegisterError::Closed);
        }
        if self.is_operators_token(token) {
            return Ok(true);
        }
        if !is_token(token.expose()) {
            return Ok(false);
        }
        let key = token.expose().to_owned();
        let stored = self
            .0
            .store
            .read(move |view| view.get::<RegistrationTokens>(&key))
            .await?;
        let now = self.now();
        Ok(stored.is_some_and(|stored| is_good(&stored, now)))
    }

    /// Makes a token that is good for `uses_allowed` registrations (none: any number) until `expires_at` (none: for
    /// ever).
    pub async fn create_registration_token(
        &self,
        token: &Secret,
        uses_allowed: Option<u64>,
        expires_at: Option<Millis>,
    ) -> Result<(), TokenError> {
        if !is_token(token.expose()) {
            return Err(TokenError::Invalid);
        }
        let key = token.expose().to_owned();
        let row = RegistrationToken {
            uses_allowed,
            completed: 0,
            expires_at,
        };
        self.0
            .store
            .change(move |view| {
                if view.contains::<RegistrationTokens>(&key)? {
                    return Err(TokenError::Exists);
                }
                let mut batch = Batch::new();
                batch.expect::<RegistrationTokens>(&key, None);
                batch.put::<RegistrationTokens>(&key, &row);
                Ok(Step::write(batch, ()))
            })
            .await
    }

    /// All stored tokens, by their text.
    pub fn registration_tokens(
        &self,
        view: &View,
    ) -> Result<Vec<(Secret, RegistrationToken)>, StoreError> {
        view.scan::<RegistrationTokens>(Scan::all())
            .map(|row| row.map(|(text, token)| (Secret::new(text), token)))
            .collect()
    }

    /// Deletes a stored token.
    pub async fn delete_registration_token(&self, token: &Secret) -> Result<(), TokenError> {
        let key = token.expose().to_owned();
        self.0
            .store
            .change(move |view| {
                if !view.contains::<RegistrationTokens>(&key)? {
                    return Err(TokenError::NotFound);
                }
                let mut batch = Batch::new();
                batch.delete::<RegistrationTokens>(&key);
                Ok(Step::write(batch, ()))
            })
            .await
    }

    /// Whether `token` is the one in the configuration. It is compared in constant time.
    pub(crate) fn is_operators_token(&self, token: &Secret) -> bool {
        match &self.0.settings.registration {
            Registration::Token(Some(operators)) => operators == token,
            Registration::Token(None) | Registration::Closed | Registration::Open => false,
        }
    }
}

/// Counts a registration with `token` in the batch that makes the account.
pub(crate) fn use_token(
    view: &View,
    batch: &mut Batch,
    token: &str,
    now: Millis,
) -> Result<(), RegisterError> {
    let key = token.to_owned();
    let stored = view
        .get::<RegistrationTokens>(&key)?
        .filter(|stored| is_good(stored, now))
        .ok_or(RegisterError::TokenSpent)?;
    batch.expect::<RegistrationTokens>(&key, Some(&stored));
    let used = RegistrationToken {
        completed: stored.completed + 1,
        ..stored
    };
    batch.put::<RegistrationTokens>(&key, &used);
    Ok(())
}

fn is_good(token: &RegistrationToken, now: Millis) -> bool {
    token.uses_allowed.is_none_or(|uses| token.completed < uses)
        && token.expires_at.is_none_or(|expires| now < expires)
}

fn is_token(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte))
}
