//! Conditions of rules. Spec: client-server API, "Conditions"; appendices, "Dot-separated property paths".

use std::borrow::Cow;

use serde_json::Value;

use super::{Condition, PushContext, PushEvent, glob};

/// A property of an event.
enum Property<'a> {
    /// One of the event's own fields, all of which are strings here.
    Field(&'a str),
    /// In the content.
    Content(&'a Value),
}

impl<'a> Property<'a> {
    fn as_str(&self) -> Option<&'a str> {
        match self {
            Self::Field(string) => Some(string),
            Self::Content(value) => value.as_str(),
        }
    }
}

impl Condition {
    /// Whether the condition holds for an event.
    pub fn holds(&self, event: &PushEvent<'_>, context: &PushContext<'_>) -> bool {
        match self {
            Self::EventMatch { key, pattern } => {
                let Some(value) = property(event, key).and_then(|value| value.as_str()) else {
                    return false;
                };
                if key == "content.body" {
                    glob::matches_words(pattern, value)
                } else {
                    glob::matches_whole(pattern, value)
                }
            }
            Self::EventPropertyIs { key, value } => match property(event, key) {
                Some(Property::Field(field)) => value.as_str() == Some(field),
                Some(Property::Content(present)) => same_scalar(present, value),
                None => false,
            },
            Self::EventPropertyContains { key, value } => match property(event, key) {
                Some(Property::Content(Value::Array(items))) => {
                    items.iter().any(|item| same_scalar(item, value))
                }
                _ => false,
            },
            Self::ContainsDisplayName => {
                let body = event.content.get("body").and_then(Value::as_str);
                match (body, context.display_name) {
                    (Some(body), Some(name)) if !name.is_empty() => {
                        glob::contains_words(name, body)
                    }
                    _ => false,
                }
            }
            Self::RoomMemberCount { is } => count_fits(is, context.member_count),
            Self::SenderNotificationPermission { key } => context
                .power_levels
                .is_some_and(|levels| levels.user(event.sender) >= levels.notification(key)),
            Self::Unknown(_) => false,
        }
    }
}

/// The property at a dot-separated path.
fn property<'a>(event: &PushEvent<'a>, path: &str) -> Option<Property<'a>> {
    let field = match path {
        "type" => Some(event.event_type),
        "sender" => Some(event.sender),
        "room_id" => Some(event.room_id),
        "event_id" => Some(event.event_id),
        "state_key" => event.state_key,
        _ => {
            let mut segments = segments(path.strip_prefix("content.")?);
            let mut value = event.content.get(segments.next()?.as_ref())?;
            for segment in segments {
                value = value.as_object()?.get(segment.as_ref())?;
            }
            return Some(Property::Content(value));
        }
    };
    field.map(Property::Field)
}

/// The names in a path: split at dots, but not at `\.`; `\.` and `\\` stand for `.` and `\`.
fn segments(path: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let mut rest = Some(path);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut escaped = false;
        let end = text.find(|char| {
            let is_end = char == '.' && !escaped;
            escaped = char == '\\' && !escaped;
            is_end
        });
        rest = end.map(|end| &text[end + 1..]);
        Some(unescape(&text[..end.unwrap_or(text.len())]))
    })
}

fn unescape(name: &str) -> Cow<'_, str> {
    if !name.contains('\\') {
        return Cow::Borrowed(name);
    }
    let mut plain = String::with_capacity(name.len());
    let mut chars = name.chars().peekable();
    while let Some(char) = chars.next() {
        match (char, chars.peek()) {
            ('\\', Some(&escaped @ ('.' | '\\'))) => {
                chars.next();
                plain.push(escaped);
            }
            _ => plain.push(char),
        }
    }
    Cow::Owned(plain)
}

/// Whether both are the same string, integer, boolean or null.
fn same_scalar(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one.as_i64().is_some() && one.as_i64() == other.as_i64()
        }
        (Value::Array(_) | Value::Object(_), _) => false,
        _ => one == other,
    }
}

/// Whether the count fits a decimal integer with an optional comparison before it.
fn count_fits(is: &str, count: u64) -> bool {
    let digits = is.trim_start_matches(['=', '<', '>']);
    let Ok(bound) = digits.parse::<u64>() else {
        return false;
    };
    match &is[..is.len() - digits.len()] {
        "" | "==" => count == bound,
        "<" => count < bound,
        ">" => count > bound,
        "<=" => count <= bound,
        ">=" => count >= bound,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{count_fits, segments};

    #[test]
    fn paths() {
        for (path, expected) in [
            ("a", vec!["a"]),
            ("a.b.c", vec!["a", "b", "c"]),
            (r"m\.relates_to.rel_type", vec!["m.relates_to", "rel_type"]),
            (r"m\\foo", vec![r"m\foo"]),
            (r"m\\.foo", vec![r"m\", "foo"]),
            (r"m\x", vec![r"m\x"]),
            (r"m\", vec![r"m\"]),
            ("", vec![""]),
            ("a..b", vec!["a", "", "b"]),
        ] {
            let found: Vec<_> = segments(path).collect();
            assert_eq!(found, expected, "{path:?}");
        }
    }

    #[test]
    fn member_counts() {
        for (is, fitting) in [
            ("2", [false, true, false]),
            ("==2", [false, true, false]),
            ("<2", [true, false, false]),
            (">2", [false, false, true]),
            ("<=2", [true, true, false]),
            (">=2", [false, true, true]),
            ("=2", [false; 3]),
            ("<>2", [false; 3]),
            ("2<", [false; 3]),
            ("", [false; 3]),
            ("-1", [false; 3]),
        ] {
            assert_eq!(
                [1, 2, 3].map(|count| count_fits(is, count)),
                fitting,
                "{is:?}"
            );
        }
    }
}
