//! Who is typing: in memory only, with serials of its own for the readers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Weak},
    time::Duration,
};

use myelin_types::{Clock, Millis, RoomNum, UserNum};
use parking_lot::Mutex;
use ruma::{RoomId, UserId};
use thiserror::Error;
use tokio::sync::{Notify, watch};

use crate::{Failure, Rooms};

/// The longest time that one notification counts for.
const LONGEST: Duration = Duration::from_mins(2);
/// How many users at most are shown typing in a room. Further ones are not noted until one of them stops.
const MOST_TYPISTS: usize = 32;
/// In rooms with more joined members than this nobody is shown typing.
const MOST_MEMBERS: u64 = 5_000;
/// How long a room in which nobody types any more is remembered, for readers that have not seen it yet.
const REMEMBERED: Duration = Duration::from_mins(15);
/// The shortest sleep between two looks at the clock, which may be another than the runtime's.
const SHORTEST_SLEEP: Duration = Duration::from_millis(20);

/// Who is typing in which room. Cheap to clone.
#[derive(Clone)]
pub struct Typing(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    serial: watch::Sender<u64>,
    /// Wakes the task that expires notifications.
    deadline_moved: Arc<Notify>,
}

#[derive(Default)]
struct State {
    serial: u64,
    rooms: HashMap<RoomNum, RoomTyping>,
    /// Rooms by the serial of their last change.
    changes: BTreeMap<u64, RoomNum>,
    /// When something of a room ends, soonest first: one entry for each of `rooms`, equal to its `due`.
    deadlines: BTreeSet<(Millis, RoomNum)>,
    observers: Vec<Arc<dyn Fn(RoomNum) + Send + Sync>>,
}

struct RoomTyping {
    serial: u64,
    changed_at: Millis,
    users: Vec<(UserNum, Millis)>,
    /// Under which deadline the room is queued.
    due: Millis,
}

impl RoomTyping {
    /// When the next notification ends, or when the room, in which nobody types, is forgotten.
    fn deadline(&self) -> Millis {
        let ends = self.users.iter().map(|(_, until)| *until).min();
        ends.unwrap_or(self.changed_at.after(REMEMBERED))
    }
}

/// Who is typing in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypingSnapshot {
    /// The serial of the room's last change.
    pub serial: u64,
    /// Who types, in the order in which they began.
    pub users: Vec<UserNum>,
}

/// Why typing was not noted.
#[derive(Clone, Debug, Error)]
pub enum TypingError {
    /// The server does not know the room.
    #[error("the room is not known")]
    RoomNotFound,
    /// The user is not in the room (`M_FORBIDDEN`).
    #[error("the user is not in the room")]
    NotInRoom,
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl State {
    fn changed(&mut self, room: RoomNum, now: Millis) {
        self.serial += 1;
        if let Some(typing) = self.rooms.get_mut(&room) {
            self.changes.remove(&typing.serial);
            typing.serial = self.serial;
            typing.changed_at = now;
            self.changes.insert(self.serial, room);
        }
    }

    /// When the next notification ends, or the next silent room is forgotten.
    fn deadline(&self) -> Option<Millis> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    /// Queues a room anew, after what is in it has changed.
    fn queue(&mut self, room: RoomNum) {
        if let Some(typing) = self.rooms.get_mut(&room) {
            self.deadlines.remove(&(typing.due, room));
            typing.due = typing.deadline();
            self.deadlines.insert((typing.due, room));
        }
    }

    /// Takes the rooms in which something has ended off the queue.
    fn take_due(&mut self, now: Millis) -> Vec<RoomNum> {
        let mut due = Vec::new();
        while let Some((at, room)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.pop_first();
            due.push(room);
        }
        due
    }

    /// Ends the notifications of a room whose time is over, and forgets it if it has long been silent. Returns whether
    /// somebody stopped typing. A room that is kept is to be queued again.
    fn expire(&mut self, room: RoomNum, now: Millis) -> bool {
        let Some(typing) = self.rooms.get_mut(&room) else {
            return false;
        };
        let before = typing.users.len();
        typing.users.retain(|(_, until)| *until > now);
        if typing.users.len() != before {
            self.changed(room, now);
            return true;
        }
        if typing.users.is_empty() && typing.deadline() <= now {
            self.changes.remove(&typing.serial);
            self.rooms.remove(&room);
        }
        false
    }
}

impl Typing {
    /// Nobody types. Serials start at the clock's milliseconds, so that they go on growing across restarts.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let serial = clock.now().0;
        let typing = Self(Arc::new(Inner {
            clock,
            state: Mutex::new(State {
                serial,
                ..State::default()
            }),
            serial: watch::Sender::new(serial),
            deadline_moved: Arc::default(),
        }));
        tokio::spawn(expire_for_ever(Arc::downgrade(&typing.0)));
        typing
    }

    /// The serial of the last change anywhere. Greater after every change, also across restarts of the server.
    pub fn serial(&self) -> u64 {
        self.0.state.lock().serial
    }

    /// Who types in a room, if that changed after `serial`.
    pub fn since(&self, room: RoomNum, serial: u64) -> Option<TypingSnapshot> {
        let state = self.0.state.lock();
        let typing = state.rooms.get(&room)?;
        (typing.serial > serial).then(|| TypingSnapshot {
            serial: typing.serial,
            users: typing.users.iter().map(|(user, _)| *user).collect(),
        })
    }

    /// The rooms in which that changed after `serial`.
    pub fn changed_since(&self, serial: u64) -> Vec<RoomNum> {
        let state = self.0.state.lock();
        let after = state.changes.range(serial.saturating_add(1)..);
        after.map(|(_, room)| *room).collect()
    }

    /// Changes with every change of who types anywhere; the value is [`Typing::serial`].
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.serial.subscribe()
    }

    /// Calls `observer` with the room after every change of who types there. It must not block.
    pub fn observe(&self, observer: Arc<dyn Fn(RoomNum) + Send + Sync>) {
        self.0.state.lock().observers.push(observer);
    }

    /// Notes that a user types until `timeout` from now, or does not type any more.
    pub(crate) fn set(&self, room: RoomNum, user: UserNum, timeout: Option<Duration>) {
        let now = self.0.clock.now();
        let mut state = self.0.state.lock();
        let deadline = state.deadline();
        let changed = match timeout {
            Some(timeout) => {
                let until = now.after(timeout.min(LONGEST));
                let typing = state.rooms.entry(room).or_insert_with(|| RoomTyping {
                    // No change has this serial: that of the last one may be another room's.
                    serial: 0,
                    changed_at: now,
                    users: Vec::new(),
                    due: Millis(0),
                });
                let before = typing.users.len();
                let known = typing.users.iter().position(|(other, _)| *other == user);
                match known {
                    Some(index) => typing.users[index].1 = until,
                    None if typing.users.len() < MOST_TYPISTS => typing.users.push((user, until)),
                    None => {}
                }
                typing.users.len() != before
            }
            None => state.rooms.get_mut(&room).is_some_and(|typing| {
                let before = typing.users.len();
                typing.users.retain(|(other, _)| *other != user);
                typing.users.len() != before
            }),
        };
        if changed {
            state.changed(room, now);
        }
        state.queue(room);
        let sooner = state
            .deadline()
            .is_some_and(|next| deadline.is_none_or(|before| next < before));
        self.tell(state, if changed { vec![room] } else { Vec::new() });
        // The task that waits for a deadline which moved away comes too early once, which does no harm.
        if sooner {
            self.0.deadline_moved.notify_one();
        }
    }

    /// Ends the notifications whose time is over, and forgets rooms that have long been silent. Looks at the rooms in which
    /// that happens and at no others.
    pub fn expire(&self) {
        let now = self.0.clock.now();
        let mut state = self.0.state.lock();
        let mut changed = Vec::new();
        for room in state.take_due(now) {
            if state.expire(room, now) {
                changed.push(room);
            }
            state.queue(room);
        }
        self.tell(state, changed);
    }

    /// Tells the readers, without the lock.
    fn tell(&self, state: parking_lot::MutexGuard<'_, State>, rooms: Vec<RoomNum>) {
        if rooms.is_empty() {
            return;
        }
        let (serial, observers) = (state.serial, state.observers.clone());
        drop(state);
        self.0.serial.send_if_modified(|current| {
            let newer = serial > *current;
            if newer {
                *current = serial;
            }
            newer
        });
        for observer in observers {
            for room in &rooms {
                observer(*room);
            }
        }
    }
}

/// Ends notifications in time, until nobody holds the typing state any more.
async fn expire_for_ever(inner: Weak<Inner>) {
    loop {
        let Some(typing) = inner.upgrade().map(Typing) else {
            return;
        };
        typing.expire();
        let deadline = typing.0.state.lock().deadline();
        let now = typing.0.clock.now();
        let sleep = deadline.map_or(REMEMBERED, |deadline| deadline.since(now));
        let sleep = tokio::time::sleep(sleep.clamp(SHORTEST_SLEEP, REMEMBERED));
        let deadline_moved = Arc::clone(&typing.0.deadline_moved);
        drop(typing);
        tokio::select! {
            () = sleep => {}
            () = deadline_moved.notified() => {}
        }
    }
}

impl Rooms {
    /// Notes that a user types for `timeout` from now, or with `None` that he stopped
    /// (`PUT /rooms/{roomId}/typing/{userId}`). Long timeouts are cut to two minutes, and in rooms with thousands of
    /// members nothing is noted.
    pub async fn set_typing(
        &self,
        room_id: &RoomId,
        user: &UserId,
        timeout: Option<Duration>,
    ) -> Result<(), TypingError> {
        self.number_missing(room_id, user).await?;
        let (rooms, room_id, user) = (self.clone(), room_id.to_owned(), user.to_owned());
        let (room, user, members) = self
            .0
            .store
            .read(move |view| {
                let Some(handle) = rooms.find(view, &room_id)? else {
                    return Ok(Err(TypingError::RoomNotFound));
                };
                let Some(user) = rooms.present_user(view, handle.num, &user)? else {
                    return Ok(Err(TypingError::NotInRoom));
                };
                let head = view.get::<myelin_data::rooms::Heads>(&handle.num)?;
                Ok(Ok((handle.num, user, head.map_or(0, |head| head.joined))))
            })
            .await
            .map_err(|error: myelin_store::StoreError| Failure::from(error))??;
        if members <= MOST_MEMBERS {
            self.0.typing.set(room, user, timeout);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use myelin_types::{Clock, Millis, MockClock, Random, RoomNum, SeededRandom, UserNum};

    use super::{LONGEST, MOST_TYPISTS, REMEMBERED, Typing};

    const ROOM: RoomNum = RoomNum(1);

    fn typing() -> (Arc<MockClock>, Typing) {
        let clock = Arc::new(MockClock::new(Millis(1_000)));
        (Arc::clone(&clock), Typing::new(clock))
    }

    fn typists(typing: &Typing, since: u64) -> Option<Vec<u32>> {
        let snapshot = typing.since(ROOM, since)?;
        Some(snapshot.users.into_iter().map(|user| user.0).collect())
    }

    #[tokio::test]
    async fn starting_stopping_and_repeating() {
        let (_, typing) = typing();
        let start = typing.serial();
        assert!(start >= 1_000);
        assert_eq!(typists(&typing, start), None);

        typing.set(ROOM, UserNum(1), Some(Duration::from_secs(10)));
        typing.set(ROOM, UserNum(2), Some(Duration::from_secs(10)));
        assert_eq!(typists(&typing, start), Some(vec![1, 2]));
        assert_eq!(typing.changed_since(start), [ROOM]);

        let both = typing.serial();
        typing.set(ROOM, UserNum(1), Some(Duration::from_secs(20)));
        assert_eq!(typists(&typing, both), None, "nothing new to tell");

        typing.set(ROOM, UserNum(1), None);
        assert_eq!(typists(&typing, both), Some(vec![2]));
        typing.set(ROOM, UserNum(2), None);
        assert_eq!(typists(&typing, both), Some(vec![]));
    }

    #[tokio::test]
    async fn time_ends_typing_and_wakes_readers() {
        let (clock, typing) = typing();
        let mut watch = typing.watch();
        typing.set(ROOM, UserNum(1), Some(Duration::from_hours(1)));
        assert!(watch.has_changed().is_ok_and(|changed| changed));
        let serial = *watch.borrow_and_update();

        clock.advance(LONGEST + Duration::from_secs(1));
        typing.expire();
        assert!(watch.has_changed().is_ok_and(|changed| changed));
        assert_eq!(typists(&typing, serial), Some(vec![]));

        clock.advance(REMEMBERED);
        typing.expire();
        assert_eq!(typists(&typing, 0), None);
        assert!(typing.changed_since(0).is_empty());
    }

    #[tokio::test]
    async fn the_expiry_task_runs_by_itself() {
        let (clock, typing) = typing();
        typing.set(ROOM, UserNum(1), Some(Duration::from_millis(50)));
        let mut watch = typing.watch();
        clock.advance(Duration::from_secs(1));
        let changed = tokio::time::timeout(Duration::from_secs(10), watch.changed()).await;
        assert!(changed.is_ok());
        assert_eq!(typists(&typing, 0), Some(vec![]));
    }

    #[tokio::test]
    async fn only_rooms_in_which_something_ends_are_looked_at() {
        let (clock, typing) = typing();
        for room in 0..1_000 {
            typing.set(RoomNum(room), UserNum(1), Some(Duration::from_mins(1)));
        }
        typing.set(RoomNum(7), UserNum(2), Some(Duration::from_secs(10)));
        clock.advance(Duration::from_secs(20));
        let due = typing.0.state.lock().take_due(clock.now());
        assert_eq!(due, [RoomNum(7)]);
        typing.0.state.lock().queue(RoomNum(7));
        typing.expire();
        let seven = typing.since(RoomNum(7), 0).expect("it is remembered");
        assert_eq!(seven.users, [UserNum(1)]);
    }

    #[tokio::test]
    async fn each_room_is_queued_once_under_its_next_deadline() {
        let (clock, typing) = typing();
        let random = SeededRandom::new(1);
        let mut bytes = [0; 4];
        for _ in 0..5_000 {
            random.fill(&mut bytes);
            let [room, user, seconds, pause] = bytes;
            let (room, user) = (RoomNum((room % 20).into()), UserNum((user % 50).into()));
            let timeout = (seconds % 4 != 0).then(|| Duration::from_secs((seconds % 150).into()));
            typing.set(room, user, timeout);
            if pause % 8 == 0 {
                clock.advance(Duration::from_secs(2 * u64::from(pause)));
                typing.expire();
            }
            let state = typing.0.state.lock();
            let rooms = state.rooms.iter();
            let expected = rooms.map(|(room, typing)| (typing.deadline(), *room));
            assert_eq!(state.deadlines, expected.collect());
            assert_eq!(state.changes.len(), state.rooms.len());
        }
    }

    #[tokio::test]
    async fn typists_are_capped() {
        let (_, typing) = typing();
        for user in 0..100 {
            typing.set(ROOM, UserNum(user), Some(Duration::from_secs(10)));
        }
        assert_eq!(
            typists(&typing, 0).map(|users| users.len()),
            Some(MOST_TYPISTS)
        );
    }
}
