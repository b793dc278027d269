//! Who waits for what: each syncing user has a seat, each room a list of those who sit there for it.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use myelin_data::{
    rooms::{Membership, UserRoom},
    topic::Changed,
};
use myelin_store::{Observer, Topic};
use myelin_types::{Pos, RoomNum, UserNum};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::relations::Relations;

/// What a seat takes in memory besides the rooms that it follows, and each time that somebody stood up from it.
const SEAT: usize = 384;
const TIME: usize = 16;
/// What following a room takes: in the seat, and in the list of the room, which may be half empty.
const FOLLOWED: usize = size_of::<(RoomNum, UserRoom)>() + 16;

/// How many users' device lists may have changed without anybody having been called for it. If there are more, everybody is.
const MOST_ANNOUNCED: usize = 10_000;

/// The seats of the users who wait, or lately did.
pub(crate) struct Hub {
    seats: Mutex<Seats>,
    /// What the seats of users who do not wait just now may take in memory. They are kept, so that the next poll need not
    /// list its rooms again; when they take more, those who left first lose theirs.
    idle_bytes: usize,
    /// Users whose device lists have changed, until those who share a room with them are called. One more than
    /// [`MOST_ANNOUNCED`] stands for any number.
    announced: Mutex<BTreeSet<UserNum>>,
    announcing: Notify,
}

#[derive(Default)]
struct Seats {
    users: HashMap<UserNum, Seat>,
    rooms: HashMap<RoomNum, Vec<UserNum>>,
    /// Who stood up when: a user stands here as often as he did, and the last time counts.
    idle: VecDeque<(UserNum, u64)>,
    /// What those seats take in memory, by estimate.
    idle_bytes: usize,
    times_stood_up: u64,
}

struct Seat {
    calls: watch::Sender<u64>,
    /// The rooms by whose changes the user is called.
    follows: Option<Arc<Relations>>,
    waiting: usize,
    stood_up: u64,
}

/// A place in the hub, held while a sync is answered.
pub(crate) struct Sitting {
    hub: Arc<Hub>,
    user: UserNum,
    calls: watch::Receiver<u64>,
}

impl Hub {
    /// Seats of which those that nobody waits on may take so many bytes.
    pub(crate) fn new(idle_bytes: usize) -> Self {
        Self {
            seats: Mutex::default(),
            idle_bytes,
            announced: Mutex::default(),
            announcing: Notify::new(),
        }
    }

    /// Takes the user's seat. From now on every change of his own rows is noticed, and those of the rooms that he was last
    /// said to follow.
    pub(crate) fn sit(self: &Arc<Self>, user: UserNum) -> Sitting {
        let mut seats = self.seats.lock();
        let seat = seats.users.entry(user).or_insert_with(|| Seat {
            calls: watch::Sender::new(0),
            follows: None,
            waiting: 0,
            stood_up: 0,
        });
        seat.waiting += 1;
        let calls = seat.calls.subscribe();
        // Nobody sat on it until now; a seat that is new was never counted.
        let was_idle = seat.waiting == 1 && seat.stood_up > 0;
        let memory = seat.memory();
        if was_idle {
            seats.idle_bytes -= memory;
        }
        Sitting {
            hub: Arc::clone(self),
            user,
            calls,
        }
    }

    /// Says by which rooms a user is to be called. Returns whether that was news: then whoever read before must read again.
    pub(crate) fn follow(&self, user: UserNum, relations: &Arc<Relations>) -> bool {
        let mut seats = self.seats.lock();
        let Some(seat) = seats.users.get_mut(&user) else {
            return false;
        };
        if seat
            .follows
            .as_ref()
            .is_some_and(|follows| Arc::ptr_eq(follows, relations) || follows.pos > relations.pos)
        {
            return false;
        }
        let before = seat.follows.replace(Arc::clone(relations));
        let old: Vec<RoomNum> = before.iter().flat_map(|before| joined(before)).collect();
        let new: Vec<RoomNum> = joined(relations).collect();
        // Both ascend, as they were read in the order of room numbers.
        let added = new.iter().filter(|room| old.binary_search(room).is_err());
        let mut changed = before.is_none();
        for room in added {
            seats.rooms.entry(*room).or_default().push(user);
            changed = true;
        }
        for room in old.iter().filter(|room| new.binary_search(room).is_err()) {
            seats.leave(*room, user);
        }
        changed
    }

    fn wake_user(&self, user: UserNum) {
        if let Some(seat) = self.seats.lock().users.get(&user) {
            seat.call();
        }
    }

    /// Notes that the device list of a user has changed, for [`announced`](Hub::announced).
    fn announce(&self, user: UserNum) {
        let mut announced = self.announced.lock();
        if announced.len() <= MOST_ANNOUNCED {
            announced.insert(user);
        }
        drop(announced);
        self.announcing.notify_one();
    }

    /// Waits for users whose device lists change. Whom they share a room with is read from the store, which the committer's
    /// thread must not wait for. None if there are too many: everybody may be concerned then.
    pub(crate) async fn announced(&self) -> Option<BTreeSet<UserNum>> {
        loop {
            let announced = std::mem::take(&mut *self.announced.lock());
            if announced.len() > MOST_ANNOUNCED {
                return None;
            }
            if !announced.is_empty() {
                return Some(announced);
            }
            self.announcing.notified().await;
        }
    }

    /// Calls everybody who follows a room.
    pub(crate) fn wake_room(&self, room: RoomNum) {
        let seats = self.seats.lock();
        let users = seats.rooms.get(&room).into_iter().flatten();
        for seat in users.filter_map(|user| seats.users.get(user)) {
            seat.call();
        }
    }

    /// Calls everybody who follows one of several rooms, each once.
    pub(crate) fn wake_rooms(&self, rooms: &BTreeSet<RoomNum>) {
        let seats = self.seats.lock();
        let users = rooms.iter().filter_map(|room| seats.rooms.get(room));
        let users: HashSet<UserNum> = users.flatten().copied().collect();
        for seat in users.iter().filter_map(|user| seats.users.get(user)) {
            seat.call();
        }
    }

    /// Calls everybody.
    pub(crate) fn wake_all(&self) {
        self.seats.lock().users.values().for_each(Seat::call);
    }

    fn stand_up(&self, user: UserNum) {
        let mut seats = self.seats.lock();
        seats.times_stood_up += 1;
        let time = seats.times_stood_up;
        let Some(seat) = seats.users.get_mut(&user) else {
            return;
        };
        seat.waiting -= 1;
        seat.stood_up = time;
        if seat.waiting == 0 {
            seats.idle_bytes += seat.memory();
        }
        seats.idle.push_back((user, time));
        while seats.idle_bytes + seats.idle.len() * TIME > self.idle_bytes
            && let Some((first, time)) = seats.idle.pop_front()
        {
            seats.give_away(first, time);
        }
    }
}

impl Seats {
    fn leave(&mut self, room: RoomNum, user: UserNum) {
        if let Some(users) = self.rooms.get_mut(&room) {
            if let Some(at) = users.iter().position(|other| *other == user) {
                users.swap_remove(at);
            }
            if users.is_empty() {
                self.rooms.remove(&room);
            }
        }
    }

    /// Takes the seat from a user who has not sat on it since `time`.
    fn give_away(&mut self, user: UserNum, time: u64) {
        let seat = self.users.get(&user);
        if seat.is_none_or(|seat| seat.waiting > 0 || seat.stood_up != time) {
            return;
        }
        let Some(seat) = self.users.remove(&user) else {
            return;
        };
        self.idle_bytes -= seat.memory();
        for room in seat.follows.iter().flat_map(|relations| joined(relations)) {
            self.leave(room, user);
        }
    }
}

impl Seat {
    /// Bytes of memory that the seat takes. Changes only while somebody sits on it.
    fn memory(&self) -> usize {
        let rooms = self
            .follows
            .as_ref()
            .map_or(0, |follows| follows.rooms.len());
        SEAT + rooms * FOLLOWED
    }

    fn call(&self) {
        if self.waiting > 0 {
            self.calls.send_modify(|calls| *calls += 1);
        }
    }
}

impl Observer for Hub {
    // On the committer's thread: a map lookup and a wake-up for each user who waits for this room, nothing else.
    fn answered(&self, _: Pos, topics: &[Topic]) {
        for topic in topics {
            match Changed::from_topic(*topic) {
                Some(Changed::Timeline(room) | Changed::Receipts(room)) => self.wake_room(room),
                Some(
                    Changed::User(user)
                    | Changed::OwnReceipts(user)
                    | Changed::ToDevice(user)
                    | Changed::KeySignatures(user),
                ) => self.wake_user(user),
                Some(Changed::Devices(user)) => {
                    self.wake_user(user);
                    self.announce(user);
                }
                _ => {}
            }
        }
    }
}

impl Sitting {
    /// Notes what was called so far: from now on only later calls count.
    pub(crate) fn note(&mut self) {
        self.calls.borrow_and_update();
    }

    /// Waits for a call that was not noted. False if there is none before `deadline`.
    pub(crate) async fn called_before(&mut self, deadline: Instant) -> bool {
        let call = tokio::time::timeout_at(deadline, self.calls.changed()).await;
        matches!(call, Ok(Ok(())))
    }
}

impl Drop for Sitting {
    fn drop(&mut self) {
        self.hub.stand_up(self.user);
    }
}

fn joined(relations: &Relations) -> impl Iterator<Item = RoomNum> + '_ {
    let rooms = relations.rooms.iter();
    rooms
        .filter(|(_, relation)| relation.membership == Membership::Join)
        .map(|(room, _)| *room)
}
