//! The ephemeral section: receipts and typing.

use std::collections::{BTreeMap, HashMap};

use myelin_data::rooms::{ReceiptKind, Receipts, ReceiptsByPos};
use myelin_rooms::{
    TypingSnapshot,
    read::{RoomView, Viewer},
};
use myelin_store::{Scan, StoreError};
use myelin_types::{Millis, Pos, UserNum};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::ignored::Ignored;

#[derive(Serialize)]
struct Event<C> {
    content: C,
    r#type: &'static str,
}

/// Event id, kind of receipt, user: the receipt.
type Content = BTreeMap<String, BTreeMap<&'static str, BTreeMap<String, Told>>>;

#[derive(Serialize)]
struct Told {
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_id: Option<String>,
    ts: Millis,
}

/// Whether the user set a receipt in a room after `since`.
pub(crate) fn has_own_receipts(
    room: &RoomView<'_>,
    viewer: &Viewer,
    since: Pos,
) -> Result<bool, StoreError> {
    if !may_have_receipts(room, since)? {
        return Ok(false);
    }
    let after = Scan::prefix(&room.num()).after(&(room.num(), since));
    for key in room.view().keys::<ReceiptsByPos>(after) {
        let (_, _, user, ..) = key?;
        if user == viewer.user {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether there may be receipts that were set after `since`: a comparison in memory.
fn may_have_receipts(room: &RoomView<'_>, since: Pos) -> Result<bool, StoreError> {
    let positions = room.rooms().positions(room.view(), room.num())?;
    Ok(positions.receipts > since)
}

/// The receipts that were set after `since`, or without it all of them, except the private ones of others; and whether
/// one of the user's own is among them. One event for each thread, so that receipts for one event in two threads do not
/// displace each other.
pub(crate) fn receipts(
    room: &RoomView<'_>,
    viewer: &Viewer,
    since: Option<Pos>,
) -> Result<(Vec<Box<RawValue>>, bool), StoreError> {
    let view = room.view();
    let shown = |user: UserNum, kind: ReceiptKind| kind == ReceiptKind::Read || user == viewer.user;
    let rows: Vec<_> = match since {
        None => view
            .scan::<Receipts>(Scan::prefix(&room.num()))
            .map(|row| row.map(|((_, user, kind, thread), receipt)| (user, kind, thread, receipt)))
            .filter(|row| {
                row.as_ref()
                    .map_or(true, |(user, kind, ..)| shown(*user, *kind))
            })
            .collect::<Result<_, StoreError>>()?,
        Some(since) if !may_have_receipts(room, since)? => Vec::new(),
        Some(since) => {
            let after = Scan::prefix(&room.num()).after(&(room.num(), since));
            let mut keys = Vec::new();
            for key in view.keys::<ReceiptsByPos>(after) {
                let (room, _, user, kind, thread) = key?;
                if shown(user, kind) {
                    keys.push((room, user, kind, thread));
                }
            }
            let found = view.multi_get::<Receipts>(&keys)?;
            keys.into_iter()
                .zip(found)
                .filter_map(|((_, user, kind, thread), receipt)| {
                    Some((user, kind, thread, receipt?))
                })
                .collect()
        }
    };
    let own = rows.iter().any(|(user, ..)| *user == viewer.user);
    let users: Vec<UserNum> = rows.iter().map(|(user, ..)| *user).collect();
    let ids = room.rooms().interner().user_ids(view, &users)?;
    let mut threads: BTreeMap<String, Content> = BTreeMap::new();
    for ((_, kind, thread, receipt), id) in rows.into_iter().zip(ids) {
        let kind = match kind {
            ReceiptKind::Read => "m.read",
            ReceiptKind::ReadPrivate => "m.read.private",
        };
        let told = Told {
            thread_id: (!thread.is_empty()).then(|| thread.clone()),
            ts: receipt.at,
        };
        let of_event = threads.entry(thread).or_default().entry(receipt.event_id);
        of_event
            .or_default()
            .entry(kind)
            .or_default()
            .insert(id.to_string(), told);
    }
    // The unthreaded ones come last: clients that know no threads keep the last of a user's that they are told.
    let events = threads.into_values().rev().map(|content| {
        let r#type = "m.receipt";
        to_raw_value(&Event { content, r#type }).map_err(|_| StoreError::Missing("receipts"))
    });
    Ok((events.collect::<Result<_, _>>()?, own))
}

/// Who is typing.
pub(crate) fn typing(
    room: &RoomView<'_>,
    snapshot: &TypingSnapshot,
    ignored: &Ignored,
) -> Result<Box<RawValue>, StoreError> {
    let ids = room
        .rooms()
        .interner()
        .user_ids(room.view(), &snapshot.users)?;
    let user_ids: Vec<String> = ids
        .iter()
        .filter(|id| !ignored.has(id.as_str()))
        .map(ToString::to_string)
        .collect();
    to_raw_value(&Event {
        content: HashMap::from([("user_ids", user_ids)]),
        r#type: "m.typing",
    })
    .map_err(|_| StoreError::Missing("typing"))
}
