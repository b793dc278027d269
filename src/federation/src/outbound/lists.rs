//! Device lists of users of this server, made into EDUs. Spec: server-server API, "Device Management" and "End-to-End
//! Encryption".
//!
//! A change of a list is written once, with its user. Whom it concerns is read from the rooms that he is in, and what is
//! told from his list as it is when it is told. Every change has a number, the `stream_id`, and names the one before it. A
//! server that missed more than is remembered, or that never knew the list, is told of the newest change alone: it does not
//! know what that one follows, and fetches the whole list.

use std::collections::BTreeSet;

use myelin_data::{
    accounts::Devices,
    e2ee::{
        CrossSigningKeys, CrossSigningUsage, DeviceKeys, DeviceList, DeviceListChange, DeviceLists,
        DeviceListsByPos,
    },
    rooms::{Membership, UserRooms},
    servers::RoomServers,
};
use myelin_rooms::{Event, Rooms};
use myelin_rules::Membership as InEvent;
use myelin_store::{Scan, StoreError, View};
use myelin_types::{Pos, RoomNum, UserNum};
use ruma::{ServerName, UserId};
use serde_json::{Value, json};

use super::{durable::ListNews, ephemeral::Edu};

/// How many EDUs tell of the changes of a list. Who missed more is told of the newest.
pub(super) const MOST_OF_A_LIST: usize = 8;
/// In how many rooms of a user it is looked whether a server is there as well. Whoever is in more is told again.
const MOST_ROOMS: usize = 1_000;

/// What is told of a list.
struct Told<'a> {
    list: &'a DeviceList,
    /// The places of the changes.
    changes: Vec<usize>,
}

impl Told<'_> {
    fn of(list: &DeviceList, from: Pos) -> Told<'_> {
        let changes: Vec<usize> = (0..list.recent.len())
            .filter(|index| list.recent[*index].0 >= from)
            .collect();
        let forgotten = list.stream_id > list.recent.len() as u64 && changes.first() == Some(&0);
        if forgotten || changes.len() > MOST_OF_A_LIST {
            return Told::newest(list);
        }
        Told { list, changes }
    }

    fn newest(list: &DeviceList) -> Told<'_> {
        let is_device = |index: &usize| is_device(&list.recent[*index].1);
        let device = (0..list.recent.len()).rev().find(is_device);
        let identity = (0..list.recent.len()).rev().find(|index| !is_device(index));
        let mut changes: Vec<usize> = device.into_iter().chain(identity).collect();
        changes.sort_unstable();
        Told { list, changes }
    }
}

fn is_device(change: &DeviceListChange) -> bool {
    matches!(change, DeviceListChange::Device(_))
}

/// EDUs that tell `server` of lists.
pub(super) fn edus(
    rooms: &Rooms,
    view: &View,
    server: &ServerName,
    news: &[ListNews],
) -> Result<Vec<Edu>, StoreError> {
    let users: Vec<UserNum> = news.iter().map(|news| news.user).collect();
    let lists = view.multi_get::<DeviceLists>(&users)?;
    let ids = rooms.interner().user_ids(view, &users)?;
    let mut edus = Vec::new();
    for ((news, list), user_id) in news.iter().zip(lists).zip(&ids) {
        let is_newcomer = match news.entered {
            Some(room) => !shares_another(view, news.user, server, room)?,
            None => false,
        };
        if !is_newcomer && !news.changed {
            continue;
        }
        match &list {
            Some(list) if !list.recent.is_empty() => {
                let told = if is_newcomer {
                    Told::newest(list)
                } else {
                    Told::of(list, news.from)
                };
                for index in told.changes {
                    edus.extend(change(view, news.user, user_id, told.list, index)?);
                }
            }
            // His devices never changed since this was counted; any of them shows that there is a list. One
            // without keys is on it as well (server-server API, "Device Management").
            _ => {
                let first = view
                    .keys::<Devices>(Scan::prefix(&news.user).limit(1))
                    .next();
                if let Some((_, device_id)) = first.transpose()? {
                    edus.push(device(view, (news.user, device_id), user_id, 0, None)?);
                }
            }
        }
    }
    Ok(edus)
}

/// The EDU that tells of one change, as its device or keys are now.
fn change(
    view: &View,
    user: UserNum,
    user_id: &UserId,
    list: &DeviceList,
    index: usize,
) -> Result<Option<Edu>, StoreError> {
    match &list.recent[index].1 {
        DeviceListChange::Device(device_id) => {
            let (number, before) = (list.number(index), list.version_before(index));
            let row = (user, device_id.clone());
            device(view, row, user_id, number, Some(before)).map(Some)
        }
        DeviceListChange::CrossSigning => {
            let usages = [CrossSigningUsage::Master, CrossSigningUsage::SelfSigning];
            let keys = view.multi_get::<CrossSigningKeys>(&usages.map(|usage| (user, usage)))?;
            let mut content = json!({ "user_id": user_id });
            for (name, key) in ["master_key", "self_signing_key"].iter().zip(keys) {
                if let Some(key) = key {
                    content[*name] = value(key.get())?;
                }
            }
            Ok(Some(Edu::new("m.signing_key_update", content)))
        }
    }
}

fn device(
    view: &View,
    row: (UserNum, String),
    user_id: &UserId,
    number: u64,
    before: Option<u64>,
) -> Result<Edu, StoreError> {
    let mut content = json!({
        "user_id": user_id,
        "device_id": row.1,
        "stream_id": number,
        "prev_id": before.into_iter().collect::<Vec<u64>>(),
    });
    match view.get::<Devices>(&row)? {
        None => content["deleted"] = true.into(),
        Some(device) => {
            if let Some(name) = device.display_name {
                content["device_display_name"] = name.into();
            }
            if let Some(keys) = view.get::<DeviceKeys>(&row)? {
                content["keys"] = value(keys.get())?;
            }
        }
    }
    Ok(Edu::new("m.device_list_update", content))
}

fn value(text: &str) -> Result<Value, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Missing("keys that are JSON"))
}

/// The rooms that a user is in.
pub(super) fn rooms_of(view: &View, user: UserNum) -> Result<Vec<RoomNum>, StoreError> {
    let mut rooms = Vec::new();
    for row in view.scan::<UserRooms>(Scan::prefix(&user)) {
        let ((_, room), row) = row?;
        if row.membership == Membership::Join {
            rooms.push(room);
        }
    }
    Ok(rooms)
}

/// Whether a server is in a room of a user's besides this one.
fn shares_another(
    view: &View,
    user: UserNum,
    server: &ServerName,
    besides: RoomNum,
) -> Result<bool, StoreError> {
    for room in rooms_of(view, user)?.into_iter().take(MOST_ROOMS) {
        if room == besides {
            continue;
        }
        let row = view.get::<RoomServers>(&(room, server.as_str().to_owned()))?;
        if row.is_some_and(|row| row.joined > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a look at the changes of lists found.
#[derive(Default)]
pub(super) struct Changed {
    /// The users of this server whose lists were changed, in the order of the changes.
    pub(super) users: Vec<(Pos, UserNum)>,
    /// The last position that was looked at; none if nothing was changed.
    pub(super) last: Option<Pos>,
    /// Whether there may be more after that.
    pub(super) more: bool,
}

/// The lists that were changed in some positions, at least so many if there are more.
pub(super) fn changed_between(
    rooms: &Rooms,
    view: &View,
    after: Pos,
    through: Pos,
    most: usize,
) -> Result<Changed, StoreError> {
    let mut changed: Vec<(Pos, UserNum)> = Vec::new();
    let mut more = false;
    for key in view.keys::<DeviceListsByPos>(Scan::all().after(&after).through(&through)) {
        let (pos, user) = key?;
        // A batch is not divided: it changes few lists.
        if changed.len() >= most && changed.last().is_some_and(|(last, _)| *last < pos) {
            more = true;
            break;
        }
        changed.push((pos, user));
    }
    let last = changed.last().map(|(pos, _)| *pos);
    let users: Vec<UserNum> = changed.iter().map(|(_, user)| *user).collect();
    let ids = rooms.interner().user_ids(view, &users)?;
    let mut ids = ids.iter();
    changed.retain(|_| ids.next().is_some_and(|id| rooms.is_local(id)));
    Ok(Changed {
        users: changed,
        last,
        more,
    })
}

/// The users of this server who come to a room with some events.
pub(super) fn entering<'a>(
    rooms: &Rooms,
    view: &View,
    events: impl Iterator<Item = &'a Event> + Clone,
) -> Result<Vec<(usize, UserNum, RoomNum)>, StoreError> {
    let joins = events.enumerate().filter(|(_, event)| {
        event.pdu.event_type() == "m.room.member"
            && event.pdu.state_key() == Some(event.pdu.sender())
            && InEvent::of(&event.pdu) == InEvent::Join
            && <&UserId>::try_from(event.pdu.sender()).is_ok_and(|user| rooms.is_local(user))
    });
    let joins: Vec<(usize, &Event)> = joins.collect();
    let replaced: Vec<_> = joins
        .iter()
        .filter_map(|(_, event)| Some((event.room, event.header.replaces?)))
        .collect();
    let stayed: BTreeSet<_> = rooms
        .events_of_rooms(view, &replaced)?
        .into_iter()
        .flatten()
        .filter(|before| InEvent::of(&before.pdu) == InEvent::Join)
        .map(|before| before.num)
        .collect();
    let entering = joins.into_iter().filter(|(_, event)| {
        let replaces = event.header.replaces;
        replaces.is_none_or(|replaces| !stayed.contains(&replaces))
    });
    Ok(entering
        .map(|(index, event)| (index, event.header.sender, event.room))
        .collect())
}
