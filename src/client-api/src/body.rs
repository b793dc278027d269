//! What is checked of a request's JSON before it is parsed.

use crate::error::Refusal;
use ruma::api::error::ErrorKind;

/// How deep objects and arrays may nest. The deepest body of the specification (a filter, a key upload) needs 6.
pub(crate) const MAX_DEPTH: usize = 100;

/// Refuses bodies that are not UTF-8 or nest deeper than [`MAX_DEPTH`]. Whether the rest is JSON, the parser says.
///
/// Parsers that keep parts of a body as text skip over them without counting, so it is counted here.
pub(crate) fn check(body: &[u8]) -> Result<(), Refusal> {
    if std::str::from_utf8(body).is_err() {
        return Err(Refusal::bad_request(
            ErrorKind::NotJson,
            "The body is not UTF-8.",
        ));
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Refusal::bad_request(
                        ErrorKind::BadJson,
                        "The body nests too deeply.",
                    ));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{MAX_DEPTH, check};

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(check(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(check(nested(MAX_DEPTH + 1).as_bytes()).is_err());
        let text = format!(r#"{{"a":"\"{}"}}"#, "[".repeat(MAX_DEPTH + 1));
        assert!(check(text.as_bytes()).is_ok());
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        assert!(check(b"{\"a\":\"\x81\"}").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let judged = check(&bytes);
            prop_assert!(judged.is_err() || std::str::from_utf8(&bytes).is_ok());
        }

        #[test]
        fn shallow_json_passes(text in "[a-z\"\\\\]{0,40}") {
            let body = serde_json::json!({ "a": [text] }).to_string();
            prop_assert!(check(body.as_bytes()).is_ok());
        }
    }
}
