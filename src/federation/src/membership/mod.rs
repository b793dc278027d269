//! Memberships that need another server: inviting its users, leaving and knocking at rooms that this server is not in,
//! redeeming invitations by e-mail address.
//!
//! What can be done here alone is done by `rooms`; only then, and without the room being locked, others are asked.

mod create;
pub(crate) mod handshake;
mod invite;
mod knock;
mod leave;
mod third_party;

pub use invite::{InviteError, ReceiveInviteError};
pub use knock::KnockError;
pub(crate) use third_party::BINDINGS_AT_ONCE;
pub use third_party::{BoundInvite, ExchangeError, MOST_BOUND};
