//! What an operator can decide: one struct per section, read once at start and handed out section by section.
//!
//! Is: the typed, validated settings, the order in which file, environment and flags override each other, and
//! the manual: `config.example.toml` is generated from the doc comments of the fields.
//! Is not: a store of anything that changes while the server runs; knows no table, no socket, no HTTP.

mod example;
mod load;
mod macros;
mod sections;
mod values;

pub use example::example_toml;
pub use load::{ConfigError, ENV_PREFIX, Sources};
pub use sections::{
    accounts::Accounts,
    federation::Federation,
    limits::Limits,
    listen::{Listen, TlsFiles},
    log::{Log, LogFormat},
    metrics::Metrics,
    presence::Presence,
    rate_limits::{Rate, RateLimits},
    registration::{Registration, RegistrationMode},
    rooms::Rooms,
    server::Server,
    well_known::{SupportContact, WellKnown},
};
pub use values::{BaseUrl, ByteSize, Network, Secret, Span, TrustedProxies};

use serde::{Deserialize, Serialize};

/// All settings of a server. Built by [`Config::load`] or, with defaults only, by [`Config::for_server`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// `[server]`: who the server is and where it lives.
    pub server: Server,
    /// `[listen]`: the addresses on which it answers.
    pub listen: Listen,
    /// `[registration]`: who may create an account.
    pub registration: Registration,
    /// `[accounts]`: passwords and sessions.
    pub accounts: Accounts,
    /// `[rooms]`: how new rooms are made.
    pub rooms: Rooms,
    /// `[rate_limits]`: how often one client may ask for something.
    pub rate_limits: RateLimits,
    /// `[limits]`: how large a request may be.
    pub limits: Limits,
    /// `[federation]`: how the server works together with others.
    pub federation: Federation,
    /// `[presence]`: who is told who is there.
    pub presence: Presence,
    /// `[well_known]`: what the `/.well-known/matrix/` documents say.
    pub well_known: WellKnown,
    /// `[log]`: what the server writes about its work.
    pub log: Log,
    /// `[metrics]`: numbers for Prometheus.
    pub metrics: Metrics,
}
