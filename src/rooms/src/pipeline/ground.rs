//! What an event of another server stands on: the events and states of its room, those of the batch in the making
//! included, and the resolution of states that differ.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use myelin_data::rooms::EventStatus;
use myelin_rules::{
    Pdu, RoomVersion,
    resolve::{self, Differing, Graph, Key, Known},
};
use myelin_state::{AuthEvents, Root};
use myelin_store::{StoreError, View};
use myelin_types::{EventNum, RoomNum, StateKeyNum};

use super::layer::Layers;
use crate::{
    Failure, RoomHandle, Rooms,
    event::{Event, tree_error},
    head::Kept,
};

use super::guard::{RoomGuard, kept_events};

/// A room as one batch in the making sees it. Reads need a view in which everything is that the batch builds on: one
/// that was taken after [`RoomGuard::settle`].
#[derive(Clone)]
pub(crate) struct Ground {
    rooms: Rooms,
    room: RoomNum,
    version: RoomVersion,
    layers: Layers,
    admitted: Arc<HashMap<String, Arc<Event>>>,
}

/// What states that differ come to: the events under the keys in question, none where the result has none.
pub(crate) type Outcome = Vec<(Key, Option<EventNum>)>;

impl RoomGuard {
    /// The ground that the next event stands on.
    pub(crate) fn ground(&self) -> Ground {
        Ground {
            rooms: self.rooms.clone(),
            room: self.num(),
            version: self.handle().version,
            layers: self.layers.clone(),
            admitted: Arc::clone(&self.admitted),
        }
    }

    /// Events of the room by id, whatever became of them; the guard must be settled.
    pub(crate) async fn known(&self, ids: Vec<String>) -> Result<Vec<Option<Arc<Event>>>, Failure> {
        let ground = self.ground();
        let read = move |view: &View| ground.events_by_id(view, &ids);
        Ok(self.rooms.0.store.read(read).await?)
    }

    /// The one state that several come to; the guard must be settled. Its nodes become part of the batch.
    pub(crate) async fn resolve(&mut self, states: &[Root]) -> Result<Root, Failure> {
        let mut roots: Vec<Root> = Vec::with_capacity(states.len());
        for state in states {
            if !roots.contains(state) {
                roots.push(*state);
            }
        }
        let base = match roots.as_slice() {
            [] => return Ok(Root::EMPTY),
            [only] => return Ok(*only),
            [first, ..] => *first,
        };
        // A room resolves one thing at a time, since its guard is held; this bounds all rooms together, so that however
        // many are contested there is a processor for those that are not. The semaphore is never closed.
        let ground = self.ground();
        let turn = ground.rooms.0.resolving.acquire().await;
        let view = self.rooms.0.store.view();
        let begun = Instant::now();
        let resolver = ground.clone();
        // May read much: not on the threads that answer requests.
        let outcome = tokio::task::spawn_blocking(move || resolver.resolve(&view, &roots))
            .await
            .map_err(|_| Failure::CutShort)??;
        drop(turn);
        metrics::histogram!("rooms_state_resolution_seconds").record(begun.elapsed());
        let (keys, events): (Vec<Key>, Vec<Option<EventNum>>) = outcome.into_iter().unzip();
        self.change(base, &keys, &events).await
    }

    /// A state with other entries under some keys. Its nodes become part of the batch.
    pub(crate) async fn change(
        &mut self,
        base: Root,
        keys: &[Key],
        events: &[Option<EventNum>],
    ) -> Result<Root, Failure> {
        let keys = self.rooms.0.interner.state_keys(keys).await?;
        let changes: Vec<_> = keys.into_iter().zip(events.iter().copied()).collect();
        let ground = self.ground();
        let updated = self
            .rooms
            .0
            .store
            .read(move |view| {
                let nodes = ground.layers.over(ground.rooms.nodes(view, ground.room));
                myelin_state::update(&nodes, base, &changes).map_err(tree_error)
            })
            .await?;
        self.put_nodes(&updated)?;
        Ok(updated.root)
    }

    /// The events of a state that the head keeps decoded.
    pub(super) async fn kept_of(&self, state: Root) -> Result<Kept, Failure> {
        let ground = self.ground();
        let read =
            move |view: &View| kept_events(&ground.rooms, view, ground.room, &ground.layers, state);
        Ok(self.rooms.0.store.read(read).await?)
    }

    /// The entries of any state, in the order of `keys`.
    pub(crate) async fn entries(
        &self,
        state: Root,
        keys: Vec<Key>,
    ) -> Result<Vec<Option<Arc<Event>>>, Failure> {
        let ground = self.ground();
        let read = move |view: &View| {
            keys.iter()
                .map(|(event_type, state_key)| ground.entry(view, state, event_type, state_key))
                .collect::<Result<Vec<_>, StoreError>>()
        };
        Ok(self.rooms.0.store.read(read).await?)
    }

    /// The memberships in which two states differ: what each has.
    pub(super) async fn members_moved(
        &self,
        old: Root,
        new: Root,
    ) -> Result<Vec<(Option<Arc<Event>>, Option<Arc<Event>>)>, Failure> {
        let ground = self.ground();
        let read = move |view: &View| {
            let nodes = ground.layers.over(ground.rooms.nodes(view, ground.room));
            let changes = myelin_state::diff(&nodes, old, new).map_err(tree_error)?;
            let changes = changes.into_iter().filter(|change| change.key.is_member());
            let (old, new): (Vec<_>, Vec<_>) =
                changes.map(|change| (change.old, change.new)).unzip();
            let events = |nums: Vec<Option<EventNum>>| {
                let present: Vec<EventNum> = nums.iter().flatten().copied().collect();
                let found = ground
                    .layers
                    .events(&ground.rooms, view, ground.room, &present)?;
                let mut found = found.into_iter();
                nums.into_iter()
                    .map(|num| match num {
                        Some(_) => match found.next().flatten() {
                            Some(event) => Ok(Some(event)),
                            None => Err(StoreError::Missing("events")),
                        },
                        None => Ok(None),
                    })
                    .collect::<Result<Vec<_>, StoreError>>()
            };
            Ok::<_, StoreError>(events(old)?.into_iter().zip(events(new)?).collect())
        };
        Ok(self.rooms.0.store.read(read).await?)
    }
}

impl Ground {
    /// A room as it is stored, with no batch in the making.
    pub(crate) fn stored(rooms: &Rooms, handle: &RoomHandle) -> Self {
        Self {
            rooms: rooms.clone(),
            room: handle.num,
            version: handle.version,
            layers: Layers::default(),
            admitted: Arc::default(),
        }
    }

    /// Events of the room by id.
    pub(crate) fn events_by_id(
        &self,
        view: &View,
        ids: &[String],
    ) -> Result<Vec<Option<Arc<Event>>>, StoreError> {
        let mut events = self.rooms.events_by_id(view, self.room, ids)?;
        for (id, event) in ids.iter().zip(&mut events) {
            if let Some(admitted) = self.admitted.get(id) {
                *event = Some(Arc::clone(admitted));
            }
        }
        Ok(events)
    }

    /// The numbers of events of the room.
    fn numbers(&self, view: &View, ids: &[String]) -> Result<Vec<Option<EventNum>>, StoreError> {
        let mut numbers = Rooms::event_nums(view, self.room, ids)?;
        for (id, number) in ids.iter().zip(&mut numbers) {
            if let Some(admitted) = self.admitted.get(id) {
                *number = Some(admitted.num);
            }
        }
        Ok(numbers)
    }

    fn entry(
        &self,
        view: &View,
        state: Root,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Arc<Event>>, StoreError> {
        let key = self
            .rooms
            .0
            .interner
            .find_state_key(view, event_type, state_key)?;
        let Some(key) = key else { return Ok(None) };
        let mut found = self
            .layers
            .state(&self.rooms, view, self.room, state, &[key])?;
        Ok(found.pop().flatten())
    }

    /// Resolves at least two states, all different.
    pub(crate) fn resolve(&self, view: &View, roots: &[Root]) -> Result<Outcome, StoreError> {
        let nodes = self.layers.over(self.rooms.nodes(view, self.room));
        let mut keys: BTreeSet<StateKeyNum> = BTreeSet::new();
        for root in &roots[1..] {
            let changes = myelin_state::diff(&nodes, roots[0], *root).map_err(tree_error)?;
            keys.extend(changes.into_iter().map(|change| change.key));
        }
        let listed: Vec<StateKeyNum> = keys.iter().copied().collect();
        let mut nums: HashMap<String, EventNum> = HashMap::new();
        let mut of_keys: BTreeMap<Key, Option<EventNum>> = BTreeMap::new();
        for key in &listed {
            let text = self.rooms.0.interner.state_key(view, *key)?;
            of_keys.insert((text.event_type.clone(), text.state_key.clone()), None);
        }
        let mut states = Vec::with_capacity(roots.len());
        for root in roots {
            let mut state = Differing::new();
            let events = self
                .layers
                .state(&self.rooms, view, self.room, *root, &listed)?;
            for event in events.into_iter().flatten() {
                if let Some(state_key) = event.pdu.state_key() {
                    let key = (event.pdu.event_type().to_owned(), state_key.to_owned());
                    nums.insert(event.header.event_id.clone(), event.num);
                    state.insert(key, event.pdu.clone());
                }
            }
            states.push(state);
        }
        let around = Around {
            ground: self,
            view,
            states: roots,
            differing: &keys,
            nums: RefCell::new(nums),
        };
        let resolved = resolve::resolve(self.version, &states, &around)?;
        let nums = around.nums.into_inner();
        for (key, event) in resolved {
            of_keys.insert(key, nums.get(event.event_id()).copied());
        }
        Ok(of_keys.into_iter().collect())
    }
}

/// The room around states that differ.
struct Around<'a> {
    ground: &'a Ground,
    view: &'a View,
    /// All of the states.
    states: &'a [Root],
    /// The keys in which they differ.
    differing: &'a BTreeSet<StateKeyNum>,
    /// The numbers of the events that were looked at.
    nums: RefCell<HashMap<String, EventNum>>,
}

/// How many events are read at once when many are looked at.
const EVENTS_A_READ: usize = 64;

impl Graph for Around<'_> {
    type Error = StoreError;

    fn event(&self, event_id: &str) -> Result<Option<Known>, StoreError> {
        let mut found = self
            .ground
            .events_by_id(self.view, &[event_id.to_owned()])?;
        let Some(event) = found.pop().flatten() else {
            return Ok(None);
        };
        self.nums
            .borrow_mut()
            .insert(event_id.to_owned(), event.num);
        Ok(Some(Known {
            event: event.pdu.clone(),
            rejected: event.header.status == EventStatus::Rejected,
        }))
    }

    fn agreed(&self, event_type: &str, state_key: &str) -> Result<Option<Pdu>, StoreError> {
        let interner = &self.ground.rooms.0.interner;
        match interner.find_state_key(self.view, event_type, state_key)? {
            Some(key) if !self.differing.contains(&key) => {
                let found = self.ground.layers.state(
                    &self.ground.rooms,
                    self.view,
                    self.ground.room,
                    self.states[0],
                    &[key],
                )?;
                Ok(found
                    .into_iter()
                    .flatten()
                    .next()
                    .map(|event| event.pdu.clone()))
            }
            _ => Ok(None),
        }
    }

    fn auth_difference(&self) -> Result<BTreeSet<String>, StoreError> {
        let ground = self.ground;
        let nodes = ground
            .layers
            .over(ground.rooms.nodes(self.view, ground.room));
        let citations = Citations {
            ground,
            view: self.view,
            numbers: RefCell::default(),
        };
        let chains = &ground.rooms.0.chains;
        let difference = myelin_state::auth_difference(&nodes, &citations, chains, self.states)
            .map_err(tree_error)?;
        let nums: Vec<EventNum> = difference.iter().map(EventNum).collect();
        let mut ids = BTreeSet::new();
        for nums in nums.chunks(EVENTS_A_READ) {
            for event in ground
                .layers
                .events(&ground.rooms, self.view, ground.room, nums)?
                .into_iter()
                .flatten()
            {
                ids.insert(event.header.event_id.clone());
                self.nums
                    .borrow_mut()
                    .insert(event.header.event_id.clone(), event.num);
            }
        }
        Ok(ids)
    }
}

/// Which events authorise which, by number.
struct Citations<'a> {
    ground: &'a Ground,
    view: &'a View,
    /// The numbers of ids that were looked up: a few events authorise almost all others.
    numbers: RefCell<HashMap<String, Option<EventNum>>>,
}

impl AuthEvents for Citations<'_> {
    type Error = StoreError;

    fn auth_events(&self, events: &[EventNum]) -> Result<Vec<Vec<EventNum>>, StoreError> {
        let ground = self.ground;
        let events = ground
            .layers
            .events(&ground.rooms, self.view, ground.room, events)?
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .ok_or(StoreError::Missing("events"))?;
        let mut numbers = self.numbers.borrow_mut();
        let unknown: BTreeSet<String> = events
            .iter()
            .flat_map(|event| event.pdu.auth_events())
            .filter(|id| !numbers.contains_key(*id))
            .map(str::to_owned)
            .collect();
        let unknown: Vec<String> = unknown.into_iter().collect();
        let found = ground.numbers(self.view, &unknown)?;
        numbers.extend(unknown.into_iter().zip(found));
        Ok(events
            .iter()
            .map(|event| {
                let ids = event.pdu.auth_events();
                ids.filter_map(|id| numbers.get(id).copied().flatten())
                    .collect()
            })
            .collect())
    }
}
