//! Canonical JSON: the one encoding of a value that hashes and signatures are made over, and the reading of foreign
//! JSON into values that have one.
//!
//! Spec: appendices, "Canonical JSON"; strict from room version 6 on (`/rooms/v6#canonical-json`).
//!
//! An object that names a key twice is read as if only the last value were there. The encoding then holds the key
//! once, so what is hashed, stored and served is the same; refusing such events instead would split a room from the
//! servers that take them.

use std::{cell::Cell, fmt};

use serde::de::{self, DeserializeSeed};
use serde_json::{Number, Value};

use crate::Object;

/// Largest integer of canonical JSON, 2^53-1; the smallest is its negative.
pub const MAX_INTEGER: i64 = (1 << 53) - 1;

/// Deepest nesting of arrays and objects in foreign JSON, the outermost included. One less than where `serde_json`
/// stops, so that whatever is taken here can be decoded everywhere.
pub const MAX_NESTING: usize = 126;

/// Which numbers are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// Integers of canonical JSON, spelt without fraction and exponent. Events of room version 6 and later.
    Strict,
    /// As `Strict`, but a number like `1e10` or `-0` is taken for the integer it equals. The spec's examples do this.
    Whole,
    /// Any number. Integers of up to 64 bits stay integers; everything else is a double and written as Python writes
    /// it, as most servers did for events of room versions 1 to 5.
    Any,
}

/// Why bytes or a value have no canonical form.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// Not JSON at all; the text says where.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// JSON, but not an object.
    #[error("not a JSON object")]
    NotAnObject,
    /// Arrays and objects are nested more than [`MAX_NESTING`] deep.
    #[error("JSON nested too deeply")]
    TooDeep,
    /// A number with fraction or exponent where only integers are legal.
    #[error("number is not an integer")]
    Float,
    /// An integer outside -(2^53)+1..=(2^53)-1 where only those are legal.
    #[error("integer out of range")]
    OutOfRange,
}

/// Reads foreign bytes as a JSON object whose numbers are legal and whose nesting is bounded.
pub fn parse_object(json: &[u8], numbers: Numbers) -> Result<Object, CanonicalError> {
    let failure = Cell::new(None);
    let reader = Reader {
        numbers,
        nesting: 0,
        failure: &failure,
    };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = reader
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match value {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(CanonicalError::NotAnObject),
        Err(error) => Err(failure
            .take()
            .unwrap_or_else(|| CanonicalError::Syntax(error.to_string()))),
    }
}

/// The canonical encoding of `value`.
pub fn to_string(value: &Value, numbers: Numbers) -> Result<String, CanonicalError> {
    let mut out = String::new();
    write_value(&mut out, value, numbers, 0)?;
    Ok(out)
}

/// The canonical encoding of `object`.
pub fn object_to_string(object: &Object, numbers: Numbers) -> Result<String, CanonicalError> {
    let mut out = String::new();
    write_object(&mut out, object, numbers, 0)?;
    Ok(out)
}

/// Appends the canonical encoding of `object`, which stands inside `nesting` other arrays and objects.
pub(crate) fn write_object(
    out: &mut String,
    object: &Object,
    numbers: Numbers,
    nesting: usize,
) -> Result<(), CanonicalError> {
    if nesting == MAX_NESTING {
        return Err(CanonicalError::TooDeep);
    }
    out.push('{');
    // The map may keep insertion order if some crate of the build asks serde_json for that.
    if object.keys().is_sorted() {
        write_entries(out, object.iter(), numbers, nesting)?;
    } else {
        let mut entries: Vec<_> = object.iter().collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        write_entries(out, entries.into_iter(), numbers, nesting)?;
    }
    out.push('}');
    Ok(())
}

fn write_entries<'a>(
    out: &mut String,
    entries: impl Iterator<Item = (&'a String, &'a Value)>,
    numbers: Numbers,
    nesting: usize,
) -> Result<(), CanonicalError> {
    for (index, (key, value)) in entries.enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_string(out, key);
        out.push(':');
        write_value(out, value, numbers, nesting + 1)?;
    }
    Ok(())
}

fn write_value(
    out: &mut String,
    value: &Value,
    numbers: Numbers,
    nesting: usize,
) -> Result<(), CanonicalError> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_number(out, number, numbers)?,
        Value::String(string) => write_string(out, string),
        Value::Array(items) => {
            if nesting == MAX_NESTING {
                return Err(CanonicalError::TooDeep);
            }
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(out, item, numbers, nesting + 1)?;
            }
            out.push(']');
        }
        Value::Object(object) => write_object(out, object, numbers, nesting)?,
    }
    Ok(())
}

/// Appends `string` in quotes with the shortest escapes.
pub(crate) fn write_string(out: &mut String, string: &str) {
    out.push('"');
    let mut rest = string;
    while let Some(at) = rest
        .bytes()
        .position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\')
    {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x08 => out.push_str("\\b"),
            b'\t' => out.push_str("\\t"),
            b'\n' => out.push_str("\\n"),
            0x0c => out.push_str("\\f"),
            b'\r' => out.push_str("\\r"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.push_str("\\u00");
                out.push(char::from(HEX[usize::from(control >> 4)]));
                out.push(char::from(HEX[usize::from(control & 15)]));
            }
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

fn write_number(out: &mut String, number: &Number, numbers: Numbers) -> Result<(), CanonicalError> {
    use fmt::Write as _;

    let write_integer = |out: &mut String, integer: i64| {
        write!(out, "{integer}").expect("a string takes everything");
    };
    if let Some(integer) = number.as_i64() {
        if numbers != Numbers::Any && !(-MAX_INTEGER..=MAX_INTEGER).contains(&integer) {
            return Err(CanonicalError::OutOfRange);
        }
        write_integer(out, integer);
        return Ok(());
    }
    if let Some(integer) = number.as_u64() {
        if numbers != Numbers::Any {
            return Err(CanonicalError::OutOfRange);
        }
        write!(out, "{integer}").expect("a string takes everything");
        return Ok(());
    }
    let float = number.as_f64().ok_or(CanonicalError::OutOfRange)?;
    match numbers {
        Numbers::Strict => Err(CanonicalError::Float),
        Numbers::Whole if float.fract() != 0.0 => Err(CanonicalError::Float),
        Numbers::Whole if float.abs() > MAX_INTEGER as f64 => Err(CanonicalError::OutOfRange),
        Numbers::Whole => {
            write_integer(out, float as i64);
            Ok(())
        }
        Numbers::Any => {
            write_float(out, float);
            Ok(())
        }
    }
}

/// Writes a double as Python's `repr` does: the shortest digits that give it back, positional from 1e-4 to below 1e16.
fn write_float(out: &mut String, float: f64) {
    use fmt::Write as _;

    if float == 0.0 {
        // `-0` is an integer to Python, and `-0.0` hardly ever stands in an event.
        out.push('0');
        return;
    }
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific
        .split_once('e')
        .expect("the format asks for an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is an integer");
    if (-4..16).contains(&exponent) {
        let written = out.len();
        write!(out, "{float}").expect("a string takes everything");
        if !out[written..].contains('.') {
            out.push_str(".0");
        }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(out, "{digits}e{sign}{:02}", exponent.abs()).expect("a string takes everything");
    }
}

/// Reads one value, counting the nesting and judging the numbers.
#[derive(Clone, Copy)]
struct Reader<'a> {
    numbers: Numbers,
    nesting: usize,
    /// Why reading stopped, where the deserializer's own error cannot say it in types.
    failure: &'a Cell<Option<CanonicalError>>,
}

impl Reader<'_> {
    fn fail<E: de::Error>(&self, reason: CanonicalError) -> E {
        let error = E::custom(&reason);
        self.failure.set(Some(reason));
        error
    }

    fn inner<E: de::Error>(self) -> Result<Self, E> {
        if self.nesting == MAX_NESTING {
            return Err(self.fail(CanonicalError::TooDeep));
        }
        Ok(Self {
            nesting: self.nesting + 1,
            ..self
        })
    }

    fn number<E: de::Error>(self, number: Number) -> Result<Value, E> {
        let mut ignored = String::new();
        match write_number(&mut ignored, &number, self.numbers) {
            Ok(()) => Ok(Value::Number(number)),
            Err(reason) => Err(self.fail(reason)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> de::Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        self.number(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        self.number(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        match Number::from_f64(value) {
            Some(number) => self.number(number),
            None => Err(self.fail(CanonicalError::OutOfRange)),
        }
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut object = Object::new();
        while let Some(key) = entries.next_key::<String>()? {
            object.insert(key, entries.next_value_seed(inner)?);
        }
        Ok(Value::Object(object))
    }
}
