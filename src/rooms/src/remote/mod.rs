//! Events of other servers: checked, put into their room's history; joins of users from elsewhere; what others may read.
//!
//! Everything goes through the room's one guard, as events of our own do. What has to be asked of other servers is asked
//! before the guard is taken, through [`Fetch`]: the room is never locked while somebody else is waited for.

mod acl;
mod backfill;
mod check;
mod complete;
mod enter;
mod fetch;
mod gather;
mod handshake;
mod inbox;
mod invited;
mod inviting;
mod join;
mod joined;
mod judge;
mod order;
mod outside;
mod policy;
mod receipts;
mod receive;
mod serve;
mod template;
mod told;
mod vouched;
mod waiting;

pub use backfill::{BackfillError, Backfilled};
pub(crate) use check::{add_own, wanted_keys};
pub use complete::{CompleteError, Completing};
pub use enter::{EnterError, JoinAnswer};
pub use fetch::{Fetch, FetchError, Fetching, MissingEvents, StateEvents, StateIds, WantedKey};
pub(crate) use gather::is_settled;
pub use handshake::{
    AcceptMembership, AcceptMembershipError, MakeMembership, MakeMembershipError,
    MembershipTemplate, Step,
};
pub(crate) use inbox::Inbox;
pub use inbox::{DeliverError, Delivered, InboxLimits, InboxWork, Judged, Load, NotTaken};
pub use invited::{ReceiveInvite, ReceiveInviteError};
pub use inviting::{CompleteInviteError, DrawnInvite, InviteDraft};
pub use join::{AcceptJoin, AcceptJoinError, AcceptedJoin, MakeJoin, MakeJoinError};
pub(crate) use judge::authorised_by;
pub use policy::{AskPolicy, NotSigned};
pub(crate) use receipts::Awaiting;
pub use receipts::RemoteReceipt;
pub use receive::Outcome;
pub use serve::{ServeError, StateBefore};
pub use template::{DraftError, Wanted};
