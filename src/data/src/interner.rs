//! Gives users, rooms, events and state keys their numbers, and finds what a number stands for.
//!
//! A number is durable before anybody learns of it, and none is ever given twice. Users and state keys are interned
//! when they are first met, with a commit of their own under a lock: that happens once in the life of each. Events and
//! rooms take their numbers from blocks that are reserved ahead, so that no event waits for the disk to be numbered;
//! what a block had left when the process ended is skipped.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use myelin_store::{Batch, CommitError, Store, StoreError, View};
use myelin_types::{EventNum, RoomNum, StateKeyNum, UserNum};
use quick_cache::{Weighter, sync::Cache};
use ruma::{OwnedUserId, RoomId, UserId};
use tokio::sync::Mutex;

use crate::{
    accounts::{Number, Text, UserIds, UserNums},
    log::{Counter, Counters},
    rooms::{Room, RoomNums, Rooms, StateKeyNums, StateKeyText, StateKeys},
};

const MEMBER: &str = "m.room.member";

/// Why a number could not be given.
#[derive(Debug, thiserror::Error)]
pub enum InternError {
    /// The store could not be read.
    #[error("read interned numbers")]
    Read(#[from] StoreError),
    /// The number could not be made durable.
    #[error("write interned numbers")]
    Commit(#[from] CommitError),
    /// There are no numbers of this kind left.
    #[error("all numbers for {0} are used up")]
    Exhausted(&'static str),
}

/// The interners of one database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Interner(Arc<Inner>);

struct Inner {
    store: Store,
    users: Mutex<()>,
    state_keys: Mutex<()>,
    events: Mutex<Block>,
    rooms: Mutex<Block>,
    user_by_id: Cache<String, UserNum, ByText>,
    user_by_num: Cache<UserNum, OwnedUserId, ByText>,
    key_by_text: Cache<StateKeyText, StateKeyNum, ByText>,
    key_by_num: Cache<StateKeyNum, Arc<StateKeyText>, ByText>,
    room_by_id: Cache<String, RoomNum, ByText>,
    room_by_num: Cache<RoomNum, Arc<Room>, ByText>,
}

/// Weighs names and numbers by the memory that they take.
#[derive(Clone)]
struct ByText;

/// What a cached name takes besides its text: the cache's row and its share of the index, the blocks of the texts.
const ROW: usize = 160;

impl ByText {
    fn weight(text: usize) -> u64 {
        (ROW + text) as u64
    }
}

impl<N> Weighter<String, N> for ByText {
    fn weight(&self, id: &String, _: &N) -> u64 {
        Self::weight(id.len())
    }
}

impl Weighter<UserNum, OwnedUserId> for ByText {
    fn weight(&self, _: &UserNum, id: &OwnedUserId) -> u64 {
        Self::weight(id.as_str().len())
    }
}

impl Weighter<StateKeyText, StateKeyNum> for ByText {
    fn weight(&self, text: &StateKeyText, _: &StateKeyNum) -> u64 {
        Self::weight(text.event_type.len() + text.state_key.len())
    }
}

impl Weighter<StateKeyNum, Arc<StateKeyText>> for ByText {
    fn weight(&self, _: &StateKeyNum, text: &Arc<StateKeyText>) -> u64 {
        Self::weight(text.event_type.len() + text.state_key.len())
    }
}

impl Weighter<RoomNum, Arc<Room>> for ByText {
    fn weight(&self, _: &RoomNum, room: &Arc<Room>) -> u64 {
        Self::weight(room.room_id.len() + room.version.len())
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interner").finish_non_exhaustive()
    }
}

/// Numbers `next..reserved` may be given out without a write.
#[derive(Debug)]
struct Block {
    counter: &'static str,
    size: u64,
    next: u64,
    reserved: u64,
}

impl Block {
    fn open(view: &View, counter: &'static str, size: u64) -> Result<Block, StoreError> {
        let next = view
            .get::<Counters>(&counter.to_owned())?
            .map_or(1, |counter| counter.0);
        Ok(Block {
            counter,
            size,
            next,
            reserved: next,
        })
    }

    /// The first of `count` numbers that are given to nobody else.
    async fn take(&mut self, store: &Store, count: u64) -> Result<u64, InternError> {
        let end = self
            .next
            .checked_add(count)
            .ok_or(InternError::Exhausted(self.counter))?;
        if end > self.reserved {
            let reserved = end.saturating_add(self.size);
            let mut batch = Batch::new();
            batch.put::<Counters>(&self.counter.to_owned(), &Counter(reserved));
            store.commit(batch).await?;
            self.reserved = reserved;
        }
        let first = self.next;
        self.next = end;
        Ok(first)
    }
}

const USERS: &str = "users";
const STATE_KEYS: &str = "state_keys";

/// A cache that takes at most about `bytes`.
fn remembering<K: Eq + Hash, V: Clone>(bytes: usize) -> Cache<K, V, ByText>
where
    ByText: Weighter<K, V>,
{
    Cache::with_weighter((bytes / ROW).max(16), bytes as u64, ByText)
}

/// What the caches may take where nothing is said about it, in bytes.
const MEMORY: usize = 16 << 20;

impl Interner {
    /// The interners of `store`.
    pub async fn open(store: Store) -> Result<Interner, InternError> {
        Self::with_memory(store, MEMORY).await
    }

    /// The interners of `store`, which may take about `memory` bytes for the names that they remember.
    pub async fn with_memory(store: Store, memory: usize) -> Result<Interner, InternError> {
        // Users and state keys are as many as there are members, and each stands there twice.
        let (member, room) = (memory / 16 * 3, memory / 8);
        let (events, rooms) = store
            .read(|view| -> Result<_, StoreError> {
                Ok((
                    Block::open(view, "events", 1 << 16)?,
                    Block::open(view, "rooms", 64)?,
                ))
            })
            .await?;
        Ok(Interner(Arc::new(Inner {
            store,
            users: Mutex::new(()),
            state_keys: Mutex::new(()),
            events: Mutex::new(events),
            rooms: Mutex::new(rooms),
            user_by_id: remembering(member),
            user_by_num: remembering(member),
            key_by_text: remembering(member),
            key_by_num: remembering(member),
            room_by_id: remembering(room),
            room_by_num: remembering(room),
        })))
    }

    /// The store that the numbers stand in.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The number of `user`, given now if he was never met.
    pub async fn user(&self, user: &UserId) -> Result<UserNum, InternError> {
        if let Some(num) = self.0.user_by_id.get(user.as_str()) {
            return Ok(num);
        }
        let nums = self.users(&[user.to_owned()]).await?;
        nums.first().copied().ok_or(InternError::Exhausted(USERS))
    }

    /// The numbers of `users`, in their order, given now to those who were never met.
    pub async fn users(&self, users: &[OwnedUserId]) -> Result<Vec<UserNum>, InternError> {
        if let Some(known) = users
            .iter()
            .map(|user| self.0.user_by_id.get(user.as_str()))
            .collect()
        {
            return Ok(known);
        }
        let lock = self.0.users.lock().await;
        let keys: Vec<String> = users.iter().map(ToString::to_string).collect();
        let (found, counter) = self.0.read_numbers::<UserNums>(keys, USERS).await?;
        let mut next = counter;
        let mut batch = Batch::new();
        let mut fresh: HashMap<&OwnedUserId, UserNum> = HashMap::new();
        let mut nums = Vec::with_capacity(users.len());
        for (user, found) in users.iter().zip(found) {
            let num = match (found, fresh.get(user)) {
                (Some(number), _) => UserNum(number.0),
                (None, Some(num)) => *num,
                (None, None) => {
                    let num = UserNum(number_below(next, u64::from(u32::MAX), USERS)?);
                    next += 1;
                    batch.put::<UserNums>(&user.to_string(), &Number(num.0));
                    batch.put::<UserIds>(&num, &Text(user.to_string()));
                    fresh.insert(user, num);
                    num
                }
            };
            nums.push(num);
        }
        if next > counter {
            batch.put::<Counters>(&USERS.to_owned(), &Counter(next));
            self.0.store.commit(batch).await?;
        }
        drop(lock);
        for (user, num) in users.iter().zip(&nums) {
            self.0.user_by_id.insert(user.to_string(), *num);
            self.0.user_by_num.insert(*num, user.clone());
        }
        Ok(nums)
    }

    /// The numbers of pairs of event type and state key, in their order, given now to those that were never met.
    pub async fn state_keys(
        &self,
        pairs: &[(String, String)],
    ) -> Result<Vec<StateKeyNum>, InternError> {
        let texts: Vec<StateKeyText> = pairs
            .iter()
            .map(|(event_type, state_key)| StateKeyText {
                event_type: event_type.clone(),
                state_key: state_key.clone(),
            })
            .collect();
        if let Some(known) = texts
            .iter()
            .map(|text| self.0.key_by_text.get(text))
            .collect()
        {
            return Ok(known);
        }
        let lock = self.0.state_keys.lock().await;
        let (found, counter) = self
            .0
            .read_numbers::<StateKeyNums>(pairs.to_vec(), STATE_KEYS)
            .await?;
        let mut next = counter;
        let mut batch = Batch::new();
        let mut fresh: HashMap<&StateKeyText, StateKeyNum> = HashMap::new();
        let mut nums = Vec::with_capacity(texts.len());
        for ((text, pair), found) in texts.iter().zip(pairs).zip(found) {
            let num = match (found, fresh.get(text)) {
                (Some(number), _) => StateKeyNum(number.0),
                (None, Some(num)) => *num,
                (None, None) => {
                    let number =
                        number_below(next, u64::from(StateKeyNum::MEMBER_BIT), STATE_KEYS)?;
                    let num = if text.event_type == MEMBER {
                        StateKeyNum(number | StateKeyNum::MEMBER_BIT)
                    } else {
                        StateKeyNum(number)
                    };
                    next += 1;
                    batch.put::<StateKeyNums>(pair, &Number(num.0));
                    batch.put::<StateKeys>(&num, text);
                    fresh.insert(text, num);
                    num
                }
            };
            nums.push(num);
        }
        if next > counter {
            batch.put::<Counters>(&STATE_KEYS.to_owned(), &Counter(next));
            self.0.store.commit(batch).await?;
        }
        drop(lock);
        for (text, num) in texts.into_iter().zip(&nums) {
            self.0.key_by_text.insert(text.clone(), *num);
            self.0.key_by_num.insert(*num, Arc::new(text));
        }
        Ok(nums)
    }

    /// The first of `count` fresh event numbers.
    pub async fn next_events(&self, count: u64) -> Result<EventNum, InternError> {
        let mut block = self.0.events.lock().await;
        block.take(&self.0.store, count).await.map(EventNum)
    }

    /// A fresh room number. It stands for a room once [`Rooms`] says so.
    pub async fn next_room(&self) -> Result<RoomNum, InternError> {
        let mut block = self.0.rooms.lock().await;
        let number = block.take(&self.0.store, 1).await?;
        number_below(number, u64::from(u32::MAX), "rooms").map(RoomNum)
    }

    /// The number of `user`, if this server ever met him.
    pub fn find_user(&self, view: &View, user: &UserId) -> Result<Option<UserNum>, StoreError> {
        if let Some(num) = self.0.user_by_id.get(user.as_str()) {
            return Ok(Some(num));
        }
        let Some(number) = view.get::<UserNums>(&user.to_string())? else {
            return Ok(None);
        };
        let num = UserNum(number.0);
        self.0.user_by_id.insert(user.to_string(), num);
        self.0.user_by_num.insert(num, user.to_owned());
        Ok(Some(num))
    }

    /// The id of a user's number.
    ///
    /// # Errors
    /// [`StoreError::Missing`] for a number that was never given.
    pub fn user_id(&self, view: &View, user: UserNum) -> Result<OwnedUserId, StoreError> {
        let mut ids = self.user_ids(view, &[user])?;
        ids.pop().ok_or(StoreError::Missing("user_ids"))
    }

    /// The ids of users' numbers, in their order.
    pub fn user_ids(&self, view: &View, users: &[UserNum]) -> Result<Vec<OwnedUserId>, StoreError> {
        let mut ids: Vec<Option<OwnedUserId>> = users
            .iter()
            .map(|user| self.0.user_by_num.get(user))
            .collect();
        let unknown: Vec<UserNum> = missing(users, &ids);
        if !unknown.is_empty() {
            let mut texts = view.multi_get::<UserIds>(&unknown)?.into_iter();
            for (slot, user) in ids.iter_mut().zip(users).filter(|(slot, _)| slot.is_none()) {
                let text = texts
                    .next()
                    .flatten()
                    .ok_or(StoreError::Missing("user_ids"))?;
                let id =
                    OwnedUserId::try_from(text.0).map_err(|_| StoreError::Missing("user_ids"))?;
                self.0.user_by_num.insert(*user, id.clone());
                *slot = Some(id);
            }
        }
        Ok(ids.into_iter().flatten().collect())
    }

    /// The number of an event type and state key, if anybody ever set it anywhere.
    pub fn find_state_key(
        &self,
        view: &View,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<StateKeyNum>, StoreError> {
        let nums = self.find_state_keys(view, &[(event_type, state_key)])?;
        Ok(nums.into_iter().next().flatten())
    }

    /// The numbers of pairs of event type and state key, in their order.
    pub fn find_state_keys(
        &self,
        view: &View,
        pairs: &[(&str, &str)],
    ) -> Result<Vec<Option<StateKeyNum>>, StoreError> {
        let texts: Vec<StateKeyText> = pairs
            .iter()
            .map(|(event_type, state_key)| StateKeyText {
                event_type: (*event_type).to_owned(),
                state_key: (*state_key).to_owned(),
            })
            .collect();
        let mut nums: Vec<Option<StateKeyNum>> = texts
            .iter()
            .map(|text| self.0.key_by_text.get(text))
            .collect();
        let unknown: Vec<StateKeyText> = missing(&texts, &nums);
        if unknown.is_empty() {
            return Ok(nums);
        }
        let keys: Vec<(String, String)> = unknown
            .into_iter()
            .map(|text| (text.event_type, text.state_key))
            .collect();
        let mut found = view.multi_get::<StateKeyNums>(&keys)?.into_iter();
        for (slot, text) in nums
            .iter_mut()
            .zip(texts)
            .filter(|(slot, _)| slot.is_none())
        {
            if let Some(number) = found.next().flatten() {
                let num = StateKeyNum(number.0);
                self.0.key_by_num.insert(num, Arc::new(text.clone()));
                self.0.key_by_text.insert(text, num);
                *slot = Some(num);
            }
        }
        Ok(nums)
    }

    /// The event type and state key that a number stands for.
    ///
    /// # Errors
    /// [`StoreError::Missing`] for a number that was never given.
    pub fn state_key(
        &self,
        view: &View,
        num: StateKeyNum,
    ) -> Result<Arc<StateKeyText>, StoreError> {
        if let Some(text) = self.0.key_by_num.get(&num) {
            return Ok(text);
        }
        let text = view
            .get::<StateKeys>(&num)?
            .ok_or(StoreError::Missing("state_keys"))?;
        let text = Arc::new(text);
        self.0.key_by_num.insert(num, Arc::clone(&text));
        Ok(text)
    }

    /// The number of a room, if this server knows it.
    pub fn find_room(&self, view: &View, room: &RoomId) -> Result<Option<RoomNum>, StoreError> {
        if let Some(num) = self.0.room_by_id.get(room.as_str()) {
            return Ok(Some(num));
        }
        let Some(number) = view.get::<RoomNums>(&room.to_string())? else {
            return Ok(None);
        };
        let num = RoomNum(number.0);
        self.0.room_by_id.insert(room.to_string(), num);
        Ok(Some(num))
    }

    /// Says that the number of a room is another one now, by a batch that is durable.
    pub fn renumbered(&self, room: &str, num: RoomNum) {
        self.0.room_by_id.insert(room.to_owned(), num);
    }

    /// What does not change about a room.
    ///
    /// # Errors
    /// [`StoreError::Missing`] for a number that stands for no room.
    pub fn room(&self, view: &View, num: RoomNum) -> Result<Arc<Room>, StoreError> {
        if let Some(room) = self.0.room_by_num.get(&num) {
            return Ok(room);
        }
        let room = view
            .get::<Rooms>(&num)?
            .ok_or(StoreError::Missing("rooms"))?;
        let room = Arc::new(room);
        self.0.room_by_num.insert(num, Arc::clone(&room));
        Ok(room)
    }
}

impl Inner {
    /// The numbers under `keys`, and the next number of the counter, read from the newest view. The caller holds the
    /// lock of this kind, so nobody takes a number meanwhile.
    async fn read_numbers<T>(
        &self,
        keys: Vec<T::Key>,
        counter: &'static str,
    ) -> Result<(Vec<Option<Number>>, u64), StoreError>
    where
        T: myelin_store::Table<Value = Number>,
    {
        self.store
            .read(move |view| {
                let found = view.multi_get::<T>(&keys)?;
                let next = view
                    .get::<Counters>(&counter.to_owned())?
                    .map_or(1, |counter| counter.0);
                Ok((found, next))
            })
            .await
    }
}

/// The items whose slot is empty, in their order.
fn missing<T: Clone, U>(items: &[T], slots: &[Option<U>]) -> Vec<T> {
    items
        .iter()
        .zip(slots)
        .filter(|(_, slot)| slot.is_none())
        .map(|(item, _)| item.clone())
        .collect()
}

fn number_below(number: u64, limit: u64, kind: &'static str) -> Result<u32, InternError> {
    if number >= limit {
        return Err(InternError::Exhausted(kind));
    }
    u32::try_from(number).map_err(|_| InternError::Exhausted(kind))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use myelin_store::{Options, Store};
    use ruma::user_id;

    use super::Interner;
    use crate::{PRODUCT, SCHEMA, tables};

    fn store(dir: &Path) -> Store {
        let options = Options {
            memory_budget: 32 << 20,
            product: PRODUCT,
            schema: SCHEMA,
            tables: tables(),
        };
        Store::open(dir, options).expect("a new directory opens")
    }

    #[tokio::test]
    async fn numbers_stay_the_same_across_a_restart_and_are_never_given_twice() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let alice = user_id!("@alice:example.org");
        let bob = user_id!("@bob:example.org");
        let pairs = [
            ("m.room.name".to_owned(), String::new()),
            ("m.room.member".to_owned(), alice.to_string()),
        ];

        let first = store(dir.path());
        let interner = Interner::open(first.clone()).await.expect("opens");
        let alice_num = interner.user(alice).await.expect("is given");
        let keys = interner.state_keys(&pairs).await.expect("are given");
        assert!(!keys[0].is_member());
        assert!(keys[1].is_member());
        let event = interner.next_events(3).await.expect("are given");
        let room = interner.next_room().await.expect("is given");
        drop(interner);
        first.close();
        drop(first);

        let second = store(dir.path());
        let interner = Interner::open(second.clone()).await.expect("opens");
        assert_eq!(interner.user(alice).await.expect("is known"), alice_num);
        assert_eq!(interner.state_keys(&pairs).await.expect("are known"), keys);
        assert_ne!(interner.user(bob).await.expect("is given"), alice_num);
        assert!(interner.next_events(1).await.expect("is given").0 >= event.0 + 3);
        assert!(interner.next_room().await.expect("is given") > room);

        let view = second.view();
        assert_eq!(interner.user_id(&view, alice_num).expect("is found"), alice);
        assert_eq!(
            interner
                .find_state_key(&view, "m.room.name", "")
                .expect("is read"),
            Some(keys[0])
        );
        assert_eq!(
            interner
                .find_state_key(&view, "m.room.topic", "")
                .expect("is read"),
            None
        );
    }

    #[tokio::test]
    async fn one_user_asked_for_by_many_gets_one_number() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let interner = Interner::open(store(dir.path())).await.expect("opens");
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let interner = interner.clone();
                tokio::spawn(async move { interner.user(user_id!("@alice:example.org")).await })
            })
            .collect();
        let mut nums = Vec::new();
        for task in tasks {
            nums.push(task.await.expect("does not panic").expect("is given"));
        }
        nums.dedup();
        assert_eq!(nums.len(), 1);
    }

    #[tokio::test]
    async fn the_same_user_twice_in_one_call_is_one_user() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let interner = Interner::open(store(dir.path())).await.expect("opens");
        let alice = user_id!("@alice:example.org").to_owned();
        let nums = interner
            .users(&[alice.clone(), alice])
            .await
            .expect("are given");
        assert_eq!(nums[0], nums[1]);
    }
}
