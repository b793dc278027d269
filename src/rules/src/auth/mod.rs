//! Authorisation: may this event stand in a room with this state?
//!
//! Spec: "Authorisation rules" of each room version. Numbers in comments are those of version 12 unless they say
//! otherwise.

mod check;
mod error;
mod member;
mod power;
mod select;
mod state;
mod third_party;

pub use check::{AuthEvent, check, check_auth_events, may_redact};
pub use error::{AuthError, LevelsField};
pub use power::{PowerLevel, PowerLevels};
pub use select::{StateKey, auth_types};
pub(crate) use state::Decoded;
pub use state::{AuthEvents, AuthState, Create, JoinRule, Membership};
