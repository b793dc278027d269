//! Registration. Spec: client-server API, "Account registration".

use myelin_store::{Batch, Step};
use myelin_types::UserNum;
use ruma::OwnedUserId;

use crate::{
    Accounts, Failure, NewSession, PasswordRefused, Registration, Secret, Session,
    names::{NameError, generated_localpart, new_user_id},
    registration_tokens::use_token,
    sessions::{DeviceTooLong, PreparedSession},
    uia::{Flow, Passed, Stage},
    users::claim,
};

/// What somebody wants who registers.
#[derive(Clone, Debug)]
pub struct Registering {
    /// The name he would like; none for a generated one. Capitals become small letters.
    pub username: Option<String>,
    /// His password.
    pub password: Option<Secret>,
    /// The session to open at once; none for `inhibit_login`.
    pub session: Option<NewSession>,
}

/// A new account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its id.
    pub user_id: OwnedUserId,
    /// The same as a number.
    pub user: UserNum,
    /// Its first session, if one was wanted.
    pub session: Option<Session>,
}

/// Why somebody may not register.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Nobody may. (`M_FORBIDDEN`)
    #[error("registration is closed on this server")]
    Closed,
    /// The name cannot be had.
    #[error(transparent)]
    Name(NameError),
    /// There is no password. (`M_MISSING_PARAM`)
    #[error("a password is required")]
    PasswordMissing,
    /// The password cannot be chosen.
    #[error(transparent)]
    Password(#[from] PasswordRefused),
    /// There is no registration token where one is needed, or it was used up, expired or deleted after it had been
    /// checked. (`M_FORBIDDEN`)
    #[error("the registration token is not valid any more")]
    TokenSpent,
    /// The device id or its display name is too long. (`M_INVALID_PARAM`)
    #[error("the device id or its display name is too long")]
    DeviceTooLong,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(RegisterError);

impl From<NameError> for RegisterError {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Failed(failure) => Self::Failed(failure),
            refused @ (NameError::Invalid | NameError::InUse) => Self::Name(refused),
        }
    }
}

impl From<DeviceTooLong> for RegisterError {
    fn from(_: DeviceTooLong) -> Self {
        Self::DeviceTooLong
    }
}

impl Accounts {
    /// What somebody must go through to register; none if nobody may.
    pub fn registration_flows(&self) -> Option<Vec<Flow>> {
        match self.0.settings.registration {
            Registration::Closed => None,
            Registration::Token(_) => Some(vec![Flow(vec![Stage::RegistrationToken])]),
            Registration::Open => Some(vec![Flow(vec![Stage::Dummy])]),
        }
    }

    /// Makes the account of somebody who went through one of [`registration_flows`](Accounts::registration_flows).
    ///
    /// The spec wants the name to be checked before that too: [`check_username`](Accounts::check_username).
    pub async fn register(
        &self,
        wanted: Registering,
        passed: Passed,
    ) -> Result<Registered, RegisterError> {
        match self.0.settings.registration {
            Registration::Closed => return Err(RegisterError::Closed),
            Registration::Token(_) if passed.registration_token.is_none() => {
                return Err(RegisterError::TokenSpent);
            }
            Registration::Token(_) | Registration::Open => {}
        }
        let password = wanted.password.ok_or(RegisterError::PasswordMissing)?;
        self.check_new_password(&password)?;
        if let Some(name) = &wanted.username {
            // Before the password costs us anything.
            self.check_username(name).await?;
        }
        let prepared = match wanted.session {
            Some(session) => Some(self.prepare_session(session)?),
            None => None,
        };
        let mut account = self.new_account(Some(password), false).await?;
        account.sessions = u64::from(prepared.is_some());

        loop {
            let localpart = match &wanted.username {
                Some(name) => name.clone(),
                None => generated_localpart(&*self.0.random),
            };
            let user_id =
                new_user_id(&localpart, &self.0.settings.server_name).ok_or(NameError::Invalid)?;
            let user = self
                .0
                .interner
                .user(&user_id)
                .await
                .map_err(Failure::from)?;
            let (account, prepared) = (account.clone(), prepared.clone());
            match self
                .claim_name(user, account, prepared.clone(), &passed)
                .await
            {
                // Somebody else drew the same lot.
                Err(RegisterError::Name(NameError::InUse)) if wanted.username.is_none() => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    let session =
                        prepared.map(|prepared| prepared.into_session(user, user_id.clone()));
                    return Ok(Registered {
                        user_id,
                        user,
                        session,
                    });
                }
            }
        }
    }

    async fn claim_name(
        &self,
        user: UserNum,
        account: myelin_data::accounts::Account,
        session: Option<PreparedSession>,
        passed: &Passed,
    ) -> Result<(), RegisterError> {
        let token = passed.registration_token.clone();
        let token = token.filter(|token| !self.is_operators_token(token));
        let now = self.now();
        self.0
            .store
            .change(move |view| {
                let mut batch = Batch::new();
                claim(view, &mut batch, user, &account)?;
                if let Some(session) = &session {
                    session.write(view, &mut batch, user)?;
                }
                if let Some(token) = &token {
                    use_token(view, &mut batch, token.expose(), now)?;
                }
                Ok::<_, RegisterError>(Step::write(batch, ()))
            })
            .await
    }
}
