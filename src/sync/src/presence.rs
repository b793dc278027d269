//! The presence section: how those are who share a room with the user.

use myelin_data::rooms::Membership;
use myelin_rooms::{PresenceState, UserPresence, read::EventMatcher};
use myelin_store::StoreError;
use myelin_types::{Millis, RoomNum, UserNum};
use ruma::api::client::filter::Filter;
use serde::Serialize;
use serde_json::value::to_raw_value;

use crate::{Events, answer::Context, relations::Relations};

/// How many users one answer tells of; the next one tells of the others.
const MOST: usize = 1_000;

/// What is told, and the serial up to which it is.
pub(crate) struct Told {
    pub(crate) events: Events,
    pub(crate) through: u64,
}

#[derive(Serialize)]
struct Event<'a> {
    content: Content<'a>,
    sender: &'a str,
    r#type: &'static str,
}

#[derive(Serialize)]
struct Content<'a> {
    presence: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_active_ago: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currently_active: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_msg: Option<&'a str>,
}

/// What is new up to the serial `through`, or less if that is much. Who is told of is found in memory; only their ids are
/// looked up.
pub(crate) fn told(
    context: &Context<'_>,
    filter: &Filter,
    relations: &Relations,
    through: u64,
) -> Result<Told, StoreError> {
    let nothing = Told {
        events: Events::default(),
        through,
    };
    let (sync, since) = (context.sync, context.since);
    let presence = sync.rooms.presence();
    let since_serial = since.map(|since| since.presence);
    if !presence.is_enabled() || since_serial.is_some_and(|serial| serial > through) {
        return Ok(nothing);
    }
    let matcher = EventMatcher::from(filter);
    if !matcher.takes_type("m.presence") || matcher.takes_nothing() {
        return Ok(nothing);
    }
    let joined = relations
        .rooms
        .iter()
        .filter(|(_, relation)| relation.membership == Membership::Join);
    let entered: Vec<RoomNum> = match since {
        // His relations say when the newest of them began, so that most need not be looked through.
        Some(since) if relations.newest > since.pos => joined
            .clone()
            .filter(|(_, relation)| relation.pos > since.pos)
            .map(|(room, _)| *room)
            .collect(),
        _ => Vec::new(),
    };
    if since_serial == Some(through) && entered.is_empty() {
        return Ok(nothing);
    }
    let joined: Vec<RoomNum> = joined.map(|(room, _)| *room).collect();
    let mut news = presence.news(context.viewer.user, since_serial, &joined, &entered);
    // What was told since the token's serial was read comes with the next answer.
    news.retain(|presence| presence.serial <= through);
    if news.is_empty() {
        return Ok(nothing);
    }
    let users: Vec<UserNum> = news.iter().map(|presence| presence.user).collect();
    let ids = sync.rooms.interner().user_ids(context.view, &users)?;
    let limit = filter.limit.map_or(MOST, |limit| {
        usize::try_from(u64::from(limit)).map_or(MOST, |limit| limit.clamp(1, MOST))
    });
    let ignored = context.ignored()?;
    let wanted: Vec<_> = news
        .iter()
        .zip(&ids)
        .filter(|(_, id)| matcher.takes_sender(id.as_str()) && !ignored.has(id.as_str()))
        .collect();
    let mut told = nothing;
    if wanted.len() > limit {
        // By serial: whoever comes after the last one is left for the next answer. Of a room that was entered just now, who
        // does not fit in is told of when there is something new.
        let last = wanted[limit - 1].0.serial;
        told.through = last.max(since_serial.unwrap_or_default());
    }
    let now = sync.rooms.clock().now();
    for (presence, id) in wanted.into_iter().take(limit) {
        told.events.events.push(event(presence, id.as_str(), now)?);
    }
    Ok(told)
}

fn event(
    presence: &UserPresence,
    sender: &str,
    now: Millis,
) -> Result<Box<serde_json::value::RawValue>, StoreError> {
    let snapshot = &presence.snapshot;
    let ago = |at: Millis| now.0.saturating_sub(at.0);
    let online = snapshot.state == PresenceState::Online;
    to_raw_value(&Event {
        content: Content {
            presence: snapshot.state.as_str(),
            last_active_ago: snapshot.last_active.map(ago),
            currently_active: online.then_some(snapshot.currently_active),
            status_msg: snapshot.status.as_deref(),
        },
        sender,
        r#type: "m.presence",
    })
    .map_err(|_| StoreError::Missing("presence"))
}
