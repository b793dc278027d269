//! The room doctor: whether what is stored of a room is what its events say.
//!
//! Everything is derived again from the events: hashes, signatures and ids from their texts, what became of each from the
//! rules, the state after each from that before it, the current state from the extremities, and the indexes from the
//! state. Nothing is written. Events are read in runs, so that memory is bounded by the members of a room and not by its
//! history; everything is read from one view, so that a busy room can be examined.
//!
//! Where something cannot be derived (a join through another server begins with a state that was fetched) it is taken as
//! it is, and counted.

mod compare;
mod events;
mod indexes;
mod report;
mod states;

pub use report::{Difference, Finding, Peer, Problem, Report, Severity, Side, Verdict};

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use myelin_data::rooms::Events;
use myelin_rules::sign::VerifyKeys;
use myelin_state::Chain;
use myelin_store::{Scan, StoreError, View};
use myelin_types::EventNum;
use ruma::RoomId;
use thiserror::Error;

use crate::{
    Completeness, Failure, RoomHandle, Rooms,
    pipeline::Ground,
    remote::{Fetch, WantedKey},
};

/// How many events are examined in a run.
const RUN: usize = 256;
/// How many servers' keys are kept between runs. When there are more, they are asked for anew.
const MOST_KEYS: usize = 2_000;
/// How many keys that cannot be had are remembered, so that they are not asked for in every run.
const MOST_UNKNOWN: usize = 10_000;

/// What an examination includes.
#[derive(Clone, Debug, Default)]
pub struct Examination {
    /// How many other servers of the room are asked for their state, at most.
    pub compare_with: usize,
}

/// Called with the number of events that were examined.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// Why a room was not examined.
#[derive(Debug, Error)]
pub enum ExamineError {
    /// The server does not know the room.
    #[error("this server has no such room")]
    RoomNotFound,
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<StoreError> for ExamineError {
    fn from(error: StoreError) -> Self {
        Self::Failure(error.into())
    }
}

/// An examination under way.
struct Doctor {
    rooms: Rooms,
    handle: RoomHandle,
    view: View,
    ground: Ground,
    report: Report,
    keys: VerifyKeys,
    /// Keys that cannot be had: server and key.
    unknown: HashSet<(String, String)>,
    /// How many events of each server could not be verified for want of a key.
    unverified: BTreeMap<String, u64>,
    /// Accepted events.
    accepted: Chain,
    /// Events that others name as predecessors; those that accepted ones name.
    cited: Chain,
    followed: Chain,
    /// Events that stand in the timeline by their own account.
    placed: u64,
    /// How far the state is known. While members are missing, states and lists cannot be derived.
    completeness: Completeness,
}

impl Rooms {
    /// Examines a room. `fetch` is asked for the keys of servers, and for their state if the room is to be compared.
    pub async fn examine(
        &self,
        room_id: &RoomId,
        examination: Examination,
        fetch: Arc<dyn Fetch>,
        progress: Progress,
    ) -> Result<Report, ExamineError> {
        let handle = self
            .find_now(room_id)
            .await?
            .ok_or(ExamineError::RoomNotFound)?;
        let view = self.store().view();
        let completeness = self.completeness(&view, handle.num)?;
        let mut doctor = Doctor {
            rooms: self.clone(),
            view,
            ground: Ground::stored(self, &handle),
            report: Report::new(&handle),
            keys: VerifyKeys::new(),
            unknown: HashSet::new(),
            unverified: BTreeMap::new(),
            accepted: Chain::new(),
            cited: Chain::new(),
            followed: Chain::new(),
            placed: 0,
            completeness,
            handle,
        };
        if doctor.is_partial() {
            let what =
                "The room was entered without its members. What depends on them is not examined.";
            doctor.report.add(Finding::new(Problem::Incomplete, what));
        }
        let mut after = None;
        loop {
            let (returned, run) = doctor
                .blocking(move |doctor| doctor.read_run(after))
                .await?;
            doctor = returned;
            let Some(last) = run.last else { break };
            after = Some(last);
            doctor.know_keys(&*fetch, run.wanted).await;
            let events = run.events;
            let (returned, ()) = doctor
                .blocking(move |doctor| doctor.examine_events(&events))
                .await?;
            doctor = returned;
            progress(doctor.report.events());
        }
        let (mut doctor, ()) = doctor
            .blocking(|doctor| {
                doctor.report_unverified();
                doctor.examine_current()?;
                doctor.examine_indexes()
            })
            .await?;
        if examination.compare_with > 0 && !doctor.is_partial() {
            doctor = doctor.compare(&*fetch, examination.compare_with).await?;
        }
        Ok(doctor.report.closed())
    }
}

/// Events that are examined together.
struct Run {
    events: Vec<Arc<crate::Event>>,
    wanted: Vec<WantedKey>,
    /// The last number that was read; none at the end.
    last: Option<EventNum>,
}

impl Doctor {
    fn is_partial(&self) -> bool {
        self.completeness == Completeness::Partial
    }

    /// Runs a part of the examination where it may block.
    async fn blocking<T: Send + 'static>(
        mut self,
        work: impl FnOnce(&mut Doctor) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<(Doctor, T), ExamineError> {
        tokio::task::spawn_blocking(move || {
            let result = work(&mut self)?;
            Ok((self, result))
        })
        .await
        .map_err(|_| Failure::CutShort)?
    }

    /// Reads the next events, with the keys that they need.
    fn read_run(&mut self, after: Option<EventNum>) -> Result<Run, StoreError> {
        let room = self.handle.num;
        let mut scan = Scan::prefix(&room).limit(RUN);
        if let Some(after) = after {
            scan = scan.after(&(room, after));
        }
        let mut run = Run {
            events: Vec::with_capacity(RUN),
            wanted: Vec::new(),
            last: None,
        };
        for row in self.view.scan::<Events>(scan) {
            let ((_, num), record) = row?;
            run.last = Some(num);
            let event_id = record.header.event_id.clone();
            // Not through the cache: what is stored is examined.
            if let Ok(event) = crate::Event::decode(self.handle.version, room, num, record) {
                run.events.push(Arc::new(event));
            } else {
                let what = "What is stored under this id is no event.";
                self.report
                    .add(Finding::of(Problem::UnreadableEvent, &event_id, what));
            }
        }
        let wanted = run.events.iter();
        run.wanted = wanted
            .flat_map(|event| crate::remote::wanted_keys(&event.pdu))
            .filter(|key| {
                let known = self.keys.get(key.server.as_str());
                let asked = (key.server.to_string(), key.key_id.clone());
                !known.is_some_and(|keys| keys.contains_key(&key.key_id))
                    && !self.unknown.contains(&asked)
            })
            .collect();
        run.wanted.sort_unstable();
        run.wanted
            .dedup_by(|one, other| (&one.server, &one.key_id) == (&other.server, &other.key_id));
        Ok(run)
    }

    /// Gets keys, as far as they can be had.
    async fn know_keys(&mut self, fetch: &dyn Fetch, wanted: Vec<WantedKey>) {
        if self.keys.len() > MOST_KEYS {
            self.keys.clear();
        }
        if self.unknown.len() > MOST_UNKNOWN {
            self.unknown.clear();
        }
        let others: Vec<WantedKey> = wanted
            .into_iter()
            .filter(|key| key.server != self.rooms.0.server_name)
            .collect();
        if !others.is_empty() {
            for (server, keys) in fetch.keys(&others).await {
                self.keys.entry(server).or_default().extend(keys);
            }
        }
        crate::remote::add_own(&mut self.keys, &self.rooms.0.signer);
        for key in others {
            let known = self.keys.get(key.server.as_str());
            if !known.is_some_and(|keys| keys.contains_key(&key.key_id)) {
                self.unknown.insert((key.server.to_string(), key.key_id));
            }
        }
    }
}
