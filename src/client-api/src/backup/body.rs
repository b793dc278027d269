//! The body of an answer with keys, of which a backup may have hundreds of megabytes.
//!
//! Keys are read and written part by part, as the client takes them, so that an answer takes as much memory as one of its
//! parts. A small one is made whole, and has a length.

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::header::CONTENT_TYPE;
use myelin_e2ee::{BackupReader, ReadKeysError, SessionKeys};
use serde::Serialize;

use super::{KeyData, no_such_backup};
use crate::error::{Refusal, Result};

/// What an answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `rooms`, and in each its `sessions`.
    Rooms,
    /// The `sessions` of the one room that is read.
    Sessions,
}

/// The answer with all keys that `reader` has.
pub(super) async fn answer(shape: Shape, mut reader: BackupReader) -> Result<Response> {
    let mut text = Text::begin(shape);
    text.keys(reader.next().await.map_err(refuse)?);
    let body = if reader.is_ended() {
        text.end();
        Body::from(text.take())
    } else {
        Body::from_stream(parts(text, reader))
    };
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

fn refuse(error: ReadKeysError) -> Refusal {
    match error {
        ReadKeysError::Deleted => no_such_backup(),
        ReadKeysError::Failed(cause) => Refusal::internal(cause),
    }
}

/// The parts of a body. After an error the connection is cut, so that the client does not take what it has for all there is.
fn parts(
    text: Text,
    reader: BackupReader,
) -> impl Stream<Item = std::result::Result<Bytes, ReadKeysError>> {
    stream::try_unfold(Some((text, reader)), async |state| {
        let Some((mut text, mut reader)) = state else {
            return Ok(None);
        };
        let part = text.take();
        if !part.is_empty() {
            return Ok(Some((part, Some((text, reader)))));
        }
        let keys = reader.next().await.inspect_err(|error| match error {
            // The client's doing.
            ReadKeysError::Deleted => tracing::debug!("a backup was deleted while it was read"),
            ReadKeysError::Failed(error) => {
                tracing::error!(%error, "an answer with backed up keys was cut short");
            }
        })?;
        text.keys(keys);
        if reader.is_ended() {
            text.end();
            return Ok(Some((text.take(), None)));
        }
        Ok(Some((text.take(), Some((text, reader)))))
    })
}

/// The text of an answer, which has been begun and not ended.
struct Text {
    shape: Shape,
    written: Vec<u8>,
    /// The room whose sessions are open.
    room: Option<String>,
    /// Whether a session stands before the next one.
    comma: bool,
}

impl Text {
    fn begin(shape: Shape) -> Self {
        let text: &[u8] = match shape {
            Shape::Rooms => b"{\"rooms\":{",
            Shape::Sessions => b"{\"sessions\":{",
        };
        Self {
            shape,
            written: text.to_vec(),
            room: None,
            comma: false,
        }
    }

    /// Adds keys, those of a room together.
    fn keys(&mut self, keys: SessionKeys) {
        for (room, session, key) in keys {
            if self.shape == Shape::Rooms && self.room.as_ref() != Some(&room) {
                if self.room.is_some() {
                    self.written.extend_from_slice(b"}},");
                }
                self.write(&room);
                self.written.extend_from_slice(b":{\"sessions\":{");
                self.room = Some(room);
                self.comma = false;
            }
            if self.comma {
                self.written.push(b',');
            }
            self.comma = true;
            self.write(&session);
            self.written.push(b':');
            self.write(&KeyData::from(key));
        }
    }

    fn write<T: Serialize + ?Sized>(&mut self, value: &T) {
        serde_json::to_writer(&mut self.written, value)
            .expect("texts and keys serialise, and memory takes them");
    }

    fn end(&mut self) {
        if self.room.is_some() {
            self.written.extend_from_slice(b"}}");
        }
        self.written.extend_from_slice(b"}}");
    }

    /// What was written since the last call.
    fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.written).into()
    }
}
