//! `GET /rooms/{roomId}/messages`: a room's history, page by page.

use std::{collections::BTreeSet, sync::Arc};

use myelin_data::rooms::Place;
use myelin_state::Root;
use myelin_store::StoreError;
use ruma::{
    RoomId,
    api::{
        Direction,
        client::filter::{LazyLoadOptions, RoomEventFilter},
    },
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Access, EventMatcher, Format, Page, ReadError, RoomView, Shaper, Sight, Span, Viewer};
use crate::{
    Event, Rooms,
    token::{TimelineToken, Token},
};

/// Which page of a room's history to read.
#[derive(Clone, Debug)]
pub struct MessagesQuery {
    /// Where to begin; none for the end that `direction` leads away from.
    pub from: Option<Token>,
    /// Where to stop at the latest.
    pub to: Option<Token>,
    /// Which way to go.
    pub direction: Direction,
    /// The most events to return; the filter's limit counts too.
    pub limit: Option<usize>,
    /// Which events to return.
    pub filter: RoomEventFilter,
    /// The segments before whose gaps a page does not stop: what is missing there cannot be had.
    pub crossed: Vec<u32>,
}

/// A page of a room's history, as the specification's response body.
#[derive(Clone, Debug, Serialize)]
pub struct Messages {
    /// Where the page begins.
    pub start: String,
    /// Where the next page begins; none when there is nothing more to see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// The events, in the order of the direction.
    pub chunk: Vec<Box<RawValue>>,
    /// With lazy loading, the senders' membership events.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<Box<RawValue>>,
    /// The segment of the timeline before which something is missing, if the page ended there rather than because it was
    /// full.
    #[serde(skip)]
    pub gap: Option<u32>,
}

/// The page size of clients that name none.
const DEFAULT_LIMIT: usize = 10;
/// The largest page.
const MAX_LIMIT: usize = 1_000;

impl Rooms {
    /// A page of the history that `viewer` may see of a room.
    ///
    /// # Errors
    /// [`ReadError::NotInRoom`] for users who never were in the room, unless everybody may read it.
    pub async fn messages(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
        query: MessagesQuery,
    ) -> Result<Messages, ReadError> {
        self.read_room(viewer, room_id, move |room, viewer| {
            let access = Access::of(room, viewer.user)?;
            let visible = match access {
                Access::None(_) => return Err(ReadError::NotInRoom),
                Access::Departed(departure) => Span {
                    end: departure.place.next(),
                    ..Span::ALL
                },
                Access::Joined | Access::Peeking => Span {
                    end: room.last()?.map_or(Place::START, |(place, _)| place.next()),
                    ..Span::ALL
                },
            };
            page(room, viewer, access, visible, &query)
        })
        .await
    }
}

fn page(
    room: &RoomView<'_>,
    viewer: &Viewer,
    access: Access,
    visible: Span,
    query: &MessagesQuery,
) -> Result<Messages, ReadError> {
    let backward = query.direction == Direction::Backward;
    let point = |token: &Option<Token>| token.as_ref().map(|token| room.point(token)).transpose();
    let (from, to) = (point(&query.from)?, point(&query.to)?);
    let (start, end) = if backward { (to, from) } else { (from, to) };
    let span = Span {
        start: start.unwrap_or(visible.start),
        end: end.unwrap_or(visible.end).min(visible.end),
    };
    let stretch = room.stretch(span, query.direction, &query.crossed)?;
    let mut sight = Sight::new(room, access, viewer)?;
    let matcher = EventMatcher::from(&query.filter);
    let looks = matcher.takes_room(room.room_id()) && !matcher.takes_nothing();
    let found = if looks {
        room.walk(
            stretch.span,
            query.direction,
            limit(query.limit, &query.filter),
            |event| Ok(matcher.takes(event) && sight.sees(event)?),
        )?
    } else {
        Page {
            events: Vec::new(),
            next: span.start,
            more: false,
        }
    };
    let gap = stretch.gap.filter(|_| looks && !found.more);
    // Forwards the room goes on, so that whoever saw something may come back for what follows it.
    let goes_on = found.more
        || gap.is_some()
        || (!found.events.is_empty() && (!backward || query.to.is_some()));
    let shaper = Shaper::new(room, viewer, Format::Client);
    let state = match (query.filter.lazy_load_options, found.events.first()) {
        (LazyLoadOptions::Enabled { .. }, Some(first)) => {
            let members = senders_members(room, first.header.after(), &found.events)?;
            shaper.state(&members)?
        }
        _ => Vec::new(),
    };
    let edge = if backward { span.end } else { span.start };
    Ok(Messages {
        start: query
            .from
            .map_or_else(|| room.token(edge), |from| from.to_string()),
        end: goes_on.then(|| room.token(found.next)),
        chunk: shaper.timeline(&mut sight, &found.events)?,
        state,
        gap,
    })
}

/// How many events a request asks for.
pub(super) fn limit(limit: Option<usize>, filter: &RoomEventFilter) -> usize {
    let of_filter = filter
        .limit
        .map(|limit| usize::try_from(u64::from(limit)).unwrap_or(MAX_LIMIT));
    match (limit, of_filter) {
        (Some(limit), Some(of_filter)) => limit.min(of_filter),
        (limit, of_filter) => limit.or(of_filter).unwrap_or(DEFAULT_LIMIT),
    }
    .min(MAX_LIMIT)
}

/// The membership events of those who sent `events`, as a state has them.
pub(super) fn senders_members(
    room: &RoomView<'_>,
    state: Root,
    events: &[Arc<Event>],
) -> Result<Vec<Arc<Event>>, StoreError> {
    let senders: BTreeSet<&str> = events.iter().map(|event| event.pdu.sender()).collect();
    let pairs: Vec<(&str, &str)> = senders
        .into_iter()
        .map(|sender| ("m.room.member", sender))
        .collect();
    let keys = room
        .rooms()
        .interner()
        .find_state_keys(room.view(), &pairs)?;
    let mut keys: Vec<_> = keys.into_iter().flatten().collect();
    keys.sort_unstable();
    let members: Vec<_> = room
        .state_nums(state, &keys)?
        .into_iter()
        .flatten()
        .collect();
    room.events(&members)
}

impl RoomView<'_> {
    /// The point of the timeline that a token names.
    pub fn point(&self, token: &Token) -> Result<Place, StoreError> {
        match token {
            Token::Timeline(token) => Ok(token.place),
            Token::Sync(token) => {
                let last = self.last_through(token.pos)?;
                Ok(last.map_or(Place::START, |(place, _)| place.next()))
            }
        }
    }

    /// The token of the point just before a place.
    pub fn token(&self, place: Place) -> String {
        TimelineToken {
            pos: self.view().pos(),
            place,
        }
        .to_string()
    }
}
