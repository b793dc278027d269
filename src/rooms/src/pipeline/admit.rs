//! Taking in an event of another server: it may attach anywhere in the room's history, stand beside others, or be kept
//! out of the room while it is remembered.

use std::{collections::HashSet, sync::Arc};

use myelin_data::{
    Present,
    rooms::{
        EventHeader, EventIds, EventNumber, EventStatus, Events, Gap, Gaps, Membership as Stored,
        Place, RoomMembers, StrippedStates, Timeline, TimelineEntry, UserRoom, UserRooms,
    },
    topic::Changed,
};
use myelin_rules::{Membership, Pdu};
use myelin_state::Root;
use myelin_store::{Scan, StoreError, View};
use myelin_types::{EventNum, Pos, UserNum};
use ruma::{OwnedUserId, UserId};

use super::{
    append::{Advance, count, stored, traits_of, user_id},
    guard::RoomGuard,
};
use crate::{AppendError, Failure, event::Event, remote::is_settled};

/// How many events that were kept out are looked through for extremities that they followed.
const MOST_KEPT_OUT: usize = 100;

/// An event of another server after its checks.
pub(crate) struct Admission {
    pub(crate) pdu: Pdu,
    /// What became of it.
    pub(crate) status: EventStatus,
    /// The number that it has already: outliers keep theirs.
    pub(crate) num: Option<EventNum>,
    /// The state before it in its own branch; empty for outliers of which that is not known.
    pub(crate) before: Root,
    /// Where it goes, if it is accepted.
    pub(crate) spot: Spot,
    /// Whether it was taken for its server, which has it sent to the others by this one (`send_join` and the like). What a
    /// server sends in a transaction it sends to all itself.
    pub(crate) outgoing: bool,
}

/// Where an event goes in the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spot {
    /// After the last event.
    End,
    /// After the last event, in a segment of its own, because something is missing in between.
    AfterGap,
    /// At this free place in front of a segment, where it was missing.
    Front(Place),
}

impl RoomGuard {
    /// Takes an event in. The guard must be settled, and what the event refers to be known.
    pub(crate) async fn admit(&mut self, admission: Admission) -> Result<Arc<Event>, AppendError> {
        let Admission {
            pdu,
            status,
            num,
            before,
            spot,
            outgoing,
        } = admission;
        let numbered = self.number(&pdu).await?;
        let promoted = num.is_some();
        let redacted_by = match num {
            Some(num) => self.redacted_by(num, pdu.event_id()).await?,
            None => None,
        };
        let thread = self.thread_of(&pdu).await?;
        // What was redacted as an outlier stays so.
        let pdu = if redacted_by.is_some() {
            pdu.redacted()
        } else {
            pdu
        };
        let num = match num {
            Some(num) => num,
            None => self.rooms.0.interner.next_events(1).await?,
        };
        let mut header = EventHeader {
            event_id: pdu.event_id().to_owned(),
            sender: numbered.sender,
            place: None,
            status,
            state_before: None,
            state_after: before.0.0,
            replaces: None,
            redacted_by,
            transaction: None,
            current: None,
            thread,
        };
        let takes_effect = match status {
            EventStatus::Accepted | EventStatus::SoftFailed => true,
            EventStatus::Outlier => before != Root::EMPTY,
            EventStatus::Rejected => false,
        };
        if let Some(state_key) = pdu.state_key().filter(|_| takes_effect) {
            let (updated, replaced) = self.update(before, &pdu, state_key, num).await?;
            self.put_nodes(&updated)?;
            header.state_before = Some(before.0.0);
            header.state_after = updated.root.0.0;
            header.replaces = replaced.map(|event| event.num);
        }
        let mut event = Arc::new(self.event(num, header, pdu));
        self.remember(&event);
        if status == EventStatus::Accepted {
            match spot {
                Spot::End => {
                    let place = self.state.next_place();
                    event = self.attach(event, place, outgoing).await?;
                }
                Spot::AfterGap => {
                    let place = self.state.next_segment();
                    event = self.attach(event, place, outgoing).await?;
                }
                Spot::Front(place) => event = self.prepend(event, place).await?,
            }
        } else {
            self.put_event(&event);
        }
        self.remember(&event);
        self.note_partial(&event);
        if promoted {
            // Readers must not go on with the outlier that the caches have under this number.
            self.pruned.push(Arc::clone(&event));
        }
        Ok(event)
    }

    /// What has redacted an event that is stored, in this batch or before.
    async fn redacted_by(&self, num: EventNum, id: &str) -> Result<Option<EventNum>, Failure> {
        if let Some(pruned) = self.pruned.iter().rfind(|event| event.num == num) {
            return Ok(pruned.header.redacted_by);
        }
        let known = self.known(vec![id.to_owned()]).await?;
        let known = known.into_iter().flatten().next();
        Ok(known.and_then(|event| event.header.redacted_by))
    }

    /// Makes an event readable for those that follow in the batch.
    pub(super) fn remember(&mut self, event: &Arc<Event>) {
        Arc::make_mut(&mut self.admitted).insert(event.header.event_id.clone(), Arc::clone(event));
        if event.pdu.state_key().is_some() {
            self.layers.newest().replace(event);
        }
    }

    /// Writes the rows of an event that stands in no timeline.
    pub(super) fn put_event(&mut self, event: &Event) {
        self.batch
            .put::<Events>(&(event.room, event.num), &event.record());
        self.batch.put::<EventIds>(
            &(event.room, event.header.event_id.clone()),
            &EventNumber(event.num),
        );
    }

    /// Makes an event an extremity of the room's history, and its state a part of the current one.
    pub(super) async fn attach(
        &mut self,
        event: Arc<Event>,
        place: Place,
        outgoing: bool,
    ) -> Result<Arc<Event>, AppendError> {
        let past = self.past(&event.pdu).await?;
        let mut states = vec![event.header.after()];
        let beside = self.state.tips().iter();
        let beside = beside.filter(|tip| !past.contains(tip.pdu.event_id()));
        states.extend(beside.map(|tip| tip.header.after()));
        let (old, current) = (self.state.root(), self.resolve(&states).await?);
        let mut placed = Event::clone(&event);
        placed.header.place = Some(place);
        placed.header.current = (current != event.header.after()).then_some(current.0.0);
        let event = Arc::new(placed);
        self.remember(&event);

        let kept = self.kept_of(current).await?;
        self.move_members(old, current, place).await?;
        self.write(&event, place, Advance::Merge { past, kept }, outgoing);
        Ok(event)
    }

    /// The rows that follow from the memberships in which the current state differs from the one before.
    pub(super) async fn move_members(
        &mut self,
        old: Root,
        new: Root,
        place: Place,
    ) -> Result<(), AppendError> {
        let mut moved = Vec::new();
        let mut ids: Vec<OwnedUserId> = Vec::new();
        for (before, after) in self.members_moved(old, new).await? {
            if let Some(event) = after.as_ref().or(before.as_ref()) {
                ids.push(user_id(event.pdu.state_key().unwrap_or_default())?);
                moved.push((before, after));
            }
        }
        let nums = self.rooms.0.interner.users(&ids).await;
        let nums = nums.map_err(Failure::from)?;
        for (((before, after), id), user) in moved.into_iter().zip(ids).zip(nums) {
            match (before, after) {
                (before, Some(after)) => {
                    self.set_membership(&after, place, before.as_ref(), &id, user)
                        .await?;
                }
                (Some(before), None) => {
                    self.lose_membership(&before, &id, user, place).await?;
                }
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// Puts an event where it was missing. The room's present does not change by it.
    async fn prepend(
        &mut self,
        event: Arc<Event>,
        place: Place,
    ) -> Result<Arc<Event>, AppendError> {
        let room = self.num();
        // History that is filled in notifies nobody, and counts nothing: the total is that before what follows it.
        let scan = move |view: &View| {
            let next = Scan::prefix(&room).after(&(room, place)).limit(1);
            let row = view.scan::<Timeline>(next).next().transpose()?;
            Ok::<_, StoreError>(row.map_or(0, |((_, next), entry)| {
                let counted = entry.traits.notifies && !next.is_filled_in();
                entry.notifying - u64::from(counted)
            }))
        };
        let notifying = self.rooms.0.store.read(scan).await?;
        let mut placed = Event::clone(&event);
        placed.header.place = Some(place);
        let event = Arc::new(placed);
        self.put_event(&event);
        self.batch.put::<Timeline>(
            &(room, place),
            &TimelineEntry {
                pos: Pos::AT_COMMIT,
                event: event.num,
                sender: event.header.sender,
                notifying,
                traits: traits_of(&event),
            },
        );
        Ok(event)
    }

    /// The least index of a segment.
    pub(crate) async fn front(&self, segment: u32) -> Result<i64, Failure> {
        let room = self.num();
        let start = Place {
            segment,
            index: i64::MIN,
        };
        let scan = move |view: &View| {
            let front = Scan::prefix(&room).from(&(room, start)).limit(1);
            view.scan::<Timeline>(front).next().transpose()
        };
        let first = self.rooms.0.store.read(scan).await?;
        Ok(first
            .filter(|((_, place), _)| place.segment == segment)
            .map_or(0, |((_, place), _)| place.index))
    }

    /// Writes down what is missing in front of a segment.
    pub(crate) fn set_gap(&mut self, segment: u32, missing: Vec<String>) {
        let key = (self.num(), segment);
        if missing.is_empty() {
            self.batch.delete::<Gaps>(&key);
        } else {
            self.batch.put::<Gaps>(&key, &Gap { missing });
        }
    }

    /// What an event has in its past of what may be an extremity: its predecessors, and those of predecessors that were
    /// kept out of the room and therefore did not take the place of theirs.
    ///
    /// Not those of outliers: the state there is the word of another server, and must be resolved with what is known here
    /// rather than take its place.
    pub(super) async fn past(&self, pdu: &Pdu) -> Result<HashSet<String>, Failure> {
        let mut past: HashSet<String> = pdu.prev_events().map(str::to_owned).collect();
        let mut left: Vec<String> = past.iter().cloned().collect();
        let mut looked_at = 0;
        while !left.is_empty() && looked_at < MOST_KEPT_OUT {
            looked_at += left.len();
            let events = self.known(std::mem::take(&mut left)).await?;
            for event in events.into_iter().flatten() {
                let kept_out = event.header.status != EventStatus::Accepted;
                if kept_out && is_settled(Some(&event)) {
                    let prev = event.pdu.prev_events().map(str::to_owned);
                    left.extend(prev.filter(|id| past.insert(id.clone())));
                }
            }
        }
        Ok(past)
    }

    /// The rows that follow when the current state has no membership of a user any more.
    async fn lose_membership(
        &mut self,
        before: &Event,
        id: &UserId,
        user: UserNum,
        place: Place,
    ) -> Result<(), AppendError> {
        let room = self.num();
        let membership = Membership::of(&before.pdu);
        self.batch
            .delete::<RoomMembers>(&(room, stored(membership), user));
        self.batch
            .put::<RoomMembers>(&(room, Stored::Leave, user), &Present);
        if matches!(membership, Membership::Invite | Membership::Knock) {
            self.batch.delete::<StrippedStates>(&(user, room));
        }
        if let Some(head) = &mut self.state.head {
            let after = Membership::Leave;
            count(&mut head.joined, Membership::Join, Some(membership), after);
            count(
                &mut head.invited,
                Membership::Invite,
                Some(membership),
                after,
            );
        }
        self.count_server(id.server_name(), membership == Membership::Join, false)
            .await?;
        self.gone.push(user);
        self.batch.put::<UserRooms>(
            &(user, room),
            &UserRoom {
                pos: Pos::AT_COMMIT,
                membership: Stored::Leave,
                event: before.num,
                place,
                entered: place,
                forgotten: false,
            },
        );
        self.batch.touch(Changed::User(user).into());
        Ok(())
    }
}
