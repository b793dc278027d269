//! Who a database belongs to. Two rows of the store's own table say it.

use crate::codec::{CodecError, Parser, Writer};

/// Under this key stands the [`Identity`]. Begins with a NUL, so that hardly another program's row is taken for it.
pub(crate) const IDENTITY_KEY: &[u8] = b"\0identity";

/// Under this key stands the position of the last committed batch, eight bytes big-endian.
pub(crate) const POSITION_KEY: &[u8] = b"\0position";

/// The encoding of [`Identity`] itself.
const FORMAT: u8 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) product: String,
    pub(crate) schema: u32,
}

impl Identity {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(FORMAT);
        writer.u32(self.schema);
        writer.terminated(self.product.as_bytes());
        writer.into_bytes()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut parser = Parser::new(bytes);
        match parser.u8()? {
            FORMAT => {}
            other => return Err(CodecError::UnknownVersion(other)),
        }
        let schema = parser.u32()?;
        let product = String::from_utf8(parser.terminated()?).map_err(|_| CodecError::Utf8)?;
        parser.finish()?;
        Ok(Self { product, schema })
    }
}
