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

use super::gather::{Gathered, is_rejected, is_settled};
use crate::{
    AppendError, Event, Failure,
    membership::MEMBER,
    pipeline::{Admission, RoomGuard, Spot},
};

/// How many redactions may wait for one event, and how many of them of one server's users.
const MOST_AWAITED: usize = 20;
const MOST_OF_A_SERVER: usize = 4;

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

/// An event that is to be judged.
pub(super) struct Incoming {
    /// The event, verified.
    pub(super) pdu: Pdu,
    /// The same, if it is stored as an outlier or as rejected.
    pub(super) known: Option<Arc<Event>>,
    /// Where it was missing, if it was.
    pub(super) place: Option<Place>,
    /// If it is rejected it is not to be stored.
    pub(super) is_stranger: bool,
}

/// The authorisation rules by an event's own auth events, which are `known`. `create` gives the room's create event.
pub(crate) fn authorised_by<E>(
    pdu: &Pdu,
    known: &[Arc<Event>],
    create: impl FnOnce() -> Result<Option<Pdu>, E>,
) -> Result<Result<(), String>, E> {
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
        && let Some(create) = create()?
    {
        state.insert(create);
    }
    Ok(auth::check(pdu, &state).map_err(|error| error.to_string()))
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
    /// Judges an event that was verified. `fetched` are the states after predecessors that are missing, by their ids. The
    /// guard must be settled.
    pub(super) async fn judge(
        &mut self,
        pdu: &Pdu,
        fetched: &BTreeMap<String, Root>,
    ) -> Result<Verdict, Unjudged> {
        let mut verdict = self.judge_past(pdu, fetched).await?;
        if verdict.status == EventStatus::Accepted {
            // 6. and 7. of the checks on receipt.
            let mut checked = Ok(());
            if !self.is_partial() {
                checked = self.check_state(pdu, self.state().root()).await?;
            }
            if checked.is_ok() {
                checked = self.check_policy(pdu).await?;
            }
            if let Err(reason) = checked {
                verdict.status = EventStatus::SoftFailed;
                verdict.reason = Some(reason);
            }
        }
        Ok(verdict)
    }

    /// Judges an event by where it stands alone, whatever the room has become since: it is accepted or rejected. `fetched`
    /// as in [`judge`](Self::judge).
    pub(super) async fn judge_past(
        &mut self,
        pdu: &Pdu,
        fetched: &BTreeMap<String, Root>,
    ) -> Result<Verdict, Unjudged> {
        if pdu.prev_events().len() == 0 {
            // Only the create event has none. That of the room was checked when the room was met, and may be filled in.
            let create = self.state().create().map(Pdu::event_id);
            if create != Some(pdu.event_id()) {
                return Err(Unjudged::Unconnected("it has no predecessors"));
            }
            return Ok(Verdict {
                status: EventStatus::Accepted,
                reason: None,
                before: Root::EMPTY,
                missing: Vec::new(),
            });
        }
        let prev: Vec<String> = pdu.prev_events().map(str::to_owned).collect();
        let known = self.known(prev.clone()).await?;
        let mut missing = Vec::new();
        let mut states = Vec::new();
        for (id, event) in prev.into_iter().zip(known) {
            match event.filter(|event| is_settled(Some(event))) {
                Some(event) => states.push(event.header.after()),
                None => match fetched.get(&id) {
                    Some(state) => {
                        states.push(*state);
                        missing.push(id);
                    }
                    None => return Err(Unjudged::Unconnected("its predecessors are missing")),
                },
            }
        }
        let mut before = self.resolve(&states).await?;
        if missing.len() < states.len() {
            before = self.with_members_of(pdu, before).await?;
        }
        self.judge_by(pdu, before, missing).await
    }

    /// Judges an event by the state before it.
    pub(super) async fn judge_by(
        &self,
        pdu: &Pdu,
        before: Root,
        missing: Vec<String>,
    ) -> Result<Verdict, Unjudged> {
        let mut verdict = Verdict {
            status: EventStatus::Rejected,
            reason: None,
            before,
            missing,
        };
        // 4. and 5. of the checks on receipt.
        if let Err(reason) = self.check_auth_events(pdu).await? {
            verdict.reason = Some(reason);
        } else if let Err(reason) = self.check_state(pdu, before).await? {
            verdict.reason = Some(reason);
        } else {
            verdict.status = EventStatus::Accepted;
        }
        Ok(verdict)
    }

    /// In a room of which members are missing: a state with those that an event names as its auth events and that are
    /// missing there. The event is judged again when the whole state is known.
    async fn with_members_of(&mut self, pdu: &Pdu, state: Root) -> Result<Root, Failure> {
        if !self.is_partial() {
            return Ok(state);
        }
        let ids: Vec<String> = pdu.auth_events().map(str::to_owned).collect();
        let named = self.known(ids).await?.into_iter().flatten();
        let named: Vec<Arc<Event>> = named
            .filter(|event| {
                event.pdu.event_type() == MEMBER && event.header.status != EventStatus::Rejected
            })
            .collect();
        let keys: Vec<Key> = named
            .iter()
            .filter_map(|event| Some((MEMBER.to_owned(), event.pdu.state_key()?.to_owned())))
            .collect();
        let present = self.entries(state, keys.clone()).await?;
        let (keys, nums): (Vec<Key>, Vec<Option<EventNum>>) = keys
            .into_iter()
            .zip(named)
            .zip(present)
            .filter(|(_, present)| present.is_none())
            .map(|((key, event), _)| (key, Some(event.num)))
            .unzip();
        if keys.is_empty() {
            return Ok(state);
        }
        self.change(state, &keys, &nums).await
    }

    /// The authorisation rules by an event's own auth events.
    pub(super) async fn check_auth_events(
        &self,
        pdu: &Pdu,
    ) -> Result<Result<(), String>, Unjudged> {
        let ids: Vec<String> = pdu.auth_events().map(str::to_owned).collect();
        let mut known = Vec::with_capacity(ids.len());
        for event in self.known(ids).await? {
            known.push(event.ok_or(Unjudged::Unconnected("its auth events are missing"))?);
        }
        let create = || Ok(self.state().create().cloned());
        authorised_by(pdu, &known, create)
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
    pub(super) async fn admit_outlier(
        &mut self,
        pdu: Pdu,
        progress: &mut Progress,
    ) -> Result<(), Unjudged> {
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
        let event = self
            .admit(Admission {
                pdu,
                status,
                num: None,
                before: Root::EMPTY,
                spot: Spot::End,
                outgoing: false,
            })
            .await?;
        self.apply_awaited(&event, progress).await?;
        Ok(())
    }

    /// The state after an event of which only the state before it is known, by the ids of its events. Those of them that
    /// were rejected, are no state or could not be had are left out; if `whole`, none may be missing, or there is no answer.
    pub(super) async fn state_after(
        &mut self,
        id: &str,
        before: &[String],
        whole: bool,
    ) -> Result<Option<Root>, Failure> {
        // Without the event itself it cannot be told whether it changed the state.
        if self
            .known(vec![id.to_owned()])
            .await?
            .iter()
            .all(Option::is_none)
        {
            return Ok(None);
        }
        let mut ids = before.to_vec();
        ids.push(id.to_owned());
        self.state_of(ids, whole).await
    }

    /// The state of these events. Those that were rejected, are no state or could not be had are left out; if `whole`, none
    /// may be missing, or there is no answer.
    pub(super) async fn state_of(
        &mut self,
        ids: Vec<String>,
        whole: bool,
    ) -> Result<Option<Root>, Failure> {
        let mut entries: BTreeMap<Key, EventNum> = BTreeMap::new();
        let events = self.known(ids).await?;
        if whole && events.iter().any(Option::is_none) {
            return Ok(None);
        }
        for event in events.into_iter().flatten() {
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
        self.change(Root::EMPTY, &keys, &events).await.map(Some)
    }

    /// Adds to `states` the states after those predecessors of an event that stay missing, as far as they were gathered.
    pub(super) async fn add_states_before(
        &mut self,
        pdu: &Pdu,
        gathered: &HashMap<String, Vec<String>>,
        whole: bool,
        states: &mut BTreeMap<String, Root>,
    ) -> Result<(), Failure> {
        for prev in pdu.prev_events() {
            if let Some(state) = gathered.get(prev)
                && !states.contains_key(prev)
                && let Some(state) = self.state_after(prev, state, whole).await?
            {
                states.insert(prev.to_owned(), state);
            }
        }
        Ok(())
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

    /// Judges an event and takes it in with what the verdict says. `fetched` as in [`judge`](Self::judge).
    pub(super) async fn judge_and_admit(
        &mut self,
        incoming: Incoming,
        fetched: &BTreeMap<String, Root>,
        progress: &mut Progress,
    ) -> Result<(), Unjudged> {
        let verdict = self.judge(&incoming.pdu, fetched).await?;
        self.admit_judged(incoming, verdict, progress).await
    }

    /// Takes an event in with what a verdict says of it.
    pub(super) async fn admit_judged(
        &mut self,
        incoming: Incoming,
        verdict: Verdict,
        progress: &mut Progress,
    ) -> Result<(), Unjudged> {
        let Incoming {
            pdu,
            known,
            place,
            is_stranger,
        } = incoming;
        let all_fetched = verdict.missing.len() == pdu.prev_events().len();
        if let Some(reason) = &verdict.reason {
            let (event_id, status) = (pdu.event_id(), verdict.status);
            tracing::info!(event_id, ?status, reason, "event kept out of its room");
        }
        let was_rejected = is_rejected(known.as_ref()) && is_settled(known.as_ref());
        if verdict.status == EventStatus::Rejected && (is_stranger || was_rejected) {
            return Ok(());
        }
        if was_rejected {
            tracing::info!(event_id = pdu.event_id(), "event is not rejected any more");
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
                num: known.map(|event| event.num),
                before: verdict.before,
                spot,
                outgoing: false,
            })
            .await?;
        if all_fetched {
            // Its state was fetched: it stands on nothing that is incomplete.
            self.forget_partial(&event);
        }
        if let Some(place) = place {
            let missing = progress.gaps.entry(place.segment).or_default();
            missing.retain(|id| *id != event.header.event_id);
            for id in verdict.missing {
                // Several events may name the same one.
                if !missing.contains(&id) {
                    missing.push(id);
                }
            }
        } else if let Some(place) = event.header.place.filter(|_| spot == Spot::AfterGap) {
            progress.gaps.insert(place.segment, verdict.missing);
        }
        if event.header.status == EventStatus::Accepted {
            self.apply_redaction(&event, progress).await?;
        }
        self.apply_awaited(&event, progress).await?;
        Ok(())
    }

    /// The places of those events that are missing in front of segments, or lead there.
    pub(super) async fn places(
        &self,
        gathered: &Gathered,
        gaps: &Missing,
    ) -> Result<HashMap<String, Place>, Failure> {
        let is_outlier = |event: &&Pdu| gathered.outliers.contains(event.event_id());
        let events: Vec<&Pdu> = gathered
            .events
            .iter()
            .filter(|event| !is_outlier(event))
            .collect();
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
        let Some(id) = target_of(redaction) else {
            return Ok(());
        };
        let target = self.known(vec![id.clone()]).await?;
        if let Some(target) = target.into_iter().flatten().next() {
            self.redact_with(&target, redaction);
            return Ok(());
        }
        let waiting = progress.awaited.entry(id).or_default();
        if self.await_target(redaction, waiting).await? {
            waiting.push(Arc::clone(redaction));
        }
        Ok(())
    }

    /// Remembers that a redaction waits for its target, which is not known, unless too many do. `new` are those of the batch
    /// that wait for the same. Answers whether it does.
    pub(crate) async fn await_target(
        &mut self,
        redaction: &Arc<Event>,
        new: &[Arc<Event>],
    ) -> Result<bool, Failure> {
        let Some(id) = target_of(redaction) else {
            return Ok(false);
        };
        let mut waiting = self.stored_awaited(&id).await?;
        waiting.extend(new.iter().cloned());
        let server = limits::server_name_of(redaction.pdu.sender());
        let same = |other: &&Arc<Event>| limits::server_name_of(other.pdu.sender()) == server;
        // When full, the redaction stands in the room and redacts nothing. Not one server alone fills it.
        if waiting.len() >= MOST_AWAITED || waiting.iter().filter(same).count() >= MOST_OF_A_SERVER
        {
            return Ok(false);
        }
        let key = (self.num(), id, redaction.num);
        self.batch().put::<AwaitedTargets>(&key, &Present);
        Ok(true)
    }

    /// The stored redactions that wait for an event.
    async fn stored_awaited(&self, id: &str) -> Result<Vec<Arc<Event>>, Failure> {
        let prefix = (self.num(), id.to_owned());
        let rooms = self.rooms.clone();
        let read = move |view: &View| {
            let nums = view
                .keys::<AwaitedTargets>(Scan::prefix(&prefix))
                .map(|key| key.map(|(.., redaction)| redaction))
                .collect::<Result<Vec<EventNum>, StoreError>>()?;
            rooms.events(view, prefix.0, &nums)
        };
        let events = self.rooms.0.store.read(read).await?;
        Ok(events.into_iter().flatten().collect())
    }

    /// Prunes an event for which redactions have waited by the first of them that may do that.
    pub(super) async fn apply_awaited(
        &mut self,
        target: &Arc<Event>,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let prefix = (self.num(), target.header.event_id.clone());
        let stored = self.stored_awaited(&prefix.1).await?.into_iter();
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

/// What a redaction redacts. Whatever is no event id redacts nothing, and may be longer than a key.
fn target_of(redaction: &Event) -> Option<String> {
    let redacts = redaction.pdu.redacts();
    redacts
        .filter(|id| limits::is_event_id(id))
        .map(str::to_owned)
}
