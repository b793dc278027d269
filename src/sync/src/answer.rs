//! The answer to one sync, read from one view.

use std::{
    cell::OnceCell,
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, OnceLock},
};

use myelin_data::rooms::{Membership, UserRoom};
use myelin_rooms::{
    read::{EventMatcher, Format, RoomView, Viewer},
    token::SyncToken,
};
use myelin_store::{StoreError, View};
use myelin_types::{EventNum, Pos, RoomNum, StateKeyNum};
use ruma::{
    RoomId,
    api::client::filter::{EventFormat, FilterDefinition, LazyLoadOptions},
};

use crate::{
    Events, Inner, Response, RoomsSection, SyncRequest,
    account_data::{Changes, News},
    device_lists,
    ends::Ends,
    ignored::Ignored,
    inboxes, joined,
    lazy::Known,
    left, pending, presence,
    relations::Relations,
    unread::{Listener, UnreadNotes},
};

/// The beginning of an answer, with what is to be remembered when it is given.
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) next: SyncToken,
    pub(crate) relations: Arc<Relations>,
    pub(crate) told: Notes,
    pub(crate) basis: Arc<Basis>,
    /// What was found in the inbox of the device.
    pub(crate) inbox: Option<inboxes::Read>,
    /// The rooms that are still to be told of, in this order.
    pub(crate) left: Vec<RoomNum>,
}

impl Answer {
    /// Whether there is nothing new in it, so that a client may as well wait.
    pub(crate) fn has_nothing(&self) -> bool {
        self.response.has_nothing() && self.left.is_empty()
    }
}

/// What all parts of an answer are made from, read once.
pub(crate) struct Basis {
    /// What the client knows; None when it knows nothing.
    since: Option<SyncToken>,
    ignored: OnceLock<Ignored>,
    account_data: Changes,
    known: Known,
    /// The rooms in which somebody began or stopped typing since the client's token.
    typing: HashSet<RoomNum>,
}

/// The parts of a filter, ready for use.
pub(crate) struct Filters<'a> {
    pub(crate) timeline: EventMatcher,
    pub(crate) timeline_limit: usize,
    pub(crate) state: EventMatcher,
    pub(crate) ephemeral: EventMatcher,
    pub(crate) account_data: EventMatcher,
    /// Whether members are loaded lazily, and if so whether they may be repeated.
    pub(crate) lazy: Option<bool>,
    pub(crate) count_threads: bool,
    pub(crate) format: Format,
    pub(crate) fields: Option<&'a [String]>,
}

/// What every part of an answer needs.
pub(crate) struct Context<'a> {
    pub(crate) sync: &'a Inner,
    pub(crate) view: &'a View,
    pub(crate) viewer: &'a Viewer,
    /// What the client knows; None when it knows nothing.
    pub(crate) since: Option<SyncToken>,
    pub(crate) full_state: bool,
    pub(crate) state_after: bool,
    pub(crate) filters: Filters<'a>,
    /// Whom the user ignores, once that is needed.
    ignored: &'a OnceLock<Ignored>,
    /// What the user wants to be notified of, once that is needed.
    listener: OnceCell<Listener>,
    pub(crate) account_data: News<'a>,
    pub(crate) known: &'a Known,
    /// The rooms in which somebody began or stopped typing since the client's token.
    pub(crate) typing: &'a HashSet<RoomNum>,
    /// Where timelines ended at the client's token.
    pub(crate) ends: Ends,
}

/// What a part of an answer asks to be remembered.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) members: HashMap<(RoomNum, StateKeyNum), EventNum>,
    pub(crate) unread: UnreadNotes,
}

/// The timeline's length for clients that name none.
const DEFAULT_LIMIT: usize = 10;
/// The longest timeline.
const MAX_LIMIT: usize = 500;

impl<'a> Filters<'a> {
    fn of(filter: &'a FilterDefinition) -> Self {
        let room = &filter.room;
        let limit = room.timeline.limit.map_or(DEFAULT_LIMIT, |limit| {
            usize::try_from(u64::from(limit)).unwrap_or(MAX_LIMIT)
        });
        Self {
            timeline: (&room.timeline).into(),
            timeline_limit: limit.min(MAX_LIMIT),
            state: (&room.state).into(),
            ephemeral: (&room.ephemeral).into(),
            account_data: (&room.account_data).into(),
            lazy: match room.state.lazy_load_options {
                LazyLoadOptions::Disabled => None,
                LazyLoadOptions::Enabled {
                    include_redundant_members,
                } => Some(include_redundant_members),
            },
            count_threads: room.timeline.unread_thread_notifications,
            format: match filter.event_format {
                EventFormat::Federation => Format::Federation,
                _ => Format::Sync,
            },
            fields: filter.event_fields.as_deref(),
        }
    }
}

impl<'a> Context<'a> {
    fn of(sync: &'a Inner, view: &'a View, request: &'a SyncRequest, basis: &'a Basis) -> Self {
        let viewer = &request.viewer;
        Self {
            sync,
            view,
            viewer,
            since: basis.since,
            full_state: request.full_state || basis.since.is_none(),
            state_after: request.use_state_after,
            filters: Filters::of(&request.filter),
            ignored: &basis.ignored,
            listener: OnceCell::new(),
            account_data: News {
                sync,
                view,
                user: viewer.user,
                changes: &basis.account_data,
            },
            known: &basis.known,
            typing: &basis.typing,
            ends: Ends::default(),
        }
    }

    /// Whether something that changed at `pos` is news to the client.
    pub(crate) fn is_new(&self, pos: Pos) -> bool {
        self.since.is_none_or(|since| pos > since.pos)
    }

    /// Whom the user ignores. Who has nothing new is not asked about it.
    pub(crate) fn ignored(&self) -> Result<&'a Ignored, StoreError> {
        if let Some(ignored) = self.ignored.get() {
            return Ok(ignored);
        }
        let ignored = self
            .sync
            .accounts
            .ignored_users(self.view, self.viewer.user)?;
        Ok(self.ignored.get_or_init(|| Ignored(ignored)))
    }

    /// What the user wants to be notified of.
    pub(crate) fn listener(&self) -> Result<&Listener, StoreError> {
        if let Some(listener) = self.listener.get() {
            return Ok(listener);
        }
        let listener = Listener::of(self.sync, self.view, self.viewer, self.ignored()?)?;
        Ok(self.listener.get_or_init(|| listener))
    }
}

/// The beginning of what is new after `since`: everything but rooms that find no room in the first part.
pub(crate) fn answer(
    sync: &Inner,
    view: &View,
    request: &SyncRequest,
    since: Option<SyncToken>,
) -> Result<Answer, StoreError> {
    let viewer = &request.viewer;
    let filter = &*request.filter;
    // Read before the rooms: what changes meanwhile is told again rather than never.
    let mut next = SyncToken {
        pos: view.pos(),
        typing: sync.rooms.typing().serial(),
        presence: sync.rooms.presence().serial(),
        to_device: None,
    };
    // A token from before the database was restored may be ahead of it.
    let since = since.map(|since| SyncToken {
        pos: since.pos.min(next.pos),
        ..since
    });
    let may_have_changed = |since: SyncToken| {
        sync.relations
            .may_have_changed(view, viewer.user, since.pos)
    };
    let account_data = if since.is_none_or(may_have_changed) {
        Changes::since(sync, view, viewer.user, since.map(|since| since.pos))?
    } else {
        Changes::default()
    };
    let basis = Basis {
        since,
        ignored: OnceLock::new(),
        account_data,
        known: sync
            .lazy
            .known(viewer, request.since.map(|since| since.pos)),
        typing: since.map_or_else(HashSet::new, |since| {
            let changed = sync.rooms.typing().changed_since(since.typing);
            changed.into_iter().collect()
        }),
    };
    let mut inbox = inboxes::read(sync, view, viewer, since)?;
    next.to_device = inbox.as_ref().and_then(|read| read.inbox.cut_at);
    let relations = sync.relations.get(view, viewer.user)?;
    let moved = moved(sync, view, request, &basis, &relations);
    let context = Context::of(sync, view, request, &basis);
    let keys = sync.key_counts.of(view, viewer)?;
    let mut response = Response {
        account_data: context
            .account_data
            .of(RoomNum::NONE, &EventMatcher::from(&filter.account_data))?,
        to_device: Events {
            events: inbox
                .as_mut()
                .map_or_else(Vec::new, |read| std::mem::take(&mut read.inbox.events)),
        },
        device_one_time_keys_count: keys.one_time.clone(),
        device_unused_fallback_key_types: keys.unused_fallback.clone(),
        ..Response::default()
    };
    if let Some(since) = since {
        let ends = &context.ends;
        response.device_lists =
            device_lists::since((sync, view), viewer, since.pos, &relations, ends)?;
    }
    // Those that he waits outside of are few, and what they show is read together.
    if moved.is_none() {
        pending::add_rooms(&context, filter, &relations.rooms, &mut response)?;
    }
    let told = presence::told(&context, &filter.presence, &relations, next.presence)?;
    response.presence = told.events;
    next.presence = told.through;
    response.next_batch = next.to_string();
    let mut rooms: Vec<RoomNum> = match moved {
        Some(moved) => moved.into_iter().collect(),
        None => relations.rooms.iter().map(|(room, _)| *room).collect(),
    };
    // So that the sections of the answer follow one another.
    let membership = |room: &RoomNum| relations.of(*room).map(|relation| relation.membership);
    rooms.sort_by_key(|room| membership(room) != Some(Membership::Join));
    let part = tell(&context, filter, &relations, &rooms)?;
    response.rooms.extend(part.rooms);
    drop(context);
    Ok(Answer {
        response,
        next,
        relations,
        told: part.told,
        basis: Arc::new(basis),
        inbox,
        left: rooms.split_off(part.count),
    })
}

/// Another part of an answer that has begun, read from the same view.
pub(crate) fn more(
    sync: &Inner,
    view: &View,
    request: &SyncRequest,
    basis: &Basis,
    (relations, rooms): (&Relations, &[RoomNum]),
) -> Result<Part, StoreError> {
    let context = Context::of(sync, view, request, basis);
    tell(&context, &request.filter, relations, rooms)
}

/// Rooms, and how many of those asked for they are the first.
pub(crate) struct Part {
    pub(crate) rooms: RoomsSection,
    pub(crate) count: usize,
    pub(crate) told: Notes,
}

/// What is new of as many rooms as a part of an answer should have.
fn tell(
    context: &Context<'_>,
    filter: &FilterDefinition,
    relations: &Relations,
    rooms: &[RoomNum],
) -> Result<Part, StoreError> {
    let mut part = Part {
        rooms: RoomsSection::default(),
        count: 0,
        told: Notes::default(),
    };
    let mut bytes = 0;
    for room in rooms {
        if bytes >= context.sync.part_bytes {
            break;
        }
        part.count += 1;
        if let Some(relation) = relations.of(*room) {
            bytes += add_room(context, filter, *room, relation, &mut part)?;
        }
    }
    Ok(part)
}

/// The only rooms of which there may be something new, where that is known without comparing each: the server's last
/// changes are fewer than the user's rooms, and what he is to each of these has not changed.
fn moved(
    sync: &Inner,
    view: &View,
    request: &SyncRequest,
    basis: &Basis,
    relations: &Relations,
) -> Option<BTreeSet<RoomNum>> {
    let since = basis.since.filter(|_| !request.full_state)?;
    if relations.newest > since.pos {
        return None;
    }
    let changed = sync
        .rooms
        .changed_since(view, since.pos, relations.rooms.len())?;
    let mut moved: BTreeSet<RoomNum> = changed.into_iter().collect();
    moved.extend(&basis.typing);
    moved.extend(basis.account_data.rooms());
    Some(moved)
}

/// Adds what is new of one room that the user is or was in to the section where it belongs. Returns its bytes.
fn add_room(
    context: &Context<'_>,
    filter: &FilterDefinition,
    room: RoomNum,
    relation: &UserRoom,
    part: &mut Part,
) -> Result<usize, StoreError> {
    let Part { rooms, told, .. } = part;
    let mut bytes = 0;
    match relation.membership {
        Membership::Join => {
            if !joined::may_have_news(context, room, relation)? {
                return Ok(0);
            }
            let Some(view) = wanted_room(context, filter, room)? else {
                return Ok(0);
            };
            if let Some(joined) = joined::joined_room(context, &view, relation, told)? {
                bytes = joined.weight();
                rooms.join.insert(view.room_id().to_owned(), joined);
            }
        }
        // Rooms that were left before are told of to those who ask for them; that a room was left is told even if it
        // was forgotten since, or other devices would never learn of it.
        Membership::Leave | Membership::Ban => {
            let archived = context.full_state && filter.room.include_leave && !relation.forgotten;
            let just_left = context.since.is_some() && context.is_new(relation.pos);
            if !archived && !just_left {
                return Ok(0);
            }
            let Some(view) = wanted_room(context, filter, room)? else {
                return Ok(0);
            };
            if let Some(left) = left::left_room(context, &view, relation, told)? {
                bytes = left.weight();
                rooms.leave.insert(view.room_id().to_owned(), left);
            }
        }
        // Those are added together.
        Membership::Invite | Membership::Knock => {}
    }
    Ok(bytes)
}

/// The room, unless the filter leaves it out.
pub(crate) fn wanted_room<'a>(
    context: &Context<'a>,
    filter: &FilterDefinition,
    room: RoomNum,
) -> Result<Option<RoomView<'a>>, StoreError> {
    let view = RoomView::open(&context.sync.rooms, context.view, room)?;
    let is = |id: &RoomId| id == view.room_id();
    let excluded = filter.room.not_rooms.iter().any(|id| is(id));
    let included = filter
        .room
        .rooms
        .as_ref()
        .is_none_or(|rooms| rooms.iter().any(|id| is(id)));
    Ok((included && !excluded).then_some(view))
}
