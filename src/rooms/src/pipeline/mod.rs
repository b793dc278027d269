//! The pipeline through which every event of this server enters a room.
//!
//! A room has one writer at a time: the holder of its [`RoomGuard`]. The guard collects the events and other rows of
//! one batch against a working copy of the room's head. [`RoomGuard::commit`] queues the batch and lets the room go:
//! the head moves on in memory, and the next writer builds on it while this batch is on its way to the disk. So one
//! fsync carries many events of one room. A guard that is dropped without a commit leaves nothing behind.
//!
//! What a queued batch wrote is not in the store's views until it is durable. The next writers find the state nodes
//! and state events of such batches in a [`Layer`]; nothing else of them is ever read before that.
//!
//! Every batch expects the head that it was built on. When one fails, those built on it fail too, and the head is read
//! from the store again.

mod admit;
mod append;
mod ground;
mod guard;
mod layer;
mod outside;
mod restart;
mod servers;
mod slots;
mod traits;
mod whole;

pub(crate) use admit::{Admission, Spot};
pub(crate) use append::Draft;
pub(crate) use ground::Ground;
pub(crate) use guard::{Queued, RoomGuard, stored_state};
pub(crate) use slots::Slots;
pub use traits::NOTIFYING_TYPES;
