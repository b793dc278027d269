//! Who makes a request: access tokens, and the memory of them between requests.
//!
//! The memory is exact: once the end of a session is committed, no request is let in by it. The committer tells us of
//! every batch that ends sessions before it answers the one who wanted them ended, so that also a caller who went away
//! meanwhile, or a second writer, cannot leave a stale entry behind.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use myelin_data::{
    accounts::{AccessToken, AccessTokens, Accounts as AccountRows, Device, Devices, TokenKind},
    topic::Changed,
};
use myelin_store::{Batch, CommitError, Observer, StoreError, Topic};
use myelin_types::{Millis, Pos, UserNum};
use quick_cache::sync::Cache;
use ruma::{OwnedDeviceId, OwnedUserId};

use crate::{Accounts, Failure, secret::hash, sessions::revoke_token};

/// How stale a device's "last seen" may become: a busy device costs one small write in this time.
const LAST_SEEN_EVERY: Duration = Duration::from_mins(5);

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// Whose session it is.
    pub user_id: OwnedUserId,
    /// The same as a number.
    pub user: UserNum,
    /// The device of the session.
    pub device_id: OwnedDeviceId,
    /// Whether he administers this server.
    pub admin: bool,
}

/// Why a token lets nobody in.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    /// It was never given out, or its session was ended. (`M_UNKNOWN_TOKEN`)
    #[error("unknown access token")]
    Unknown,
    /// It must be refreshed. (`M_UNKNOWN_TOKEN` with `soft_logout`)
    #[error("the access token has expired")]
    Expired,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(AuthenticateError);

/// A session that was looked up.
struct Known {
    requester: Arc<Requester>,
    expires_at: Option<Millis>,
    epoch: u64,
    last_seen_at: AtomicU64,
}

/// How many users share an epoch with each other: few enough, so that one user's logout hardly ever costs another a
/// look-up.
const EPOCHS: usize = 1024;

/// The sessions that were looked up, by the hash of their access token.
///
/// An entry counts while the epoch of its user is the one in which it was read. Users share a fixed number of epochs,
/// so that nothing here grows with the number of users.
pub(crate) struct TokenCache {
    known: Cache<[u8; 32], Arc<Known>>,
    epochs: Vec<AtomicU64>,
    /// Raised *before* an epoch is, so that a reader who finds it as it was has read an epoch that was current.
    changes: AtomicU64,
}

impl TokenCache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            known: Cache::new(capacity),
            epochs: std::iter::repeat_with(AtomicU64::default)
                .take(EPOCHS)
                .collect(),
            changes: AtomicU64::new(0),
        }
    }

    fn epoch(&self, user: UserNum) -> &AtomicU64 {
        &self.epochs[user.0 as usize % EPOCHS]
    }

    fn get(&self, hash: &[u8; 32]) -> Option<Arc<Known>> {
        let known = self.known.get(hash)?;
        if known.epoch == self.epoch(known.requester.user).load(Ordering::SeqCst) {
            return Some(known);
        }
        self.known.remove(hash);
        None
    }

    /// Remembers what was read from a view that was taken after `changes` were counted.
    fn keep(&self, hash: [u8; 32], changes: u64, found: Found) -> Arc<Known> {
        let epoch = self.epoch(found.requester.user).load(Ordering::SeqCst);
        let known = Arc::new(Known {
            requester: Arc::new(found.requester),
            expires_at: found.token.expires_at,
            epoch,
            last_seen_at: AtomicU64::new(found.last_seen_at.0),
        });
        if self.changes.load(Ordering::SeqCst) == changes {
            self.known.insert(hash, Arc::clone(&known));
        }
        known
    }
}

impl Observer for TokenCache {
    fn committed(&self, _: Pos, topics: &[Topic]) {
        for topic in topics {
            if let Some(Changed::Sessions(user)) = Changed::from_topic(*topic) {
                self.changes.fetch_add(1, Ordering::SeqCst);
                self.epoch(user).fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

/// What the store says of a token.
struct Found {
    token: AccessToken,
    requester: Requester,
    last_seen_at: Millis,
}

impl Accounts {
    /// Who `token` lets in, coming from `ip`.
    pub async fn authenticate(
        &self,
        token: &str,
        ip: Option<IpAddr>,
    ) -> Result<Arc<Requester>, AuthenticateError> {
        let hash = hash(token.as_bytes());
        let now = self.now();
        let known = match self.0.tokens.get(&hash) {
            Some(known) => known,
            None => self.look_up(hash, now).await?,
        };
        if known.expires_at.is_some_and(|expires| expires <= now) {
            return Err(AuthenticateError::Expired);
        }
        let seen = known.last_seen_at.load(Ordering::Relaxed);
        if now.since(Millis(seen)) >= LAST_SEEN_EVERY
            && known
                .last_seen_at
                .compare_exchange(seen, now.0, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.note_seen(&known.requester, ip, now).await?;
        }
        Ok(Arc::clone(&known.requester))
    }

    async fn look_up(&self, hash: [u8; 32], now: Millis) -> Result<Arc<Known>, AuthenticateError> {
        loop {
            let changes = self.0.tokens.changes.load(Ordering::SeqCst);
            let found = self.find(hash).await?.ok_or(AuthenticateError::Unknown)?;
            let expired = found.token.expires_at.is_some_and(|expires| expires <= now);
            match found.token.replaces_refresh {
                Some(replaced) if !expired => match self.first_use(hash, replaced, &found).await {
                    // Somebody else used it first, or ended the session: look again.
                    Ok(()) | Err(CommitError::Expectation { .. }) => {}
                    Err(error) => return Err(error.into()),
                },
                _ => return Ok(self.0.tokens.keep(hash, changes, found)),
            }
        }
    }

    async fn find(&self, hash: [u8; 32]) -> Result<Option<Found>, StoreError> {
        let interner = self.0.interner.clone();
        self.0
            .store
            .read(move |view| {
                let Some(token) = view.get::<AccessTokens>(&hash)? else {
                    return Ok(None);
                };
                let device = (token.user, token.device_id.clone());
                let (Some(account), Some(device)) = (
                    view.get::<AccountRows>(&token.user)?,
                    view.get::<Devices>(&device)?,
                ) else {
                    return Ok(None);
                };
                if account.deactivated {
                    return Ok(None);
                }
                let requester = Requester {
                    user_id: interner.user_id(view, token.user)?,
                    user: token.user,
                    device_id: token.device_id.as_str().into(),
                    admin: account.admin,
                };
                Ok(Some(Found {
                    requester,
                    last_seen_at: device.last_seen_at.unwrap_or_default(),
                    token,
                }))
            })
            .await
    }

    /// Revokes the refresh token whose answer this access token came with: it has arrived. Spec: client-server API,
    /// "Refreshing access tokens".
    async fn first_use(
        &self,
        hash: [u8; 32],
        replaced: [u8; 32],
        found: &Found,
    ) -> Result<(), CommitError> {
        let mut batch = Batch::new();
        batch.expect::<AccessTokens>(&hash, Some(&found.token));
        let used = AccessToken {
            replaces_refresh: None,
            ..found.token.clone()
        };
        batch.put::<AccessTokens>(&hash, &used);
        let (user, device_id) = (found.token.user, &found.token.device_id);
        revoke_token(&mut batch, user, device_id, TokenKind::Refresh, replaced);
        self.0.store.commit(batch).await.map(drop)
    }

    /// Writes when and from where a device was last heard. Nobody waits for the write, and it may be lost.
    async fn note_seen(
        &self,
        requester: &Requester,
        ip: Option<IpAddr>,
        now: Millis,
    ) -> Result<(), StoreError> {
        let key = (requester.user, requester.device_id.to_string());
        let row = {
            let key = key.clone();
            self.0
                .store
                .read(move |view| view.get::<Devices>(&key))
                .await?
        };
        if let Some(device) = row {
            let mut batch = Batch::new();
            batch.expect::<Devices>(&key, Some(&device));
            let seen = Device {
                last_seen_at: Some(now),
                last_seen_ip: ip.map(|ip| ip.to_string()).or(device.last_seen_ip.clone()),
                ..device
            };
            batch.put::<Devices>(&key, &seen);
            drop(self.0.store.commit(batch));
        }
        Ok(())
    }
}
