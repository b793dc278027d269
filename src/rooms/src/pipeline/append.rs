//! Appending an event of our own: selecting its auth events, building and signing it, authorising it against the
//! current state, and everything that becomes true with it.

use std::{collections::HashSet, sync::Arc};

use myelin_data::log::Logged;
use myelin_data::rooms::{
    EventHeader, EventIds, EventNumber, EventStatus, EventTraits, Events, Head,
    Membership as Stored, Place, RoomMembers, SentBy, StateNodes, StrippedStates, Timeline,
    TimelineEntry, UserRoom, UserRooms,
};
use myelin_data::unread::{LastSent, MAIN, Notable, Notables, Sent};
use myelin_data::{Present, Shown, rooms::Bytes, topic::Changed};
use myelin_rules::{
    BuildError, EventBuilder, EventRef, Membership, ParseError, Pdu, Rules,
    auth::{self, AuthEvents},
};
use myelin_state::{Root, Updated};
use myelin_store::StoreError;
use myelin_types::{EventNum, Pos, UserNum};
use ruma::{OwnedUserId, UserId};

use super::{guard::RoomGuard, traits};
use crate::{
    AppendError, Failure, JsonObject,
    event::{Event, tree_error},
    head::{Kept, SHOWN_TO_INVITED},
};

/// An event that is to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) sender: OwnedUserId,
    pub(crate) event_type: String,
    pub(crate) state_key: Option<String>,
    pub(crate) content: JsonObject,
    /// For redactions: the event to redact.
    pub(crate) redacts: Option<String>,
    /// Which request it comes from.
    pub(crate) sent_by: Option<SentBy>,
}

impl Draft {
    /// A state event.
    pub(crate) fn state(
        sender: &UserId,
        event_type: &str,
        state_key: &str,
        content: JsonObject,
    ) -> Self {
        Self {
            sender: sender.to_owned(),
            event_type: event_type.to_owned(),
            state_key: Some(state_key.to_owned()),
            content,
            redacts: None,
            sent_by: None,
        }
    }
}

impl From<BuildError> for AppendError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Format(format @ (ParseError::TooLarge | ParseError::TooLong(_))) => {
                AppendError::TooLarge(format.to_string())
            }
            BuildError::Format(format) => AppendError::Malformed(format.to_string()),
        }
    }
}

/// The users whose rows an event needs, by number.
pub(super) struct Numbered {
    pub(super) sender: UserNum,
    /// The user whose membership it is.
    pub(super) target: Option<(OwnedUserId, UserNum)>,
}

/// How the head moves on with an event.
pub(super) enum Advance {
    /// The event follows upon the whole head.
    ByEvent,
    /// The event stands beside others.
    Merge {
        /// The ids of what it has in its past, as far as extremities may be among it.
        past: HashSet<String>,
        /// What is kept of the state that comes out.
        kept: Kept,
    },
}

impl RoomGuard {
    /// Builds an event, and appends it if the room's rules allow it.
    pub(crate) async fn append(&mut self, mut draft: Draft) -> Result<Arc<Event>, AppendError> {
        let sent_by = draft.sent_by.take();
        let (pdu, auth) = self.build(draft).await?;
        // Whoever may not send it anyway need not be shown to a policy server.
        self.check_current(&pdu, auth.iter().cloned())?;
        let pdu = self.with_policy(pdu).await?;
        self.append_built(pdu, auth, sent_by).await
    }

    /// Builds an event that the room's rules allow now, and does not append it. It bears our signature, which is not to
    /// leave the server if the sender is of another one.
    pub(crate) async fn draw_up(&self, draft: Draft) -> Result<Pdu, AppendError> {
        let (pdu, auth) = self.build(draft).await?;
        self.check_current(&pdu, auth)?;
        Ok(pdu)
    }

    /// Builds an event that attaches to the current head. Answers it with its auth events.
    async fn build(&self, draft: Draft) -> Result<(Pdu, Vec<Pdu>), AppendError> {
        let rules: &Rules = self.handle().version.rules();
        let keys = auth::auth_types(
            rules.version,
            &draft.event_type,
            draft.sender.as_str(),
            draft.state_key.as_deref(),
            &draft.content,
        );
        let keys: Vec<(&str, &str)> = keys
            .iter()
            .map(|(kind, key)| (*kind, key.as_str()))
            .collect();
        let auth: Vec<Arc<Event>> = self
            .state_events(&keys)
            .await?
            .into_iter()
            .flatten()
            .collect();
        let builder = EventBuilder {
            room_id: Some(self.handle().room.room_id.clone()),
            sender: draft.sender.to_string(),
            event_type: draft.event_type,
            state_key: draft.state_key,
            content: draft.content,
            redacts: draft.redacts,
            prev_events: self.state.prev_events(),
            auth_events: auth
                .iter()
                .map(|event| EventRef::from(&event.pdu))
                .collect(),
            depth: self.state.next_depth(),
            origin_server_ts: self.rooms.0.clock.now(),
        };
        let pdu = builder.sign(rules.version, &self.rooms.0.signer)?;
        Ok((pdu, auth.iter().map(|event| event.pdu.clone()).collect()))
    }

    /// The authorisation rules by the auth events that the current state gives.
    fn check_current(
        &self,
        pdu: &Pdu,
        auth: impl IntoIterator<Item = Pdu>,
    ) -> Result<(), AppendError> {
        let mut state: AuthEvents = auth.into_iter().collect();
        // In version 12 the create event is no auth event, and yet part of what the rules look at.
        if let Some(create) = self.state.create() {
            state.insert(create.clone());
        }
        auth::check(pdu, &state).map_err(|error| {
            let text = error.to_string();
            if error.is_of_content() {
                AppendError::Unacceptable(text)
            } else {
                AppendError::Forbidden(text)
            }
        })
    }

    /// Appends an event of ours that attaches to the current head. `auth` are its auth events.
    pub(crate) async fn append_built(
        &mut self,
        pdu: Pdu,
        auth: impl IntoIterator<Item = Pdu>,
        sent_by: Option<SentBy>,
    ) -> Result<Arc<Event>, AppendError> {
        self.check_current(&pdu, auth)?;

        let numbered = self.number(&pdu).await?;
        let num = self.rooms.0.interner.next_events(1).await?;
        let place = self.state.next_place();
        let root = self.state.root();
        let mut header = EventHeader {
            event_id: pdu.event_id().to_owned(),
            sender: numbered.sender,
            place: Some(place),
            status: EventStatus::Accepted,
            state_before: None,
            state_after: root.0.0,
            replaces: None,
            redacted_by: None,
            transaction: sent_by,
            current: None,
            thread: self.thread_of(&pdu).await?,
        };
        let event = match pdu.state_key() {
            None => Arc::new(self.event(num, header, pdu)),
            Some(state_key) => {
                let (updated, replaced) = self.update(root, &pdu, state_key, num).await?;
                header.state_before = Some(root.0.0);
                header.state_after = updated.root.0.0;
                header.replaces = replaced.as_ref().map(|event| event.num);
                let event = Arc::new(self.event(num, header, pdu));
                self.put_nodes(&updated)?;
                self.layers.newest().replace(&event);
                if let Some((user_id, user)) = &numbered.target {
                    self.set_membership(&event, place, replaced.as_ref(), user_id, *user)
                        .await?;
                }
                event
            }
        };
        self.write(&event, place, Advance::ByEvent, true);
        self.note_partial(&event);
        Ok(event)
    }

    /// Writes the nodes of a new state.
    pub(super) fn put_nodes(&mut self, updated: &Updated) -> Result<(), Failure> {
        let room = self.num();
        for (hash, bytes) in &updated.new_nodes {
            self.batch
                .put::<StateNodes>(&(room, hash.0), &Bytes(bytes.clone()));
        }
        self.layers.newest().add(updated)?;
        Ok(())
    }

    pub(super) fn event(&self, num: EventNum, header: EventHeader, pdu: Pdu) -> Event {
        Event {
            room: self.num(),
            num,
            pos: Pos::AT_COMMIT,
            header,
            pdu,
        }
    }

    pub(super) async fn number(&self, pdu: &Pdu) -> Result<Numbered, AppendError> {
        let mut ids = vec![user_id(pdu.sender())?];
        let state_key = pdu
            .state_key()
            .filter(|_| pdu.event_type() == "m.room.member");
        if let Some(target) = state_key {
            ids.push(user_id(target)?);
        }
        let nums = self.rooms.0.interner.users(&ids).await?;
        Ok(Numbered {
            sender: nums[0],
            target: nums.get(1).map(|num| (ids.swap_remove(1), *num)),
        })
    }

    /// A state with an event in it, and the event that it replaces there.
    pub(super) async fn update(
        &self,
        root: Root,
        pdu: &Pdu,
        state_key: &str,
        num: EventNum,
    ) -> Result<(Updated, Option<Arc<Event>>), Failure> {
        let pair = (pdu.event_type().to_owned(), state_key.to_owned());
        let key = self.rooms.0.interner.state_keys(&[pair]).await?[0];
        let (rooms, layers) = (self.rooms.clone(), self.layers.clone());
        let room = self.num();
        let answer = self
            .rooms
            .0
            .store
            .read(move |view| {
                let replaced = layers
                    .state(&rooms, view, room, root, &[key])?
                    .pop()
                    .flatten();
                let nodes = layers.over(rooms.nodes(view, room));
                let updated =
                    myelin_state::update(&nodes, root, &[(key, Some(num))]).map_err(tree_error)?;
                Ok::<_, StoreError>((updated, replaced))
            })
            .await?;
        Ok(answer)
    }

    /// The rows of the event itself, and the head that comes with it. `outgoing`: whether it is for this server to send it
    /// to others.
    pub(super) fn write(
        &mut self,
        event: &Arc<Event>,
        place: Place,
        advance: Advance,
        outgoing: bool,
    ) {
        let traits = EventTraits {
            outgoing,
            ..traits_of(event)
        };
        let before = self.state.head.take();
        let notifying =
            before.as_ref().map_or(0, |head| head.notifying) + u64::from(traits.notifies);
        self.batch
            .put::<Events>(&(event.room, event.num), &event.record());
        self.batch.put::<EventIds>(
            &(event.room, event.header.event_id.clone()),
            &EventNumber(event.num),
        );
        self.batch.put::<Timeline>(
            &(event.room, place),
            &TimelineEntry {
                pos: Pos::AT_COMMIT,
                event: event.num,
                sender: event.header.sender,
                notifying,
                traits,
            },
        );
        let thread = &event.header.thread;
        let notable = Notable {
            thread: thread.clone(),
            redacted: event.header.redacted_by.is_some(),
        };
        if traits.special || notable != Notable::default() {
            self.batch.put::<Notables>(&(event.room, place), &notable);
        }
        let is_local =
            <&UserId>::try_from(event.pdu.sender()).is_ok_and(|sender| self.rooms.is_local(sender));
        // State changes, like that of a name in all rooms at once, say nothing about having read.
        if is_local && !traits.state {
            let thread = thread.as_deref().unwrap_or(MAIN).to_owned();
            self.batch.put::<LastSent>(
                &(event.room, event.header.sender, thread),
                &Sent {
                    pos: Pos::AT_COMMIT,
                    place,
                },
            );
        }
        // The sequence counts batches, so only the first event of a batch moves it on.
        let sequence =
            before.as_ref().map_or(0, |head| head.sequence) + u64::from(self.appended.is_empty());
        match advance {
            Advance::ByEvent => self.state.advance(event),
            Advance::Merge { past, kept } => {
                self.state.extend(event, |id| past.contains(id));
                self.state.set_all_kept(kept);
            }
        }
        let tips = self.state.tips();
        let depth = tips.iter().map(|tip| tip.pdu.depth()).max();
        let extremities = tips
            .iter()
            .map(|tip| (tip.num, tip.header.event_id.clone()));
        let extremities = extremities.collect();
        self.state.head = Some(Head {
            sequence,
            extremities,
            depth: depth
                .and_then(|depth| u64::try_from(depth).ok())
                .unwrap_or(0),
            state: event.header.current().0.0,
            last: place,
            notifying,
            joined: before.as_ref().map_or(0, |head| head.joined),
            invited: before.as_ref().map_or(0, |head| head.invited),
        });
        self.log.events.push(Logged {
            room: event.room,
            event: event.num,
            outgoing,
        });
        self.appended.push(Arc::clone(event));
    }
}

/// The traits of an event of the timeline. One that comes redacted notifies nobody.
pub(super) fn traits_of(event: &Event) -> EventTraits {
    let header = &event.header;
    let traits = traits::of(&event.pdu, header.thread.as_deref());
    match header.redacted_by {
        None => traits,
        Some(_) => EventTraits {
            notifies: false,
            special: false,
            ..traits
        },
    }
}

impl RoomGuard {
    /// The rows that follow from a membership event.
    pub(super) async fn set_membership(
        &mut self,
        event: &Arc<Event>,
        place: Place,
        replaced: Option<&Arc<Event>>,
        user_id: &UserId,
        user: UserNum,
    ) -> Result<(), AppendError> {
        let room = self.num();
        let before = replaced.map(|event| Membership::of(&event.pdu));
        let after = Membership::of(&event.pdu);
        if before != Some(after) {
            if let Some(before) = before {
                self.batch
                    .delete::<RoomMembers>(&(room, stored(before), user));
            }
            self.batch
                .put::<RoomMembers>(&(room, stored(after), user), &Present);
            if let Some(head) = &mut self.state.head {
                count(&mut head.joined, Membership::Join, before, after);
                count(&mut head.invited, Membership::Invite, before, after);
            }
        }
        self.count_server(
            user_id.server_name(),
            before == Some(Membership::Join),
            after == Membership::Join,
        )
        .await?;
        if after != Membership::Join {
            self.gone.push(user);
        }
        let goes_on = self.entered(replaced, before, after, user).await?;
        let (pos, entered) = goes_on.unwrap_or((Pos::AT_COMMIT, place));
        self.batch.put::<UserRooms>(
            &(user, room),
            &UserRoom {
                pos,
                membership: stored(after),
                event: event.num,
                place,
                entered,
                forgotten: false,
            },
        );
        if is_pending(after) && self.rooms.is_local(user_id) {
            let shown = self.shown_to(event);
            self.batch.put::<StrippedStates>(&(user, room), &shown);
        } else if before.is_some_and(is_pending) {
            self.batch.delete::<StrippedStates>(&(user, room));
        }
        self.batch.touch(Changed::User(user).into());
        Ok(())
    }

    /// Where a membership began that an event goes on with; none if the event begins one. That is one that only changes
    /// the profile; an invitation or a knock that is repeated begins anew, so that the client is told of it.
    async fn entered(
        &self,
        replaced: Option<&Arc<Event>>,
        before: Option<Membership>,
        after: Membership,
        user: UserNum,
    ) -> Result<Option<(Pos, Place)>, Failure> {
        let Some(replaced) = replaced.filter(|_| before == Some(after) && !is_pending(after))
        else {
            return Ok(None);
        };
        let key = (user, self.num());
        let row = self
            .rooms
            .0
            .store
            .read(move |view| view.get::<UserRooms>(&key))
            .await?;
        // The row is another one while the batch that began the membership is still on its way.
        Ok(match row.filter(|row| row.event == replaced.num) {
            Some(row) => Some((row.pos, row.entered)),
            None => replaced.header.place.map(|place| (Pos::AT_COMMIT, place)),
        })
    }

    /// What the target of an invitation or the sender of a knock is shown of the room: some of its state, and the
    /// membership event itself.
    fn shown_to(&self, member: &Event) -> Shown {
        let state = SHOWN_TO_INVITED
            .iter()
            .filter_map(|event_type| self.state.kept_event(event_type));
        let events = state.map(|event| event.num).chain([member.num]);
        Shown::Events(events.collect())
    }
}

/// Whether the user with this membership waits outside.
fn is_pending(membership: Membership) -> bool {
    matches!(membership, Membership::Invite | Membership::Knock)
}

pub(super) fn count(
    total: &mut u64,
    which: Membership,
    before: Option<Membership>,
    after: Membership,
) {
    if before == Some(which) {
        *total = total.saturating_sub(1);
    }
    if after == which {
        *total += 1;
    }
}

pub(super) fn stored(membership: Membership) -> Stored {
    match membership {
        Membership::Leave => Stored::Leave,
        Membership::Join => Stored::Join,
        Membership::Invite => Stored::Invite,
        Membership::Knock => Stored::Knock,
        Membership::Ban => Stored::Ban,
    }
}

pub(super) fn user_id(id: &str) -> Result<OwnedUserId, AppendError> {
    UserId::parse(id).map_err(|_| AppendError::Malformed(format!("{id:?} is no user id")))
}
