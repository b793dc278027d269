//! Refreshing access tokens. Spec: client-server API, "Refreshing access tokens" and `POST /refresh`.
//!
//! A refresh gives out a new pair and revokes the old access token at once. The old refresh token stays until either
//! of the new pair is used, since the answer may have been lost: used again before that, it revokes the pair that
//! nobody received and gives out another.

use std::time::Duration;

use myelin_data::accounts::{
    Accounts as AccountRows, RefreshToken, RefreshTokens, Successor, TokenKind,
};
use myelin_store::{Batch, Step, View};
use myelin_types::Millis;

use crate::{
    Accounts, Failure, Secret,
    sessions::{Pair, count_session, revoke_token, sessions_ended},
};

/// A new pair of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refreshed {
    /// The token to make requests with.
    pub access_token: Secret,
    /// The token for the next refresh.
    pub refresh_token: Secret,
    /// How long the access token lives.
    pub expires_in: Duration,
}

/// Why there is no new pair.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The token was never given out, was revoked, or has been used and its successor too. (`M_UNKNOWN_TOKEN`)
    #[error("unknown refresh token")]
    Unknown,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(RefreshError);

impl Accounts {
    /// A new pair of tokens for the session of `refresh_token`.
    pub async fn refresh(&self, refresh_token: &Secret) -> Result<Refreshed, RefreshError> {
        let refreshed = Refreshed {
            access_token: Secret::access_token(&*self.0.random),
            refresh_token: Secret::refresh_token(&*self.0.random),
            expires_in: self.0.settings.access_token_lifetime,
        };
        let used = refresh_token.hash();
        let successor = Successor {
            access: refreshed.access_token.hash(),
            refresh: refreshed.refresh_token.hash(),
        };
        let expires_at = self.now().after(refreshed.expires_in);
        self.0
            .store
            .change(move |view| rotate(view, used, successor, expires_at))
            .await?;
        Ok(refreshed)
    }
}

fn rotate(
    view: &View,
    used: [u8; 32],
    successor: Successor,
    expires_at: Millis,
) -> Result<Step<()>, RefreshError> {
    let token = view
        .get::<RefreshTokens>(&used)?
        .ok_or(RefreshError::Unknown)?;
    let user = token.user;
    let account = view
        .get::<AccountRows>(&user)?
        .filter(|account| !account.deactivated)
        .ok_or(RefreshError::Unknown)?;
    let mut batch = Batch::new();
    count_session(&mut batch, user, &account);
    batch.expect::<RefreshTokens>(&used, Some(&token));

    let mut revoke = |kind, hash| revoke_token(&mut batch, user, &token.device_id, kind, hash);
    revoke(TokenKind::Access, token.access);
    if let Some(replaced) = token.replaces {
        // The pair of the used token has arrived, so the one before it is done with.
        revoke(TokenKind::Refresh, replaced);
    }
    if let Some(lost) = token.successor {
        revoke(TokenKind::Access, lost.access);
        revoke(TokenKind::Refresh, lost.refresh);
    }

    let pair = Pair {
        access: successor.access,
        refresh: Some(successor.refresh),
        expires_at: Some(expires_at),
        replaces: Some(used),
    };
    pair.write(&mut batch, user, &token.device_id);
    let rotated = RefreshToken {
        successor: Some(successor),
        replaces: None,
        ..token
    };
    batch.put::<RefreshTokens>(&used, &rotated);
    sessions_ended(&mut batch, user);
    Ok(Step::write(batch, ()))
}
