//! Taking up a room's history at a join that another server has let in: the state that it gave, and the join as the only
//! end of the history. What was known of the room before, from an earlier stay, remains as an older segment.

use std::{collections::BTreeSet, sync::Arc};

use myelin_data::rooms::{
    EventHeader, EventStatus, Membership as Stored, RoomMembers, StrippedStates, UserRooms,
};
use myelin_rules::Pdu;
use myelin_state::Root;
use myelin_store::{Scan, StoreError, View};
use myelin_types::{EventNum, RoomNum, UserNum};
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};

use super::{append::Advance, guard::RoomGuard};
use crate::{AppendError, Failure, event::Event, membership::MEMBER};

impl RoomGuard {
    /// Takes in events that are part of a state or an auth chain only; those that are known stay as they are. Answers all,
    /// in their order. The guard must be settled.
    pub(crate) async fn admit_outliers(
        &mut self,
        events: Vec<(Pdu, EventStatus)>,
    ) -> Result<Vec<Arc<Event>>, Failure> {
        let ids: Vec<String> = events
            .iter()
            .map(|(pdu, _)| pdu.event_id().to_owned())
            .collect();
        let known = self.known(ids).await?;
        let senders: Vec<OwnedUserId> = events
            .iter()
            .zip(&known)
            .filter(|(_, known)| known.is_none())
            .map(|((pdu, _), _)| UserId::parse(pdu.sender()).map_err(|_| self.damaged_sender()))
            .collect::<Result<_, _>>()?;
        let new = senders.len() as u64;
        let mut senders = self.rooms.0.interner.users(&senders).await?.into_iter();
        let mut next = self.rooms.0.interner.next_events(new).await?;
        let mut admitted = Vec::with_capacity(events.len());
        for ((pdu, status), known) in events.into_iter().zip(known) {
            if let Some(known) = known {
                admitted.push(known);
                continue;
            }
            let Some(sender) = senders.next() else { break };
            let header = EventHeader {
                event_id: pdu.event_id().to_owned(),
                sender,
                place: None,
                status,
                state_before: None,
                state_after: Root::EMPTY.0.0,
                replaces: None,
                redacted_by: None,
                transaction: None,
                current: None,
                thread: None,
            };
            let event = Arc::new(self.event(next, header, pdu));
            next = EventNum(next.0 + 1);
            self.put_event(&event);
            self.remember(&event);
            admitted.push(event);
        }
        Ok(admitted)
    }

    fn damaged_sender(&self) -> Failure {
        Failure::Damaged {
            room: self.num(),
            what: "the sender of a checked event is no user",
        }
    }

    /// Makes a join the only end of the room's history, and the state after it the current one. `before` is the state
    /// before it; of a part of the state only, `part` says who gave it and which servers are in the room. The guard must be
    /// settled.
    pub(crate) async fn restart(
        &mut self,
        join: Pdu,
        before: Root,
        part: Option<(&ServerName, &[OwnedServerName])>,
    ) -> Result<Arc<Event>, AppendError> {
        if let Some(earlier) = self.incomplete().await? {
            self.end_partial(&earlier).await?;
        }
        let numbered = self.number(&join).await?;
        let known = self.known(vec![join.event_id().to_owned()]).await?;
        let known = known.into_iter().flatten().next();
        let num = match &known {
            Some(event) => event.num,
            None => self.rooms.0.interner.next_events(1).await?,
        };
        let place = self.state.next_segment();
        let missing = join.prev_events().map(str::to_owned).collect();
        let state_key = join.state_key().unwrap_or_default().to_owned();
        let (updated, replaced) = self.update(before, &join, &state_key, num).await?;
        self.put_nodes(&updated)?;
        let header = EventHeader {
            event_id: join.event_id().to_owned(),
            sender: numbered.sender,
            place: Some(place),
            status: EventStatus::Accepted,
            state_before: Some(before.0.0),
            state_after: updated.root.0.0,
            replaces: replaced.map(|event| event.num),
            redacted_by: None,
            transaction: None,
            current: None,
            thread: None,
        };
        let event = Arc::new(self.event(num, header, join));
        self.remember(&event);
        if known.is_some() {
            // Readers must not go on with the outlier that the caches have under this number.
            self.pruned.push(Arc::clone(&event));
        }
        let old = self.state.root();
        let kept = self.kept_of(updated.root).await?;
        self.set_gap(place.segment, missing);
        // Counted as members come and go, and there is nobody yet whose coming was counted.
        let past = self.state.tips().iter();
        let past = past.map(|tip| tip.pdu.event_id().to_owned()).collect();
        self.write(&event, place, Advance::Merge { past, kept }, false);
        if old == Root::EMPTY {
            self.forget_invitations(numbered.sender, updated.root)
                .await?;
        }
        self.move_members(old, updated.root, place).await?;
        if let Some((server, servers)) = part {
            self.begin_partial(event.num, server, servers).await?;
        }
        Ok(event)
    }

    /// Deletes what was stored of our users' invitations and knocks while the room was known only from outside, of those
    /// whose membership the state gives.
    async fn forget_invitations(&mut self, joined: UserNum, state: Root) -> Result<(), Failure> {
        let (rooms, room) = (self.rooms.clone(), self.num());
        let read = move |view: &View| {
            let mut users = BTreeSet::from([joined]);
            for key in view.keys::<RoomMembers>(Scan::prefix(&room)) {
                users.insert(key?.2);
            }
            let users: Vec<UserNum> = users.into_iter().collect();
            let ids = rooms.0.interner.user_ids(view, &users)?;
            let keys: Vec<(UserNum, RoomNum)> = users.iter().map(|user| (*user, room)).collect();
            let rows = view.multi_get::<UserRooms>(&keys)?;
            Ok::<_, StoreError>(users.into_iter().zip(ids).zip(rows).collect::<Vec<_>>())
        };
        let outside = self.rooms.0.store.read(read).await?;
        let keys = outside
            .iter()
            .map(|((_, id), _)| (MEMBER.to_owned(), id.to_string()))
            .collect();
        let entries = self.entries(state, keys).await?;
        for (((user, _), row), entry) in outside.into_iter().zip(entries) {
            let (Some(row), Some(_)) = (row, entry) else {
                continue;
            };
            self.batch
                .delete::<RoomMembers>(&(room, row.membership, user));
            if matches!(row.membership, Stored::Invite | Stored::Knock) {
                self.batch.delete::<StrippedStates>(&(user, room));
            }
        }
        Ok(())
    }
}
