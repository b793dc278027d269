//! What the operator decides about accounts.

use std::{num::NonZero, thread, time::Duration};

use myelin_config::RegistrationMode;
use ruma::OwnedServerName;

use crate::Secret;

/// Who may register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Nobody; accounts are made by the operator.
    Closed,
    /// Whoever has a registration token: this one, which never wears out, or one that is stored.
    Token(Option<Secret>),
    /// Anybody.
    Open,
}

/// What one password hash costs. Applies to new hashes; old ones are checked with the cost that they name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashCost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl HashCost {
    /// Of OWASP's recommendations for argon2id, which cost an attacker the same, the one with the least memory: 7 MiB, five
    /// passes.
    pub const RECOMMENDED: HashCost = HashCost {
        memory_kib: 7 * 1024,
        passes: 5,
    };

    /// The memory of a hash, in bytes.
    pub fn memory(self) -> usize {
        self.memory_kib as usize * 1024
    }
}

/// What sessions and rulesets take at most while they are remembered, in bytes, unless device names are unusually long.
const SESSION: usize = 512;
const RULESET: usize = 6 << 10;

/// The settings of [`Accounts`](crate::Accounts).
#[derive(Clone, Debug)]
pub struct Settings {
    /// What stands behind the colon of every local user id.
    pub server_name: OwnedServerName,
    /// Who may register.
    pub registration: Registration,
    /// The shortest password that may be chosen, in characters.
    pub password_min_length: usize,
    /// How long an access token lives in a session that can refresh it; tokens of other sessions do not expire.
    pub access_token_lifetime: Duration,
    /// What one password hash costs.
    pub hash_cost: HashCost,
    /// How many passwords are hashed at once; each takes a core and the memory of `hash_cost`. The others wait.
    pub hashes_at_once: usize,
    /// How long a client may take for one user-interactive authentication.
    pub uia_lifetime: Duration,
    /// How many sessions are remembered between requests; up to 512 bytes each.
    pub remembered_sessions: usize,
    /// How many decoded rulesets are remembered; up to 6 KiB each.
    pub remembered_rulesets: usize,
}

impl Settings {
    /// The settings that follow from the configuration's sections, with room for thousands of users in memory.
    pub fn new(
        server_name: OwnedServerName,
        registration: &myelin_config::Registration,
        accounts: &myelin_config::Accounts,
    ) -> Self {
        let registration = match registration.mode {
            RegistrationMode::Closed => Registration::Closed,
            RegistrationMode::Token => Registration::Token(
                registration
                    .token
                    .as_ref()
                    .map(|token| Secret::new(token.expose())),
            ),
            RegistrationMode::Open => Registration::Open,
        };
        Self {
            server_name,
            registration,
            password_min_length: accounts.password_min_length,
            access_token_lifetime: accounts.access_token_lifetime.0,
            hash_cost: HashCost::RECOMMENDED,
            hashes_at_once: thread::available_parallelism().map_or(1, NonZero::get),
            uia_lifetime: Duration::from_mins(30),
            remembered_sessions: 50_000,
            remembered_rulesets: 2_000,
        }
    }

    /// These settings within `remembered` bytes for what is remembered between requests and `hashes` bytes for the hashing
    /// of passwords; one hash is made at a time at least.
    #[must_use]
    pub fn within(self, remembered: usize, hashes: usize) -> Self {
        Self {
            remembered_sessions: (remembered / 4 / SESSION).max(16),
            remembered_rulesets: (remembered / 4 * 3 / RULESET).max(16),
            hashes_at_once: (hashes / self.hash_cost.memory()).clamp(1, self.hashes_at_once),
            ..self
        }
    }
}
