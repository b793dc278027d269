//! Whom the user does not want to hear. Spec: client-server API, "Ignoring Users".

use std::collections::BTreeSet;

use myelin_rooms::Event;
use ruma::OwnedUserId;

/// The users whom the syncing user ignores.
#[derive(Default)]
pub(crate) struct Ignored(pub(crate) BTreeSet<OwnedUserId>);

impl Ignored {
    /// Whether nobody is ignored.
    pub(crate) fn is_nobody(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the user is ignored.
    pub(crate) fn has(&self, user: &str) -> bool {
        !self.0.is_empty() && self.0.iter().any(|ignored| ignored.as_str() == user)
    }

    /// Whether an event is not told. State is always told, so that rooms look the same to everybody.
    pub(crate) fn hides(&self, event: &Event) -> bool {
        event.pdu.state_key().is_none() && self.has(event.pdu.sender())
    }
}
