//! The presence of all users that something is known of: a machine without store or tasks.
//!
//! What changes is *pending* until it is told: then the user's rooms are known, and the change gets a serial. Readers hold
//! the serial up to which they have been told.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use myelin_types::{Millis, RoomNum, UserNum};

use super::{
    PresenceSnapshot, UserPresence,
    user::{PresenceState, Status, User},
};

/// For how long changes are collected before they are told.
pub(super) const COLLECT: Duration = Duration::from_millis(200);
/// How many changes are told at once; the rest follows.
const AT_ONCE: usize = 500;
/// How many of those are looked at in search of one who does not sync just now.
const LOOKED_AT: usize = 64;
/// Of more changes than this, those that concern somebody are found by his rooms rather than one by one.
const FEW: usize = 200;

/// The users.
#[derive(Default)]
pub(super) struct Book {
    users: HashMap<UserNum, User>,
    /// Users by the serial of what was told of them.
    changes: BTreeMap<u64, UserNum>,
    /// Users of this server by the serial of what other servers are to be told of them.
    spread: BTreeMap<u64, UserNum>,
    /// The users of each room, those that are remembered and whose room it is by their `rooms`.
    rooms: HashMap<RoomNum, Vec<UserNum>>,
    /// When something of a user changes by time, soonest first: one entry for each with a `due`, equal to it.
    deadlines: BTreeSet<(Millis, UserNum)>,
    /// Of whom there may be something to tell.
    pending: BTreeSet<UserNum>,
    /// Until when pending changes are collected.
    collect_until: Option<Millis>,
    pub(super) serial: u64,
    /// How many users are remembered. When there are more, the one of whom there was nothing new for longest is forgotten:
    /// who has been told of him is not told that he goes.
    most_users: usize,
}

/// What was found in the store about a user of whom there is something to tell.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) user: UserNum,
    /// The rooms that he is in and that are small enough, ascending.
    pub(super) rooms: Vec<RoomNum>,
    /// His status message, where that was asked for.
    pub(super) status: Status,
}

/// Who may have to be told of something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// The rooms of the users of whom there is news, without repetition.
    pub rooms: BTreeSet<RoomNum>,
    /// Whether there is something for other servers.
    pub outgoing: bool,
}

impl Book {
    pub(super) fn new(serial: u64, most_users: usize) -> Self {
        Self {
            serial,
            most_users,
            ..Self::default()
        }
    }

    pub(super) fn get(&self, user: UserNum) -> Option<&User> {
        self.users.get(&user)
    }

    /// Changes a user who is remembered.
    pub(super) fn change(&mut self, user: UserNum, now: Millis, change: impl FnOnce(&mut User)) {
        if let Some(entry) = self.users.get_mut(&user) {
            change(entry);
            self.changed(user, now);
        }
    }

    /// Notes that a user did something. Mostly that says nothing new: then the time at which he is next looked at stays as
    /// it was, and is found then to have been too early.
    pub(super) fn acted(&mut self, user: UserNum, device: &str, now: Millis) {
        let Some(entry) = self.users.get_mut(&user) else {
            return;
        };
        entry.act(device, now);
        if entry.shown(now) != entry.told {
            self.note_pending(user, now);
            self.queue(user, now);
        }
    }

    /// Changes a user, who is remembered from now on if he was not.
    pub(super) fn change_or_add(
        &mut self,
        user: UserNum,
        now: Millis,
        new: impl FnOnce() -> User,
        change: impl FnOnce(&mut User),
    ) {
        if !self.users.contains_key(&user) {
            if self.users.len() >= self.most_users && !self.forget_somebody() {
                return;
            }
            self.users.insert(user, new());
            self.note_pending(user, now);
        }
        self.change(user, now, change);
    }

    /// Looks anew whether there is something to tell of a user, for example because his rooms have changed.
    pub(super) fn reconsider(&mut self, user: UserNum, now: Millis) -> bool {
        let known = self.users.contains_key(&user);
        if known {
            self.note_pending(user, now);
        }
        known
    }

    fn changed(&mut self, user: UserNum, now: Millis) {
        let Some(entry) = self.users.get(&user) else {
            return;
        };
        if entry.shown(now) != entry.told {
            self.note_pending(user, now);
        }
        self.queue(user, now);
    }

    fn note_pending(&mut self, user: UserNum, now: Millis) {
        self.pending.insert(user);
        self.collect_until.get_or_insert_with(|| now.after(COLLECT));
    }

    /// Queues a user anew, after something of him has changed.
    fn queue(&mut self, user: UserNum, now: Millis) {
        if let Some(entry) = self.users.get_mut(&user) {
            if let Some(due) = entry.due {
                self.deadlines.remove(&(due, user));
            }
            entry.due = entry.next_change(now);
            if let Some(due) = entry.due {
                self.deadlines.insert((due, user));
            }
        }
    }

    /// When there is next something to do.
    pub(super) fn next_step(&self) -> Option<Millis> {
        let deadline = self.deadlines.first().map(|(due, _)| *due);
        deadline.into_iter().chain(self.collect_until).min()
    }

    /// Does what time does. Looks at the users whom it concerns and at no others. Answers whether other servers are to be
    /// told something again.
    pub(super) fn expire(&mut self, now: Millis) -> bool {
        let mut repeated = false;
        while let Some((due, user)) = self.deadlines.first().copied()
            && due <= now
        {
            self.deadlines.pop_first();
            let Some(entry) = self.users.get_mut(&user) else {
                continue;
            };
            entry.due = None;
            entry.prune(now);
            if entry.shown(now) != entry.told {
                self.note_pending(user, now);
            } else if entry.is_to_repeat(now) {
                entry.told_at = now;
                self.serial += 1;
                self.spread.remove(&entry.spread);
                entry.spread = self.serial;
                self.spread.insert(self.serial, user);
                repeated = true;
            }
            self.queue(user, now);
        }
        repeated
    }

    /// The users of whom there is something to tell now, and whether their status message has to be read.
    pub(super) fn take_pending(&mut self, now: Millis) -> Vec<(UserNum, bool)> {
        if self.collect_until.is_none_or(|until| until > now) {
            return Vec::new();
        }
        let mut taken = Vec::new();
        while taken.len() < AT_ONCE
            && let Some(user) = self.pending.pop_first()
        {
            if let Some(entry) = self.users.get(&user) {
                taken.push((user, entry.lacks_status()));
            }
        }
        self.collect_until = (!self.pending.is_empty()).then_some(now);
        taken
    }

    /// Puts back what could not be told.
    pub(super) fn put_back(&mut self, taken: Vec<(UserNum, bool)>, now: Millis) {
        for (user, _) in taken {
            self.note_pending(user, now);
        }
    }

    /// Tells what is new of users: from now on readers find it.
    pub(super) fn tell(&mut self, found: Vec<Found>, now: Millis) -> Spread {
        let mut news = Spread::default();
        for Found {
            user,
            rooms,
            status,
        } in found
        {
            let Some(entry) = self.users.get_mut(&user) else {
                continue;
            };
            // It may have been set since it was read.
            if let Status::Known(status) = status
                && entry.lacks_status()
            {
                entry.set_status(status);
            }
            let before = std::mem::replace(&mut entry.rooms, rooms.into());
            let rooms = Arc::clone(&entry.rooms);
            let shown = entry.shown(now);
            let entered = rooms.iter().any(|room| before.binary_search(room).is_err());
            let is_news = shown != entry.told || (entered && shown.state != PresenceState::Offline);
            if !entry.is_local() && rooms.is_empty() {
                self.forget(user, &before);
                continue;
            }
            if is_news {
                self.serial += 1;
                self.changes.remove(&entry.serial);
                self.changes.insert(self.serial, user);
                entry.serial = self.serial;
                if entry.is_local() {
                    self.spread.remove(&entry.spread);
                    self.spread.insert(self.serial, user);
                    entry.spread = self.serial;
                    news.outgoing = true;
                }
                entry.told = shown;
                entry.told_at = now;
                news.rooms.extend(rooms.iter());
            }
            for room in before
                .iter()
                .filter(|room| rooms.binary_search(room).is_err())
            {
                self.leave(*room, user);
            }
            for room in rooms
                .iter()
                .filter(|room| before.binary_search(room).is_err())
            {
                self.rooms.entry(*room).or_default().push(user);
            }
            self.queue(user, now);
        }
        news
    }

    fn leave(&mut self, room: RoomNum, user: UserNum) {
        if let Some(users) = self.rooms.get_mut(&room) {
            users.retain(|other| *other != user);
            if users.is_empty() {
                self.rooms.remove(&room);
            }
        }
    }

    /// Forgets a user who stands in the lists of `rooms`.
    fn forget(&mut self, user: UserNum, rooms: &[RoomNum]) {
        if let Some(entry) = self.users.remove(&user) {
            self.changes.remove(&entry.serial);
            self.spread.remove(&entry.spread);
            if let Some(due) = entry.due {
                self.deadlines.remove(&(due, user));
            }
        }
        self.pending.remove(&user);
        for room in rooms {
            self.leave(*room, user);
        }
    }

    /// Makes room for another user. Answers whether there is.
    fn forget_somebody(&mut self) -> bool {
        let oldest = self.changes.values().take(LOOKED_AT).copied();
        let syncs = |user: &UserNum| self.users.get(user).is_some_and(User::is_syncing);
        let Some(user) = oldest
            .clone()
            .find(|user| !syncs(user))
            .or(oldest.clone().next())
        else {
            return false;
        };
        let rooms = self.users.get(&user).map(|user| Arc::clone(&user.rooms));
        self.forget(user, &rooms.unwrap_or_default());
        true
    }

    /// What somebody is to be told who is in the rooms `joined` and knows everything up to `since`, or nothing; of the rooms
    /// `entered` he knows nothing. By serial.
    pub(super) fn news(
        &self,
        reader: UserNum,
        since: Option<u64>,
        joined: &[RoomNum],
        entered: &[RoomNum],
    ) -> Vec<UserPresence> {
        let mut told = HashSet::new();
        let there = |user: &UserNum| {
            let entry = self.users.get(user);
            entry.is_some_and(|entry| entry.told.state != PresenceState::Offline)
        };
        match since {
            None => {
                // Only at the start is somebody told of himself: later he would be woken by his own coming and going.
                told.extend([reader].into_iter().filter(there));
                told.extend(self.users_of(joined).filter(there));
            }
            Some(since) => {
                let newer = || self.changes.range(since.saturating_add(1)..);
                if newer().take(FEW + 1).count() <= FEW {
                    told.extend(newer().map(|(_, user)| *user).filter(|user| {
                        let entry = self.users.get(user);
                        entry.is_some_and(|entry| intersect(&entry.rooms, joined))
                    }));
                } else {
                    told.extend(self.users_of(joined).filter(|user| {
                        let entry = self.users.get(user);
                        entry.is_some_and(|entry| entry.serial > since)
                    }));
                }
                told.extend(self.users_of(entered).filter(there));
                told.remove(&reader);
            }
        }
        let mut told: Vec<UserPresence> = told
            .into_iter()
            .filter_map(|user| self.presence(user))
            .collect();
        told.sort_unstable_by_key(|presence| presence.serial);
        told
    }

    /// The users of this server of whom other servers are to be told something since `since`, at most `most`, by serial.
    pub(super) fn outgoing(
        &self,
        since: u64,
        most: usize,
    ) -> Vec<(u64, UserPresence, Arc<[RoomNum]>)> {
        let newer = self.spread.range(since.saturating_add(1)..).take(most);
        newer
            .filter_map(|(serial, user)| {
                let rooms = Arc::clone(&self.users.get(user)?.rooms);
                Some((*serial, self.presence(*user)?, rooms))
            })
            .collect()
    }

    fn users_of<'a>(&'a self, rooms: &'a [RoomNum]) -> impl Iterator<Item = UserNum> + 'a {
        let users = rooms.iter().filter_map(|room| self.rooms.get(room));
        users.flatten().copied()
    }

    fn presence(&self, user: UserNum) -> Option<UserPresence> {
        let entry = self.users.get(&user)?;
        Some(UserPresence {
            user,
            serial: entry.serial,
            snapshot: PresenceSnapshot {
                state: entry.told.state,
                currently_active: entry.told.currently_active,
                last_active: entry.last_active,
                status: entry.told.status.clone(),
            },
        })
    }
}

/// Whether two ascending lists have something in common.
fn intersect(one: &[RoomNum], other: &[RoomNum]) -> bool {
    let (few, many) = if one.len() < other.len() {
        (one, other)
    } else {
        (other, one)
    };
    few.iter().any(|room| many.binary_search(room).is_ok())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use myelin_types::{Millis, RoomNum, UserNum};

    use super::{AT_ONCE, Book, COLLECT, FEW, Found};
    use crate::presence::user::{ACTIVE, GONE, IDLE, PresenceState, REPEAT, Status, User};

    const START: Millis = Millis(1_000_000_000);
    const MOST_USERS: usize = 5_000;
    const ROOM: RoomNum = RoomNum(7);
    const READER: UserNum = UserNum(1_000_000);

    fn come(book: &mut Book, user: u32, now: Millis) {
        book.change_or_add(UserNum(user), now, User::local, |user| {
            user.begin_sync("D", PresenceState::Online, now);
        });
    }

    /// Tells everything that is pending, of users who are in `rooms`.
    fn tell(book: &mut Book, rooms: &[RoomNum], now: Millis) -> usize {
        let mut told = 0;
        loop {
            let taken = book.take_pending(now);
            if taken.is_empty() {
                return told;
            }
            assert!(taken.len() <= AT_ONCE);
            told += taken.len();
            let found = taken.into_iter().map(|(user, lacks_status)| Found {
                user,
                rooms: rooms.to_vec(),
                status: if lacks_status {
                    Status::Known(None)
                } else {
                    Status::Unread
                },
            });
            let found = found.collect();
            book.tell(found, now);
        }
    }

    fn news(book: &Book, since: Option<u64>) -> Vec<(u32, &'static str, bool)> {
        let news = book.news(READER, since, &[RoomNum(3), ROOM], &[]);
        let news = news.into_iter().map(|presence| {
            let snapshot = presence.snapshot;
            let state = snapshot.state.as_str();
            (presence.user.0, state, snapshot.currently_active)
        });
        news.collect()
    }

    #[test]
    fn changes_are_collected_and_then_told_once() {
        let mut book = Book::new(10, MOST_USERS);
        come(&mut book, 1, START);
        come(&mut book, 2, START);
        assert_eq!(book.next_step(), Some(START.after(COLLECT)));
        assert!(book.take_pending(START).is_empty());
        let now = START.after(COLLECT);
        assert_eq!(tell(&mut book, &[ROOM], now), 2);
        assert_eq!(
            news(&book, Some(10)),
            [(1, "online", true), (2, "online", true)]
        );
        let serial = book.serial;
        assert!(news(&book, Some(serial)).is_empty());
        // What is as it was is not told.
        come(&mut book, 1, now);
        assert_eq!(tell(&mut book, &[ROOM], now.after(COLLECT)), 0);
        // Whoever shares no room hears nothing, and nobody hears of himself but at the start.
        assert!(book.news(READER, None, &[RoomNum(8)], &[]).is_empty());
        assert_eq!(book.news(UserNum(1), Some(10), &[ROOM], &[]).len(), 1);
        assert_eq!(book.news(UserNum(1), None, &[ROOM], &[]).len(), 2);
    }

    #[test]
    fn time_changes_those_whom_it_concerns() {
        let mut book = Book::new(0, MOST_USERS);
        come(&mut book, 1, START);
        let now = START.after(COLLECT);
        tell(&mut book, &[ROOM], now);
        let now = START.after(Duration::from_secs(40));
        come(&mut book, 2, now);
        let now = now.after(COLLECT);
        tell(&mut book, &[ROOM], now);
        let mut serial = book.serial;
        for (now, expected) in [
            (START.after(ACTIVE), (1, "online", false)),
            (
                START.after(Duration::from_secs(40) + ACTIVE),
                (2, "online", false),
            ),
            (START.after(IDLE), (1, "unavailable", false)),
        ] {
            assert_eq!(book.next_step(), Some(now));
            book.expire(now);
            tell(&mut book, &[ROOM], now.after(COLLECT));
            assert_eq!(news(&book, Some(serial)), [expected]);
            serial = book.serial;
        }
        let now = START.after(IDLE);
        book.change(UserNum(1), now, |user| user.end_sync("D", now));
        book.expire(now.after(GONE));
        tell(&mut book, &[ROOM], now.after(GONE + COLLECT));
        assert_eq!(news(&book, Some(serial)), [(1, "offline", false)]);
        assert_eq!(news(&book, None), [(2, "online", false)]);
    }

    #[test]
    fn what_somebody_does_puts_off_that_he_is_idle() {
        let mut book = Book::new(0, MOST_USERS);
        come(&mut book, 1, START);
        tell(&mut book, &[ROOM], START.after(COLLECT));
        let serial = book.serial;
        let half = START.after(ACTIVE / 2);
        book.acted(UserNum(1), "D", half);
        assert_eq!(book.next_step(), Some(START.after(ACTIVE)), "too early");
        book.expire(START.after(ACTIVE));
        assert_eq!(book.next_step(), Some(half.after(ACTIVE)));
        assert!(news(&book, Some(serial)).is_empty());
        book.expire(half.after(ACTIVE));
        tell(&mut book, &[ROOM], half.after(ACTIVE + COLLECT));
        assert_eq!(news(&book, Some(serial)), [(1, "online", false)]);
        // What makes a difference is told.
        let later = half.after(ACTIVE * 2);
        book.acted(UserNum(1), "D", later);
        book.acted(UserNum(2), "D", later);
        tell(&mut book, &[ROOM], later.after(COLLECT));
        assert_eq!(news(&book, Some(book.serial - 1)), [(1, "online", true)]);
    }

    #[test]
    fn those_who_meet_are_told_of_each_other() {
        let mut book = Book::new(0, MOST_USERS);
        come(&mut book, 1, START);
        tell(&mut book, &[RoomNum(5)], START.after(COLLECT));
        let serial = book.serial;
        assert!(news(&book, Some(serial)).is_empty());
        // The reader comes to the user's room.
        let entered = book.news(READER, Some(serial), &[RoomNum(5)], &[RoomNum(5)]);
        assert_eq!(entered.len(), 1);
        // The user comes to the reader's room.
        assert!(book.reconsider(UserNum(1), START.after(COLLECT)));
        tell(&mut book, &[RoomNum(5), ROOM], START.after(COLLECT * 2));
        assert_eq!(news(&book, Some(serial)), [(1, "online", true)]);
        // He leaves it again, which is no news, but later nobody there is told of him.
        let serial = book.serial;
        book.reconsider(UserNum(1), START.after(COLLECT * 2));
        tell(&mut book, &[RoomNum(5)], START.after(COLLECT * 3));
        assert_eq!(book.serial, serial);
        assert!(news(&book, None).is_empty());
        assert!(!book.reconsider(UserNum(9), START));
    }

    #[test]
    fn many_changes_are_found_by_the_readers_rooms() {
        let mut book = Book::new(0, MOST_USERS);
        for user in 0..FEW as u32 + 50 {
            come(&mut book, user, START);
        }
        let now = START.after(COLLECT);
        let taken = book.take_pending(now);
        let found = taken.into_iter().map(|(user, _)| Found {
            user,
            rooms: vec![if user.0 % 10 == 0 { ROOM } else { RoomNum(8) }],
            status: Status::Known(None),
        });
        let found = found.collect();
        let told = book.tell(found, now);
        assert_eq!(told.rooms.len(), 2);
        let expected = (FEW + 50).div_ceil(10);
        assert_eq!(news(&book, Some(0)).len(), expected);
        assert_eq!(news(&book, None).len(), expected);
    }

    #[test]
    fn other_servers_are_told_of_our_users_and_told_again() {
        let mut book = Book::new(0, MOST_USERS);
        come(&mut book, 1, START);
        book.change_or_add(
            UserNum(2),
            START,
            || User::remote(START),
            |user| {
                user.hear(PresenceState::Online, false, None, None, START);
            },
        );
        tell(&mut book, &[ROOM], START.after(COLLECT));
        let outgoing = |book: &Book, since| {
            let outgoing = book.outgoing(since, 10).into_iter();
            outgoing
                .map(|(_, presence, _)| presence.user.0)
                .collect::<Vec<_>>()
        };
        assert_eq!(outgoing(&book, 0), [1]);
        for minutes in [1, 5] {
            let now = START.after(Duration::from_mins(minutes));
            assert!(!book.expire(now));
            tell(&mut book, &[ROOM], now.after(COLLECT));
        }
        let (serial, now) = (book.serial, START.after(IDLE + COLLECT + REPEAT));
        assert!(outgoing(&book, serial).is_empty());
        assert!(book.expire(now));
        assert_eq!(outgoing(&book, serial), [1]);
        assert!(
            news(&book, Some(serial)).is_empty(),
            "nobody here needs to hear it again"
        );
    }

    #[test]
    fn remote_users_without_a_common_room_are_forgotten_and_all_are_bounded() {
        let mut book = Book::new(0, MOST_USERS);
        book.change_or_add(
            UserNum(2),
            START,
            || User::remote(START),
            |user| {
                user.hear(PresenceState::Online, false, None, None, START);
            },
        );
        tell(&mut book, &[], START.after(COLLECT));
        assert!(book.get(UserNum(2)).is_none());
        for user in 0..MOST_USERS as u32 + 100 {
            come(&mut book, user, START);
            if user % 1_000 == 0 {
                tell(&mut book, &[ROOM], START.after(COLLECT));
            }
        }
        assert!(book.users.len() <= MOST_USERS);
        assert!(book.deadlines.len() <= MOST_USERS && book.pending.len() <= MOST_USERS);
        assert!(book.get(UserNum(0)).is_none());
        assert!(book.get(UserNum(MOST_USERS as u32 + 99)).is_some());
    }
}
