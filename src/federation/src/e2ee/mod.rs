//! What end-to-end encryption needs of other servers.

mod keys;
mod lists;

pub use keys::{ClaimAnswer, KeysAnswer};
pub(crate) use lists::Lists;
