//! What other servers of a room believe of it, and why that differs.
//!
//! They are asked for the state before one of our newest events, by ids. That is a fixed point of the room's history: two
//! servers that know the same events have the same state there, whatever happened since.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use myelin_data::rooms::{EventStatus, Heads};
use myelin_rules::Pdu;
use myelin_store::StoreError;
use myelin_types::EventNum;
use ruma::{EventId, OwnedEventId, OwnedServerName, ServerName};

use super::{Difference, Doctor, ExamineError, Finding, Peer, Problem, Side, report::describe};
use crate::{Event, event::tree_error, remote::Fetch};

/// How many differences are explained; further ones are counted.
const MOST_DIFFERENCES: usize = 50;
/// How many events that are not known here are fetched, of each server, to say what they are.
const MOST_FETCHED: usize = 10;

/// The state at the point of comparison, by event id.
struct Ours {
    point: OwnedEventId,
    state: HashMap<String, EventNum>,
}

impl Doctor {
    /// Asks other servers of the room, at most so many, for their state and explains the differences.
    pub(super) async fn compare(
        mut self,
        fetch: &dyn Fetch,
        most: usize,
    ) -> Result<Doctor, ExamineError> {
        let (returned, (servers, ours)) = self
            .blocking(|doctor| {
                let ours = match doctor.ours() {
                    // It was said that the state cannot be read.
                    Err(StoreError::Missing(_) | StoreError::Codec { .. }) => None,
                    ours => ours?,
                };
                Ok((doctor.others()?, ours))
            })
            .await?;
        self = returned;
        let Some(ours) = ours.map(Arc::new) else {
            return Ok(self);
        };
        for server in servers.into_iter().take(most) {
            let room = self.handle.room_id().to_owned();
            let theirs = match fetch.state_ids(&server, &room, &ours.point).await {
                Ok(theirs) => theirs,
                Err(error) => {
                    let what = format!("{server}: {error}.");
                    self.report.add(Finding::new(Problem::SilentServer, what));
                    continue;
                }
            };
            let theirs: BTreeSet<String> = theirs.state.iter().map(ToString::to_string).collect();
            let asked = Arc::clone(&ours);
            let (returned, (mut peer, unknown)) = self
                .blocking(move |doctor| doctor.differences(&asked, &theirs))
                .await?;
            self = returned;
            for id in unknown.into_iter().take(MOST_FETCHED) {
                if let Some(what) = self.fetch_description(fetch, &server, &id).await
                    && let Some(difference) = peer
                        .differences
                        .iter_mut()
                        .find(|other| other.event_id == id)
                {
                    difference.why = format!("{what}: {}", difference.why);
                }
            }
            peer.server = server.to_string();
            if !peer.agrees {
                let count = peer.differences.len() + peer.further;
                let what = format!("{server} has {count} entries of the state otherwise.");
                self.report.add(Finding::new(Problem::OtherState, what));
            }
            self.report.peers.push(peer);
        }
        Ok(self)
    }

    /// The other servers in the room.
    fn others(&self) -> Result<Vec<OwnedServerName>, StoreError> {
        let mut servers = self.rooms.servers_in_room(&self.view, self.handle.num)?;
        servers.retain(|server| *server != self.rooms.0.server_name);
        Ok(servers)
    }

    /// The state before the newest of the newest events that another server sent, or else of ours: what others sent, they
    /// know.
    fn ours(&self) -> Result<Option<Ours>, StoreError> {
        let Some(head) = self.view.get::<Heads>(&self.handle.num)? else {
            return Ok(None);
        };
        let nums: Vec<EventNum> = head.extremities.iter().map(|(num, _)| *num).collect();
        let tips = self.events(&nums)?;
        let tips: Vec<Arc<Event>> = tips.into_iter().flatten().collect();
        let ours = format!(":{}", self.rooms.0.server_name);
        let theirs = tips.iter().rfind(|tip| !tip.pdu.sender().ends_with(&ours));
        let Some(tip) = theirs.or(tips.last()) else {
            return Ok(None);
        };
        let Ok(point) = OwnedEventId::try_from(tip.header.event_id.as_str()) else {
            return Ok(None);
        };
        let mut state = HashMap::new();
        let nodes = self.rooms.nodes(&self.view, self.handle.num);
        let mut nums: Vec<EventNum> = Vec::new();
        for entry in myelin_state::iter(&nodes, tip.header.before()) {
            nums.push(entry.map_err(tree_error)?.1);
        }
        for nums in nums.chunks(256) {
            let events = self.events(nums)?;
            for event in events.into_iter().flatten() {
                state.insert(event.header.event_id.clone(), event.num);
            }
        }
        Ok(Some(Ours { point, state }))
    }

    /// In what a state differs from ours, and which of its events are not known here.
    fn differences(
        &mut self,
        ours: &Ours,
        theirs: &BTreeSet<String>,
    ) -> Result<(Peer, Vec<String>), StoreError> {
        let mut mine: Vec<&String> = ours
            .state
            .keys()
            .filter(|id| !theirs.contains(*id))
            .collect();
        mine.sort_unstable();
        let only_theirs: Vec<&String> = theirs
            .iter()
            .filter(|id| !ours.state.contains_key(*id))
            .collect();
        let count = mine.len() + only_theirs.len();
        let mut differences = Vec::new();
        let mut unknown = Vec::new();
        for id in only_theirs.into_iter().take(MOST_DIFFERENCES) {
            let event = self
                .ground
                .events_by_id(&self.view, std::slice::from_ref(id))?;
            let why = if let Some(event) = event.into_iter().flatten().next() {
                format!("{}: {}", describe(&event.pdu), self.why_not_here(&event)?)
            } else {
                unknown.push(id.clone());
                "This server does not know the event. It was not sent here, or did not arrive."
                    .to_owned()
            };
            differences.push(Difference {
                event_id: id.clone(),
                side: Side::There,
                why,
            });
        }
        for id in mine.into_iter().take(MOST_DIFFERENCES) {
            let event = self
                .ground
                .events_by_id(&self.view, std::slice::from_ref(id))?;
            let event = event.into_iter().flatten().next();
            let what = event.map_or_else(String::new, |event| describe(&event.pdu));
            differences.push(Difference {
                event_id: id.clone(),
                side: Side::Here,
                why: format!(
                    "{what}: It is in our state and not in theirs. They do not know it, or their rules refused it or prefer \
                     another."
                ),
            });
        }
        let peer = Peer {
            server: String::new(),
            event_id: ours.point.to_string(),
            agrees: count == 0,
            further: count - differences.len(),
            differences,
        };
        Ok((peer, unknown))
    }

    /// Why an event that is known here is not in our state.
    fn why_not_here(&self, event: &Event) -> Result<String, StoreError> {
        Ok(match event.header.status {
            EventStatus::Rejected => match self.why_rejected(event)? {
                Some(reason) => format!("It was rejected here: {reason}."),
                None => "It was rejected here, and the rules allow it.".to_owned(),
            },
            EventStatus::SoftFailed => "It was not shown here, because the state of when it came did not allow it; state \
                                        resolution may bring it in."
                .to_owned(),
            EventStatus::Outlier => "It is known here only because others refer to it: where it belongs in the history did \
                                     not arrive."
                .to_owned(),
            EventStatus::Accepted => match self.instead_of(event)? {
                Some(other) => format!(
                    "It is part of the room here, and the state has another in its place: {} ({}).",
                    other.header.event_id,
                    describe(&other.pdu)
                ),
                None => "It is part of the room here, and the state has nothing in its place.".to_owned(),
            },
        })
    }

    /// What the current state has in the place of a state event.
    fn instead_of(&self, event: &Event) -> Result<Option<Arc<Event>>, StoreError> {
        let head = self.view.get::<Heads>(&self.handle.num)?;
        match (head, event.pdu.state_key()) {
            (Some(head), Some(state_key)) => {
                self.entry(head.root(), event.pdu.event_type(), state_key)
            }
            _ => Ok(None),
        }
    }

    /// What an event is that only another server has. It is not verified, and not kept.
    async fn fetch_description(
        &self,
        fetch: &dyn Fetch,
        server: &ServerName,
        id: &str,
    ) -> Option<String> {
        let id = <&EventId>::try_from(id).ok()?;
        let event = fetch.event(server, id).await.ok()?;
        let pdu = Pdu::parse(self.handle.version, event.get().as_bytes()).ok()?;
        (pdu.event_id() == id.as_str()).then(|| describe(&pdu))
    }
}
