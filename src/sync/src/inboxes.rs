//! Messages to devices: the `to_device` section, and which inboxes are known to be empty.
//!
//! Most devices have nothing in their inbox most of the time, and that is remembered, so that their syncs need not look.

use myelin_data::topic::Changed;
use myelin_e2ee::Inbox;
use myelin_rooms::{read::Viewer, token::SyncToken};
use myelin_store::{Observer, StoreError, Topic, View};
use myelin_types::{Pos, UserNum};
use quick_cache::sync::Cache;

use crate::{Inner, changes::LastChanges};

/// What an empty inbox takes in memory while it is remembered.
const INBOX: usize = 160;

/// The inboxes of devices that sync.
pub(crate) struct Inboxes {
    /// At which position an inbox was empty.
    empty: Cache<(UserNum, String), Pos>,
    changes: LastChanges,
}

/// What a sync has read of an inbox.
pub(crate) struct Read {
    /// The inbox, until its events are taken out.
    pub(crate) inbox: Inbox,
    /// Whether there was nothing in it that the client does not know.
    is_empty: bool,
    /// The position at which that was so.
    at: Pos,
}

impl Inboxes {
    /// Inboxes of which at most about so many bytes are remembered.
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            empty: Cache::new((bytes / 2 / INBOX).max(16)),
            changes: LastChanges::new(bytes / 2),
        }
    }

    /// Says that nothing up to `watermark` will be noted.
    pub(crate) fn start(&self, watermark: Pos) {
        self.changes.start(watermark);
    }

    /// Whether a device has nothing in its inbox, as far as that is remembered.
    fn is_empty(&self, view: &View, device: &(UserNum, String)) -> bool {
        let Some(at) = self.empty.get(device) else {
            return false;
        };
        let last = self.changes.last(view, device.0);
        // An inbox that a newer view found empty may not be so in this one.
        last.is_some_and(|last| last <= at && at <= view.pos())
    }
}

impl Observer for Inboxes {
    fn committed(&self, pos: Pos, topics: &[Topic]) {
        for topic in topics {
            if let Some(Changed::ToDevice(user)) = Changed::from_topic(*topic) {
                self.changes.note(pos, user);
            }
        }
        self.changes.noted(pos);
    }
}

/// The inbox of the device that asks; none if there is nothing in it.
pub(crate) fn read(
    sync: &Inner,
    view: &View,
    viewer: &Viewer,
    since: Option<SyncToken>,
) -> Result<Option<Read>, StoreError> {
    let Some(device_id) = &viewer.device_id else {
        return Ok(None);
    };
    if sync
        .inboxes
        .is_empty(view, &(viewer.user, device_id.clone()))
    {
        return Ok(None);
    }
    let known = since.map(|since| since.inbox());
    let inbox = sync.e2ee.inbox(view, viewer.user, device_id, known)?;
    Ok(Some(Read {
        is_empty: inbox.events.is_empty(),
        inbox,
        at: view.pos(),
    }))
}

impl Inner {
    /// Deletes what the client has said it has, and remembers an inbox in which nothing else is. A deletion that fails is made
    /// up for when there is something new.
    pub(crate) fn settle_inbox(&self, viewer: &Viewer, read: &Read) {
        self.e2ee.delete_acknowledged(&read.inbox);
        if read.is_empty
            && let Some(device_id) = &viewer.device_id
        {
            let device = (viewer.user, device_id.clone());
            self.inboxes.empty.insert(device, read.at);
        }
    }
}
