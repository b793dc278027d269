//! Values: versioned encodings that know how to read their own past.

use myelin_types::{EventNum, Pos, RoomNum, StateKeyNum, UserNum};

use crate::codec::{CodecError, Parser, Writer};

/// A value of a table.
///
/// The table writes [`VERSION`](Value::VERSION) in front of the encoding. A type that changes its shape raises its
/// version, keeps the old shape in a `mod v1` beside it, and turns it into the new one in `decode`.
pub trait Value: Sized + Send + Sync + 'static {
    /// The version that `encode` writes, 1 or more.
    const VERSION: u8;

    /// Appends the encoding.
    fn encode(&self, w: &mut Writer);

    /// Takes an encoding of `version` off `r`, which holds nothing else. `version` lies in `1..=VERSION`.
    fn decode(version: u8, r: &mut Parser<'_>) -> Result<Self, CodecError>;
}

/// Appends version and encoding of `value`, as they are stored.
pub(crate) fn write<V: Value>(value: &V, w: &mut Writer) {
    w.u8(V::VERSION);
    value.encode(w);
}

/// Reads what [`write`] wrote in this version or an earlier one.
pub(crate) fn read<V: Value>(bytes: &[u8]) -> Result<V, CodecError> {
    let mut parser = Parser::new(bytes);
    let version = parser.u8()?;
    if version == 0 || version > V::VERSION {
        return Err(CodecError::UnknownVersion(version));
    }
    let value = V::decode(version, &mut parser)?;
    parser.finish()?;
    Ok(value)
}

/// The same value as [`write`] would store it today.
pub(crate) fn rewritten<V: Value>(bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut writer = Writer::new();
    write(&read::<V>(bytes)?, &mut writer);
    Ok(writer.into_bytes())
}

macro_rules! plain_value {
    ($($type:ty: $value:ident, $w:ident => $write:expr, $r:ident => $read:expr;)*) => {$(
        impl Value for $type {
            const VERSION: u8 = 1;

            fn encode(&self, $w: &mut Writer) {
                let $value = self;
                $write;
            }

            fn decode(_: u8, $r: &mut Parser<'_>) -> Result<Self, CodecError> {
                $read
            }
        }
    )*};
}

plain_value! {
    u32: number, w => w.u32(*number), r => r.u32();
    u64: number, w => w.u64(*number), r => r.u64();
    i64: number, w => w.i64(*number), r => r.i64();
    Pos: pos, w => w.pos(*pos), r => r.pos();
    RoomNum: number, w => w.u32(number.0), r => r.u32().map(RoomNum);
    UserNum: number, w => w.u32(number.0), r => r.u32().map(UserNum);
    StateKeyNum: number, w => w.u32(number.0), r => r.u32().map(StateKeyNum);
    EventNum: number, w => w.u64(number.0), r => r.u64().map(EventNum);
    String: text, w => w.bytes(text.as_bytes()),
        r => String::from_utf8(r.rest().to_vec()).map_err(|_| CodecError::Utf8);
    Vec<u8>: bytes, w => w.bytes(bytes), r => Ok(r.rest().to_vec());
}

/// For tables whose keys say everything.
impl Value for () {
    const VERSION: u8 = 1;

    fn encode(&self, _: &mut Writer) {}

    fn decode(_: u8, _: &mut Parser<'_>) -> Result<Self, CodecError> {
        Ok(())
    }
}

impl<const N: usize> Value for [u8; N] {
    const VERSION: u8 = 1;

    fn encode(&self, w: &mut Writer) {
        w.bytes(self);
    }

    fn decode(_: u8, r: &mut Parser<'_>) -> Result<Self, CodecError> {
        r.array()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::{Value, read, rewritten, write};
    use crate::codec::{CodecError, Parser, Writer};
    use myelin_types::{EventNum, Pos, RoomNum, StateKeyNum, UserNum};

    fn stored<V: Value>(value: &V) -> Vec<u8> {
        let mut writer = Writer::new();
        write(value, &mut writer);
        writer.into_bytes()
    }

    fn check<V: Value + PartialEq + Debug>(value: V) {
        let bytes = stored(&value);
        assert_eq!(bytes[0], V::VERSION);
        assert_eq!(read::<V>(&bytes).expect("just written"), value);
    }

    proptest! {
        #[test]
        fn plain_values_round_trip(small: u32, great: u64, signed: i64, text: String, bytes: Vec<u8>, array: [u8; 16]) {
            check(());
            check(small);
            check(great);
            check(signed);
            check(Pos(great));
            check(RoomNum(small));
            check(UserNum(small));
            check(StateKeyNum(small));
            check(EventNum(great));
            check(text);
            check(bytes);
            check(array);
        }

        #[test]
        fn no_bytes_make_a_value_panic(bytes: Vec<u8>) {
            drop(read::<()>(&bytes));
            drop(read::<String>(&bytes));
            drop(read::<[u8; 16]>(&bytes));
            drop(read::<Renamed>(&bytes));
        }
    }

    /// Version 1 held the name alone.
    #[derive(Debug, PartialEq)]
    struct Renamed {
        name: String,
        count: u32,
    }

    impl Value for Renamed {
        const VERSION: u8 = 2;

        fn encode(&self, w: &mut Writer) {
            w.postcard(&(&self.name, self.count));
        }

        fn decode(version: u8, r: &mut Parser<'_>) -> Result<Self, CodecError> {
            let (name, count) = match version {
                1 => (r.postcard()?, 0),
                _ => r.postcard()?,
            };
            Ok(Self { name, count })
        }
    }

    #[test]
    fn an_old_version_is_read_and_rewritten_as_the_new_one() {
        let mut writer = Writer::new();
        writer.u8(1);
        writer.postcard("ann");
        let new = Renamed {
            name: "ann".to_owned(),
            count: 0,
        };
        assert_eq!(
            rewritten::<Renamed>(writer.as_bytes()).expect("known version"),
            stored(&new)
        );
        assert_eq!(
            read::<Renamed>(writer.as_bytes()).expect("known version"),
            new
        );
    }

    #[test]
    fn unknown_versions_and_left_over_bytes_are_refused() {
        for version in [0, 3] {
            let found = read::<Renamed>(&[version, 0, 0]);
            assert!(matches!(found, Err(CodecError::UnknownVersion(v)) if v == version));
        }
        assert!(matches!(
            read::<u32>(&[1, 0, 0, 0, 0, 9]),
            Err(CodecError::Trailing(1))
        ));
        assert!(matches!(read::<u32>(&[]), Err(CodecError::Truncated)));
    }
}
