//! Opening and ending sessions: what a login writes, and what takes it away again.

use std::time::Duration;

use myelin_data::{
    Present,
    accounts::{
        AccessToken, AccessTokens, Account, Accounts as AccountRows, Device, DeviceTokens, Devices,
        RefreshToken, RefreshTokens, TokenKind, Transactions,
    },
    dehydrated::forget_dehydrated,
    e2ee::{forget_devices, forget_user},
    topic::Changed,
};
use myelin_store::{Batch, Scan, StoreError, View};
use myelin_types::{Millis, UserNum};
use ruma::{OwnedDeviceId, OwnedUserId};

use crate::{
    Accounts, Secret,
    account_data::delete_notification_settings,
    names::{MAX_DEVICE_ID, MAX_DEVICE_NAME, generated_device_id},
};

/// What a client wants of a new session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewSession {
    /// The device to log in; none or empty for a new one. The sessions that a known device had are ended.
    pub device_id: Option<String>,
    /// The name of the device, if it is a new one.
    pub device_display_name: Option<String>,
    /// Whether the client can refresh its access token. If so the token expires.
    pub refreshable: bool,
}

/// A session, as its client learns of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whose it is.
    pub user_id: OwnedUserId,
    /// The same as a number.
    pub user: UserNum,
    /// The device that was logged in.
    pub device_id: OwnedDeviceId,
    /// The token to make requests with.
    pub access_token: Secret,
    /// The token to get a new pair with, if the client asked for one.
    pub refresh_token: Option<Secret>,
    /// How long the access token lives; for ever if there is no refresh token.
    pub expires_in: Option<Duration>,
}

/// A device id or name that is too long to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceTooLong;

/// A session with everything chosen, ready to be written.
#[derive(Clone, Debug)]
pub(crate) struct PreparedSession {
    pub(crate) device_id: String,
    display_name: Option<String>,
    pub(crate) access_token: Secret,
    pub(crate) refresh_token: Option<Secret>,
    now: Millis,
    pub(crate) lifetime: Option<Duration>,
}

impl PreparedSession {
    pub(crate) fn into_session(self, user: UserNum, user_id: OwnedUserId) -> Session {
        Session {
            user_id,
            user,
            device_id: OwnedDeviceId::from(self.device_id),
            access_token: self.access_token,
            refresh_token: self.refresh_token,
            expires_in: self.lifetime,
        }
    }

    /// Writes the session of `user` into `batch`. The caller writes the account with [`Account::sessions`] raised.
    pub(crate) fn write(
        &self,
        view: &View,
        batch: &mut Batch,
        user: UserNum,
    ) -> Result<(), StoreError> {
        let device = (user, self.device_id.clone());
        if view.contains::<Devices>(&device)? {
            revoke_tokens(view, batch, user, &self.device_id)?;
            forget_dehydrated(view, batch, user, &self.device_id)?;
        } else {
            let row = Device {
                display_name: self.display_name.clone(),
                created_at: self.now,
                last_seen_at: None,
                last_seen_ip: None,
            };
            batch.put::<Devices>(&device, &row);
        }
        let pair = Pair {
            access: self.access_token.hash(),
            refresh: self.refresh_token.as_ref().map(Secret::hash),
            expires_at: self.lifetime.map(|lifetime| self.now.after(lifetime)),
            replaces: None,
        };
        pair.write(batch, user, &self.device_id);
        Ok(())
    }
}

/// The rows of an access token and of the refresh token that goes with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) access: [u8; 32],
    pub(crate) refresh: Option<[u8; 32]>,
    pub(crate) expires_at: Option<Millis>,
    /// The refresh token that the pair was given out for.
    pub(crate) replaces: Option<[u8; 32]>,
}

impl Pair {
    pub(crate) fn write(&self, batch: &mut Batch, user: UserNum, device_id: &str) {
        let row = AccessToken {
            user,
            device_id: device_id.to_owned(),
            expires_at: self.expires_at,
            replaces_refresh: self.replaces,
        };
        batch.put::<AccessTokens>(&self.access, &row);
        let index = (user, device_id.to_owned(), TokenKind::Access, self.access);
        batch.put::<DeviceTokens>(&index, &Present);
        if let Some(refresh) = self.refresh {
            let row = RefreshToken {
                user,
                device_id: device_id.to_owned(),
                access: self.access,
                successor: None,
                replaces: self.replaces,
            };
            batch.put::<RefreshTokens>(&refresh, &row);
            let index = (user, device_id.to_owned(), TokenKind::Refresh, refresh);
            batch.put::<DeviceTokens>(&index, &Present);
        }
    }
}

/// Deletes one token.
pub(crate) fn revoke_token(
    batch: &mut Batch,
    user: UserNum,
    device_id: &str,
    kind: TokenKind,
    hash: [u8; 32],
) {
    match kind {
        TokenKind::Access => batch.delete::<AccessTokens>(&hash),
        TokenKind::Refresh => batch.delete::<RefreshTokens>(&hash),
    }
    batch.delete::<DeviceTokens>(&(user, device_id.to_owned(), kind, hash));
}

/// Deletes the tokens of a device. The batch must expect the account, and ends with [`sessions_ended`].
pub(crate) fn revoke_tokens(
    view: &View,
    batch: &mut Batch,
    user: UserNum,
    device_id: &str,
) -> Result<(), StoreError> {
    for key in view.keys::<DeviceTokens>(Scan::prefix(&(user, device_id.to_owned()))) {
        let (_, _, kind, hash) = key?;
        revoke_token(batch, user, device_id, kind, hash);
    }
    sessions_ended(batch, user);
    Ok(())
}

/// Deletes devices with their tokens, the answers to their transactions, the account data that is about them, their keys and
/// the messages to them. The batch must expect the account.
pub(crate) fn delete_devices(
    view: &View,
    batch: &mut Batch,
    user: UserNum,
    device_ids: &[String],
) -> Result<(), StoreError> {
    delete_sessions(view, batch, user, device_ids)?;
    forget_devices(view, batch, user, device_ids)
}

/// Deletes devices as far as they are sessions: what they have to do with encryption is left.
fn delete_sessions(
    view: &View,
    batch: &mut Batch,
    user: UserNum,
    device_ids: &[String],
) -> Result<(), StoreError> {
    for device_id in device_ids {
        let device = (user, device_id.clone());
        revoke_tokens(view, batch, user, device_id)?;
        batch.delete::<Devices>(&device);
        batch.delete_prefix::<Transactions>(&device);
        delete_notification_settings(view, batch, user, device_id)?;
        forget_dehydrated(view, batch, user, device_id)?;
    }
    Ok(())
}

/// Deletes all devices of a user but `kept`. The batch must expect the account. Returns the ids of those deleted.
pub(crate) fn delete_devices_except(
    view: &View,
    batch: &mut Batch,
    user: UserNum,
    kept: Option<&str>,
) -> Result<Vec<OwnedDeviceId>, StoreError> {
    let mut all = device_ids(view, user)?;
    all.retain(|device_id| Some(device_id.as_str()) != kept);
    delete_devices(view, batch, user, &all)?;
    Ok(all.into_iter().map(OwnedDeviceId::from).collect())
}

/// Deletes all devices of a user and his cross-signing keys. The batch must expect the account. Returns the devices' ids.
pub(crate) fn delete_identity(
    view: &View,
    batch: &mut Batch,
    user: UserNum,
) -> Result<Vec<OwnedDeviceId>, StoreError> {
    let all = device_ids(view, user)?;
    delete_sessions(view, batch, user, &all)?;
    forget_user(view, batch, user, &all)?;
    Ok(all.into_iter().map(OwnedDeviceId::from).collect())
}

fn device_ids(view: &View, user: UserNum) -> Result<Vec<String>, StoreError> {
    view.keys::<Devices>(Scan::prefix(&user))
        .map(|key| key.map(|(_, device_id)| device_id))
        .collect()
}

/// Names those who must hear that sessions of `user` have ended or that their rights have changed.
pub(crate) fn sessions_ended(batch: &mut Batch, user: UserNum) {
    batch.touch(Changed::Sessions(user).into());
}

/// Expects the account as it was read and writes it with one more session.
pub(crate) fn count_session(batch: &mut Batch, user: UserNum, account: &Account) {
    batch.expect::<AccountRows>(&user, Some(account));
    let counted = Account {
        sessions: account.sessions + 1,
        ..account.clone()
    };
    batch.put::<AccountRows>(&user, &counted);
}

impl Accounts {
    /// Chooses what the client left open.
    pub(crate) fn prepare_session(
        &self,
        wanted: NewSession,
    ) -> Result<PreparedSession, DeviceTooLong> {
        let random = &*self.0.random;
        let device_id = match wanted.device_id {
            Some(id) if !id.is_empty() => id,
            _ => generated_device_id(random),
        };
        let name_length = wanted.device_display_name.as_ref().map_or(0, String::len);
        if device_id.len() > MAX_DEVICE_ID || name_length > MAX_DEVICE_NAME {
            return Err(DeviceTooLong);
        }
        Ok(PreparedSession {
            device_id,
            display_name: wanted.device_display_name,
            access_token: Secret::access_token(random),
            refresh_token: wanted.refreshable.then(|| Secret::refresh_token(random)),
            now: self.now(),
            lifetime: wanted
                .refreshable
                .then_some(self.0.settings.access_token_lifetime),
        })
    }
}
