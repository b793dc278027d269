//! The answer to one sync, read from one view.

use std::{
    cell::OnceCell,
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
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
    Inner, Response, SyncRequest,
    account_data::News,
    ignored::Ignored,
    joined,
    lazy::{Known, Telling},
    left, pending, presence,
    relations::Relations,
    unread::{Listener, UnreadNotes},
};

/// An answer, with what is to be remembered when it is given.
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) next: SyncToken,
    pub(crate) relations: Arc<Relations>,
    pub(crate) lazy: Telling,
    pub(crate) unread: UnreadNotes,
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
    pub(crate) ignored: Ignored,
    /// What the user wants to be notified of, once that is needed.
    listener: OnceCell<Listener>,
    pub(crate) account_data: News<'a>,
    pub(crate) known: Known,
    /// The rooms in which somebody began or stopped typing since the client's token.
    pub(crate) typing: HashSet<RoomNum>,
}

/// What the parts of an answer ask to be remembered.
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

impl Context<'_> {
    /// Whether something that changed at `pos` is news to the client.
    pub(crate) fn is_new(&self, pos: Pos) -> bool {
        self.since.is_none_or(|since| pos > since.pos)
    }

    /// What the user wants to be notified of.
    pub(crate) fn listener(&self) -> Result<&Listener, StoreError> {
        if let Some(listener) = self.listener.get() {
            return Ok(listener);
        }
        let listener = Listener::of(self.sync, self.view, self.viewer, &self.ignored)?;
        Ok(self.listener.get_or_init(|| listener))
    }
}

/// What is new after `since`.
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
    };
    // A token from before the database was restored may be ahead of it.
    let since = since.map(|since| SyncToken {
        pos: since.pos.min(next.pos),
        ..since
    });
    let filters = Filters::of(filter);
    let acknowledged = request.since.map(|since| since.pos);
    let context = Context {
        sync,
        view,
        viewer,
        since,
        full_state: request.full_state || since.is_none(),
        state_after: request.use_state_after,
        ignored: Ignored(sync.accounts.ignored_users(view, viewer.user)?),
        listener: OnceCell::new(),
        account_data: News::since(sync, view, viewer.user, since.map(|since| since.pos))?,
        known: sync.lazy.known(viewer, acknowledged),
        typing: since.map_or_else(HashSet::new, |since| {
            let changed = sync.rooms.typing().changed_since(since.typing);
            changed.into_iter().collect()
        }),
        filters,
    };
    let mut response = Response {
        account_data: context
            .account_data
            .of(RoomNum::NONE, &EventMatcher::from(&filter.account_data))?,
        device_one_time_keys_count: [("signed_curve25519".to_owned(), 0)].into(),
        ..Response::default()
    };
    let relations = sync.relations.get(view, viewer.user)?;
    let mut notes = Notes::default();
    if let Some(moved) = moved(&context, &relations) {
        for room in moved {
            if let Some(relation) = relations.of(room) {
                add_room(&context, filter, room, relation, &mut response, &mut notes)?;
            }
        }
    } else {
        for (room, relation) in &relations.rooms {
            add_room(&context, filter, *room, relation, &mut response, &mut notes)?;
        }
        pending::add_rooms(&context, filter, &relations.rooms, &mut response)?;
    }
    let told = presence::told(&context, &filter.presence, &relations, next.presence)?;
    response.presence = told.events;
    next.presence = told.through;
    response.next_batch = next.to_string();
    Ok(Answer {
        response,
        next,
        relations,
        lazy: Telling {
            since: acknowledged,
            next: next.pos,
            members: context.filters.lazy.map(|_| notes.members),
        },
        unread: notes.unread,
    })
}

/// The only rooms of which there may be something new, where that is known without comparing each: the server's last
/// changes are fewer than the user's rooms, and what he is to each of these has not changed.
fn moved(context: &Context<'_>, relations: &Relations) -> Option<BTreeSet<RoomNum>> {
    let since = context.since.filter(|_| !context.full_state)?;
    if relations.newest > since.pos {
        return None;
    }
    let rooms = &context.sync.rooms;
    let changed = rooms.changed_since(context.view, since.pos, relations.rooms.len())?;
    let mut moved: BTreeSet<RoomNum> = changed.into_iter().collect();
    moved.extend(&context.typing);
    moved.extend(context.account_data.rooms());
    Some(moved)
}

/// Adds what is new of one room that the user is or was in to the section where it belongs.
fn add_room(
    context: &Context<'_>,
    filter: &FilterDefinition,
    room: RoomNum,
    relation: &UserRoom,
    response: &mut Response,
    notes: &mut Notes,
) -> Result<(), StoreError> {
    let rooms = &mut response.rooms;
    match relation.membership {
        Membership::Join => {
            if !joined::may_have_news(context, room, relation)? {
                return Ok(());
            }
            let Some(view) = wanted_room(context, filter, room)? else {
                return Ok(());
            };
            if let Some(joined) = joined::joined_room(context, &view, relation, notes)? {
                rooms.join.insert(view.room_id().to_owned(), joined);
            }
        }
        // Rooms that were left before are told of to those who ask for them; that a room was left is told even if it
        // was forgotten since, or other devices would never learn of it.
        Membership::Leave | Membership::Ban => {
            let archived = context.full_state && filter.room.include_leave && !relation.forgotten;
            let just_left = context.since.is_some() && context.is_new(relation.pos);
            if !archived && !just_left {
                return Ok(());
            }
            let Some(view) = wanted_room(context, filter, room)? else {
                return Ok(());
            };
            if let Some(left) = left::left_room(context, &view, relation, notes)? {
                rooms.leave.insert(view.room_id().to_owned(), left);
            }
        }
        // Those are added together.
        Membership::Invite | Membership::Knock => {}
    }
    Ok(())
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
