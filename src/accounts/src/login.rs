//! Logging in by password. Spec: client-server API, "Login".

use myelin_data::accounts::{Account, Accounts as AccountRows};
use myelin_store::{Batch, Step, StoreError};
use myelin_types::UserNum;
use ruma::OwnedUserId;

use crate::{
    Accounts, Failure, Identifier, NewSession, Secret, Session,
    sessions::{DeviceTooLong, PreparedSession, count_session},
};

/// `m.login.password`.
#[derive(Clone, Debug)]
pub struct Login {
    /// Who logs in.
    pub identifier: Identifier,
    /// His password.
    pub password: Secret,
    /// What he wants of the session.
    pub session: NewSession,
}

/// Why somebody may not log in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// There is no such user, his password is another, or he was deactivated: nobody learns which. (`M_FORBIDDEN`)
    #[error("the user name or the password is wrong")]
    Refused,
    /// The device id or its display name is too long. (`M_INVALID_PARAM`)
    #[error("the device id or its display name is too long")]
    DeviceTooLong,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(LoginError);

impl From<DeviceTooLong> for LoginError {
    fn from(_: DeviceTooLong) -> Self {
        Self::DeviceTooLong
    }
}

impl Accounts {
    /// Opens a session for whoever knows the password. A device that is logged in again loses its old tokens and keeps
    /// its name and its transactions.
    pub async fn login(&self, login: Login) -> Result<Session, LoginError> {
        let prepared = self.prepare_session(login.session)?;
        let checked = self
            .check_password(&login.identifier, login.password)
            .await?
            .ok_or(LoginError::Refused)?;
        let hash = checked.account.password_hash;
        self.open_session(checked.user, hash, prepared.clone())
            .await?;
        Ok(prepared.into_session(checked.user, checked.user_id))
    }

    /// Opens a session for `user` without asking for a password, as an operator or a login token may.
    pub async fn login_as(
        &self,
        user: UserNum,
        user_id: OwnedUserId,
        session: NewSession,
    ) -> Result<Session, LoginError> {
        let prepared = self.prepare_session(session)?;
        let hash = self
            .0
            .store
            .read(move |view| view.get::<AccountRows>(&user))
            .await?
            .ok_or(LoginError::Refused)?
            .password_hash;
        self.open_session(user, hash, prepared.clone()).await?;
        Ok(prepared.into_session(user, user_id))
    }

    /// Writes the session while the account still has the password hash that was checked.
    async fn open_session(
        &self,
        user: UserNum,
        hash: Option<String>,
        prepared: PreparedSession,
    ) -> Result<(), LoginError> {
        self.0
            .store
            .change(move |view| {
                let account = view
                    .get::<AccountRows>(&user)?
                    .filter(|account| !account.deactivated && account.password_hash == hash)
                    .ok_or(LoginError::Refused)?;
                let mut batch = Batch::new();
                count_session(&mut batch, user, &account);
                prepared.write(view, &mut batch, user)?;
                Ok(Step::write(batch, ()))
            })
            .await
    }

    /// The account that `identifier` names, if `password` is its password.
    pub(crate) async fn check_password(
        &self,
        identifier: &Identifier,
        password: Secret,
    ) -> Result<Option<Checked>, Failure> {
        let found = self.find_account(identifier).await?;
        let hash = found
            .as_ref()
            .and_then(|found| found.account.password_hash.clone());
        let right = self.0.hasher.verify(hash, password).await?;
        Ok(found.filter(|found| right && !found.account.deactivated))
    }

    async fn find_account(&self, identifier: &Identifier) -> Result<Option<Checked>, StoreError> {
        let candidates = identifier.candidates(&self.0.settings.server_name);
        let interner = self.0.interner.clone();
        self.0
            .store
            .read(move |view| {
                for user_id in &candidates {
                    let Some(user) = interner.find_user(view, user_id)? else {
                        continue;
                    };
                    if let Some(account) = view.get::<AccountRows>(&user)? {
                        return Ok(Some(Checked {
                            user,
                            user_id: user_id.clone(),
                            account,
                        }));
                    }
                }
                Ok(None)
            })
            .await
    }
}

/// An account whose password was checked.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) user: UserNum,
    pub(crate) user_id: OwnedUserId,
    pub(crate) account: Account,
}
