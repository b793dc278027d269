//! Which membership events a device was sent already, so that lazy loading need not repeat them.
//!
//! Spec: client-server API, "Lazy-loading room members". An answer counts as received when the device comes back with
//! its token; one that comes back with an older token did not get it.

use std::{collections::HashMap, sync::Arc};

use myelin_rooms::read::Viewer;
use myelin_types::{EventNum, Pos, RoomNum, StateKeyNum, UserNum};
use quick_cache::{Weighter, sync::Cache};

/// The membership event that was sent for each member of each room.
pub(crate) type Members = HashMap<(RoomNum, StateKeyNum), EventNum>;

/// What a member takes in memory; maps are half empty at times.
const MEMBER: usize = 48;
/// What a device takes besides its members.
const DEVICE: usize = 384;
/// The share of the memory that one device may take. When it would take more, it is sent all its members anew.
const SHARE: usize = 16;
/// How many members are remembered for one device however much memory there is.
const MEMBERS: usize = 20_000;

/// What devices were sent.
pub(crate) struct LazyMembers {
    devices: Cache<(UserNum, String), Arc<Device>, ByMemory>,
    /// How many members are remembered for one device.
    members: usize,
}

#[derive(Clone)]
struct ByMemory;

impl Weighter<(UserNum, String), Arc<Device>> for ByMemory {
    fn weight(&self, _: &(UserNum, String), device: &Arc<Device>) -> u64 {
        let sent = device.sent.as_ref().map_or(0, |(_, sent)| sent.len());
        (DEVICE + (device.received.len() + sent) * MEMBER) as u64
    }
}

/// Never changed in its place, since the cache weighs it once; what it has is shared with the one before.
#[derive(Clone, Default)]
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

impl Known {
    /// Whether the device has this event as the member's newest.
    pub(crate) fn has(&self, room: RoomNum, member: StateKeyNum, event: EventNum) -> bool {
        let key = (room, member);
        let sent = self.sent.as_ref().and_then(|sent| sent.get(&key));
        sent.or_else(|| self.received.get(&key)) == Some(&event)
    }
}

impl LazyMembers {
    /// A memory of at most about so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            devices: Cache::with_weighter((bytes / DEVICE).max(16), bytes as u64, ByMemory),
            members: (bytes / SHARE / MEMBER).clamp(64, MEMBERS),
        }
    }

    /// What a device has that comes with the token of `since`.
    pub(crate) fn known(&self, viewer: &Viewer, since: Option<Pos>) -> Known {
        let (Some(since), Some(device)) =
            (since, key(viewer).and_then(|key| self.devices.get(&key)))
        else {
            return Known::default();
        };
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

    /// Whether these are more than are remembered of one answer.
    pub(crate) fn are_too_many(&self, members: &Members) -> bool {
        members.len() > self.members
    }

    /// Remembers what an answer tells.
    pub(crate) fn remember(&self, viewer: &Viewer, telling: Telling) {
        let (Some(members), Some(key)) = (telling.members, key(viewer)) else {
            return;
        };
        // Of two answers at the same time to one device the later one counts; the members of the other are sent anew.
        let mut device = self
            .devices
            .get(&key)
            .map_or_else(Device::default, |device| Device::clone(&device));
        self.tell(&mut device, telling.since, telling.next, members);
        self.devices.insert(key, Arc::new(device));
    }

    fn tell(&self, device: &mut Device, since: Option<Pos>, next: Pos, members: Members) {
        match device.sent.take() {
            Some((next, sent)) if since == Some(next) && sent.is_empty() => {}
            Some((next, sent)) if since == Some(next) => {
                let received = Arc::make_mut(&mut device.received);
                received.extend(sent.iter().map(|(member, event)| (*member, *event)));
                if received.len() > self.members {
                    device.received = Arc::default();
                }
            }
            _ if since.is_some() && device.at == since => {}
            _ => device.received = Arc::default(),
        }
        device.at = since;
        // Of an answer with more members than may be remembered none is: they are sent anew.
        let told = if self.are_too_many(&members) {
            Members::default()
        } else {
            members
        };
        device.sent = Some((next, Arc::new(told)));
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
        let lazy = LazyMembers::new(1 << 20);
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

    #[test]
    fn a_device_is_remembered_no_more_members_than_there_is_memory_for() {
        let lazy = LazyMembers::new(16 * 100 * 48);
        let viewer = Viewer {
            user: UserNum(1),
            user_id: user_id!("@a:b").to_owned(),
            device_id: Some("D".to_owned()),
        };
        let tell = |since: u64, members: std::ops::Range<u32>| {
            let member = |member| ((RoomNum(1), StateKeyNum(member)), EventNum(9));
            let telling = Telling {
                since: Some(Pos(since)),
                next: Pos(since + 1),
                members: Some(members.map(member).collect()),
            };
            lazy.remember(&viewer, telling);
            let known = lazy.known(&viewer, Some(Pos(since + 1)));
            move |member| known.has(RoomNum(1), StateKeyNum(member), EventNum(9))
        };
        assert!(tell(1, 0..60)(59));
        let after_two = tell(2, 60..110);
        assert!(after_two(0) && after_two(109));
        let after_three = tell(3, 110..111);
        assert!(!after_three(0) && !after_three(109) && after_three(110));
        assert!(
            !tell(4, 0..101)(0),
            "more in one answer than are remembered"
        );
    }
}
