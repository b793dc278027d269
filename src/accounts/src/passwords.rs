//! Hashing and checking passwords: argon2id, on the blocking pool, a few at a time.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, PasswordHash, PasswordVerifier, Version,
    password_hash::{PasswordHasher, SaltString},
};
use myelin_types::Random;
use tokio::sync::Semaphore;

use crate::{Accounts, Failure, HashCost, Secret};

/// The longest password, in bytes: what is hashed before anybody has proved anything must be small.
const MAX_PASSWORD: usize = 512;

/// Why a password cannot be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordRefused {
    /// It has fewer characters than the operator asks for. (`M_WEAK_PASSWORD`)
    #[error("the password must have at least {0} characters")]
    TooShort(usize),
    /// It has more than 512 bytes. (`M_INVALID_PARAM`)
    #[error("the password is too long")]
    TooLong,
}

/// Hashes passwords. Waiting for a turn is unbounded here: whoever lets strangers in limits their rate.
pub(crate) struct Hasher {
    argon2: Argon2<'static>,
    turns: Arc<Semaphore>,
    random: Arc<dyn Random>,
}

impl Hasher {
    /// None if argon2id does not allow `cost`.
    pub(crate) fn new(cost: HashCost, turns: Semaphore, random: Arc<dyn Random>) -> Option<Self> {
        let params = Params::new(cost.memory_kib, cost.passes, 1, None).ok()?;
        Some(Self {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            turns: Arc::new(turns),
            random,
        })
    }

    /// The PHC string that stands for `password`.
    pub(crate) async fn hash(&self, password: Secret) -> Result<String, Failure> {
        let mut salt = [0; 16];
        self.random.fill(&mut salt);
        let argon2 = self.argon2.clone();
        self.run(move || {
            let salt = SaltString::encode_b64(&salt).ok()?;
            let hash = argon2.hash_password(password.expose().as_bytes(), &salt);
            hash.ok().map(|hash| hash.to_string())
        })
        .await?
        .ok_or(Failure::Hash)
    }

    /// Whether `password` is the one behind `hash`. Takes as long without a hash as with one, so that the time does not
    /// tell which users there are.
    pub(crate) async fn verify(
        &self,
        hash: Option<String>,
        password: Secret,
    ) -> Result<bool, Failure> {
        if password.expose().len() > MAX_PASSWORD {
            return Ok(false);
        }
        let argon2 = self.argon2.clone();
        self.run(move || {
            let password = password.expose().as_bytes();
            match hash.as_deref().map(PasswordHash::new) {
                Some(Ok(hash)) => Some(argon2.verify_password(password, &hash).is_ok()),
                // A stored hash that cannot be read is damage, not a wrong password.
                Some(Err(_)) => None,
                None => {
                    let mut nobody = [0; 32];
                    let burnt = argon2.hash_password_into(password, &[0; 16], &mut nobody);
                    burnt.ok().map(|()| false)
                }
            }
        })
        .await?
        .ok_or(Failure::Hash)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|_| Failure::Hash)?;
        let run = tokio::task::spawn_blocking(move || {
            // The turn ends with the work, even if nobody waits for it any more.
            let _turn = turn;
            work()
        });
        run.await.map_err(|_| Failure::Hash)
    }
}

impl Accounts {
    /// Whether `password` may be chosen. Call it before user-interactive authentication, so that nobody authenticates
    /// in vain.
    pub fn check_new_password(&self, password: &Secret) -> Result<(), PasswordRefused> {
        let min = self.0.settings.password_min_length;
        if password.expose().len() > MAX_PASSWORD {
            return Err(PasswordRefused::TooLong);
        }
        if password.expose().chars().count() < min {
            return Err(PasswordRefused::TooShort(min));
        }
        Ok(())
    }
}
