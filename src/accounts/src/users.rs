//! Accounts as the operator sees them, passwords, and the end of an account.

use myelin_data::{
    accounts::{
        Account, AccountData, AccountDataByPos, Accounts as AccountRows, Filters, Profiles,
    },
    backups::forget_backups,
    topic::Changed,
};
use myelin_store::{Batch, Scan, Step, StoreError, View};
use myelin_types::{Millis, UserNum};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use crate::{
    Accounts, Failure, PasswordRefused, Secret,
    names::{NameError, new_user_id},
    sessions::{delete_devices_except, delete_identity, sessions_ended},
};

/// A local user, for lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// His id.
    pub user_id: OwnedUserId,
    /// The same as a number.
    pub user: UserNum,
    /// When he registered.
    pub created_at: Millis,
    /// Whether he administers this server.
    pub admin: bool,
    /// Whether his account was deactivated.
    pub deactivated: bool,
}

/// Why an account could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The name cannot be had.
    #[error(transparent)]
    Name(NameError),
    /// The password cannot be chosen.
    #[error(transparent)]
    Password(#[from] PasswordRefused),
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(CreateError);

impl From<NameError> for CreateError {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Failed(failure) => Self::Failed(failure),
            refused @ (NameError::Invalid | NameError::InUse) => Self::Name(refused),
        }
    }
}

/// Why a password was not changed.
#[derive(Debug, thiserror::Error)]
pub enum SetPasswordError {
    /// The password cannot be chosen.
    #[error(transparent)]
    Password(#[from] PasswordRefused),
    /// There is no such account, or it was deactivated. (`M_FORBIDDEN`)
    #[error("there is no such account")]
    NoAccount,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(SetPasswordError);

/// Why an account was not deactivated, or changed by the operator.
#[derive(Debug, thiserror::Error)]
pub enum Deactivation {
    /// There is no such account. (`M_NOT_FOUND`)
    #[error("there is no such account")]
    NoAccount,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(Deactivation);

impl Accounts {
    /// Whether `name` could be registered now: legal, and nobody's.
    pub async fn check_username(&self, name: &str) -> Result<(), NameError> {
        let user_id = new_user_id(name, &self.0.settings.server_name).ok_or(NameError::Invalid)?;
        match self.local_user(&user_id).await? {
            Some(_) => Err(NameError::InUse),
            None => Ok(()),
        }
    }

    /// The number of a local user who has an account, deactivated or not.
    pub async fn local_user(&self, user_id: &UserId) -> Result<Option<UserNum>, Failure> {
        let accounts = self.clone();
        let user_id = user_id.to_owned();
        let found = self
            .0
            .store
            .read(move |view| accounts.find_local_user(view, &user_id))
            .await?;
        Ok(found.map(|(user, _)| user))
    }

    /// The number and account of a local user, deactivated or not.
    pub fn find_local_user(
        &self,
        view: &View,
        user_id: &UserId,
    ) -> Result<Option<(UserNum, Account)>, StoreError> {
        if user_id.server_name() != self.0.settings.server_name {
            return Ok(None);
        }
        let Some(user) = self.0.interner.find_user(view, user_id)? else {
            return Ok(None);
        };
        Ok(view
            .get::<AccountRows>(&user)?
            .map(|account| (user, account)))
    }

    /// The account of a local user; none for remote users.
    pub fn account(&self, view: &View, user: UserNum) -> Result<Option<Account>, StoreError> {
        view.get::<AccountRows>(&user)
    }

    /// Makes an account on behalf of the operator. Without a password nobody can log in to it by one.
    pub async fn create_user(
        &self,
        localpart: &str,
        password: Option<Secret>,
        admin: bool,
    ) -> Result<OwnedUserId, CreateError> {
        let user_id =
            new_user_id(localpart, &self.0.settings.server_name).ok_or(NameError::Invalid)?;
        if let Some(password) = &password {
            self.check_new_password(password)?;
        }
        self.check_username(localpart).await?;
        let account = self.new_account(password, admin).await?;
        let user = self
            .0
            .interner
            .user(&user_id)
            .await
            .map_err(Failure::from)?;
        self.0
            .store
            .change(move |view| {
                let mut batch = Batch::new();
                claim(view, &mut batch, user, &account)?;
                Ok::<_, CreateError>(Step::write(batch, ()))
            })
            .await?;
        Ok(user_id)
    }

    /// An account that nobody has yet.
    pub(crate) async fn new_account(
        &self,
        password: Option<Secret>,
        admin: bool,
    ) -> Result<Account, Failure> {
        let password_hash = match password {
            Some(password) => Some(self.0.hasher.hash(password).await?),
            None => None,
        };
        Ok(Account {
            created_at: self.now(),
            password_hash,
            admin,
            deactivated: false,
            erased: false,
            sessions: 0,
        })
    }

    /// Up to `limit` local users after `after`, in the order in which they were first met.
    pub fn users(
        &self,
        view: &View,
        after: Option<UserNum>,
        limit: usize,
    ) -> Result<Vec<User>, StoreError> {
        let scan = match after {
            Some(after) => Scan::all().after(&after),
            None => Scan::all(),
        };
        let rows: Vec<(UserNum, Account)> = view
            .scan::<AccountRows>(scan.limit(limit))
            .collect::<Result<_, _>>()?;
        let nums: Vec<UserNum> = rows.iter().map(|(user, _)| *user).collect();
        let ids = self.0.interner.user_ids(view, &nums)?;
        Ok(ids
            .into_iter()
            .zip(rows)
            .map(|(user_id, (user, account))| User {
                user_id,
                user,
                created_at: account.created_at,
                admin: account.admin,
                deactivated: account.deactivated,
            })
            .collect())
    }

    /// Gives `user` another password. With `end_other_sessions` all his devices but `kept` are logged out in the same
    /// batch; returns their ids.
    pub async fn set_password(
        &self,
        user: UserNum,
        password: Secret,
        end_other_sessions: bool,
        kept: Option<&DeviceId>,
    ) -> Result<Vec<OwnedDeviceId>, SetPasswordError> {
        self.check_new_password(&password)?;
        let hash = self.0.hasher.hash(password).await?;
        let kept = kept.map(ToString::to_string);
        self.0
            .store
            .change(move |view| {
                let account = view
                    .get::<AccountRows>(&user)?
                    .filter(|account| !account.deactivated)
                    .ok_or(SetPasswordError::NoAccount)?;
                let mut batch = Batch::new();
                batch.expect::<AccountRows>(&user, Some(&account));
                let changed = Account {
                    password_hash: Some(hash.clone()),
                    ..account
                };
                batch.put::<AccountRows>(&user, &changed);
                let ended = if end_other_sessions {
                    delete_devices_except(view, &mut batch, user, kept.as_deref())?
                } else {
                    Vec::new()
                };
                Ok(Step::write(batch, ended))
            })
            .await
    }

    /// Makes `user` an administrator of this server, or no longer one. Holds for the next request.
    pub async fn set_admin(&self, user: UserNum, admin: bool) -> Result<(), Deactivation> {
        self.0
            .store
            .change(move |view| {
                let account = view
                    .get::<AccountRows>(&user)?
                    .ok_or(Deactivation::NoAccount)?;
                if account.admin == admin {
                    return Ok(Step::nothing(()));
                }
                let mut batch = Batch::new();
                batch.expect::<AccountRows>(&user, Some(&account));
                batch.put::<AccountRows>(&user, &Account { admin, ..account });
                sessions_ended(&mut batch, user);
                Ok(Step::write(batch, ()))
            })
            .await
    }

    /// Ends an account for good: no session, password, profile or key backup is left, and nobody else gets the name. With `erase`
    /// also what the user kept with the server goes. Leaving his rooms is up to the caller. Done twice it changes
    /// nothing, except that `erase` may be added. Returns the devices that were deleted.
    pub async fn deactivate(
        &self,
        user: UserNum,
        erase: bool,
    ) -> Result<Vec<OwnedDeviceId>, Deactivation> {
        self.0
            .store
            .change(move |view| {
                let account = view
                    .get::<AccountRows>(&user)?
                    .ok_or(Deactivation::NoAccount)?;
                if account.deactivated && (account.erased || !erase) {
                    return Ok(Step::nothing(Vec::new()));
                }
                let mut batch = Batch::new();
                batch.expect::<AccountRows>(&user, Some(&account));
                let ended = delete_identity(view, &mut batch, user)?;
                batch.delete::<Profiles>(&user);
                // Nobody is left who could read them.
                forget_backups(&mut batch, user);
                if erase {
                    batch.delete_prefix::<AccountData>(&user);
                    batch.delete_prefix::<AccountDataByPos>(&user);
                    batch.delete_prefix::<Filters>(&user);
                }
                let ended_account = Account {
                    password_hash: None,
                    admin: false,
                    deactivated: true,
                    erased: account.erased || erase,
                    ..account
                };
                batch.put::<AccountRows>(&user, &ended_account);
                sessions_ended(&mut batch, user);
                batch.touch(Changed::User(user).into());
                Ok(Step::write(batch, ended))
            })
            .await
    }
}

/// Writes a new account for `user`, if nobody has the name.
pub(crate) fn claim(
    view: &View,
    batch: &mut Batch,
    user: UserNum,
    account: &Account,
) -> Result<(), NameError> {
    if view.contains::<AccountRows>(&user)? {
        return Err(NameError::InUse);
    }
    batch.expect::<AccountRows>(&user, None);
    batch.put::<AccountRows>(&user, account);
    Ok(())
}
