//! OpenID tokens, by which a third party learns who a user is. Spec: client-server API, "OpenID".
//!
//! A token's text begins with the time of its end, so that its row is found under that time and the hash of the text, and
//! tokens whose time has come are deleted from the front of the table.

use std::time::Duration;

use myelin_data::accounts::{OpenIdToken, OpenIdTokens};
use myelin_store::{Batch, View};
use myelin_types::{UserNum, random_string};
use ruma::OwnedUserId;

use crate::{Accounts, Failure, Secret, secret::hash};

/// How long a token counts: for one exchange, with time for slow third parties.
pub const OPENID_TOKEN_LIFETIME: Duration = Duration::from_hours(1);

/// What every token begins with.
const PREFIX: &str = "myo_";

impl Accounts {
    /// A new token with which third parties may learn who `user` is, for [`OPENID_TOKEN_LIFETIME`].
    pub async fn new_openid_token(&self, user: UserNum) -> Result<Secret, Failure> {
        let expires = self.now().after(OPENID_TOKEN_LIFETIME);
        let token = format!("{PREFIX}{expires}_{}", random_string(&*self.0.random, 43));
        let mut batch = Batch::new();
        let key = (expires.0, hash(token.as_bytes()));
        batch.put::<OpenIdTokens>(&key, &OpenIdToken { user });
        self.0.store.commit(batch).await?;
        Ok(Secret::new(token))
    }

    /// Whose token it is; none if it was never given out, has expired, or its user's account was deactivated.
    pub async fn openid_user(&self, token: &str) -> Result<Option<OwnedUserId>, Failure> {
        let expires = token
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('_'))
            .and_then(|(expires, _)| expires.parse::<u64>().ok())
            .filter(|expires| *expires > self.now().0);
        let Some(expires) = expires else {
            return Ok(None);
        };
        let (accounts, key) = (self.clone(), (expires, hash(token.as_bytes())));
        let read = move |view: &View| -> Result<Option<OwnedUserId>, Failure> {
            let Some(row) = view.get::<OpenIdTokens>(&key)? else {
                return Ok(None);
            };
            match accounts.account(view, row.user)? {
                Some(account) if !account.deactivated => {
                    Ok(Some(accounts.0.interner.user_id(view, row.user)?))
                }
                _ => Ok(None),
            }
        };
        self.0.store.read(read).await
    }
}
