//! What end-to-end encryption needs of other servers.

mod lists;

pub(crate) use lists::Lists;
