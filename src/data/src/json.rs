//! JSON that is stored as the text that came.

use myelin_store::{CodecError, Parser, Value, Writer};
use serde::Serialize;
use serde_json::value::RawValue;

/// A JSON value as text.
#[derive(Clone, Debug)]
pub struct RawJson(pub Box<RawValue>);

impl RawJson {
    /// The text of `value`.
    ///
    /// # Errors
    /// When `value` does not serialise, as a map with keys that are not strings.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(Self)
    }

    /// The text.
    pub fn get(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for RawJson {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Value for RawJson {
    const VERSION: u8 = 1;

    fn encode(&self, writer: &mut Writer) {
        writer.bytes(self.get().as_bytes());
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => parse(parser.rest()),
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

/// Reads a JSON text that ends a value.
pub(crate) fn parse(bytes: &[u8]) -> Result<RawJson, CodecError> {
    let text = std::str::from_utf8(bytes).map_err(|_| CodecError::Utf8)?;
    RawValue::from_string(text.to_owned())
        .map(RawJson)
        .map_err(|_| CodecError::Invalid("JSON"))
}
