//! The presence of one user: what is known of his devices, or what his server said, and what follows from it at a time.

use std::{sync::Arc, time::Duration};

use myelin_types::{Millis, RoomNum};

/// How long after its last sync a device counts as gone.
pub(super) const GONE: Duration = Duration::from_secs(30);
/// How long after he last did something a user counts as idle.
pub(super) const IDLE: Duration = Duration::from_mins(5);
/// For how long after he did something a user is said to be active, without further news of it.
pub(super) const ACTIVE: Duration = Duration::from_mins(1);
/// For how long what another server said of a user holds: servers repeat it while it does.
pub(super) const HOLDS: Duration = Duration::from_mins(30);
/// How often other servers are told again that a user is there.
pub(super) const REPEAT: Duration = Duration::from_mins(25);
/// How many devices of a user count. Of more, the one that was not seen for longest does not.
const MOST_DEVICES: usize = 16;

/// Whether a user is there. The greater one counts when his devices differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PresenceState {
    /// Not connected, or not willing to say.
    #[default]
    Offline,
    /// Connected and idle.
    Unavailable,
    /// Connected.
    Online,
}

impl PresenceState {
    /// The specification's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Unavailable => "unavailable",
            Self::Online => "online",
        }
    }

    /// What the specification's word means; none for others.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Offline, Self::Unavailable, Self::Online]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// What others are shown of a user, but for when he was last active.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) state: PresenceState,
    pub(super) currently_active: bool,
    pub(super) status: Option<Arc<str>>,
}

/// A device of a user of this server.
#[derive(Clone, Debug)]
struct Device {
    id: String,
    /// What it, or its user by it, last said.
    said: PresenceState,
    /// As what its last sync came.
    synced_as: Option<PresenceState>,
    /// How many syncs are under way.
    syncing: u32,
    /// When it was last seen.
    seen: Millis,
    /// When its user last did something with it.
    active: Millis,
}

impl Device {
    fn is_here(&self, now: Millis) -> bool {
        self.syncing > 0 || now.since(self.seen) < GONE
    }

    fn state(&self, now: Millis) -> PresenceState {
        match self.said {
            PresenceState::Online if now.since(self.active) >= IDLE => PresenceState::Unavailable,
            said => said,
        }
    }
}

/// Where a user's presence comes from.
#[derive(Clone, Debug)]
enum Source {
    Devices(Vec<Device>),
    Server {
        state: PresenceState,
        currently_active: bool,
        heard: Millis,
    },
}

/// The message that a user wants others to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It was not read from the store yet.
    Unread,
    /// The message, if he has one.
    Known(Option<Arc<str>>),
}

/// A user.
#[derive(Clone, Debug)]
pub(super) struct User {
    source: Source,
    status: Status,
    pub(super) last_active: Option<Millis>,
    /// What others have been told.
    pub(super) told: Shown,
    /// The serial of that; zero if they have been told nothing.
    pub(super) serial: u64,
    /// The serial of what other servers were to be told.
    pub(super) spread: u64,
    pub(super) told_at: Millis,
    /// The rooms, small enough, that he is in, ascending; as of then.
    pub(super) rooms: Arc<[RoomNum]>,
    /// Under which time he is queued.
    pub(super) due: Option<Millis>,
}

impl User {
    fn new(source: Source) -> Self {
        Self {
            source,
            status: Status::Unread,
            last_active: None,
            told: Shown::default(),
            serial: 0,
            spread: 0,
            told_at: Millis(0),
            rooms: Arc::default(),
            due: None,
        }
    }

    /// A user of this server of whom no device is there.
    pub(super) fn local() -> Self {
        Self::new(Source::Devices(Vec::new()))
    }

    /// A user of another server, who is not there.
    pub(super) fn remote(now: Millis) -> Self {
        Self {
            status: Status::Known(None),
            ..Self::new(Source::Server {
                state: PresenceState::Offline,
                currently_active: false,
                heard: now,
            })
        }
    }

    pub(super) fn is_local(&self) -> bool {
        matches!(self.source, Source::Devices(_))
    }

    /// Whether his status message has still to be read from the store.
    pub(super) fn lacks_status(&self) -> bool {
        self.status == Status::Unread
    }

    pub(super) fn set_status(&mut self, status: Option<Arc<str>>) {
        self.status = Status::Known(status);
    }

    /// Whether a sync of his is under way.
    pub(super) fn is_syncing(&self) -> bool {
        match &self.source {
            Source::Devices(devices) => devices.iter().any(|device| device.syncing > 0),
            Source::Server { .. } => false,
        }
    }

    fn device(&mut self, id: &str, now: Millis) -> Option<&mut Device> {
        let Source::Devices(devices) = &mut self.source else {
            return None;
        };
        if let Some(at) = devices.iter().position(|device| device.id == id) {
            return devices.get_mut(at);
        }
        if devices.len() >= MOST_DEVICES {
            let seen = devices.iter().enumerate();
            let idle = seen.filter(|(_, device)| device.syncing == 0);
            let (at, _) = idle.min_by_key(|(_, device)| device.seen)?;
            devices.swap_remove(at);
        }
        devices.push(Device {
            id: id.to_owned(),
            said: PresenceState::Offline,
            synced_as: None,
            syncing: 0,
            seen: now,
            active: Millis(0),
        });
        devices.last_mut()
    }

    /// A sync of a device begins, which comes as `state`.
    ///
    /// It says something new only when it comes as something else than the last one, or after a time away: a client that
    /// just goes on polling does not take back what its user has set meanwhile.
    pub(super) fn begin_sync(&mut self, device: &str, state: PresenceState, now: Millis) {
        let Some(device) = self.device(device, now) else {
            return;
        };
        let news = device.synced_as != Some(state) || !device.is_here(now);
        device.synced_as = Some(state);
        device.syncing += 1;
        device.seen = now;
        if news {
            device.said = state;
            if state == PresenceState::Online {
                device.active = now;
                self.last_active = Some(now);
            }
        }
    }

    /// A sync of a device has ended.
    pub(super) fn end_sync(&mut self, device: &str, now: Millis) {
        if let Source::Devices(devices) = &mut self.source
            && let Some(device) = devices.iter_mut().find(|other| other.id == device)
        {
            device.syncing = device.syncing.saturating_sub(1);
            device.seen = now;
        }
    }

    /// The user says how he is.
    pub(super) fn say(&mut self, device: &str, state: PresenceState, now: Millis) {
        if let Some(device) = self.device(device, now) {
            device.said = state;
            device.seen = now;
            device.active = now;
        }
        self.last_active = Some(now);
    }

    /// The user did something with a device. One that is not known, or that he said offline with, tells nobody.
    pub(super) fn act(&mut self, device: &str, now: Millis) {
        if let Source::Devices(devices) = &mut self.source
            && let Some(device) = devices.iter_mut().find(|other| other.id == device)
            && device.is_here(now)
            && device.said != PresenceState::Offline
        {
            device.said = PresenceState::Online;
            device.active = now;
            self.last_active = Some(now);
        }
    }

    /// His server says how he is.
    pub(super) fn hear(
        &mut self,
        state: PresenceState,
        currently_active: bool,
        last_active: Option<Millis>,
        status: Option<Arc<str>>,
        now: Millis,
    ) {
        if let Source::Server {
            state: said,
            currently_active: active,
            heard,
        } = &mut self.source
        {
            (*said, *active, *heard) = (state, currently_active, now);
            self.last_active = last_active.or(self.last_active);
            self.status = Status::Known(status);
        }
    }

    /// Forgets devices that are gone.
    pub(super) fn prune(&mut self, now: Millis) {
        if let Source::Devices(devices) = &mut self.source {
            devices.retain(|device| device.is_here(now));
        }
    }

    /// What is to be shown of him.
    pub(super) fn shown(&self, now: Millis) -> Shown {
        let (state, currently_active) = match &self.source {
            Source::Devices(devices) => {
                let here = devices.iter().filter(|device| device.is_here(now));
                let state = here.map(|device| device.state(now)).max();
                let state = state.unwrap_or_default();
                let lately = |at| now.since(at) < ACTIVE;
                let active = state == PresenceState::Online && self.last_active.is_some_and(lately);
                (state, active)
            }
            Source::Server { heard, .. } if now.since(*heard) >= HOLDS => {
                (PresenceState::Offline, false)
            }
            Source::Server {
                state,
                currently_active,
                ..
            } => (*state, *currently_active && *state == PresenceState::Online),
        };
        Shown {
            state,
            currently_active,
            status: match &self.status {
                Status::Unread => None,
                Status::Known(status) => status.clone(),
            },
        }
    }

    /// Whether other servers should be told again what they were told.
    pub(super) fn is_to_repeat(&self, now: Millis) -> bool {
        self.is_local()
            && self.told.state != PresenceState::Offline
            && now.since(self.told_at) >= REPEAT
    }

    /// When something of this will be different if nothing happens.
    pub(super) fn next_change(&self, now: Millis) -> Option<Millis> {
        let mut times = Vec::new();
        match &self.source {
            Source::Devices(devices) => {
                for device in devices {
                    if device.syncing == 0 {
                        times.push(device.seen.after(GONE));
                    }
                    if device.said == PresenceState::Online {
                        times.push(device.active.after(IDLE));
                    }
                }
                times.extend(self.last_active.map(|at| at.after(ACTIVE)));
                if self.told.state != PresenceState::Offline {
                    times.push(self.told_at.after(REPEAT));
                }
            }
            Source::Server { state, heard, .. } => {
                if *state != PresenceState::Offline {
                    times.push(heard.after(HOLDS));
                }
            }
        }
        times.into_iter().filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use myelin_types::Millis;

    use super::{ACTIVE, GONE, HOLDS, IDLE, MOST_DEVICES, PresenceState, User};

    const START: Millis = Millis(1_000_000_000);

    fn at(after: Duration) -> Millis {
        START.after(after)
    }

    fn state(user: &User, now: Millis) -> (&'static str, bool) {
        let shown = user.shown(now);
        (shown.state.as_str(), shown.currently_active)
    }

    #[test]
    fn time_makes_somebody_idle_and_then_gone() {
        let mut user = User::local();
        user.begin_sync("D", PresenceState::Online, START);
        assert_eq!(state(&user, START), ("online", true));
        assert_eq!(user.next_change(START), Some(at(ACTIVE)));
        assert_eq!(state(&user, at(ACTIVE)), ("online", false));
        assert_eq!(user.next_change(at(ACTIVE)), Some(at(IDLE)));
        assert_eq!(state(&user, at(IDLE)), ("unavailable", false));

        // Going on with polling is no activity, sending something is.
        user.end_sync("D", at(IDLE));
        user.begin_sync("D", PresenceState::Online, at(IDLE));
        assert_eq!(state(&user, at(IDLE)), ("unavailable", false));
        user.act("D", at(IDLE));
        assert_eq!(state(&user, at(IDLE)), ("online", true));

        user.end_sync("D", at(IDLE));
        assert_eq!(state(&user, at(IDLE + GONE)), ("offline", false));
        user.prune(at(IDLE + GONE));
        user.act("D", at(IDLE + GONE));
        assert_eq!(state(&user, at(IDLE + GONE)), ("offline", false));
    }

    #[test]
    fn the_liveliest_device_counts() {
        let mut user = User::local();
        user.begin_sync("idle", PresenceState::Unavailable, START);
        assert_eq!(state(&user, START).0, "unavailable");
        user.begin_sync("phone", PresenceState::Online, START);
        assert_eq!(state(&user, START).0, "online");
        user.end_sync("phone", START);
        assert_eq!(state(&user, at(GONE)).0, "unavailable");
        for number in 0..100 {
            user.say(&number.to_string(), PresenceState::Online, at(GONE));
        }
        let super::Source::Devices(devices) = &user.source else {
            panic!("a local user has devices");
        };
        assert_eq!(devices.len(), MOST_DEVICES);
        assert!(devices.iter().any(|device| device.id == "idle"), "it syncs");
    }

    #[test]
    fn what_a_user_sets_holds_while_his_client_polls_on() {
        let mut user = User::local();
        for said in [PresenceState::Unavailable, PresenceState::Offline] {
            user.begin_sync("D", PresenceState::Online, START);
            user.say("D", said, START);
            user.end_sync("D", START);
            user.begin_sync("D", PresenceState::Online, START);
            assert_eq!(user.shown(START).state, said);
            user.end_sync("D", START);
        }
        user.act("D", START);
        assert_eq!(
            state(&user, START).0,
            "offline",
            "he does not want to be seen"
        );
        // After a time away, the client comes anew.
        user.begin_sync("D", PresenceState::Online, at(GONE));
        assert_eq!(state(&user, at(GONE)).0, "online");
    }

    #[test]
    fn what_a_server_said_holds_for_a_while() {
        let mut user = User::remote(START);
        user.hear(
            PresenceState::Online,
            true,
            Some(START),
            Some("busy".into()),
            START,
        );
        let shown = user.shown(START);
        assert_eq!(shown.status.as_deref(), Some("busy"));
        assert_eq!(state(&user, START), ("online", true));
        assert_eq!(user.next_change(START), Some(at(HOLDS)));
        assert_eq!(state(&user, at(HOLDS)), ("offline", false));
        user.act("D", START);
        user.begin_sync("D", PresenceState::Online, at(HOLDS));
        assert_eq!(state(&user, at(HOLDS)), ("offline", false));
    }
}
