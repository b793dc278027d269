//! What a client sends to devices.

use std::collections::BTreeMap;

use myelin_data::{
    RawJson,
    e2ee::{DeviceMessage, ToDeviceOutbox},
};
use myelin_rooms::TransactionId;
use myelin_store::{Batch, StoreError, View};
use myelin_types::{Pos, UserNum};
use ruma::{OwnedServerName, OwnedUserId};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Deliveries, Messages, Shown};
use crate::{E2ee, Failure};

/// The longest content of a message, in bytes: what an event may have.
pub const MAX_CONTENT: usize = 65_536;
/// The most bytes that one request may make of its messages, each counted for every device that gets it: a batch stands in
/// the store's queue.
const MAX_BYTES: usize = 8 << 20;
/// The most devices that one request may reach.
const MAX_DEVICES: usize = 10_000;
/// An EDU is complete when it has so many bytes of content; so an EDU, and a transaction of them, stays within what other
/// servers take.
const EDU_BYTES: usize = 48 << 10;

/// For which of a user's devices a message is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recipient {
    /// All that the user has when it arrives.
    All,
    /// The one with this id.
    Device(String),
}

impl Recipient {
    /// The devices that a text names: `*` for all.
    pub fn of(text: String) -> Self {
        match text.as_str() {
            "*" => Self::All,
            _ => Self::Device(text),
        }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::All => "*",
            Self::Device(device) => device,
        }
    }
}

/// Messages of one type from one user, at most one a device.
#[derive(Clone, Debug)]
pub struct SendToDevice {
    /// Who sends them.
    pub sender: UserNum,
    /// The same as an id.
    pub sender_id: OwnedUserId,
    /// Their type.
    pub event_type: String,
    /// The request: one that is made twice is done once.
    pub transaction: TransactionId,
    /// The contents.
    pub messages: Messages,
}

/// Why messages were not sent. None of them was.
#[derive(Debug, thiserror::Error)]
pub enum SendToDeviceError {
    /// The content of a message is no object. (`M_BAD_JSON`)
    #[error("the content of a message is no object")]
    NotAnObject,
    /// The content of a message is too long. (`M_TOO_LARGE`)
    #[error("the content of a message has more than {MAX_CONTENT} bytes")]
    ContentTooLong,
    /// They reach too many devices, or are too much altogether. (`M_TOO_LARGE`)
    #[error("the messages reach too many devices")]
    TooMany,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(SendToDeviceError);

/// The content of an `m.direct_to_device` EDU.
#[derive(Serialize)]
struct Edu<'a> {
    sender: &'a str,
    r#type: &'a str,
    message_id: &'a str,
    messages: BTreeMap<&'a str, BTreeMap<&'a str, &'a RawValue>>,
}

/// What a request comes to.
#[derive(Default)]
struct Sorted {
    /// For devices of this server.
    local: Vec<(UserNum, Vec<String>, RawJson)>,
    /// The contents of EDUs, by server.
    remote: BTreeMap<OwnedServerName, Vec<RawJson>>,
}

impl E2ee {
    /// Sends messages to devices. Users and devices that are not known are passed over. When this is answered they are
    /// durable, and so is that the transaction is done.
    pub async fn send_to_device(&self, request: SendToDevice) -> Result<(), SendToDeviceError> {
        for content in request.messages.values().flat_map(BTreeMap::values) {
            if !content.get().starts_with('{') {
                return Err(SendToDeviceError::NotAnObject);
            }
            if content.get().len() > MAX_CONTENT {
                return Err(SendToDeviceError::ContentTooLong);
            }
        }
        let e2ee = self.clone();
        self.run(async move { e2ee.send_now(request).await }).await
    }

    async fn send_now(&self, request: SendToDevice) -> Result<(), SendToDeviceError> {
        let transaction = request.transaction.clone();
        let begun = self
            .0
            .rooms
            .begin_plain_transaction(request.sender, transaction);
        let Some(transaction) = begun.await? else {
            return Ok(());
        };
        let e2ee = self.clone();
        let sort = move |view: &View| e2ee.sort(view, &request);
        let Sorted { local, remote } = self.0.store.read(sort).await?;
        let now = self.0.clock.now();
        let mut batch = Batch::new();
        transaction.note(&mut batch, now);
        let mut deliveries = Deliveries::new(now);
        for (user, devices, json) in &local {
            deliveries.add(&mut batch, *user, devices, json);
        }
        for (server, edus) in &remote {
            for (index, json) in (0..).zip(edus) {
                let message = DeviceMessage {
                    since: now,
                    json: json.clone(),
                };
                let key = (server.to_string(), Pos::AT_COMMIT, index);
                batch.put::<ToDeviceOutbox>(&key, &message);
            }
        }
        self.0.store.commit(batch).await?;
        for server in remote.keys() {
            self.0.outbox.tell(server);
        }
        Ok(())
    }

    fn sort(&self, view: &View, request: &SendToDevice) -> Result<Sorted, SendToDeviceError> {
        let mut sorted = Sorted::default();
        let mut elsewhere: BTreeMap<OwnedServerName, Vec<(&str, &str, &RawValue)>> =
            BTreeMap::new();
        let mut bytes = 0;
        let mut reached = 0;
        let mut count = |devices: usize, content: &RawValue| {
            reached += devices;
            bytes += devices * (content.get().len() + request.event_type.len());
            if reached > MAX_DEVICES || bytes > MAX_BYTES {
                return Err(SendToDeviceError::TooMany);
            }
            Ok(())
        };
        for (user_id, contents) in &request.messages {
            if !self.0.rooms.is_local(user_id) {
                // Without other servers there is nobody to take them.
                if !self.0.outbox.is_served() {
                    continue;
                }
                for (recipient, content) in contents {
                    count(1, content)?;
                    let server = user_id.server_name().to_owned();
                    let message = (user_id.as_str(), recipient.as_str(), &**content);
                    elsewhere.entry(server).or_default().push(message);
                }
                continue;
            }
            let Some(user) = self.0.rooms.interner().find_user(view, user_id)? else {
                continue;
            };
            for (recipient, content) in contents {
                let devices = Self::recipients(view, user, recipient)?;
                count(devices.len(), content)?;
                let shown = RawJson::of(&Shown {
                    content,
                    sender: &request.sender_id,
                    r#type: &request.event_type,
                });
                let shown = shown.map_err(|_| StoreError::Missing("a message's text"))?;
                sorted.local.push((user, devices, shown));
            }
        }
        for (server, messages) in elsewhere {
            sorted.remote.insert(server, self.edus(request, &messages)?);
        }
        Ok(sorted)
    }

    /// EDUs with these messages, each with an id of its own.
    fn edus(
        &self,
        request: &SendToDevice,
        messages: &[(&str, &str, &RawValue)],
    ) -> Result<Vec<RawJson>, StoreError> {
        let mut edus = Vec::new();
        let mut rest = messages;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest.iter().take_while(|(.., content)| {
                bytes += content.get().len();
                bytes <= EDU_BYTES
            });
            // One that is longer than that has an EDU of its own.
            let (these, others) = rest.split_at(fitting.count().max(1));
            let mut messages: BTreeMap<&str, BTreeMap<&str, &RawValue>> = BTreeMap::new();
            for (user, device, content) in these {
                messages.entry(user).or_default().insert(device, content);
            }
            let edu = RawJson::of(&Edu {
                sender: request.sender_id.as_str(),
                r#type: &request.event_type,
                message_id: &self.message_id(),
                messages,
            });
            edus.push(edu.map_err(|_| StoreError::Missing("an EDU's text"))?);
            rest = others;
        }
        Ok(edus)
    }

    /// An id that no other message has: 32 characters, the most that there may be.
    fn message_id(&self) -> String {
        let mut bytes = [0; 16];
        self.0.random.fill(&mut bytes);
        format!("{:032x}", u128::from_be_bytes(bytes))
    }
}
