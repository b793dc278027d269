//! The grammar of identifiers and the limits on them. Spec: appendices, "Identifier Grammar".

use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest identifier, `type` or `state_key`, in bytes.
pub const MAX_ID_BYTES: usize = 255;

/// The localpart and server name of a user ID of the historical grammar, which federation must accept: no `:` or NUL
/// in the localpart, a valid server name, at most 255 bytes.
pub fn split_user_id(user_id: &str) -> Option<(&str, &str)> {
    split(user_id, '@')
}

/// The server name of an identifier `&localpart:server`; without checking it. None when there is no `:`.
pub fn server_name_of(id: &str) -> Option<&str> {
    id.split_once(':').map(|(_, server)| server)
}

/// Whether new users may have this localpart: one or more of `a-z0-9._=/+-`.
pub fn is_strict_localpart(localpart: &str) -> bool {
    !localpart.is_empty()
        && localpart.bytes().all(|byte| {
            matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'=' | b'-' | b'/' | b'+')
        })
}

/// Whether existing users may have this localpart and be shown outside of events: one or more of U+0021 to U+007E
/// without `:`.
pub fn is_historical_localpart(localpart: &str) -> bool {
    !localpart.is_empty()
        && localpart
            .bytes()
            .all(|byte| matches!(byte, 0x21..=0x7e) && byte != b':')
}

/// Whether this is a user ID of the historical grammar.
pub fn is_user_id(id: &str) -> bool {
    split_user_id(id).is_some()
}

/// The localpart and server name of a room alias `#localpart:server`.
pub fn split_room_alias(alias: &str) -> Option<(&str, &str)> {
    split(alias, '#').filter(|(localpart, _)| !localpart.is_empty())
}

/// Whether this is a room ID, of any room version: opaque, with or without a server name.
pub fn is_room_id(id: &str) -> bool {
    is_opaque_id(id, '!')
}

/// Whether this is an event ID, of any room version: opaque, with or without a server name.
pub fn is_event_id(id: &str) -> bool {
    is_opaque_id(id, '$')
}

/// Whether this is a server name: host or IP literal, and optional port.
pub fn is_server_name(name: &str) -> bool {
    let (host, port) = if let Some(rest) = name.strip_prefix('[') {
        let Some((literal, rest)) = rest.split_once(']') else {
            return false;
        };
        if literal.parse::<Ipv6Addr>().is_err() {
            return false;
        }
        (None, rest)
    } else {
        let end = name.find(':').unwrap_or(name.len());
        (Some(&name[..end]), &name[end..])
    };
    let port_fits = match port.strip_prefix(':') {
        Some(digits) => {
            (1..=5).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
        }
        None => port.is_empty(),
    };
    port_fits && host.is_none_or(is_host)
}

/// A DNS name, or a dotted quad; what looks like a dotted quad must be one.
fn is_host(host: &str) -> bool {
    let quad_like = host.split('.').count() == 4
        && host
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if quad_like {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    (1..=MAX_ID_BYTES).contains(&host.len())
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
}

fn split(id: &str, sigil: char) -> Option<(&str, &str)> {
    if id.len() > MAX_ID_BYTES {
        return None;
    }
    let (localpart, server) = id.strip_prefix(sigil)?.split_once(':')?;
    (!localpart.contains('\0') && is_server_name(server)).then_some((localpart, server))
}

fn is_opaque_id(id: &str, sigil: char) -> bool {
    id.len() <= MAX_ID_BYTES
        && id
            .strip_prefix(sigil)
            .is_some_and(|rest| !rest.is_empty() && !rest.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids() {
        assert_eq!(split_user_id("@a:b"), Some(("a", "b")));
        assert_eq!(split_user_id("@:b.c:80"), Some(("", "b.c:80")));
        assert_eq!(
            split_user_id("@Ä b:[::1]:8448"),
            Some(("Ä b", "[::1]:8448"))
        );
        for wrong in [
            "", "@", "@a", "a:b", "@a:", "@a\0:b", "@a:b c", "@a:b:c", "!a:b",
        ] {
            assert_eq!(split_user_id(wrong), None, "{wrong:?}");
        }
        let long = format!("@{}:b", "a".repeat(252));
        assert!(is_user_id(&long));
        assert!(!is_user_id(&format!("{long}b")));
    }

    #[test]
    fn localparts() {
        assert!(is_strict_localpart("a-z0.9_=/+"));
        for wrong in ["", "A", "ä", "a b", "a:b", "a~"] {
            assert!(!is_strict_localpart(wrong), "{wrong:?}");
        }
        assert!(is_historical_localpart("A~!"));
        for wrong in ["", "ä", "a b", "a:b", "\u{7f}"] {
            assert!(!is_historical_localpart(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn server_names() {
        for right in [
            "matrix.org",
            "matrix.org:8888",
            "1.2.3.4",
            "1.2.3.4:1234",
            "[1234:5678::abcd]",
            "[1234:5678::abcd]:5678",
            "a",
            "HS1",
        ] {
            assert!(is_server_name(right), "{right:?}");
        }
        for wrong in [
            "",
            ":",
            ":80",
            "a:",
            "a:b",
            "a:123456",
            "a_b",
            "256.1.1.1",
            "[1::2",
            "[g::]",
            "[::1]a",
            "::1",
            "a b",
            "ä.org",
            "a/b",
        ] {
            assert!(!is_server_name(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn other_identifiers() {
        assert_eq!(split_room_alias("#ä:b"), Some(("ä", "b")));
        assert_eq!(split_room_alias("#:b"), None);
        assert!(
            is_room_id("!abc") && is_room_id("!abc:d") && !is_room_id("!") && !is_room_id("#abc")
        );
        assert!(is_event_id("$abc") && !is_event_id("$") && !is_event_id("!abc"));
        assert_eq!(server_name_of("@a:b:80"), Some("b:80"));
        assert_eq!(server_name_of("!abc"), None);
    }
}
