//! Events of other servers: checked, put into their room's history, and joins of users from elsewhere.
//!
//! Everything goes through the room's one guard, as events of our own do. What has to be asked of other servers is asked
//! before the guard is taken, through [`Fetch`]: the room is never locked while somebody else is waited for.

mod fetch;
mod join;
mod receive;

pub use fetch::{Fetch, FetchError, Fetching, MissingEvents, StateEvents, StateIds, WantedKey};
pub use join::{
    AcceptJoin, AcceptJoinError, AcceptedJoin, JoinTemplate, MakeJoin, MakeJoinError,
};
pub use receive::{Outcome, ReceiveError, Received};
