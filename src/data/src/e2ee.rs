//! Tables of end-to-end encryption: the keys of devices and users, what changed of them, and messages to devices.
//!
//! Spec: client-server API, "End-to-End Encryption" and "Send-to-Device messaging"; server-server API, "End-to-End
//! Encryption" and "Send-to-device messaging". The server keeps what clients sign and hands it out exactly; it reads no
//! more of it than it needs for that.

use myelin_store::{Batch, CodecError, Parser, StoreError, Value, View, Writer};
use myelin_types::{Millis, Pos, UserNum};
use serde::{Deserialize, Serialize};

use crate::{Present, RawJson, accounts::DatedJson, postcard_value, table, topic::Changed};

table! {
    /// The identity keys of local users' devices, as they are served: the uploaded object with the signatures that its
    /// owner added since.
    ///
    /// Floor: one row a device at most; it goes with the device.
    DeviceKeys = "device_keys", Scan, (UserNum, String) => RawJson
}

table! {
    /// Which devices of a local user have identity keys, so that those of many users are found with one look-up each.
    ///
    /// Floor: the row goes with the last of them.
    KeyedDevices = "keyed_devices", Point, UserNum => DeviceIds
}

table! {
    /// One-time keys that nobody claimed yet, by user, device and algorithm in the order in which they were uploaded: the
    /// batch's position, then the place in the batch.
    ///
    /// Floor: a claim deletes the row that it hands out, and a device's rows go with it; how many a device may have is
    /// bounded.
    OneTimeKeys = "one_time_keys", Churn, (UserNum, String, String, Pos, u32) => OneTimeKey
}

table! {
    /// Where a one-time key stands in [`OneTimeKeys`], by user, device, algorithm and the key's id: exactly one row for
    /// each.
    OneTimeKeyPlaces = "one_time_key_places", Point, (UserNum, String, String, String) => OneTimeKeyPlace
}

table! {
    /// The fallback key of a device for an algorithm: handed out when there is no one-time key.
    ///
    /// Floor: a new one takes the old one's place; they go with the device.
    FallbackKeys = "fallback_keys", Scan, (UserNum, String, String) => FallbackKey
}

table! {
    /// What `/sync` says of a device's one-time and fallback keys: written with every change of [`OneTimeKeys`] and
    /// [`FallbackKeys`] and expected by it. Floor: it goes with the device.
    KeyCounts = "key_counts", Point, (UserNum, String) => KeyCount
}

table! {
    /// The cross-signing keys of local users, and of other servers' users whose lists are kept: with the signatures that
    /// everybody may see.
    ///
    /// Floor: three rows a user at most; a local user's go with the account, others with their list.
    CrossSigningKeys = "cross_signing_keys", Scan, (UserNum, CrossSigningUsage) => RawJson
}

table! {
    /// What a user signed of other users' keys, by signer, signed user and key (the device id, or the public key in
    /// base64 for a cross-signing key): an object of signatures by the id of the signing key. Only the signer is shown
    /// these.
    ///
    /// Floor: one row for each user that a local user verified; they go when the signer's keys are replaced, and with his
    /// account.
    KeySignatures = "key_signatures", Scan, (UserNum, UserNum, String) => DatedJson
}

table! {
    /// What changed last of a user's devices and keys: one row a user, however many rooms he is in.
    ///
    /// Floor: one row a user whose keys were ever seen here. What it remembers of changes is bounded: who missed more is
    /// told to ask for the whole list.
    DeviceLists = "device_lists", Point, UserNum => DeviceList
}

table! {
    /// The same in the order of change: exactly one row for each of [`DeviceLists`].
    DeviceListsByPos = "device_lists_by_pos", Churn, (Pos, UserNum) => Present
}

table! {
    /// How far the device lists of other servers' users are known here.
    ///
    /// Floor: rows go when the last room that is shared with the user does.
    RemoteDeviceLists = "remote_device_lists", Scan, UserNum => RemoteDeviceList
}

table! {
    /// The users whose row of [`RemoteDeviceLists`] is stale, so that these are found: exactly one row for each.
    StaleDeviceLists = "stale_device_lists", Churn, UserNum => Present
}

table! {
    /// The devices of other servers' users whose lists are kept. Floor: they go with the row of [`RemoteDeviceLists`], and
    /// a list's length is bounded.
    RemoteDevices = "remote_devices", Scan, (UserNum, String) => RemoteDevice
}

table! {
    /// Messages to devices of local users that they have not acknowledged, by user, device, position of the batch and
    /// place in it: the event as `/sync` shows it.
    ///
    /// Floor: a sync deletes what its token acknowledges; they go with the device; of a device that does not come any more
    /// the oldest go when there are too many, and each when it is too old.
    ToDeviceInbox = "to_device_inbox", Churn, (UserNum, String, Pos, u32) => DeviceMessage
}

table! {
    /// Messages to devices of other servers, by server, position of the batch and place in it: the content of an
    /// `m.direct_to_device` EDU.
    ///
    /// Floor: rows go when the server has taken them; of a server that does not answer any more the oldest go when there
    /// are too many, and each when it is too old.
    ToDeviceOutbox = "to_device_outbox", Churn, (String, Pos, u32) => DeviceMessage
}

table! {
    /// The `message_id`s of `m.direct_to_device` EDUs that were taken in, by server: a message that comes again is not
    /// delivered again. The value is the time, in milliseconds.
    ///
    /// Floor: rows go with [`ToDeviceSeenByTime`] after some days.
    ToDeviceSeen = "to_device_seen", Point, (String, String) => SeenAt
}

table! {
    /// The rows of [`ToDeviceSeen`] by time in milliseconds.
    ToDeviceSeenByTime = "to_device_seen_by_time", Churn, (u64, String, String) => Present
}

/// A one-time key.
#[derive(Clone, Debug, PartialEq)]
pub struct OneTimeKey {
    /// What follows the algorithm in the key's id.
    pub key_id: String,
    /// A string, or a signed object.
    pub key: RawJson,
}

impl Value for OneTimeKey {
    const VERSION: u8 = 1;

    fn encode(&self, writer: &mut Writer) {
        writer.terminated(self.key_id.as_bytes());
        writer.bytes(self.key.get().as_bytes());
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => Ok(Self {
                key_id: String::from_utf8(parser.terminated()?).map_err(|_| CodecError::Utf8)?,
                key: crate::json::parse(parser.rest())?,
            }),
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

/// Where a one-time key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneTimeKeyPlace {
    /// The position of the upload's batch.
    pub pos: Pos,
    /// The place in it.
    pub index: u32,
}

impl Value for OneTimeKeyPlace {
    const VERSION: u8 = 1;

    fn encode(&self, writer: &mut Writer) {
        writer.pos(self.pos);
        writer.u32(self.index);
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => Ok(Self {
                pos: parser.pos()?,
                index: parser.u32()?,
            }),
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

/// A fallback key.
#[derive(Clone, Debug, PartialEq)]
pub struct FallbackKey {
    /// Whether it was handed out since it was uploaded.
    pub used: bool,
    /// What follows the algorithm in the key's id.
    pub key_id: String,
    /// The signed object.
    pub key: RawJson,
}

impl Value for FallbackKey {
    const VERSION: u8 = 1;

    fn encode(&self, writer: &mut Writer) {
        writer.u8(u8::from(self.used));
        writer.terminated(self.key_id.as_bytes());
        writer.bytes(self.key.get().as_bytes());
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => Ok(Self {
                used: parser.u8()? != 0,
                key_id: String::from_utf8(parser.terminated()?).map_err(|_| CodecError::Utf8)?,
                key: crate::json::parse(parser.rest())?,
            }),
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

/// The ids of some devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceIds(pub Vec<String>);
postcard_value!(DeviceIds, 1);

/// How many keys a device has on the server, and which it had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCount {
    /// One-time keys by algorithm, those with none left out.
    pub one_time: Vec<(String, u64)>,
    /// The algorithms whose fallback key was not used yet.
    pub unused_fallback: Vec<String>,
    /// The one-time keys that were handed out last, as hashes, the oldest first, [`KeyCount::MOST_HANDED_OUT`] at most. A
    /// client that missed the answer to an upload makes it again, and what was claimed meanwhile must not be given twice.
    pub handed_out: Vec<u64>,
}
postcard_value!(KeyCount, 1);

impl KeyCount {
    /// How many keys that were handed out are remembered: more than clients upload at once.
    pub const MOST_HANDED_OUT: usize = 128;
}

/// What a cross-signing key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CrossSigningUsage {
    /// The user's identity: signs the other two.
    Master,
    /// Signs the user's own devices.
    SelfSigning,
    /// Signs other users' master keys; shown to its owner alone.
    UserSigning,
}

impl myelin_store::Key for CrossSigningUsage {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(match self {
            Self::Master => 0,
            Self::SelfSigning => 1,
            Self::UserSigning => 2,
        });
    }

    fn decode(parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match parser.u8()? {
            0 => Ok(Self::Master),
            1 => Ok(Self::SelfSigning),
            2 => Ok(Self::UserSigning),
            _ => Err(CodecError::Invalid("usage of a cross-signing key")),
        }
    }
}

/// What changed of a user's devices and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceList {
    /// The newest change's position.
    pub pos: Pos,
    /// The number of the newest change: other servers know it as `stream_id`. Of a remote user it counts for nothing.
    pub stream_id: u64,
    /// The newest changes, the oldest first, [`DeviceList::MOST_REMEMBERED`] at most. Each has the `stream_id` that is by
    /// one greater than that of the one before it; the last has [`stream_id`](Self::stream_id).
    pub recent: Vec<(Pos, DeviceListChange)>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceListChange {
    /// A device appeared, went, or has another name or other keys.
    Device(String),
    /// The master or self-signing key.
    CrossSigning,
}

impl DeviceList {
    /// How many changes are remembered.
    pub const MOST_REMEMBERED: usize = 16;

    /// The number of the change at a place of [`recent`](Self::recent).
    pub fn number(&self, index: usize) -> u64 {
        self.stream_id - (self.recent.len() - 1 - index) as u64
    }

    /// The number of the last change of a device before a place: what other servers know as the version of the list. The
    /// changes of the user's own keys have numbers that no `m.device_list_update` shows.
    pub fn version_before(&self, index: usize) -> u64 {
        let is_device =
            |index: &usize| matches!(self.recent[*index].1, DeviceListChange::Device(_));
        match (0..index).rev().find(is_device) {
            Some(index) => self.number(index),
            None => self.stream_id - self.recent.len() as u64,
        }
    }

    /// The `stream_id` of the list as it is now, for other servers.
    pub fn version(&self) -> u64 {
        self.version_before(self.recent.len())
    }
}

impl Value for DeviceList {
    const VERSION: u8 = 1;

    fn encode(&self, writer: &mut Writer) {
        writer.pos(self.pos);
        writer.u64(self.stream_id);
        writer.u8(u8::try_from(self.recent.len()).expect("few are remembered"));
        // Positions by themselves, since that of this batch is not known yet.
        for (pos, _) in &self.recent {
            writer.pos(*pos);
        }
        let changes: Vec<&DeviceListChange> =
            self.recent.iter().map(|(_, change)| change).collect();
        writer.postcard(&changes);
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => {
                let pos = parser.pos()?;
                let stream_id = parser.u64()?;
                let count = parser.u8()?;
                let positions: Vec<Pos> =
                    (0..count).map(|_| parser.pos()).collect::<Result<_, _>>()?;
                let changes: Vec<DeviceListChange> = parser.postcard()?;
                Ok(Self {
                    pos,
                    stream_id,
                    recent: positions.into_iter().zip(changes).collect(),
                })
            }
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

/// How far the list of another server's user is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteDeviceList {
    /// The `stream_id` of the newest update that is in the list.
    pub stream_id: u64,
    /// Those of updates before it, the oldest first, [`RemoteDeviceList::MOST_SEEN`] at most.
    pub seen: Vec<u64>,
    /// What this server had when the list was fetched. If no room was shared with the user without a break since then, updates
    /// may be missing that nobody sent here.
    pub fetched: Pos,
    /// Whether updates are missing, so that the whole list must be fetched before it is believed again.
    pub stale: bool,
    /// How many updates came while it was stale: what was fetched before the last of them is not the newest.
    pub updates: u32,
    /// How many fetches have failed since the last one that did not.
    pub failures: u32,
    /// When the next fetch is to be tried.
    pub next_attempt: Millis,
}

impl RemoteDeviceList {
    /// How many earlier updates are remembered.
    pub const MOST_SEEN: usize = 16;
}

impl Value for RemoteDeviceList {
    const VERSION: u8 = 1;

    fn encode(&self, writer: &mut Writer) {
        writer.pos(self.fetched);
        let retry = (self.failures, self.next_attempt);
        writer.postcard(&(self.stream_id, &self.seen, self.stale, self.updates, retry));
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => {
                let fetched = parser.pos()?;
                let (stream_id, seen, stale, updates, (failures, next_attempt)) =
                    parser.postcard()?;
                Ok(Self {
                    stream_id,
                    seen,
                    fetched,
                    stale,
                    updates,
                    failures,
                    next_attempt,
                })
            }
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

/// A device of another server's user.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteDevice {
    /// The name that its server tells.
    pub display_name: Option<String>,
    /// Its identity keys; none if it has not uploaded any.
    pub keys: Option<RawJson>,
}

impl Value for RemoteDevice {
    const VERSION: u8 = 1;

    fn encode(&self, writer: &mut Writer) {
        writer.postcard(&(&self.display_name, self.keys.as_ref().map(RawJson::get)));
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => {
                let (display_name, keys): (Option<String>, Option<String>) = parser.postcard()?;
                let keys = keys.map(|keys| crate::json::parse(keys.as_bytes()));
                Ok(Self {
                    display_name,
                    keys: keys.transpose()?,
                })
            }
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

/// A message that waits for its device, or for the device's server.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceMessage {
    /// Since when it waits.
    pub since: Millis,
    /// What is handed over.
    pub json: RawJson,
}

impl Value for DeviceMessage {
    const VERSION: u8 = 1;

    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.since.0);
        writer.bytes(self.json.get().as_bytes());
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => Ok(Self {
                since: Millis(parser.u64()?),
                json: crate::json::parse(parser.rest())?,
            }),
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

/// When something was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenAt(pub Millis);
postcard_value!(SeenAt, 1);

/// Records in `batch` that devices or keys of `user` changed: one row, whatever rooms he is in. Readers that share a room
/// with him find it by its position.
///
/// The batch then expects the row that `view` has, so that the caller must begin again when it does not hold any more.
pub fn record_change(
    view: &View,
    batch: &mut Batch,
    user: UserNum,
    changes: impl IntoIterator<Item = DeviceListChange>,
) -> Result<(), StoreError> {
    let before = view.get::<DeviceLists>(&user)?;
    batch.expect::<DeviceLists>(&user, before.as_ref());
    if let Some(before) = &before {
        batch.delete::<DeviceListsByPos>(&(before.pos, user));
    }
    let mut list = before.unwrap_or(DeviceList {
        pos: Pos::ZERO,
        stream_id: 0,
        recent: Vec::new(),
    });
    list.pos = Pos::AT_COMMIT;
    for change in changes {
        list.stream_id += 1;
        list.recent.push((Pos::AT_COMMIT, change));
    }
    let forgotten = list
        .recent
        .len()
        .saturating_sub(DeviceList::MOST_REMEMBERED);
    list.recent.drain(..forgotten);
    batch.put::<DeviceLists>(&user, &list);
    batch.put::<DeviceListsByPos>(&(Pos::AT_COMMIT, user), &Present);
    batch.touch(Changed::Devices(user).into());
    Ok(())
}

/// Deletes in `batch` what belongs to devices of a local user: their keys and the messages to them. If one of them had
/// identity keys, others hear of it. Not together with another [`record_change`] of the same user in a batch.
pub fn forget_devices(
    view: &View,
    batch: &mut Batch,
    user: UserNum,
    device_ids: &[String],
) -> Result<(), StoreError> {
    forget(view, batch, user, device_ids, None, None)
}

/// The same for a device in whose place another one comes, if there is one, and lets others hear of the one that comes. Its
/// keys are for the caller to write, after this.
pub fn replace_device(
    view: &View,
    batch: &mut Batch,
    user: UserNum,
    goes: Option<&str>,
    comes: &str,
) -> Result<(), StoreError> {
    let goes: Vec<String> = goes.map(str::to_owned).into_iter().collect();
    let change = DeviceListChange::Device(comes.to_owned());
    forget(view, batch, user, &goes, Some(comes), Some(change))
}

/// The same for all devices of a local user, and for his cross-signing keys and what he signed with them.
pub fn forget_user(
    view: &View,
    batch: &mut Batch,
    user: UserNum,
    device_ids: &[String],
) -> Result<(), StoreError> {
    batch.delete_prefix::<KeySignatures>(&user);
    batch.delete_prefix::<CrossSigningKeys>(&user);
    let usages = [CrossSigningUsage::Master, CrossSigningUsage::SelfSigning];
    let keys = usages.map(|usage| (user, usage));
    let rows = view.multi_get::<CrossSigningKeys>(&keys)?;
    for (key, row) in keys.iter().zip(&rows) {
        batch.expect::<CrossSigningKeys>(key, row.as_ref());
    }
    let had_identity = rows.iter().any(Option::is_some);
    let change = had_identity.then_some(DeviceListChange::CrossSigning);
    forget(view, batch, user, device_ids, None, change)
}

fn forget(
    view: &View,
    batch: &mut Batch,
    user: UserNum,
    device_ids: &[String],
    comes: Option<&str>,
    change: Option<DeviceListChange>,
) -> Result<(), StoreError> {
    for device_id in device_ids {
        let device = (user, device_id.clone());
        batch.delete::<DeviceKeys>(&device);
        batch.delete_prefix::<OneTimeKeys>(&device);
        batch.delete_prefix::<OneTimeKeyPlaces>(&device);
        batch.delete_prefix::<FallbackKeys>(&device);
        batch.delete::<KeyCounts>(&device);
        batch.delete_prefix::<ToDeviceInbox>(&device);
    }
    batch.touch(Changed::KeyCounts(user).into());
    let before = view.get::<KeyedDevices>(&user)?;
    // A device that gets its keys meanwhile must not be gone without anybody hearing of it.
    batch.expect::<KeyedDevices>(&user, before.as_ref());
    let before = before.unwrap_or_default().0;
    let (gone, mut kept): (Vec<String>, Vec<String>) =
        before.into_iter().partition(|id| device_ids.contains(id));
    kept.extend(comes.map(str::to_owned));
    if !gone.is_empty() || comes.is_some() {
        if kept.is_empty() {
            batch.delete::<KeyedDevices>(&user);
        } else {
            batch.put::<KeyedDevices>(&user, &DeviceIds(kept));
        }
    }
    let changes: Vec<DeviceListChange> = gone
        .into_iter()
        .map(DeviceListChange::Device)
        .chain(change)
        .collect();
    if changes.is_empty() {
        return Ok(());
    }
    record_change(view, batch, user, changes)
}
