//! Canonical JSON: the spec's examples, what strict reading refuses, and `ruma` as the oracle.

use myelin_rules::canonical::{
    CanonicalError, MAX_NESTING, Numbers, object_to_string, parse_object, to_string,
};
use proptest::prelude::*;
use ruma::CanonicalJsonValue;
use serde_json::{Value, json};

#[test]
fn examples_of_the_spec() {
    for (given, expected) in [
        ("{}", "{}"),
        (r#"{ "one": 1, "two": "Two" }"#, r#"{"one":1,"two":"Two"}"#),
        (r#"{ "b": "2", "a": "1" }"#, r#"{"a":"1","b":"2"}"#),
        (r#"{"b":"2","a":"1"}"#, r#"{"a":"1","b":"2"}"#),
        (
            r#"{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {
                "display_name": "John Doe", "three_pids": [
                    {"medium": "email", "address": "john.doe@example.org"},
                    {"medium": "msisdn", "address": "123456789"}]}}}"#,
            r#"{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},"success":true}}"#,
        ),
        (r#"{ "a": "日本語" }"#, r#"{"a":"日本語"}"#),
        (r#"{ "本": 2, "日": 1 }"#, r#"{"日":1,"本":2}"#),
        (r#"{ "a": "\u65E5" }"#, r#"{"a":"日"}"#),
        (r#"{ "a": null }"#, r#"{"a":null}"#),
        (r#"{ "a": -0, "b": 1e10 }"#, r#"{"a":0,"b":10000000000}"#),
    ] {
        let object = parse_object(given.as_bytes(), Numbers::Whole).expect("an object");
        let encoded = object_to_string(&object, Numbers::Whole).expect("canonical numbers");
        assert_eq!(encoded, expected);
    }
}

#[test]
fn strings_have_the_shortest_escapes() {
    let all_controls: String = (0..0x20_u8).map(char::from).collect();
    let encoded = to_string(
        &json!(format!("{all_controls}\"\\/\u{7f}\u{2028}")),
        Numbers::Strict,
    );
    let expected = concat!(
        r#""\u0000\u0001\u0002\u0003\u0004\u0005\u0006\u0007\b\t\n\u000b\f\r\u000e\u000f"#,
        r"\u0010\u0011\u0012\u0013\u0014\u0015\u0016\u0017\u0018\u0019\u001a\u001b\u001c\u001d\u001e\u001f",
        r#"\"\\/"#,
        "\u{7f}\u{2028}\"",
    );
    assert_eq!(encoded.as_deref(), Ok(expected));
}

#[test]
fn strict_reading_takes_only_canonical_integers() {
    let read = |number: &str| {
        let json = format!(r#"{{"a":[{number}]}}"#);
        parse_object(json.as_bytes(), Numbers::Strict).map(|object| object["a"][0].clone())
    };
    assert_eq!(
        read("9007199254740991"),
        Ok(json!(9_007_199_254_740_991_i64))
    );
    assert_eq!(
        read("-9007199254740991"),
        Ok(json!(-9_007_199_254_740_991_i64))
    );
    assert_eq!(read("9007199254740992"), Err(CanonicalError::OutOfRange));
    assert_eq!(read("-9007199254740992"), Err(CanonicalError::OutOfRange));
    assert_eq!(
        read("18446744073709551615"),
        Err(CanonicalError::OutOfRange)
    );
    for float in ["1.0", "1e2", "-0", "0.5", "18446744073709551616"] {
        assert_eq!(read(float), Err(CanonicalError::Float), "{float}");
    }
    for wrong in ["01", "+1", "1.", "NaN", "Infinity", "-"] {
        assert!(
            matches!(read(wrong), Err(CanonicalError::Syntax(_))),
            "{wrong}"
        );
    }
}

#[test]
fn old_rooms_keep_their_numbers_as_python_writes_them() {
    for (given, expected) in [
        ("50.57", "50.57"),
        ("1.0", "1.0"),
        ("1e10", "10000000000.0"),
        ("1e15", "1000000000000000.0"),
        ("1e16", "1e+16"),
        ("1.5e300", "1.5e+300"),
        ("0.0001", "0.0001"),
        ("0.00001", "1e-05"),
        ("-2.5", "-2.5"),
        ("-0", "0"),
        ("9223372036854775807", "9223372036854775807"),
        ("18446744073709551615", "18446744073709551615"),
    ] {
        let json = format!(r#"{{"a":{given}}}"#);
        let object = parse_object(json.as_bytes(), Numbers::Any).expect("an object");
        let encoded = object_to_string(&object, Numbers::Any).expect("any number will do");
        assert_eq!(encoded, format!(r#"{{"a":{expected}}}"#));
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| {
        let arrays = depth - 1;
        format!(r#"{{"a":{}{}}}"#, "[".repeat(arrays), "]".repeat(arrays))
    };
    let read = |depth| parse_object(nested(depth).as_bytes(), Numbers::Strict);
    let deepest = read(MAX_NESTING).expect("this deep is allowed");
    assert!(object_to_string(&deepest, Numbers::Strict).is_ok());
    assert_eq!(read(MAX_NESTING + 1), Err(CanonicalError::TooDeep));
    assert!(read(100_000).is_err());
    let too_deep = json!({ "a": Value::Object(deepest) });
    assert_eq!(
        to_string(&too_deep, Numbers::Strict),
        Err(CanonicalError::TooDeep)
    );
}

#[test]
fn only_whole_objects_are_read() {
    assert_eq!(
        parse_object(b"[]", Numbers::Strict),
        Err(CanonicalError::NotAnObject)
    );
    assert_eq!(
        parse_object(b"1", Numbers::Strict),
        Err(CanonicalError::NotAnObject)
    );
    for wrong in [
        &b""[..],
        b"{",
        b"{} {}",
        b"{\"a\":1,}",
        b"{\"a\":\"\xff\"}",
        br#"{"a":"\ud800"}"#,
    ] {
        let read = parse_object(wrong, Numbers::Strict);
        assert!(matches!(read, Err(CanonicalError::Syntax(_))), "{wrong:?}");
    }
}

#[test]
fn of_a_key_given_twice_the_last_counts() {
    let object =
        parse_object(br#"{"a":1,"b":{"c":1,"c":2},"a":3}"#, Numbers::Strict).expect("JSON");
    let encoded = object_to_string(&object, Numbers::Strict).expect("canonical numbers");
    assert_eq!(encoded, r#"{"a":3,"b":{"c":2}}"#);
}

/// Values with canonical numbers.
pub(crate) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-(1_i64 << 53) + 1..1 << 53).prop_map(Value::from),
        ".*".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|entries| entries.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn encodes_as_ruma_does(value in value()) {
        let oracle = CanonicalJsonValue::try_from(value.clone()).expect("numbers are canonical");
        prop_assert_eq!(to_string(&value, Numbers::Strict), Ok(oracle.to_string()));
    }

    #[test]
    fn reading_the_encoding_gives_the_value_back(value in value()) {
        let json = to_string(&json!({ "a": value }), Numbers::Strict).expect("numbers are canonical");
        let read = parse_object(json.as_bytes(), Numbers::Strict).expect("it was just written");
        prop_assert_eq!(&read["a"], &value);
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused_as_serde_json_does(bytes in any::<Vec<u8>>()) {
        let read = parse_object(&bytes, Numbers::Any).ok();
        let oracle = serde_json::from_slice::<Value>(&bytes).ok();
        prop_assert_eq!(read, oracle.and_then(|value| value.as_object().cloned()));
    }
}
