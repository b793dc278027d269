//! Users of this server, their sessions and what they keep with it.
//!
//! Is: accounts and passwords, registration, user-interactive authentication, logins, access and refresh tokens,
//! devices, profiles, account data, tags, filters and push rules.
//! Is not: HTTP, and knows no room: what a change means for rooms is returned, and the caller passes it on.
//!
//! Three rules hold everywhere:
//! - A change is one batch. Whatever it was decided by is expected in it, and a lost race is decided again.
//! - Everything that gives out a token raises [`Account::sessions`], and everything that ends sessions expects the
//!   account's row: a session that is opened while others are ended is either seen by that, or it fails.
//! - Reads are plain functions over a [`View`], so that a caller sees one moment of the server in all of them.

mod account_data;
mod devices;
mod failure;
mod filters;
mod identifier;
mod janitor;
mod login;
mod names;
mod openid;
mod passwords;
mod profile;
mod push_rules;
mod refresh;
mod registration;
mod registration_tokens;
mod requester;
mod secret;
mod sessions;
mod settings;
mod tags;
mod uia;
mod users;

use std::{fmt, sync::Arc};

use myelin_data::Interner;
use myelin_rules::push::Ruleset;
use myelin_store::{Store, View};
use myelin_types::{Clock, Pos, Random, UserNum};
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

pub use account_data::{
    AccountDataChange, AccountDataError, FULLY_READ, IGNORED_USERS, PUSH_RULES, TAGS,
    is_server_managed,
};
pub use devices::{DeviceError, DeviceInfo, LogoutError};
pub use failure::Failure;
pub use filters::{FilterError, MAX_FILTERS};
pub use identifier::Identifier;
pub use login::{Login, LoginError};
pub use myelin_data::accounts::{Account, RegistrationToken};
pub use names::NameError;
pub use openid::OPENID_TOKEN_LIFETIME;
pub use passwords::PasswordRefused;
pub use profile::{AVATAR_URL, DISPLAY_NAME, Profile, ProfileError, check_profile_key};
pub use push_rules::PushRuleError;
pub use refresh::{RefreshError, Refreshed};
pub use registration::{RegisterError, Registered, Registering};
pub use registration_tokens::TokenError;
pub use requester::{AuthenticateError, Requester};
pub use secret::Secret;
pub use sessions::{NewSession, Session};
pub use settings::{HashCost, Registration, Settings};
pub use tags::TagError;
pub use uia::{Challenge, Flow, Operation, Passed, Stage, StageFailure, UiaError};
pub use users::{CreateError, Deactivation, SetPasswordError, User};

/// Why the accounts of a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The cost of password hashes is outside of what argon2id allows.
    #[error("the cost of password hashes is out of range")]
    HashCost,
}

/// The accounts of one server. Cheap to clone.
#[derive(Clone)]
pub struct Accounts(Arc<Inner>);

struct Inner {
    store: Store,
    interner: Interner,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    settings: Settings,
    hasher: passwords::Hasher,
    tokens: Arc<requester::TokenCache>,
    uia: uia::Sessions,
    rulesets: Cache<(UserNum, Pos), Arc<Ruleset>>,
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts").finish_non_exhaustive()
    }
}

impl Accounts {
    /// The accounts in `store`, whose users `interner` numbers.
    ///
    /// # Errors
    /// When `settings` ask for something impossible.
    pub fn open(
        store: Store,
        interner: Interner,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        settings: Settings,
    ) -> Result<Accounts, OpenError> {
        let hasher = passwords::Hasher::new(
            settings.hash_cost,
            Semaphore::new(settings.hashes_at_once.max(1)),
            Arc::clone(&random),
        )
        .ok_or(OpenError::HashCost)?;
        let tokens = Arc::new(requester::TokenCache::new(settings.remembered_sessions));
        // Before the first token can be remembered, so that no end of a session is missed.
        store.observe(Arc::clone(&tokens) as Arc<dyn myelin_store::Observer>);
        Ok(Accounts(Arc::new(Inner {
            uia: uia::Sessions::new(settings.uia_lifetime),
            rulesets: Cache::new(settings.remembered_rulesets),
            store,
            interner,
            clock,
            random,
            settings,
            hasher,
            tokens,
        })))
    }

    /// What these accounts were opened with.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The rows as they are now.
    pub fn view(&self) -> View {
        self.0.store.view()
    }

    fn now(&self) -> myelin_types::Millis {
        self.0.clock.now()
    }
}
