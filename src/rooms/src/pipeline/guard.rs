//! The right to write to a room, and a batch on its way to the disk.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use myelin_data::{
    Present,
    log::{Log, LogRow},
    rooms::{Events, Head, Heads},
    topic::Changed,
    unread::{Notable, Notables, RedactedPlaces},
};
use myelin_state::Root;
use myelin_store::{Batch, Commit, StoreError, View};
use myelin_types::{Pos, RoomNum, UserNum};
use ruma::UserId;
use tokio::sync::OwnedMutexGuard;

use super::{
    layer::{Layer, Layers},
    slots::{Slot, SlotState},
};
use crate::{
    Failure, RoomHandle, Rooms,
    event::Event,
    head::{KEPT, Kept, RoomState},
};

/// The right to write to a room. Holds one batch in the making and the state of the room as of that batch.
pub(crate) struct RoomGuard {
    pub(crate) rooms: Rooms,
    pub(super) slot: Arc<Slot>,
    lock: OwnedMutexGuard<SlotState>,
    /// The head that the batch is built on.
    pub(super) expected: Option<Head>,
    /// The state after what was appended so far.
    pub(super) state: RoomState,
    pub(super) layers: Layers,
    pub(super) batch: Batch,
    pub(super) appended: Vec<Arc<Event>>,
    /// The row of the log.
    pub(super) log: LogRow,
    pub(super) pruned: Vec<Arc<Event>>,
    /// Who is not in the room any more.
    pub(super) gone: Vec<UserNum>,
    /// Whether members are missing in the room's state.
    pub(super) partial: bool,
    /// Events of other servers in this batch, by id.
    pub(super) admitted: Arc<HashMap<String, Arc<Event>>>,
}

/// A batch in the committer's queue.
#[must_use = "a batch that nobody waits for cannot be answered, and its failure goes unnoticed"]
pub(crate) struct Queued {
    rooms: Rooms,
    slot: Arc<Slot>,
    epoch: u64,
    commit: Commit,
    durable: Arc<AtomicBool>,
    layer: Arc<Layer>,
    appended: Vec<Arc<Event>>,
    pruned: Vec<Arc<Event>>,
    gone: Vec<UserNum>,
}

impl Rooms {
    /// Waits for the room's writers before us and takes their place.
    pub(crate) async fn lock(&self, handle: &RoomHandle) -> Result<RoomGuard, Failure> {
        let mut guard = self.lock_slot(handle).await;
        if let Some(state) = &guard.lock.head {
            guard.state = state.clone();
        } else {
            if guard.lock.epoch > 0 {
                // The head was thrown away because a batch failed. Others, which did not build on that one, may still be
                // on their way: after this they are in the view that the head is read from.
                self.0.store.commit(Batch::new()).await?;
            }
            let state = self.load_state(handle).await?;
            guard.lock.head = Some(state.clone());
            guard.state = state;
        }
        guard.expected.clone_from(&guard.state.head);
        guard.partial = self.0.partial.is_partial_for_writers(handle.num);
        Ok(guard)
    }

    /// The guard of a room that is about to be made.
    pub(crate) async fn lock_new(&self, handle: &RoomHandle) -> RoomGuard {
        self.lock_slot(handle).await
    }

    async fn lock_slot(&self, handle: &RoomHandle) -> RoomGuard {
        let slot = self.0.slots.get(handle);
        let mut lock = Arc::clone(&slot.state).lock_owned().await;
        let mut layers = lock.layers();
        layers.push(Arc::default());
        RoomGuard {
            rooms: self.clone(),
            lock,
            expected: None,
            state: RoomState::empty(),
            layers: Layers(layers),
            batch: Batch::new(),
            appended: Vec::new(),
            log: LogRow::default(),
            pruned: Vec::new(),
            gone: Vec::new(),
            partial: false,
            admitted: Arc::default(),
            slot,
        }
    }

    async fn load_state(&self, handle: &RoomHandle) -> Result<RoomState, Failure> {
        let (rooms, handle) = (self.clone(), handle.clone());
        let state = self
            .0
            .store
            .read(move |view| stored_state(&rooms, view, &handle))
            .await?;
        Ok(state)
    }
}

/// The state of a room as a view has it; an empty one for a room that is known only from outside.
pub(crate) fn stored_state(
    rooms: &Rooms,
    view: &View,
    handle: &RoomHandle,
) -> Result<RoomState, StoreError> {
    let Some(head) = view.get::<Heads>(&handle.num)? else {
        return Ok(RoomState::empty());
    };
    let kept = kept_events(rooms, view, handle.num, &Layers::default(), head.root())?;
    let nums: Vec<_> = head.extremities.iter().map(|(num, _)| *num).collect();
    let tips = rooms
        .events(view, handle.num, &nums)?
        .into_iter()
        .map(|event| event.ok_or(StoreError::Missing("events")))
        .collect::<Result<_, _>>()?;
    Ok(RoomState::at(head, kept, tips))
}

/// The events of [`KEPT`] in a state.
pub(super) fn kept_events(
    rooms: &Rooms,
    view: &View,
    room: RoomNum,
    layers: &Layers,
    state: Root,
) -> Result<Kept, StoreError> {
    let keys = KEPT.map(|event_type| (event_type, ""));
    let nums = rooms.0.interner.find_state_keys(view, &keys)?;
    let present: Vec<_> = nums.iter().flatten().copied().collect();
    let mut events = layers
        .state(rooms, view, room, state, &present)?
        .into_iter();
    let mut kept = Kept::default();
    for (slot, num) in kept.iter_mut().zip(nums) {
        if num.is_some() {
            *slot = events.next().flatten();
        }
    }
    Ok(kept)
}

impl RoomGuard {
    /// The room.
    pub(crate) fn handle(&self) -> &RoomHandle {
        &self.slot.handle
    }

    /// Its number.
    pub(crate) fn num(&self) -> RoomNum {
        self.slot.handle.num
    }

    /// Its current state, with what this guard appended.
    pub(crate) fn state(&self) -> &RoomState {
        &self.state
    }

    /// The batch, for rows that must become true together with the events.
    pub(crate) fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// State events of the room as of now, in the order of `keys`.
    pub(crate) async fn state_events(
        &self,
        keys: &[(&str, &str)],
    ) -> Result<Vec<Option<Arc<Event>>>, Failure> {
        let mut found: Vec<Option<Arc<Event>>> = Vec::with_capacity(keys.len());
        let mut unkept: Vec<(String, String)> = Vec::new();
        for (event_type, state_key) in keys {
            if RoomState::keeps(event_type, state_key) {
                found.push(self.state.kept_event(event_type).cloned());
            } else {
                found.push(None);
                unkept.push(((*event_type).to_owned(), (*state_key).to_owned()));
            }
        }
        let root = self.state.root();
        if unkept.is_empty() || root == Root::EMPTY {
            return Ok(found);
        }
        let (rooms, layers, num) = (self.rooms.clone(), self.layers.clone(), self.num());
        let mut read = self
            .rooms
            .0
            .store
            .read(move |view| {
                let pairs: Vec<(&str, &str)> = unkept
                    .iter()
                    .map(|(event_type, state_key)| (event_type.as_str(), state_key.as_str()))
                    .collect();
                let nums = rooms.0.interner.find_state_keys(view, &pairs)?;
                let present: Vec<_> = nums.iter().flatten().copied().collect();
                let mut events = layers.state(&rooms, view, num, root, &present)?.into_iter();
                let mut found = Vec::with_capacity(nums.len());
                for num in nums {
                    found.push(num.and_then(|_| events.next().flatten()));
                }
                Ok::<_, StoreError>(found)
            })
            .await?
            .into_iter();
        for (slot, (event_type, state_key)) in found.iter_mut().zip(keys) {
            if !RoomState::keeps(event_type, state_key) {
                *slot = read.next().flatten();
            }
        }
        Ok(found)
    }

    /// One state event.
    pub(crate) async fn state_event(
        &self,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Arc<Event>>, Failure> {
        let mut events = self.state_events(&[(event_type, state_key)]).await?;
        Ok(events.pop().flatten())
    }

    /// A user's membership event.
    pub(crate) async fn member(&self, user: &UserId) -> Result<Option<Arc<Event>>, Failure> {
        self.state_event("m.room.member", user.as_str()).await
    }

    /// Stores an event in its pruned form. `event` says already who pruned it.
    pub(crate) fn prune(&mut self, event: Event) {
        let event = Arc::new(event);
        self.batch
            .put::<Events>(&(event.room, event.num), &event.record());
        if let Some(place) = event.header.place.filter(|place| !place.is_filled_in()) {
            let notable = Notable {
                thread: event.header.thread.clone(),
                redacted: true,
            };
            self.batch.put::<Notables>(&(event.room, place), &notable);
            self.batch
                .put::<RedactedPlaces>(&(event.room, Pos::AT_COMMIT, place), &Present);
        }
        if event.pdu.state_key().is_some() {
            self.layers.newest().replace(&event);
            self.state.pruned(&event);
        }
        let id = &event.header.event_id;
        if self.admitted.contains_key(id) {
            Arc::make_mut(&mut self.admitted).insert(id.clone(), Arc::clone(&event));
        }
        self.pruned.push(event);
    }

    /// Whether members are missing in the room's state.
    pub(crate) fn is_partial(&self) -> bool {
        self.partial
    }

    /// Whether the batch has events of other servers.
    pub(crate) fn has_admitted(&self) -> bool {
        !self.admitted.is_empty()
    }

    /// Waits until everything that this guard builds on is durable, so that every newer view has it.
    pub(crate) async fn settle(&self) -> Result<(), Failure> {
        let num = self.num();
        let stored = self
            .rooms
            .0
            .store
            .read(move |view| view.get::<Heads>(&num))
            .await?;
        if stored != self.expected {
            // Batches become durable in the order in which they were queued.
            let mut after = Batch::new();
            after.expect::<Heads>(&num, self.expected.as_ref());
            self.rooms.0.store.commit(after).await?;
        }
        Ok(())
    }

    /// Queues the batch and lets the room go to the next writer.
    pub(crate) fn commit(mut self) -> Queued {
        let num = self.num();
        // Also of a batch that changes nothing of the room: it may answer for an event that is still on its way.
        self.batch.expect::<Heads>(&num, self.expected.as_ref());
        if self.appended.is_empty() && !self.admitted.is_empty() {
            // Events that are no part of the timeline's end move the head too, so that the next writer waits for them.
            if let Some(head) = &mut self.state.head {
                head.sequence += 1;
            }
        }
        if let Some(head) = &self.state.head
            && (!self.appended.is_empty() || !self.admitted.is_empty())
        {
            self.batch.put::<Heads>(&num, head);
        }
        if !self.appended.is_empty() {
            self.batch.put::<Log>(&Pos::AT_COMMIT, &self.log);
            self.batch.touch(Changed::Timeline(num).into());
        }
        for event in &self.pruned {
            self.rooms.0.events.redacting(event.num);
        }
        let commit = self.rooms.0.store.commit(std::mem::take(&mut self.batch));
        let layer = self.layers.0.pop().unwrap_or_default();
        let durable = self.lock.push(Arc::clone(&layer));
        self.lock.head = Some(self.state);
        Queued {
            rooms: self.rooms,
            epoch: self.lock.epoch,
            slot: self.slot,
            commit,
            durable,
            layer,
            appended: self.appended,
            pruned: self.pruned,
            gone: self.gone,
        }
    }
}

impl Queued {
    /// Waits until the batch is durable, and answers its position. If it fails, what was built on it is thrown away.
    pub(crate) async fn durable(self) -> Result<Pos, Failure> {
        match self.commit.await {
            Ok(pos) => {
                for (hash, node) in self.layer.nodes() {
                    self.rooms.0.nodes.insert(*hash, Arc::clone(node));
                }
                for event in &self.appended {
                    self.rooms.0.events.insert(&Arc::new(event.kept(pos)), pos);
                }
                for event in &self.pruned {
                    self.rooms.0.events.redacted(event.num, Some(pos));
                }
                self.durable.store(true, Ordering::SeqCst);
                for user in &self.gone {
                    self.rooms.0.typing.set(self.slot.handle.num, *user, None);
                }
                metrics::counter!("rooms_events_total").increment(self.appended.len() as u64);
                Ok(pos)
            }
            Err(error) => {
                metrics::counter!("rooms_failed_batches_total").increment(1);
                for event in &self.pruned {
                    self.rooms.0.events.redacted(event.num, None);
                }
                let mut state = self.slot.state.lock().await;
                if state.epoch == self.epoch {
                    state.reset();
                }
                Err(error.into())
            }
        }
    }
}
