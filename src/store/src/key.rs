//! Keys: encodings whose byte order is the order of the values.

use myelin_types::{EventNum, Pos, RoomNum, StateKeyNum, UserNum};

use crate::codec::{CodecError, Parser, Writer};

/// The longest encoding a key may have. A batch with a longer one is refused, a lookup of one finds nothing.
pub const MAX_KEY_BYTES: usize = 4096;

/// A key of a table, or the front of one.
///
/// Encodings are self-delimiting, and for all `a` and `b`: `a < b` exactly when `encode(a) < encode(b)` as bytes. Both
/// hold inside tuples too, so a tuple's first fields are the prefix under which all its rows lie.
pub trait Key: Sized + Send + Sync + 'static {
    /// Appends the encoding.
    fn encode(&self, w: &mut Writer);

    /// Takes the encoding off the front of `r`.
    fn decode(r: &mut Parser<'_>) -> Result<Self, CodecError>;
}

/// The encoding of `key` on its own.
pub(crate) fn encoded<K: Key>(key: &K) -> Vec<u8> {
    let mut writer = Writer::new();
    key.encode(&mut writer);
    writer.into_bytes()
}

/// The smallest bytes greater than everything that begins with `prefix`; none if there is no such thing.
pub(crate) fn successor(mut prefix: Vec<u8>) -> Option<Vec<u8>> {
    while let Some(last) = prefix.pop() {
        if let Some(next) = last.checked_add(1) {
            prefix.push(next);
            return Some(prefix);
        }
    }
    None
}

macro_rules! integer_key {
    ($($type:ident),*) => {$(
        impl Key for $type {
            fn encode(&self, w: &mut Writer) {
                w.$type(*self);
            }

            fn decode(r: &mut Parser<'_>) -> Result<Self, CodecError> {
                r.$type()
            }
        }
    )*};
}

integer_key!(u8, u16, u32, u64, i64);

macro_rules! number_key {
    ($($type:ident as $inner:ident),*) => {$(
        impl Key for $type {
            fn encode(&self, w: &mut Writer) {
                w.$inner(self.0);
            }

            fn decode(r: &mut Parser<'_>) -> Result<Self, CodecError> {
                r.$inner().map($type)
            }
        }
    )*};
}

number_key!(
    RoomNum as u32,
    UserNum as u32,
    StateKeyNum as u32,
    EventNum as u64
);

impl Key for Pos {
    fn encode(&self, w: &mut Writer) {
        w.pos(*self);
    }

    fn decode(r: &mut Parser<'_>) -> Result<Self, CodecError> {
        r.pos()
    }
}

/// No bytes: the key of a table with one row, and the prefix of every key.
impl Key for () {
    fn encode(&self, _: &mut Writer) {}

    fn decode(_: &mut Parser<'_>) -> Result<Self, CodecError> {
        Ok(())
    }
}

impl Key for bool {
    fn encode(&self, w: &mut Writer) {
        w.u8(u8::from(*self));
    }

    fn decode(r: &mut Parser<'_>) -> Result<Self, CodecError> {
        match r.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Invalid("truth value")),
        }
    }
}

impl Key for String {
    fn encode(&self, w: &mut Writer) {
        w.terminated(self.as_bytes());
    }

    fn decode(r: &mut Parser<'_>) -> Result<Self, CodecError> {
        String::from_utf8(r.terminated()?).map_err(|_| CodecError::Utf8)
    }
}

impl Key for Vec<u8> {
    fn encode(&self, w: &mut Writer) {
        w.terminated(self);
    }

    fn decode(r: &mut Parser<'_>) -> Result<Self, CodecError> {
        r.terminated()
    }
}

impl<const N: usize> Key for [u8; N] {
    fn encode(&self, w: &mut Writer) {
        w.bytes(self);
    }

    fn decode(r: &mut Parser<'_>) -> Result<Self, CodecError> {
        r.array()
    }
}

macro_rules! tuple_key {
    ($($type:ident $field:tt),+) => {
        impl<$($type: Key),+> Key for ($($type,)+) {
            fn encode(&self, w: &mut Writer) {
                $(self.$field.encode(w);)+
            }

            fn decode(r: &mut Parser<'_>) -> Result<Self, CodecError> {
                Ok(($($type::decode(r)?,)+))
            }
        }
    };
}

tuple_key!(A 0);
tuple_key!(A 0, B 1);
tuple_key!(A 0, B 1, C 2);
tuple_key!(A 0, B 1, C 2, D 3);
tuple_key!(A 0, B 1, C 2, D 3, E 4);

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::{Key, encoded, successor};
    use crate::codec::Parser;
    use myelin_types::{EventNum, Pos, RoomNum, StateKeyNum, UserNum};

    fn check<K: Key + Ord + Debug>(a: K, b: K) {
        let (bytes_a, bytes_b) = (encoded(&a), encoded(&b));
        assert_eq!(a.cmp(&b), bytes_a.cmp(&bytes_b), "{a:?} against {b:?}");
        let mut parser = Parser::new(&bytes_a);
        assert_eq!(K::decode(&mut parser).expect("just encoded"), a);
        parser.finish().expect("nothing is left");
        if a != b {
            assert!(
                !bytes_b.starts_with(&bytes_a),
                "{a:?} is no prefix of {b:?}"
            );
        }
    }

    /// Few characters, so that equal beginnings, NULs and the escape byte itself are common.
    fn text() -> impl Strategy<Value = String> {
        "[\\x00\\x01a\u{ff}]{0,4}"
    }

    fn raw() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(vec![0, 1, 0xFE, 0xFF]), 0..5)
    }

    proptest! {
        #[test]
        fn integers(a: (u8, u16, u32, u64, i64), b: (u8, u16, u32, u64, i64)) {
            check(a.0, b.0);
            check(a.1, b.1);
            check(a.2, b.2);
            check(a.3, b.3);
            check(a.4, b.4);
            check(a, b);
        }

        #[test]
        fn numbers(a: (u32, u64), b: (u32, u64)) {
            check(RoomNum(a.0), RoomNum(b.0));
            check(UserNum(a.0), UserNum(b.0));
            check(StateKeyNum(a.0), StateKeyNum(b.0));
            check(EventNum(a.1), EventNum(b.1));
            check(Pos(a.1), Pos(b.1));
            check((RoomNum(a.0), Pos(a.1)), (RoomNum(b.0), Pos(b.1)));
        }

        #[test]
        fn any_strings(a: String, b: String) {
            check(a.clone(), b.clone());
            check(a.into_bytes(), b.into_bytes());
        }

        #[test]
        fn strings_in_tuples(
            a in (text(), text(), raw(), -2..2_i64),
            b in (text(), text(), raw(), -2..2_i64),
        ) {
            check(a.0.clone(), b.0.clone());
            check((a.0.clone(),), (b.0.clone(),));
            check((a.0.clone(), a.1.clone()), (b.0.clone(), b.1.clone()));
            check((a.0.clone(), a.2.clone(), a.3), (b.0.clone(), b.2.clone(), b.3));
            check(
                (a.2.clone(), a.3, a.0.clone(), true),
                (b.2.clone(), b.3, b.0.clone(), false),
            );
            check((a.2, a.0, a.3, a.1, [1; 3]), (b.2, b.0, b.3, b.1, [2; 3]));
        }

        #[test]
        fn arrays(a: [u8; 16], b: [u8; 16], c: bool, d: bool) {
            check(a, b);
            check((c, a), (d, b));
        }

        #[test]
        fn no_bytes_make_a_key_panic(bytes: Vec<u8>) {
            type Everything = (String, Vec<u8>, bool, [u8; 3], i64);
            drop(Everything::decode(&mut Parser::new(&bytes)));
        }

        #[test]
        fn successors_bound_a_prefix(prefix in raw(), rest in raw()) {
            let mut longer = prefix.clone();
            longer.extend(rest);
            if let Some(end) = successor(prefix.clone()) {
                prop_assert!(longer < end);
                prop_assert!(prefix < end);
            } else {
                prop_assert!(prefix.iter().all(|byte| *byte == 0xFF));
            }
        }
    }
}
