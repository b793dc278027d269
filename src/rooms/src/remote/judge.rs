//! The checks that an event passes against its room: by its auth events, by the state before it, by the current state.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use myelin_data::{
    Present,
    rooms::{AwaitedTargets, EventStatus, Gaps, Place},
};
use myelin_rules::{
    Pdu,
    auth::{self, AuthEvent, AuthEvents, auth_types},
    limits,
    resolve::Key,
};
use myelin_state::Root;
use myelin_store::{Scan, StoreError, View};
use myelin_types::EventNum;

use super::gather::is_settled;
use crate::{
    AppendError, Event, Failure,
    pipeline::{Admission, RoomGuard, Spot},
};

/// The gaps of a room: what is missing before a segment.
pub(super) type Missing = BTreeMap<u32, Vec<String>>;

/// What the taking in of one event leaves to those after it in the batch.
pub(super) struct Progress {
    /// The gaps as they are now.
    pub(super) gaps: Missing,
    /// Redactions by the id of their target, where that is not known yet.
    awaited: HashMap<String, Vec<Arc<Event>>>,
}

impl Progress {
    pub(super) fn new(gaps: Missing) -> Self {
        Self {
            gaps,
            awaited: HashMap::new(),
        }
    }
}

/// What the checks say of an event.
pub(super) struct Verdict {
    pub(super) status: EventStatus,
    /// Why it is not accepted, for the log and for whoever must not send it.
    pub(super) reason: Option<String>,
    /// The state before it in its own branch.
    pub(super) before: Root,
    /// Its predecessors that are not known.
    pub(super) missing: Vec<String>,
}

/// Why an event cannot be judged.
#[derive(Debug)]
pub(super) enum Unjudged {
    /// What it builds on is not known.
    Unconnected(&'static str),
    /// A fault of the server.
    Failure(Failure),
}

impl From<Failure> for Unjudged {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<AppendError> for Unjudged {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Failure(failure) => Self::Failure(failure),
            _ => Self::Unconnected("it cannot be stored"),
        }
    }
}

impl RoomGuard {
    /// Judges an event that was verified. `state` is the state before it, where that was fetched because predecessors are
    /// missing. The guard must be settled.
    pub(super) async fn judge(
        &mut self,
        pdu: &Pdu,
        state: Option<Root>,
    ) -> Result<Verdict, Unjudged> {
        if pdu.prev_events().len() == 0 {
            // Only the create event has none, and that of a room that is known is known.
            return Err(Unjudged::Unconnected("it has no predecessors"));
        }
        let prev: Vec<String> = pdu.prev_events().map(str::to_owned).collect();
        let known = self.known(prev.clone()).await?;
        let mut missing = Vec::new();
        let mut states = Vec::new();
        for (id, event) in prev.into_iter().zip(known) {
            match event.filter(|event| is_settled(Some(event))) {
                Some(event) => states.push(event.header.after()),
                None => missing.push(id),
            }
        }
        let before = match (missing.is_empty(), state) {
            (true, _) => self.resolve(&states).await?,
            (false, Some(state)) => state,
            (false, None) => return Err(Unjudged::Unconnected("its predecessors are missing")),
        };
        let mut verdict = Verdict {
            status: EventStatus::Rejected,
            reason: None,
            before,
            missing,
        };
        // 4. to 6. of the checks on receipt.
        if let Err(reason) = self.check_auth_events(pdu).await? {
            verdict.reason = Some(reason);
        } else if let Err(reason) = self.check_state(pdu, before).await? {
            verdict.reason = Some(reason);
        } else if let Err(reason) = self.check_state(pdu, self.state().root()).await? {
            verdict.status = EventStatus::SoftFailed;
            verdict.reason = Some(reason);
        } else {
            verdict.status = EventStatus::Accepted;
        }
        Ok(verdict)
    }

    /// The authorisation rules by an event's own auth events.
    async fn check_auth_events(&self, pdu: &Pdu) -> Result<Result<(), String>, Unjudged> {
        let ids: Vec<String> = pdu.auth_events().map(str::to_owned).collect();
        let mut known = Vec::with_capacity(ids.len());
        for event in self.known(ids).await? {
            known.push(event.ok_or(Unjudged::Unconnected("its auth events are missing"))?);
        }
        let list: Vec<AuthEvent<'_>> = known
            .iter()
            .map(|event| AuthEvent {
                event: &event.pdu,
                rejected: event.header.status == EventStatus::Rejected,
            })
            .collect();
        if let Err(error) = auth::check_auth_events(pdu, &list) {
            return Ok(Err(error.to_string()));
        }
        let mut state: AuthEvents = known.iter().map(|event| event.pdu.clone()).collect();
        // In version 12 the create event is no auth event, and yet part of what the rules look at.
        if pdu.version().rules().room_id_is_create_hash
            && let Some(create) = self.state().create()
        {
            state.insert(create.clone());
        }
        Ok(auth::check(pdu, &state).map_err(|error| error.to_string()))
    }

    /// The authorisation rules by a state.
    pub(super) async fn check_state(
        &self,
        pdu: &Pdu,
        state: Root,
    ) -> Result<Result<(), String>, Failure> {
        let mut keys: Vec<Key> = auth_types(
            pdu.version(),
            pdu.event_type(),
            pdu.sender(),
            pdu.state_key(),
            pdu.content(),
        )
        .into_iter()
        .map(|(event_type, state_key)| (event_type.to_owned(), state_key))
        .collect();
        keys.push(("m.room.create".to_owned(), String::new()));
        let entries = self.entries(state, keys).await?;
        let entries: AuthEvents = entries
            .into_iter()
            .flatten()
            .map(|event| event.pdu.clone())
            .collect();
        Ok(auth::check(pdu, &entries).map_err(|error| error.to_string()))
    }

    /// Takes in an event that is part of a state or an auth chain only, unless it is known.
    pub(super) async fn admit_outlier(&mut self, pdu: Pdu) -> Result<(), Unjudged> {
        let known = self.known(vec![pdu.event_id().to_owned()]).await?;
        if known.into_iter().flatten().next().is_some() {
            return Ok(());
        }
        if pdu.event_type() == "m.room.create" {
            return Err(Unjudged::Unconnected("it is another create event"));
        }
        let status = match self.check_auth_events(&pdu).await? {
            Ok(()) => EventStatus::Outlier,
            Err(reason) => {
                tracing::info!(event_id = pdu.event_id(), reason, "event rejected");
                EventStatus::Rejected
            }
        };
        self.admit(Admission {
            pdu,
            status,
            num: None,
            before: Root::EMPTY,
            spot: Spot::End,
            outgoing: false,
        })
        .await?;
        Ok(())
    }

    /// The state that consists of these events. Those that are not known, were rejected or are no state are left out.
    pub(super) async fn state_of(&mut self, ids: Vec<String>) -> Result<Root, Failure> {
        let mut entries: BTreeMap<Key, EventNum> = BTreeMap::new();
        for event in self.known(ids).await?.into_iter().flatten() {
            if event.header.status != EventStatus::Rejected
                && let Some(state_key) = event.pdu.state_key()
            {
                let key = (event.pdu.event_type().to_owned(), state_key.to_owned());
                entries.insert(key, event.num);
            }
        }
        let (keys, events): (Vec<Key>, Vec<Option<EventNum>>) = entries
            .into_iter()
            .map(|(key, event)| (key, Some(event)))
            .unzip();
        self.change(Root::EMPTY, &keys, &events).await
    }

    /// The gaps of the room.
    pub(super) async fn gaps(&self) -> Result<Missing, Failure> {
        let room = self.num();
        let read = move |view: &View| {
            view.scan::<Gaps>(Scan::prefix(&room))
                .map(|row| row.map(|((_, segment), gap)| (segment, gap.missing)))
                .collect::<Result<Missing, StoreError>>()
        };
        Ok(self.rooms.0.store.read(read).await?)
    }

    /// Judges an event and takes it in with what the verdict says. `place` is where it was missing, if it was.
    pub(super) async fn judge_and_admit(
        &mut self,
        pdu: Pdu,
        num: Option<EventNum>,
        state: Option<Root>,
        place: Option<Place>,
        progress: &mut Progress,
    ) -> Result<(), Unjudged> {
        let verdict = self.judge(&pdu, state).await?;
        if let Some(reason) = &verdict.reason {
            let (event_id, status) = (pdu.event_id(), verdict.status);
            tracing::info!(event_id, ?status, reason, "event kept out of its room");
        }
        let spot = match place {
            Some(place) => Spot::Front(place),
            None if verdict.missing.is_empty() => Spot::End,
            None => Spot::AfterGap,
        };
        let event = self
            .admit(Admission {
                pdu,
                status: verdict.status,
                num,
                before: verdict.before,
                spot,
                outgoing: false,
            })
            .await?;
        if let Some(place) = place {
            let missing = progress.gaps.entry(place.segment).or_default();
            missing.retain(|id| *id != event.header.event_id);
            missing.extend(verdict.missing);
        } else if let Some(place) = event.header.place.filter(|_| spot == Spot::AfterGap) {
            progress.gaps.insert(place.segment, verdict.missing);
        }
        if event.header.status == EventStatus::Accepted {
            self.apply_redaction(&event, progress).await?;
        }
        self.apply_awaited(&event, progress).await?;
        Ok(())
    }

    /// The places of those events that are missing in front of segments, or lead there: `events` are sorted by their
    /// references.
    pub(super) async fn places(
        &self,
        events: &[Pdu],
        gaps: &Missing,
    ) -> Result<HashMap<String, Place>, Failure> {
        let mut places = HashMap::new();
        for (segment, names) in gaps {
            let mut wanted: HashSet<&str> = names.iter().map(String::as_str).collect();
            let mut filling: Vec<&str> = Vec::new();
            for event in events.iter().rev() {
                let id = event.event_id();
                if wanted.contains(id) && !places.contains_key(id) {
                    filling.push(id);
                    wanted.extend(event.prev_events());
                }
            }
            if filling.is_empty() {
                continue;
            }
            let mut index = self.front(*segment).await?;
            for id in filling {
                index -= 1;
                let segment = *segment;
                places.insert(id.to_owned(), Place { segment, index });
            }
        }
        Ok(places)
    }

    /// Prunes what an accepted redaction redacts, if it may; or remembers that it waits for that.
    async fn apply_redaction(
        &mut self,
        redaction: &Arc<Event>,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        // Whatever is no event id redacts nothing, and may be longer than a key.
        let redacts = redaction.pdu.redacts();
        let Some(id) = redacts
            .filter(|id| limits::is_event_id(id))
            .map(str::to_owned)
        else {
            return Ok(());
        };
        let target = self.known(vec![id.clone()]).await?;
        if let Some(target) = target.into_iter().flatten().next() {
            self.redact_with(&target, redaction);
        } else {
            let key = (self.num(), id.clone(), redaction.num);
            self.batch().put::<AwaitedTargets>(&key, &Present);
            let waiting = progress.awaited.entry(id).or_default();
            waiting.push(Arc::clone(redaction));
        }
        Ok(())
    }

    /// Prunes an event for which redactions have waited by the first of them that may do that.
    async fn apply_awaited(
        &mut self,
        target: &Arc<Event>,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let prefix = (self.num(), target.header.event_id.clone());
        let (rooms, wanted) = (self.rooms.clone(), prefix.clone());
        let read = move |view: &View| {
            let nums = view
                .keys::<AwaitedTargets>(Scan::prefix(&wanted))
                .map(|key| key.map(|(.., redaction)| redaction))
                .collect::<Result<Vec<EventNum>, StoreError>>()?;
            rooms.events(view, wanted.0, &nums)
        };
        let stored = self.rooms.0.store.read(read).await?.into_iter().flatten();
        let new = progress.awaited.remove(&prefix.1).unwrap_or_default();
        let mut pruned = false;
        for redaction in stored.chain(new) {
            pruned = pruned || self.redact_with(target, &redaction);
            let key = (prefix.0, prefix.1.clone(), redaction.num);
            self.batch().delete::<AwaitedTargets>(&key);
        }
        Ok(())
    }

    /// Prunes an event if a redaction may do that. Answers whether it did.
    fn redact_with(&mut self, target: &Event, redaction: &Event) -> bool {
        let allowed = self
            .state()
            .levels()
            .is_some_and(|levels| auth::may_redact(&redaction.pdu, &target.pdu, levels));
        let prunes = allowed && target.header.redacted_by.is_none();
        if prunes {
            let mut pruned = Event::clone(target);
            pruned.header.redacted_by = Some(redaction.num);
            pruned.pdu = target.pdu.redacted();
            self.prune(pruned);
        }
        prunes
    }
}
