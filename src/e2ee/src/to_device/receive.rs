//! What other servers send to devices of this one. Each message is delivered once, by its server and its id.

use std::collections::HashSet;

use myelin_data::{
    Present, RawJson,
    e2ee::{SeenAt, ToDeviceSeen, ToDeviceSeenByTime},
};
use myelin_store::{Batch, Step, StoreError, View};
use myelin_types::UserNum;
use ruma::{OwnedServerName, OwnedUserId};

use super::{Deliveries, Messages, Shown};
use crate::{E2ee, Failure};

/// The most devices that the messages of one EDU may reach; further ones get nothing of it.
const MAX_DEVICES: usize = 10_000;
/// The longest id of a message, in bytes: 32 characters of any kind.
const MAX_MESSAGE_ID: usize = 128;

/// The content of an `m.direct_to_device` EDU.
#[derive(Clone, Debug)]
pub struct RemoteMessage {
    /// Who sends it.
    pub sender: OwnedUserId,
    /// The type of the event.
    pub event_type: String,
    /// What tells it from others of its server.
    pub message_id: String,
    /// The contents.
    pub messages: Messages,
}

impl E2ee {
    /// Delivers what a server sent, in its order, and makes it durable. What it sent before is not delivered again, and what
    /// is not its to say, or for nobody here, is passed over. A server's messages must come one call after the other.
    pub async fn receive_to_device(
        &self,
        origin: &OwnedServerName,
        messages: Vec<RemoteMessage>,
    ) -> Result<(), Failure> {
        let (e2ee, origin) = (self.clone(), origin.clone());
        let now = self.0.clock.now();
        self.0
            .store
            .change(move |view| {
                let batch = e2ee.deliver(view, &origin, &messages, now)?;
                let step = if batch.is_empty() {
                    Step::nothing(())
                } else {
                    Step::write(batch, ())
                };
                Ok::<_, Failure>(step)
            })
            .await
    }

    fn deliver(
        &self,
        view: &View,
        origin: &OwnedServerName,
        messages: &[RemoteMessage],
        now: myelin_types::Millis,
    ) -> Result<Batch, StoreError> {
        let is_sound = |message: &&RemoteMessage| {
            message.sender.server_name() == origin && message.message_id.len() <= MAX_MESSAGE_ID
        };
        let messages: Vec<&RemoteMessage> = messages.iter().filter(is_sound).collect();
        let keys: Vec<(String, String)> = messages
            .iter()
            .map(|message| (origin.to_string(), message.message_id.clone()))
            .collect();
        let seen = view.multi_get::<ToDeviceSeen>(&keys)?;
        let mut batch = Batch::new();
        let mut deliveries = Deliveries::new(now);
        let mut ids = HashSet::new();
        for ((message, key), seen) in messages.into_iter().zip(keys).zip(seen) {
            if seen.is_some() || !ids.insert(&message.message_id) {
                continue;
            }
            self.deliver_one(view, &mut batch, &mut deliveries, message)?;
            let by_time = (now.0, key.0.clone(), key.1.clone());
            batch.put::<ToDeviceSeen>(&key, &SeenAt(now));
            batch.put::<ToDeviceSeenByTime>(&by_time, &Present);
        }
        Ok(batch)
    }

    fn deliver_one(
        &self,
        view: &View,
        batch: &mut Batch,
        deliveries: &mut Deliveries,
        message: &RemoteMessage,
    ) -> Result<(), StoreError> {
        let mut left = MAX_DEVICES;
        for (user_id, contents) in &message.messages {
            let found: Option<UserNum> = if self.0.rooms.is_local(user_id) {
                self.0.rooms.interner().find_user(view, user_id)?
            } else {
                None
            };
            let Some(user) = found else { continue };
            for (recipient, content) in contents {
                if !content.get().starts_with('{') || content.get().len() > super::MAX_CONTENT {
                    continue;
                }
                let mut devices = Self::recipients(view, user, recipient)?;
                devices.truncate(left);
                left -= devices.len();
                let shown = RawJson::of(&Shown {
                    content,
                    sender: &message.sender,
                    r#type: &message.event_type,
                });
                let shown = shown.map_err(|_| StoreError::Missing("a message's text"))?;
                deliveries.add(batch, user, &devices, &shown);
            }
        }
        Ok(())
    }
}
