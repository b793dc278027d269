//! The states around events, and the room's current one.

use std::{collections::BTreeSet, sync::Arc};

use myelin_data::rooms::{EventStatus, Head, Heads};
use myelin_state::Root;
use myelin_store::StoreError;
use myelin_types::{EventNum, StateKeyNum};

use super::{Doctor, Finding, Problem, report::describe};
use crate::{Event, event::tree_error};

/// How many entries of a state are looked at together.
const ENTRIES: usize = 256;
/// How many entries are named in which two states differ.
const NAMED: usize = 5;

impl Doctor {
    /// Whether the states around an event are what its predecessors and the event make them.
    pub(super) fn examine_states(&mut self, event: &Event) -> Result<(), StoreError> {
        let result = self.derive_states(event);
        self.readable(result, &event.header.event_id)
    }

    /// Turns a state that cannot be read into a finding.
    pub(super) fn readable(
        &mut self,
        result: Result<(), StoreError>,
        event_id: &str,
    ) -> Result<(), StoreError> {
        match result {
            Err(StoreError::Missing(_) | StoreError::Codec { .. }) => {
                let what = "A part of the state, or an event in it, is missing or does not decode.";
                self.report.add(match event_id {
                    "" => Finding::new(Problem::UnreadableState, what),
                    id => Finding::of(Problem::UnreadableState, id, what),
                });
                Ok(())
            }
            other => other,
        }
    }

    /// Events by number, none where there is no event that can be read.
    pub(super) fn events(&self, nums: &[EventNum]) -> Result<Vec<Option<Arc<Event>>>, StoreError> {
        let room = self.handle.num;
        match self.rooms.events(&self.view, room, nums) {
            Err(StoreError::Codec { .. }) => nums
                .iter()
                .map(|num| match self.rooms.event(&self.view, room, *num) {
                    Err(StoreError::Codec { .. }) => Ok(None),
                    found => found,
                })
                .collect(),
            found => found,
        }
    }

    fn derive_states(&mut self, event: &Event) -> Result<(), StoreError> {
        let (before, after) = (event.header.before(), event.header.after());
        let prev: Vec<String> = event.pdu.prev_events().map(str::to_owned).collect();
        let known = self.ground.events_by_id(&self.view, &prev)?;
        let settled = |event: &Arc<Event>| event.header.status != EventStatus::Outlier;
        let known: Vec<_> = known.into_iter().flatten().filter(settled).collect();
        if known.len() < prev.len() || self.is_partial() {
            // It came with a state of another server, or follows a gap; or members were added to what its predecessors come
            // to.
            self.report.underived += 1;
        } else {
            let mut states: Vec<Root> = Vec::with_capacity(known.len());
            for state in known.iter().map(|event| event.header.after()) {
                if !states.contains(&state) {
                    states.push(state);
                }
            }
            let derived = self.merged(&states)?;
            if derived != before {
                let what = format!(
                    "{}: The state before it differs from what its predecessors come to. {}",
                    describe(&event.pdu),
                    self.difference(derived, before)?
                );
                let id = &event.header.event_id;
                self.report
                    .add(Finding::of(Problem::WrongStateBefore, id, what));
            }
        }
        let takes_effect = matches!(
            event.header.status,
            EventStatus::Accepted | EventStatus::SoftFailed
        );
        let derived = match event.pdu.state_key().filter(|_| takes_effect) {
            Some(state_key) => self.changed(before, &event.pdu, state_key, event.num)?,
            None => Some(before),
        };
        if derived != Some(after) {
            let what = format!(
                "{}: The state after it is not that before it with the event in it.",
                describe(&event.pdu)
            );
            let id = &event.header.event_id;
            self.report
                .add(Finding::of(Problem::WrongStateAfter, id, what));
        }
        Ok(())
    }

    /// What several states come to.
    fn merged(&self, states: &[Root]) -> Result<Root, StoreError> {
        let base = match states {
            [] => return Ok(Root::EMPTY),
            [only] => return Ok(*only),
            [first, ..] => *first,
        };
        let interner = self.rooms.interner();
        let mut changes: Vec<(StateKeyNum, Option<EventNum>)> = Vec::new();
        for ((event_type, state_key), event) in self.ground.resolve(&self.view, states)? {
            let key = interner.find_state_key(&self.view, &event_type, &state_key)?;
            changes.push((key.ok_or(StoreError::Missing("state_key_nums"))?, event));
        }
        let nodes = self.rooms.nodes(&self.view, self.handle.num);
        let updated = myelin_state::update(&nodes, base, &changes).map_err(tree_error)?;
        Ok(updated.root)
    }

    /// A state with an event in it; none if the key of the event is not known.
    fn changed(
        &self,
        before: Root,
        pdu: &myelin_rules::Pdu,
        state_key: &str,
        num: EventNum,
    ) -> Result<Option<Root>, StoreError> {
        let interner = self.rooms.interner();
        let Some(key) = interner.find_state_key(&self.view, pdu.event_type(), state_key)? else {
            return Ok(None);
        };
        let nodes = self.rooms.nodes(&self.view, self.handle.num);
        let updated =
            myelin_state::update(&nodes, before, &[(key, Some(num))]).map_err(tree_error)?;
        Ok(Some(updated.root))
    }

    /// In what two states differ, for people.
    fn difference(&self, expected: Root, found: Root) -> Result<String, StoreError> {
        let nodes = self.rooms.nodes(&self.view, self.handle.num);
        // What was derived may have nodes that are not stored, so that it cannot always be compared.
        let Ok(changes) = myelin_state::diff(&nodes, expected, found) else {
            return Ok("In what they differ cannot be shown.".to_owned());
        };
        let mut named = Vec::new();
        for change in changes.iter().take(NAMED) {
            let key = self.rooms.interner().state_key(&self.view, change.key)?;
            let name = match key.state_key.as_str() {
                "" => key.event_type.clone(),
                state_key => format!("{} for {state_key}", key.event_type),
            };
            named.push(name);
        }
        let further = changes.len().saturating_sub(NAMED);
        let further = match further {
            0 => String::new(),
            further => format!(" and {further} more"),
        };
        Ok(format!("They differ in {}{further}.", named.join(", ")))
    }

    /// Whether the newest events are those that nothing follows, and the current state what they come to.
    pub(super) fn examine_current(&mut self) -> Result<(), StoreError> {
        let Some(head) = self.view.get::<Heads>(&self.handle.num)? else {
            let what = "The room has no newest event.";
            self.report
                .add(Finding::new(Problem::WrongExtremities, what));
            return Ok(());
        };
        self.examine_extremities(&head)?;
        let result = self.examine_entries(head.root());
        self.readable(result, "")
    }

    fn examine_extremities(&mut self, head: &Head) -> Result<(), StoreError> {
        let room = self.handle.num;
        let nums: Vec<EventNum> = head.extremities.iter().map(|(num, _)| *num).collect();
        let tips = self.events(&nums)?;
        let mut states: BTreeSet<Root> = BTreeSet::new();
        let mut depth = 0;
        for ((num, id), tip) in head.extremities.iter().zip(tips) {
            let Some(tip) = tip.filter(|tip| tip.header.event_id == *id) else {
                let what = "It is named as a newest event, and is not there.";
                self.report
                    .add(Finding::of(Problem::WrongExtremities, id, what));
                continue;
            };
            states.insert(tip.header.after());
            depth = depth.max(tip.pdu.depth());
            if !self.accepted.contains(num.0) {
                let what = "It is named as a newest event, and is not part of the room.";
                self.report
                    .add(Finding::of(Problem::WrongExtremities, id, what));
            } else if self.followed.contains(num.0) {
                // History that was filled in may lead on from it; the next event joins the two.
                let what = "It is named as a newest event, and others follow it. The next event in the room mends that.";
                self.report
                    .add(Finding::of(Problem::WrongExtremities, id, what).mild());
            }
        }
        let mut lost = std::mem::take(&mut self.accepted);
        lost -= std::mem::take(&mut self.cited);
        for num in &nums {
            lost.remove(num.0);
        }
        for num in lost.iter().take(NAMED) {
            if let Some(event) = self.rooms.event(&self.view, room, EventNum(num))? {
                let what = format!(
                    "{}: Nothing follows it, and it is not named as a newest event.",
                    describe(&event.pdu)
                );
                let id = &event.header.event_id;
                self.report
                    .add(Finding::of(Problem::WrongExtremities, id, what));
            }
        }
        if u64::try_from(depth).unwrap_or(0) != head.depth {
            let what = format!(
                "The newest events lie at depth {depth}, not at {}.",
                head.depth
            );
            self.report
                .add(Finding::new(Problem::WrongExtremities, what));
        }
        let states: Vec<Root> = states.into_iter().collect();
        match self.merged(&states) {
            Ok(derived) if derived == head.root() => Ok(()),
            Ok(derived) => {
                let what = format!(
                    "The current state differs from what the newest events come to. {}",
                    self.difference(derived, head.root())?
                );
                self.report
                    .add(Finding::new(Problem::WrongCurrentState, what));
                Ok(())
            }
            Err(error) => self.readable(Err(error), ""),
        }
    }

    /// Whether every entry of a state is a state event of this room with the type and key that it stands under.
    fn examine_entries(&mut self, state: Root) -> Result<(), StoreError> {
        let rooms = self.rooms.clone();
        let view = self.view.clone();
        let nodes = rooms.nodes(&view, self.handle.num);
        let mut entries = myelin_state::iter(&nodes, state);
        loop {
            let mut some: Vec<(StateKeyNum, EventNum)> = Vec::with_capacity(ENTRIES);
            for entry in entries.by_ref().take(ENTRIES) {
                some.push(entry.map_err(tree_error)?);
            }
            if some.is_empty() {
                return Ok(());
            }
            self.report.state_entries += some.len() as u64;
            let nums: Vec<EventNum> = some.iter().map(|(_, num)| *num).collect();
            let events = self.events(&nums)?;
            for ((key, num), event) in some.into_iter().zip(events) {
                let key = rooms.interner().state_key(&view, key)?;
                let fits = event.as_ref().is_some_and(|event| {
                    event.pdu.is_state(&key.event_type, &key.state_key)
                        && event.header.status != EventStatus::Rejected
                });
                if !fits {
                    let what = format!(
                        "The entry for {} {:?} is not such an event (number {}).",
                        key.event_type, key.state_key, num.0
                    );
                    self.report
                        .add(Finding::new(Problem::WrongCurrentState, what));
                }
            }
        }
    }
}
