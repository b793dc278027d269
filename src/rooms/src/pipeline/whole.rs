//! Making a room's state whole after it was entered with a part of it: the events that came meanwhile get another verdict
//! and other states, and the room another present.
//!
//! An event that turns out to be refused keeps its place in the timeline and is shown to nobody any more. One that was
//! refused and should not have been is appended.

use std::sync::Arc;

use myelin_data::{
    Present,
    partial::{Incomplete, PartialEvents, PartialJoin, PartialJoins},
    rooms::{EventStatus, Place, Timeline},
    topic::Changed,
    unread::{Notable, Notables, RedactedPlaces},
};
use myelin_state::Root;
use myelin_store::{Scan, StoreError, View};
use myelin_types::{EventNum, Pos};
use ruma::{OwnedServerName, ServerName};

use super::guard::RoomGuard;
use crate::{AppendError, Failure, event::Event};

impl RoomGuard {
    /// Writes down that an event is to be judged again, in a room of which members are missing.
    pub(crate) fn note_partial(&mut self, event: &Event) {
        if self.partial && event.header.status != EventStatus::Outlier {
            let key = (event.room, event.num);
            self.batch.put::<PartialEvents>(&key, &Present);
        }
    }

    /// The opposite.
    pub(crate) fn forget_partial(&mut self, event: &Event) {
        if self.partial {
            self.batch.delete::<PartialEvents>(&(event.room, event.num));
        }
    }

    /// What is missing of the room's state, if anything is.
    pub(crate) async fn incomplete(&self) -> Result<Option<Incomplete>, Failure> {
        let room = self.num();
        let read = move |view: &View| view.get::<PartialJoins>(&room);
        Ok(match self.rooms.0.store.read(read).await? {
            Some(PartialJoin::Incomplete(incomplete)) => Some(incomplete),
            Some(PartialJoin::Complete(_)) | None => None,
        })
    }

    /// Begins a stay of which members are missing. Until they are there, each of the servers counts as if one user more of
    /// it was joined.
    pub(super) async fn begin_partial(
        &mut self,
        join: EventNum,
        server: &ServerName,
        servers: &[OwnedServerName],
    ) -> Result<(), Failure> {
        let mut listed: Vec<OwnedServerName> = vec![server.to_owned()];
        let others = servers.iter();
        listed.extend(others.filter(|name| **name != *server).cloned());
        listed.retain(|name| *name != self.rooms.0.server_name);
        for name in &listed {
            self.count_server(name, false, true).await?;
        }
        let incomplete = Incomplete {
            join,
            server: server.to_string(),
            servers: listed.iter().map(ToString::to_string).collect(),
        };
        let row = PartialJoin::Incomplete(incomplete);
        self.batch.put::<PartialJoins>(&self.num(), &row);
        self.partial = true;
        Ok(())
    }

    /// Notes that nothing is incomplete any more: the rest is there, or the stay has ended.
    pub(super) async fn end_partial(&mut self, incomplete: &Incomplete) -> Result<(), Failure> {
        for name in &incomplete.servers {
            if let Ok(name) = <&ServerName>::try_from(name.as_str()) {
                self.count_server(name, true, false).await?;
            }
        }
        let room = self.num();
        let read = move |view: &View| {
            view.keys::<PartialEvents>(Scan::prefix(&room))
                .collect::<Result<Vec<_>, StoreError>>()
        };
        for key in self.rooms.0.store.read(read).await? {
            self.batch.delete::<PartialEvents>(&key);
        }
        let row = PartialJoin::Complete(Pos::AT_COMMIT);
        self.batch.put::<PartialJoins>(&room, &row);
        self.partial = false;
        Ok(())
    }

    /// Gives up: nobody of this server is in the room any more, so that nobody tells it what is missing.
    pub(crate) async fn abandon_partial(&mut self, incomplete: &Incomplete) -> Result<(), Failure> {
        self.end_partial(incomplete).await?;
        self.move_head();
        Ok(())
    }

    /// Gives an event that is stored another verdict, and another state before it.
    pub(crate) async fn judge_again(
        &mut self,
        event: &Event,
        status: EventStatus,
        before: Root,
    ) -> Result<Arc<Event>, Failure> {
        let mut judged = Event::clone(event);
        let header = &mut judged.header;
        header.status = status;
        header.state_before = None;
        header.state_after = before.0.0;
        header.replaces = None;
        let takes_effect = matches!(status, EventStatus::Accepted | EventStatus::SoftFailed);
        if let Some(state_key) = event.pdu.state_key().filter(|_| takes_effect) {
            let (updated, replaced) = self
                .update(before, &event.pdu, state_key, event.num)
                .await?;
            self.put_nodes(&updated)?;
            header.state_before = Some(before.0.0);
            header.state_after = updated.root.0.0;
            header.replaces = replaced.map(|event| event.num);
        }
        let hidden = event.header.status == EventStatus::Accepted && status != event.header.status;
        if let Some(place) = event
            .header
            .place
            .filter(|place| hidden && !place.is_filled_in())
        {
            // It must not be counted as unread either.
            let notable = Notable {
                thread: event.header.thread.clone(),
                redacted: true,
            };
            self.batch.put::<Notables>(&(event.room, place), &notable);
            self.batch
                .put::<RedactedPlaces>(&(event.room, Pos::AT_COMMIT, place), &Present);
        }
        let judged = Arc::new(judged);
        self.put_again(&judged);
        Ok(judged)
    }

    fn put_again(&mut self, event: &Arc<Event>) {
        self.put_event(event);
        self.remember(event);
        // Readers must not go on with what the caches have under this number.
        self.pruned.push(Arc::clone(event));
    }

    /// Makes the room's present that which follows from its events as they were judged again, from the one at `from` on,
    /// and says that the state is whole.
    pub(crate) async fn make_whole(
        &mut self,
        from: Place,
        incomplete: &Incomplete,
    ) -> Result<(), AppendError> {
        let room = self.num();
        let scan = move |view: &View| {
            let mut nums = Vec::new();
            for row in view.scan::<Timeline>(Scan::prefix(&room).from(&(room, from))) {
                let ((_, place), entry) = row?;
                // What was filled in did not change the present.
                if !place.is_filled_in() {
                    nums.push(entry.event);
                }
            }
            Ok::<_, StoreError>(nums)
        };
        let nums = self.rooms.0.store.read(scan).await?;
        let mut tips: Vec<Arc<Event>> = Vec::new();
        let mut current = Root::EMPTY;
        for num in nums {
            let rooms = self.rooms.clone();
            let read = move |view: &View| rooms.event(view, room, num);
            let Some(stored) = self.rooms.0.store.read(read).await? else {
                continue;
            };
            let judged = self.admitted.get(&stored.header.event_id);
            let mut event = judged.map_or(stored, Arc::clone);
            let accepted = event.header.status == EventStatus::Accepted;
            let past = self.past(&event.pdu).await?;
            if accepted {
                tips.retain(|tip| !past.contains(tip.pdu.event_id()));
                let mut states = vec![event.header.after()];
                states.extend(tips.iter().map(|tip| tip.header.after()));
                current = self.resolve(&states).await?;
            }
            let differs = (current != event.header.after()).then_some(current.0.0);
            if event.header.current != differs {
                let mut restated = Event::clone(&event);
                restated.header.current = differs;
                event = Arc::new(restated);
                self.put_again(&event);
            }
            if accepted {
                tips.push(event);
            }
        }
        let old = self.state.root();
        let kept = self.kept_of(current).await?;
        let depth = tips.iter().map(|tip| tip.pdu.depth()).max();
        if let Some(head) = &mut self.state.head {
            head.state = current.0.0;
            head.depth = depth
                .and_then(|depth| u64::try_from(depth).ok())
                .unwrap_or(head.depth);
            head.extremities = tips
                .iter()
                .map(|tip| (tip.num, tip.header.event_id.clone()))
                .collect();
        }
        self.state.set_tips(tips);
        self.state.set_all_kept(kept);
        self.move_members(old, current, from).await?;
        self.end_partial(incomplete).await?;
        self.move_head();
        Ok(())
    }

    /// Makes the next writer wait for this batch, and readers look at the room.
    fn move_head(&mut self) {
        if let Some(head) = &mut self.state.head {
            head.sequence += 1;
            let (room, head) = (self.slot.handle.num, head.clone());
            self.batch.put::<myelin_data::rooms::Heads>(&room, &head);
            self.batch.touch(Changed::Timeline(room).into());
        }
    }

    /// Appends an event that was refused while members were missing, and would not have been.
    pub(crate) async fn append_late(&mut self, event: &Arc<Event>) -> Result<(), AppendError> {
        let mut late = Event::clone(event);
        late.pos = Pos::AT_COMMIT;
        let place = self.state.next_place();
        self.attach(Arc::new(late), place, false).await?;
        Ok(())
    }
}
