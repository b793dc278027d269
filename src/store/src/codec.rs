//! Bytes in and out: the writer and the parser that all key and value codecs are made of.

use myelin_types::Pos;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Follows a NUL that belongs to a terminated string.
const ESCAPED_NUL: u8 = 0xFF;
/// Follows the NUL that ends a terminated string. Smaller than any byte that can stand there otherwise, so that a
/// string sorts before its continuations.
const TERMINATOR: u8 = 0x00;

/// Why stored bytes are not what a codec wrote.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes end inside a field.
    #[error("the bytes end early")]
    Truncated,
    /// Bytes are left after the last field; their number.
    #[error("{0} bytes too many")]
    Trailing(usize),
    /// A NUL in a terminated string is followed by neither of the two bytes that may stand there.
    #[error("a terminated string contains an unknown escape")]
    Escape,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// The value was written by a version of its type that this program does not know.
    #[error("value of unknown version {0}")]
    UnknownVersion(u8),
    /// A field holds a number or shape that its type does not have; says which.
    #[error("invalid {0}")]
    Invalid(&'static str),
    /// A field in postcard's format could not be read.
    #[error("read postcard")]
    Postcard(#[from] postcard::Error),
}

/// Collects the encoding of keys and values.
///
/// Integers are big-endian, so that byte order is numeric order.
#[derive(Debug, Default)]
pub struct Writer {
    buffer: Vec<u8>,
    /// Offsets of the eight bytes of each `Pos::AT_COMMIT` written.
    placeholders: Vec<usize>,
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Raw bytes, without length or end mark: the reader must know how many they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// One byte.
    pub fn u8(&mut self, number: u8) {
        self.buffer.push(number);
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self, number: u16) {
        self.bytes(&number.to_be_bytes());
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self, number: u32) {
        self.bytes(&number.to_be_bytes());
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self, number: u64) {
        self.bytes(&number.to_be_bytes());
    }

    /// Eight bytes, big-endian with the sign bit flipped, so that negative numbers sort first.
    pub fn i64(&mut self, number: i64) {
        self.u64(number.cast_unsigned() ^ (1 << 63));
    }

    /// A position, eight bytes. For [`Pos::AT_COMMIT`] the committer puts the batch's position in its place; this
    /// holds only for what is written with this method (postcard hides where a position ends up).
    pub fn pos(&mut self, pos: Pos) {
        if pos == Pos::AT_COMMIT {
            self.placeholders.push(self.buffer.len());
        }
        self.u64(pos.0);
    }

    /// Bytes of any length with an end mark, so that more fields may follow and order is kept.
    pub fn terminated(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == 0) {
            self.bytes(part);
            if part.last() == Some(&0) {
                self.u8(ESCAPED_NUL);
            }
        }
        self.bytes(&[0, TERMINATOR]);
    }

    /// Bytes of any length behind their length (four bytes). For values: byte order is not the order of the contents.
    ///
    /// # Panics
    /// If there are 4 GiB or more.
    pub fn sized(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("no value of ours has 4 GiB");
        self.u32(length);
        self.bytes(bytes);
    }

    /// A value in postcard's format, which knows its own end.
    ///
    /// # Panics
    /// If `value`'s `Serialize` fails, or it is a sequence that does not know its length: an error of the program.
    pub fn postcard<T: Serialize + ?Sized>(&mut self, value: &T) {
        let buffer = std::mem::take(&mut self.buffer);
        self.buffer = postcard::to_extend(value, buffer)
            .expect("stored types are plain data, which always serialises");
    }

    /// How many bytes have been written.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// What has been written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// What has been written; placeholders stay as they are.
    pub fn into_bytes(self) -> Vec<u8> {
        self.buffer
    }

    /// Runs `write`, in which `Pos::AT_COMMIT` is a number like any other.
    pub(crate) fn literally(&mut self, write: impl FnOnce(&mut Writer)) {
        let known = self.placeholders.len();
        write(self);
        self.placeholders.truncate(known);
    }

    /// Puts `pos` in the place of every placeholder. May be called again with another position.
    pub(crate) fn fill(&mut self, pos: Pos) {
        for offset in &self.placeholders {
            self.buffer[*offset..*offset + 8].copy_from_slice(&pos.0.to_be_bytes());
        }
    }
}

/// Takes fields off the front of stored bytes. Never panics, whatever they are.
#[derive(Clone, Debug)]
pub struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    /// A parser of all of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], CodecError> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, CodecError> {
        self.array().map(u8::from_be_bytes)
    }

    /// What [`Writer::u16`] wrote.
    pub fn u16(&mut self) -> Result<u16, CodecError> {
        self.array().map(u16::from_be_bytes)
    }

    /// What [`Writer::u32`] wrote.
    pub fn u32(&mut self) -> Result<u32, CodecError> {
        self.array().map(u32::from_be_bytes)
    }

    /// What [`Writer::u64`] wrote.
    pub fn u64(&mut self) -> Result<u64, CodecError> {
        self.array().map(u64::from_be_bytes)
    }

    /// What [`Writer::i64`] wrote.
    pub fn i64(&mut self) -> Result<i64, CodecError> {
        Ok((self.u64()? ^ (1 << 63)).cast_signed())
    }

    /// What [`Writer::pos`] wrote.
    pub fn pos(&mut self) -> Result<Pos, CodecError> {
        self.u64().map(Pos)
    }

    /// What [`Writer::terminated`] wrote, without escapes and end mark.
    pub fn terminated(&mut self) -> Result<Vec<u8>, CodecError> {
        let mut bytes = Vec::new();
        loop {
            let nul = self
                .rest
                .iter()
                .position(|byte| *byte == 0)
                .ok_or(CodecError::Truncated)?;
            bytes.extend_from_slice(self.bytes(nul)?);
            match self.array()? {
                [0, TERMINATOR] => return Ok(bytes),
                [0, ESCAPED_NUL] => bytes.push(0),
                _ => return Err(CodecError::Escape),
            }
        }
    }

    /// What [`Writer::sized`] wrote.
    pub fn sized(&mut self) -> Result<&'a [u8], CodecError> {
        let length = self.u32()?;
        self.bytes(usize::try_from(length).map_err(|_| CodecError::Truncated)?)
    }

    /// What [`Writer::postcard`] wrote.
    pub fn postcard<T: DeserializeOwned>(&mut self) -> Result<T, CodecError> {
        let (value, rest) = postcard::take_from_bytes(self.rest)?;
        self.rest = rest;
        Ok(value)
    }

    /// Everything that has not been taken yet.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Whether everything has been taken.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Says that everything should have been taken by now.
    pub fn finish(self) -> Result<(), CodecError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(CodecError::Trailing(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{CodecError, Parser, Writer};
    use myelin_types::Pos;

    #[test]
    fn placeholders_are_filled_and_literal_ones_are_not() {
        let mut writer = Writer::new();
        writer.pos(Pos::AT_COMMIT);
        writer.literally(|writer| writer.pos(Pos::AT_COMMIT));
        writer.pos(Pos(3));
        writer.fill(Pos(9));
        let mut parser = Parser::new(writer.as_bytes());
        assert_eq!(parser.pos().expect("written"), Pos(9));
        assert_eq!(parser.pos().expect("written"), Pos::AT_COMMIT);
        assert_eq!(parser.pos().expect("written"), Pos(3));
    }

    #[test]
    fn broken_escapes_and_ends_are_refused() {
        let parse = |bytes: &[u8]| Parser::new(bytes).terminated();
        assert!(matches!(parse(b"a\0\x07"), Err(CodecError::Escape)));
        assert!(matches!(parse(b"a"), Err(CodecError::Truncated)));
        assert!(matches!(parse(b"a\0"), Err(CodecError::Truncated)));
        assert!(matches!(
            Parser::new(b"a").finish(),
            Err(CodecError::Trailing(1))
        ));
    }

    proptest! {
        #[test]
        fn values_round_trip(bytes: Vec<u8>, number: i64, text: String, list: Vec<(u32, Option<String>)>) {
            let mut writer = Writer::new();
            writer.sized(&bytes);
            writer.i64(number);
            writer.terminated(text.as_bytes());
            writer.postcard(&list);
            writer.bytes(&bytes);
            let mut parser = Parser::new(writer.as_bytes());
            prop_assert_eq!(parser.sized().expect("written"), &bytes[..]);
            prop_assert_eq!(parser.i64().expect("written"), number);
            prop_assert_eq!(parser.terminated().expect("written"), text.as_bytes());
            prop_assert_eq!(parser.postcard::<Vec<(u32, Option<String>)>>().expect("written"), list);
            prop_assert_eq!(parser.rest(), &bytes[..]);
            prop_assert!(parser.is_empty());
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>, steps in prop::collection::vec(0..10_u8, 0..12)) {
            let mut parser = Parser::new(&bytes);
            for step in steps {
                match step {
                    0 => drop(parser.u8()),
                    1 => drop(parser.u16()),
                    2 => drop(parser.u32()),
                    3 => drop(parser.i64()),
                    4 => drop(parser.pos()),
                    5 => drop(parser.terminated()),
                    6 => drop(parser.sized()),
                    7 => drop(parser.array::<5>()),
                    8 => drop(parser.postcard::<Vec<(String, Option<u64>)>>()),
                    _ => drop(parser.bytes(3)),
                }
            }
            drop(parser.finish());
        }
    }
}
