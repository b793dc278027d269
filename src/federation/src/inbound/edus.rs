//! What is no event: typing, receipts, presence, messages to devices, changes of device lists. Spec: server-server API,
//! "EDUs".
//!
//! They are taken before the events of their transaction and never wait for them. Those of kinds that nothing is done
//! with are ignored, and so is what cannot be read or is not the origin's to say: nobody is told. Messages to devices and
//! changes of lists must not be lost: they are durable before the transaction is answered.

use std::{collections::BTreeMap, time::Duration};

use myelin_e2ee::{
    DeviceUpdate, Failure, KeysUpdate, ListUpdate, Messages, Recipient, RemoteMessage,
};
use myelin_rooms::{PresenceState, RemotePresence, Thread, remote::RemoteReceipt};
use myelin_types::Millis;
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Federation;

/// For how long somebody types whose server does not say that they stopped: servers repeat it while it lasts.
const TYPING: Duration = Duration::from_secs(30);
/// Most receipts of a transaction that are looked at; further ones are ignored.
const MOST_RECEIPTS: usize = 1_000;
/// Most users of an EDU whose presence is looked at; further ones are ignored.
const MOST_PRESENCES: usize = 100;

/// An EDU that something is done with.
#[derive(Debug)]
pub(super) enum Edu {
    /// `m.typing`
    Typing(Typing),
    /// `m.receipt`
    Receipts(Vec<RemoteReceipt>),
    /// `m.presence`
    Presence(Vec<RemotePresence>),
    /// `m.direct_to_device`
    ToDevice(RemoteMessage),
    /// `m.device_list_update`, `m.signing_key_update`
    List(ListUpdate),
}

#[derive(Debug, Deserialize)]
pub(super) struct Typing {
    room_id: OwnedRoomId,
    user_id: OwnedUserId,
    #[serde(rename = "typing")]
    types: bool,
}

#[derive(Deserialize)]
struct Envelope {
    edu_type: String,
    content: Box<RawValue>,
}

/// Receipts by kind and user, in a room. What is malformed spoils nothing beside it.
type InRoom = BTreeMap<String, BTreeMap<String, Box<RawValue>>>;

#[derive(Deserialize)]
struct Receipt {
    event_ids: Vec<OwnedEventId>,
    data: ReceiptData,
}

#[derive(Deserialize)]
struct ReceiptData {
    ts: Option<u64>,
    thread_id: Option<String>,
}

#[derive(Deserialize)]
struct Presence {
    push: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Said {
    user_id: OwnedUserId,
    presence: String,
    currently_active: Option<bool>,
    last_active_ago: Option<u64>,
    status_msg: Option<String>,
}

#[derive(Deserialize)]
struct DirectToDevice {
    sender: OwnedUserId,
    r#type: String,
    message_id: String,
    messages: BTreeMap<String, Box<RawValue>>,
}

#[derive(Deserialize)]
struct DeviceListUpdate {
    user_id: OwnedUserId,
    device_id: String,
    device_display_name: Option<String>,
    stream_id: u64,
    #[serde(default)]
    prev_id: Vec<u64>,
    deleted: Option<bool>,
    keys: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct SigningKeyUpdate {
    user_id: OwnedUserId,
    master_key: Option<Box<RawValue>>,
    self_signing_key: Option<Box<RawValue>>,
}

impl Edu {
    /// Reads an EDU; none if nothing is done with it.
    pub(super) fn parse(edu: &RawValue) -> Option<Edu> {
        let Envelope { edu_type, content } = serde_json::from_str(edu.get()).ok()?;
        match edu_type.as_str() {
            "m.typing" => serde_json::from_str(content.get()).ok().map(Edu::Typing),
            "m.receipt" => {
                let rooms: BTreeMap<String, Box<RawValue>> =
                    serde_json::from_str(content.get()).ok()?;
                Some(Edu::Receipts(receipts(rooms)))
            }
            "m.presence" => {
                let Presence { push } = serde_json::from_str(content.get()).ok()?;
                let said = push
                    .iter()
                    .take(MOST_PRESENCES)
                    .filter_map(|said| presence(said));
                Some(Edu::Presence(said.collect()))
            }
            "m.direct_to_device" => {
                let message: DirectToDevice = serde_json::from_str(content.get()).ok()?;
                Some(Edu::ToDevice(RemoteMessage {
                    sender: message.sender,
                    event_type: message.r#type,
                    message_id: message.message_id,
                    messages: messages(message.messages),
                }))
            }
            "m.device_list_update" => {
                let update: DeviceListUpdate = serde_json::from_str(content.get()).ok()?;
                Some(Edu::List(ListUpdate::Device(DeviceUpdate {
                    user_id: update.user_id,
                    device_id: update.device_id,
                    display_name: update.device_display_name,
                    stream_id: update.stream_id,
                    prev_ids: update.prev_id,
                    deleted: update.deleted == Some(true),
                    keys: update.keys,
                })))
            }
            "m.signing_key_update" => {
                let update: SigningKeyUpdate = serde_json::from_str(content.get()).ok()?;
                Some(Edu::List(ListUpdate::Keys(KeysUpdate {
                    user_id: update.user_id,
                    master: update.master_key,
                    self_signing: update.self_signing_key,
                })))
            }
            _ => None,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Typing(_) => "m.typing",
            Self::Receipts(_) => "m.receipt",
            Self::Presence(_) => "m.presence",
            Self::ToDevice(_) => "m.direct_to_device",
            Self::List(ListUpdate::Device(_)) => "m.device_list_update",
            Self::List(ListUpdate::Keys(_)) => "m.signing_key_update",
        }
    }
}

/// The messages of one EDU. What is malformed spoils nothing beside it.
fn messages(by_user: BTreeMap<String, Box<RawValue>>) -> Messages {
    let sound = by_user.into_iter().filter_map(|(user, contents)| {
        let user_id = OwnedUserId::try_from(user).ok()?;
        let contents: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(contents.get()).ok()?;
        let contents = contents.into_iter();
        let contents = contents.map(|(device, content)| (Recipient::of(device), content));
        Some((user_id, contents.collect()))
    });
    sound.collect()
}

/// What is said of one user. What is malformed spoils nothing beside it.
fn presence(said: &RawValue) -> Option<RemotePresence> {
    let said: Said = serde_json::from_str(said.get()).ok()?;
    Some(RemotePresence {
        user_id: said.user_id,
        state: PresenceState::parse(&said.presence)?,
        currently_active: said.currently_active.unwrap_or(false),
        last_active_ago: said.last_active_ago.map(Duration::from_millis),
        status: said.status_msg,
    })
}

/// The receipts that everybody in a room sees: private ones do not leave their server.
fn receipts(rooms: BTreeMap<String, Box<RawValue>>) -> Vec<RemoteReceipt> {
    let mut receipts = Vec::new();
    for (room, content) in rooms {
        let Ok(room_id) = OwnedRoomId::try_from(room) else {
            continue;
        };
        let kinds: Result<InRoom, _> = serde_json::from_str(content.get());
        let read = kinds.ok().and_then(|mut kinds| kinds.remove("m.read"));
        for (user, receipt) in read.into_iter().flatten() {
            let (Ok(user_id), Ok(receipt)) = (
                OwnedUserId::try_from(user),
                serde_json::from_str::<Receipt>(receipt.get()),
            ) else {
                continue;
            };
            let thread = match receipt.data.thread_id.as_deref() {
                None => Thread::Unthreaded,
                Some("main") => Thread::Main,
                Some(root) => match OwnedEventId::try_from(root) {
                    Ok(root) => Thread::Root(root),
                    Err(_) => continue,
                },
            };
            // There is exactly one.
            let Some(event_id) = receipt.event_ids.into_iter().next() else {
                continue;
            };
            if receipts.len() == MOST_RECEIPTS {
                return receipts;
            }
            receipts.push(RemoteReceipt {
                room_id: room_id.clone(),
                user_id,
                thread,
                event_id,
                at: receipt.data.ts.map(Millis),
            });
        }
    }
    receipts
}

impl Federation {
    /// Does what EDUs say, as far as it is their origin's to say. Receipts make at most one batch, and so do messages to
    /// devices.
    ///
    /// # Errors
    /// When something could not be taken that must not be lost.
    pub(super) async fn take_edus(
        &self,
        origin: &OwnedServerName,
        edus: &[Box<RawValue>],
    ) -> Result<(), Failure> {
        let mut all_receipts = Vec::new();
        let mut messages = Vec::new();
        let mut updates = Vec::new();
        for edu in edus {
            let edu = Edu::parse(edu);
            let kind = edu.as_ref().map_or("ignored", Edu::kind);
            metrics::counter!("federation_edus_received_total", "kind" => kind).increment(1);
            match edu {
                None => {}
                Some(Edu::Typing(typing)) => self.take_typing(origin, typing).await,
                Some(Edu::Receipts(receipts)) => {
                    let left = MOST_RECEIPTS - all_receipts.len();
                    all_receipts.extend(receipts.into_iter().take(left));
                }
                Some(Edu::Presence(said)) => {
                    if let Err(error) = self.0.rooms.hear_presence(origin, said).await {
                        let error = crate::chain(&error);
                        tracing::error!(%origin, error, "presence could not be taken");
                    }
                }
                Some(Edu::ToDevice(message)) => messages.push(message),
                Some(Edu::List(update)) => updates.push(update),
            }
        }
        if !messages.is_empty() {
            self.0.e2ee.receive_to_device(origin, messages).await?;
        }
        if !updates.is_empty() {
            let stale = self.0.e2ee.hear_lists(origin, updates).await?;
            self.fetch_lists_of(origin, stale);
        }
        if all_receipts.is_empty() {
            return Ok(());
        }
        let taken = self.0.rooms.receive_receipts(origin, all_receipts).await;
        if let Err(error) = taken {
            tracing::error!(%origin, error = crate::chain(&error), "receipts could not be taken");
        }
        Ok(())
    }

    async fn take_typing(&self, origin: &OwnedServerName, typing: Typing) {
        let Typing {
            room_id,
            user_id,
            types,
        } = typing;
        if user_id.server_name() != origin || self.is_denied(&room_id, origin).await {
            return;
        }
        let timeout = types.then_some(TYPING);
        let set = self.0.rooms.set_typing(&room_id, &user_id, timeout).await;
        if let Err(error) = set {
            tracing::debug!(%origin, error = crate::chain(&error), "typing was not taken");
        }
    }

    /// Whether a room's ACL denies `origin`, or that cannot be told.
    async fn is_denied(&self, room: &RoomId, origin: &ServerName) -> bool {
        let denied = self.0.rooms.acl_denies(room, origin).await;
        denied.unwrap_or_else(|error| {
            tracing::error!(%room, error = crate::chain(&error), "an ACL cannot be read");
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, value::to_raw_value};

    use super::*;

    fn parse(edu: &Value) -> Option<Edu> {
        Edu::parse(&to_raw_value(edu).expect("JSON"))
    }

    #[test]
    fn receipts_are_read_one_by_one() {
        let edu = json!({
            "edu_type": "m.receipt",
            "content": {
                "!a:there.example": {
                    "m.read": {
                        "@a:there.example": { "event_ids": ["$1"], "data": { "ts": 5 } },
                        "@b:there.example": { "event_ids": ["$2"], "data": { "thread_id": "main" } },
                        "@c:there.example": { "event_ids": ["$3"], "data": { "thread_id": "$1", "ts": 6 } },
                        "@d:there.example": { "event_ids": ["$4"], "data": { "thread_id": "elsewhere" } },
                        "@e:there.example": { "event_ids": [], "data": {} },
                        "@f:there.example": 7,
                        "nobody": { "event_ids": ["$5"], "data": {} },
                    },
                    "m.read.private": {
                        "@g:there.example": { "event_ids": ["$1"], "data": { "ts": 5 } },
                    },
                },
                "!b:there.example": [],
                "elsewhere": {},
            },
        });
        let Some(Edu::Receipts(receipts)) = parse(&edu) else {
            panic!("it is a receipt");
        };
        let read: Vec<(&str, &str, &Thread, Option<u64>)> = receipts
            .iter()
            .map(|receipt| {
                let at = receipt.at.map(|at| at.0);
                (
                    receipt.user_id.as_str(),
                    receipt.event_id.as_str(),
                    &receipt.thread,
                    at,
                )
            })
            .collect();
        let root = Thread::Root(OwnedEventId::try_from("$1").expect("an id"));
        assert_eq!(
            read,
            [
                ("@a:there.example", "$1", &Thread::Unthreaded, Some(5)),
                ("@b:there.example", "$2", &Thread::Main, None),
                ("@c:there.example", "$3", &root, Some(6)),
            ]
        );
    }

    #[test]
    fn presence_is_read_user_by_user() {
        let edu = json!({
            "edu_type": "m.presence",
            "content": {
                "push": [
                    { "user_id": "@a:there.example", "presence": "online", "last_active_ago": 5 },
                    { "user_id": "@b:there.example", "presence": "elsewhere" },
                    { "user_id": "nobody", "presence": "online" },
                    3,
                ],
            },
        });
        let Some(Edu::Presence(said)) = parse(&edu) else {
            panic!("it is presence");
        };
        assert_eq!(said.len(), 1);
        assert_eq!(said[0].user_id, "@a:there.example");
        assert_eq!(said[0].last_active_ago, Some(Duration::from_millis(5)));
    }

    #[test]
    fn messages_to_devices_are_read_user_by_user() {
        let edu = json!({
            "edu_type": "m.direct_to_device",
            "content": {
                "sender": "@a:there.example",
                "type": "m.room_key_request",
                "message_id": "1",
                "messages": {
                    "@b:here.example": { "*": {}, "DEVICE": { "n": 1 } },
                    "@c:here.example": 3,
                    "nobody": { "*": {} },
                },
            },
        });
        let Some(Edu::ToDevice(message)) = parse(&edu) else {
            panic!("it is a message");
        };
        assert_eq!(message.messages.len(), 1);
        let recipients: Vec<_> = message.messages.values().flat_map(BTreeMap::keys).collect();
        let device = Recipient::Device("DEVICE".to_owned());
        assert_eq!(recipients, [&Recipient::All, &device]);
    }

    #[test]
    fn changes_of_lists_are_read() {
        let edu = json!({
            "edu_type": "m.device_list_update",
            "content": { "user_id": "@a:there.example", "device_id": "D", "stream_id": 3, "prev_id": [2], "deleted": true },
        });
        let Some(Edu::List(ListUpdate::Device(update))) = parse(&edu) else {
            panic!("it is an update");
        };
        assert_eq!((update.stream_id, update.prev_ids), (3, vec![2]));
        assert!(update.deleted && update.keys.is_none());
    }

    #[test]
    fn what_is_not_known_is_ignored() {
        for edu in [
            json!({ "edu_type": "m.direct_to_device", "content": {} }),
            json!({ "edu_type": "m.device_list_update", "content": { "user_id": "@a:b" } }),
            json!({ "edu_type": "m.signing_key_update", "content": {} }),
            json!({ "edu_type": "org.example", "content": {} }),
            json!({ "edu_type": "m.typing", "content": { "room_id": 1 } }),
            json!({ "edu_type": "m.receipt", "content": [] }),
            json!({ "edu_type": "m.receipt" }),
            json!(3),
        ] {
            assert!(parse(&edu).is_none(), "{edu}");
        }
    }
}
