//! The sections of the file, one module each.

pub(crate) mod accounts;
pub(crate) mod federation;
pub(crate) mod limits;
pub(crate) mod listen;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod presence;
pub(crate) mod rate_limits;
pub(crate) mod registration;
pub(crate) mod rooms;
pub(crate) mod server;
pub(crate) mod well_known;
