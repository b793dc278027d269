//! Tags of rooms, which are account data of type `m.tag`. Spec: client-server API, "Room Tagging".

use myelin_data::RawJson;
use myelin_store::{StoreError, View};
use myelin_types::{RoomNum, UserNum};
use serde_json::{Map, Value};

use crate::{Accounts, Failure, account_data::TAGS};

/// The longest name of a tag, in bytes.
const MAX_TAG: usize = 255;

/// Why a tag was not set.
#[derive(Debug, thiserror::Error)]
pub enum TagError {
    /// The name is empty or has more than 255 bytes. (`M_INVALID_PARAM`)
    #[error("the name of a tag must have 1 to 255 bytes")]
    InvalidName,
    /// The order is not a number. (`M_BAD_JSON`)
    #[error("the order of a tag must be a number")]
    InvalidOrder,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(TagError);

impl Accounts {
    /// The tags that `user` gave `room`, by name.
    pub fn tags(
        &self,
        view: &View,
        user: UserNum,
        room: RoomNum,
    ) -> Result<Map<String, Value>, StoreError> {
        let content = self.account_data(view, user, room, TAGS)?;
        Ok(tags_of(&mut object(content.as_ref())).clone())
    }

    /// Gives `room` a tag, or a tag it has other properties.
    pub async fn set_tag(
        &self,
        user: UserNum,
        room: RoomNum,
        tag: &str,
        info: Map<String, Value>,
    ) -> Result<(), TagError> {
        if tag.is_empty() || tag.len() > MAX_TAG {
            return Err(TagError::InvalidName);
        }
        if info.get("order").is_some_and(|order| !order.is_number()) {
            return Err(TagError::InvalidOrder);
        }
        let tag = tag.to_owned();
        self.replace_account_data(user, room, TAGS, move |content| {
            let mut content = object(content);
            tags_of(&mut content).insert(tag.clone(), Value::Object(info.clone()));
            let content = RawJson::of(&content).map_err(Failure::from)?;
            Ok(Some(content))
        })
        .await
    }

    /// Takes a tag from `room`; it need not have it.
    pub async fn delete_tag(
        &self,
        user: UserNum,
        room: RoomNum,
        tag: &str,
    ) -> Result<(), TagError> {
        let tag = tag.to_owned();
        self.replace_account_data(user, room, TAGS, move |content| {
            let mut content = object(content);
            if tags_of(&mut content).remove(&tag).is_none() {
                return Ok(None);
            }
            let content = RawJson::of(&content).map_err(Failure::from)?;
            Ok(Some(content))
        })
        .await
    }
}

fn object(content: Option<&RawJson>) -> Map<String, Value> {
    content
        .and_then(|content| serde_json::from_str(content.get()).ok())
        .unwrap_or_default()
}

/// The tags in a content that a client may have written wrongly through the account data API.
fn tags_of(content: &mut Map<String, Value>) -> &mut Map<String, Value> {
    let tags = content
        .entry("tags")
        .or_insert_with(|| Value::Object(Map::new()));
    if !tags.is_object() {
        *tags = Value::Object(Map::new());
    }
    tags.as_object_mut()
        .expect("it was made an object in the line above")
}
