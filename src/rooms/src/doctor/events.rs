//! Event by event: text, id, signatures, hash, the rules, and the states around it.

use std::sync::Arc;

use myelin_data::rooms::{EventIds, EventStatus};
use myelin_rules::{
    Pdu,
    auth::{self, AuthEvents, auth_types},
    sign::{self, Verified, VerifyError},
};
use myelin_state::Root;
use myelin_store::StoreError;

use super::{Doctor, Finding, Problem, report::describe};
use crate::{Event, event::tree_error, remote::authorised_by};

/// Of how many servers it is told that their signatures cannot be checked.
const MOST_UNVERIFIED: usize = 200;

/// Why the rules do not allow an event.
type Reason = String;

impl Doctor {
    /// Examines events of one run.
    pub(super) fn examine_events(&mut self, events: &[Arc<Event>]) -> Result<(), StoreError> {
        let ids: Vec<_> = events
            .iter()
            .map(|event| (event.room, event.header.event_id.clone()))
            .collect();
        let numbers = self.view.multi_get::<EventIds>(&ids)?;
        for (event, number) in events.iter().zip(numbers) {
            if number.map(|number| number.0) != Some(event.num) {
                let what = "Looking its id up leads nowhere or to another event.";
                self.found(Problem::LostEventId, event, what);
            }
            let status = event.header.status;
            *match status {
                EventStatus::Accepted => &mut self.report.accepted,
                EventStatus::SoftFailed => &mut self.report.soft_failed,
                EventStatus::Rejected => &mut self.report.rejected,
                EventStatus::Outlier => &mut self.report.outliers,
            } += 1;
            self.placed += u64::from(event.header.place.is_some());
            self.examine_text(event);
            let examined = self.examine_rules(event);
            self.readable(examined, &event.header.event_id)?;
            if status != EventStatus::Outlier {
                self.note_references(event)?;
                self.examine_states(event)?;
            }
        }
        Ok(())
    }

    fn found(&mut self, problem: Problem, event: &Event, what: impl AsRef<str>) {
        let what = format!("{}: {}", describe(&event.pdu), what.as_ref());
        self.report
            .add(Finding::of(problem, &event.header.event_id, what));
    }

    fn found_mild(&mut self, problem: Problem, event: &Event, what: impl AsRef<str>) {
        let what = format!("{}: {}", describe(&event.pdu), what.as_ref());
        let finding = Finding::of(problem, &event.header.event_id, what);
        self.report.add(finding.mild());
    }

    /// What an event's text says by itself.
    fn examine_text(&mut self, event: &Event) {
        let pdu = &event.pdu;
        match Pdu::parse(pdu.version(), pdu.json().as_bytes()) {
            Ok(read) if read.event_id() == event.header.event_id => {}
            Ok(read) => {
                let what = format!("By its text its id is {}.", read.event_id());
                self.found(Problem::WrongEventId, event, what);
            }
            Err(error) => {
                let what = format!("Its text is no event of this version: {error}.");
                self.found(Problem::UnreadableEvent, event, what);
            }
        }
        if pdu.room_id() != self.handle.room.room_id {
            self.found(Problem::WrongEventId, event, "It is of another room.");
        }
        match sign::verify(pdu, &self.keys) {
            Ok(Verified::Whole) => {}
            Ok(Verified::HashMismatch) => {
                // A redacted event has lost what was hashed, whether it was redacted here or came so.
                let pruned =
                    event.header.redacted_by.is_some() || pdu.redacted().json() == pdu.json();
                if !pruned {
                    let what = "Its content is not that which its sender hashed and signed.";
                    self.found(Problem::WrongHash, event, what);
                }
            }
            Err(VerifyError::Unsigned(server)) if names_key(pdu, &server) => {
                self.note_unverified(server);
            }
            Err(error) => {
                let what = format!("{}.", capital(&error.to_string()));
                self.found(Problem::BadSignature, event, what);
            }
        }
    }

    /// Counts an event whose signature cannot be checked: of a server that is gone there may be thousands.
    fn note_unverified(&mut self, server: String) {
        if self.unverified.len() < MOST_UNVERIFIED || self.unverified.contains_key(&server) {
            *self.unverified.entry(server).or_default() += 1;
        }
    }

    /// Says which servers' signatures could not be checked.
    pub(super) fn report_unverified(&mut self) {
        for (server, events) in std::mem::take(&mut self.unverified) {
            let what = format!(
                "{events} events are signed with keys of {server} that cannot be had, or did not count when they were sent."
            );
            self.report.add(Finding::new(Problem::UnknownKey, what));
        }
    }

    /// Whether the rules say of an event what became of it.
    fn examine_rules(&mut self, event: &Event) -> Result<(), StoreError> {
        let by_auth_events = self.by_auth_events(event)?;
        let verdict = match by_auth_events {
            Err(reason) => Err(format!("by its own auth events, {reason}")),
            Ok(()) if event.header.status == EventStatus::Outlier => Ok(()),
            Ok(()) => self
                .by_state(&event.pdu, event.header.before())?
                .map_err(|reason| format!("by the state before it, {reason}")),
        };
        match (event.header.status, verdict) {
            (EventStatus::Rejected, Ok(())) => {
                let what = "It was rejected here, and the rules allow it.";
                self.found(Problem::WronglyRejected, event, what);
            }
            (EventStatus::Rejected, Err(_)) | (_, Ok(())) => {}
            (_, Err(reason)) if event.header.redacted_by.is_some() => {
                let what = format!("It was redacted since, so that this cannot be told: {reason}.");
                self.found_mild(Problem::NotAllowed, event, what);
            }
            (_, Err(reason)) => {
                let what = format!("It counts here, and {reason}.");
                self.found(Problem::NotAllowed, event, what);
            }
        }
        Ok(())
    }

    /// Why an event was rejected, found out anew.
    pub(super) fn why_rejected(&self, event: &Event) -> Result<Option<Reason>, StoreError> {
        if let Err(reason) = self.by_auth_events(event)? {
            return Ok(Some(format!("by its own auth events, {reason}")));
        }
        let by_state = self.by_state(&event.pdu, event.header.before())?;
        Ok(by_state
            .err()
            .map(|reason| format!("by the state before it, {reason}")))
    }

    fn by_auth_events(&self, event: &Event) -> Result<Result<(), Reason>, StoreError> {
        let pdu = &event.pdu;
        let ids: Vec<String> = pdu.auth_events().map(str::to_owned).collect();
        let found = self.ground.events_by_id(&self.view, &ids)?;
        let mut known = Vec::with_capacity(ids.len());
        for (id, event) in ids.iter().zip(found) {
            match event {
                Some(event) => known.push(event),
                None => return Ok(Err(format!("{id} is missing, which should authorise it"))),
            }
        }
        authorised_by(pdu, &known, || {
            Ok(self.create()?.map(|create| create.pdu.clone()))
        })
    }

    fn by_state(&self, pdu: &Pdu, state: Root) -> Result<Result<(), Reason>, StoreError> {
        let mut keys: Vec<(String, String)> = auth_types(
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
        let mut entries = AuthEvents::default();
        for (event_type, state_key) in keys {
            if let Some(event) = self.entry(state, &event_type, &state_key)? {
                entries.insert(event.pdu.clone());
            }
        }
        Ok(auth::check(pdu, &entries).map_err(|error| error.to_string()))
    }

    /// The entry of a state.
    pub(super) fn entry(
        &self,
        state: Root,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Arc<Event>>, StoreError> {
        let interner = self.rooms.interner();
        let Some(key) = interner.find_state_key(&self.view, event_type, state_key)? else {
            return Ok(None);
        };
        let nodes = self.rooms.nodes(&self.view, self.handle.num);
        match myelin_state::get(&nodes, state, key).map_err(tree_error)? {
            Some(num) => self.rooms.event(&self.view, self.handle.num, num),
            None => Ok(None),
        }
    }

    fn create(&self) -> Result<Option<Arc<Event>>, StoreError> {
        let head = self
            .view
            .get::<myelin_data::rooms::Heads>(&self.handle.num)?;
        match head {
            Some(head) => self.entry(head.root(), "m.room.create", ""),
            None => Ok(None),
        }
    }

    /// Notes which events have followers.
    fn note_references(&mut self, event: &Event) -> Result<(), StoreError> {
        let accepted = event.header.status == EventStatus::Accepted;
        if accepted {
            self.accepted.insert(event.num.0);
        }
        let prev: Vec<String> = event.pdu.prev_events().map(str::to_owned).collect();
        let nums = crate::Rooms::event_nums(&self.view, event.room, &prev)?;
        for num in nums.into_iter().flatten() {
            self.cited.insert(num.0);
            if accepted {
                self.followed.insert(num.0);
            }
        }
        Ok(())
    }
}

/// Whether an event names a key of a server that it would be signed with.
fn names_key(pdu: &Pdu, server: &str) -> bool {
    let wanted = crate::remote::wanted_keys(pdu);
    wanted.iter().any(|key| key.server == server)
}

/// With a capital letter, as a sentence begins.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}
