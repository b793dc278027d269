//! The rules of Matrix, for every room version: what an event looks like, who signed it, who may send it, who may
//! see it, whom it notifies.
//!
//! Is: canonical JSON, events, hashes, signatures, redaction, authorisation, history visibility, state resolution,
//! push rules.
//! Is not: anything that waits or remembers. No async, no store, no HTTP; data in, decisions out.

pub mod auth;
pub mod canonical;
pub mod event;
pub mod hash;
pub mod limits;
pub mod push;
pub mod redact;
pub mod resolve;
pub mod sign;
pub mod version;
pub mod visibility;

mod members;

pub use auth::{AuthError, AuthState, Membership, PowerLevel, PowerLevels};
pub use event::{BuildError, EventBuilder, EventRef, ParseError, Pdu};
pub use sign::{Signer, SigningKey};
pub use version::{RoomVersion, Rules};

/// A JSON object, as event contents are handed in and out.
pub type Object = serde_json::Map<String, serde_json::Value>;
