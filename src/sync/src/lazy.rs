//! Which membership events a device was sent already, so that lazy loading need not repeat them.
//!
//! Spec: client-server API, "Lazy-loading room members". An answer counts as received when the device comes back with
//! its token; one that comes back with an older token did not get it.

use std::{collections::HashMap, sync::Arc};

use myelin_rooms::read::Viewer;
use myelin_types::{EventNum, Pos, RoomNum, StateKeyNum, UserNum};
use parking_lot::Mutex;
use quick_cache::sync::Cache;

/// The membership event that was sent for each member of each room.
type Members = HashMap<(RoomNum, StateKeyNum), EventNum>;

/// How many devices are remembered.
const DEVICES: usize = 5_000;
/// How many members are remembered for one device, at about 32 bytes each. When there are more, it is sent all of them
/// anew.
const MEMBERS: usize = 20_000;

/// What devices were sent.
pub(crate) struct LazyMembers {
    devices: Cache<(UserNum, String), Arc<Mutex<Device>>>,
}

#[derive(Default)]
struct Device {
    /// The token that it last came with.
    at: Option<Pos>,
    received: Arc<Members>,
    /// What the last answer told, and its token.
    sent: Option<(Pos, Arc<Members>)>,
}

/// What one device has.
#[derive(Clone, Default)]
pub(crate) struct Known {
    received: Arc<Members>,
    sent: Option<Arc<Members>>,
}

/// What one answer tells.
#[derive(Default)]
pub(crate) struct Telling {
    /// The token that the device came with.
    pub(crate) since: Option<Pos>,
    /// The token that it is given.
    pub(crate) next: Pos,
    /// The members; None when they are not loaded lazily.
    pub(crate) members: Option<Members>,
}

impl Default for LazyMembers {
    fn default() -> Self {
        Self {
            devices: Cache::new(DEVICES),
        }
    }
}

impl Known {
    /// Whether the device has this event as the member's newest.
    pub(crate) fn has(&self, room: RoomNum, member: StateKeyNum, event: EventNum) -> bool {
        let key = (room, member);
        let sent = self.sent.as_ref().and_then(|sent| sent.get(&key));
        sent.or_else(|| self.received.get(&key)) == Some(&event)
    }
}

impl LazyMembers {
    /// What a device has that comes with the token of `since`.
    pub(crate) fn known(&self, viewer: &Viewer, since: Option<Pos>) -> Known {
        let (Some(since), Some(device)) =
            (since, key(viewer).and_then(|key| self.devices.get(&key)))
        else {
            return Known::default();
        };
        let device = device.lock();
        match &device.sent {
            Some((next, sent)) if *next == since => Known {
                received: Arc::clone(&device.received),
                sent: Some(Arc::clone(sent)),
            },
            _ if device.at == Some(since) => Known {
                received: Arc::clone(&device.received),
                sent: None,
            },
            _ => Known::default(),
        }
    }

    /// Remembers what an answer tells.
    pub(crate) fn remember(&self, viewer: &Viewer, telling: Telling) {
        let (Some(members), Some(key)) = (telling.members, key(viewer)) else {
            return;
        };
        let device = if let Some(device) = self.devices.get(&key) {
            device
        } else {
            let device = Arc::default();
            self.devices.insert(key, Arc::clone(&device));
            device
        };
        let mut device = device.lock();
        match device.sent.take() {
            Some((next, sent)) if telling.since == Some(next) => {
                let received = Arc::make_mut(&mut device.received);
                received.extend(sent.iter().map(|(member, event)| (*member, *event)));
                if received.len() > MEMBERS {
                    received.clear();
                }
            }
            _ if telling.since.is_some() && device.at == telling.since => {}
            _ => device.received = Arc::default(),
        }
        device.at = telling.since;
        device.sent = Some((telling.next, Arc::new(members)));
    }
}

fn key(viewer: &Viewer) -> Option<(UserNum, String)> {
    Some((viewer.user, viewer.device_id.clone()?))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use myelin_rooms::read::Viewer;
    use myelin_types::{EventNum, Pos, RoomNum, StateKeyNum, UserNum};
    use ruma::user_id;

    use super::{LazyMembers, Telling};

    #[test]
    fn only_what_was_received_is_redundant() {
        let lazy = LazyMembers::default();
        let viewer = Viewer {
            user: UserNum(1),
            user_id: user_id!("@a:b").to_owned(),
            device_id: Some("D".to_owned()),
        };
        let tell = |since: Option<u64>, next: u64, member: u32| {
            lazy.remember(
                &viewer,
                Telling {
                    since: since.map(Pos),
                    next: Pos(next),
                    members: Some(HashMap::from([(
                        (RoomNum(1), StateKeyNum(member)),
                        EventNum(9),
                    )])),
                },
            );
        };
        let has = |since: u64, member: u32| {
            lazy.known(&viewer, Some(Pos(since)))
                .has(RoomNum(1), StateKeyNum(member), EventNum(9))
        };
        tell(None, 5, 1);
        assert!(has(5, 1));
        assert!(!has(4, 1), "a token that was not given with this");
        tell(Some(5), 8, 2);
        assert!(has(8, 1) && has(8, 2));
        // The answer was lost: the device comes with the old token again.
        assert!(has(5, 1) && !has(5, 2));
        tell(Some(5), 9, 3);
        assert!(has(9, 1) && has(9, 3) && !has(9, 2));
        tell(None, 10, 4);
        assert!(has(10, 4) && !has(10, 1));
    }
}
