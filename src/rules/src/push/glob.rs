//! Matching of globs, without regard to case. Spec: appendices, "Glob-style matching"; client-server API, `event_match`.
//!
//! Patterns and texts are a stranger's. So there is no backtracking: all ways in which a pattern can match are followed
//! at once, in time of at most the product of the lengths, and long patterns with wildcards match nothing.

/// Longest pattern with wildcards that is tried, in characters.
pub(super) const MAX_PATTERN: usize = 512;

/// Whether the whole of `text` matches `pattern`.
pub fn matches_whole(pattern: &str, text: &str) -> bool {
    if has_wildcards(pattern) {
        return search(pattern, text, false);
    }
    if pattern.is_ascii() && text.is_ascii() {
        return pattern.eq_ignore_ascii_case(text);
    }
    lowercase(pattern).eq(lowercase(text))
}

/// Whether a part of `text` that starts and ends at word boundaries matches `pattern`.
pub(super) fn matches_words(pattern: &str, text: &str) -> bool {
    if has_wildcards(pattern) {
        search(pattern, text, true)
    } else {
        contains_words(pattern, text)
    }
}

/// Whether `words`, taken literally, stand in `text` between word boundaries.
pub(super) fn contains_words(words: &str, text: &str) -> bool {
    if words.is_empty() {
        return text.is_empty();
    }
    let (words, text): (String, String) = (lowercase(words).collect(), lowercase(text).collect());
    let mut from = 0;
    while let Some(at) = text[from..].find(&words) {
        let start = from + at;
        let end = start + words.len();
        let boundary =
            |at: usize| is_boundary(text[..at].chars().next_back(), text[at..].chars().next());
        if boundary(start) && boundary(end) {
            return true;
        }
        from = start + text[start..].chars().next().map_or(1, char::len_utf8);
    }
    false
}

fn has_wildcards(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

fn lowercase(text: &str) -> impl Iterator<Item = char> {
    text.chars().flat_map(char::to_lowercase)
}

/// Whether a match may start or end between these characters: not inside of a word.
fn is_boundary(before: Option<char>, after: Option<char>) -> bool {
    let is_word =
        |char: Option<char>| char.is_some_and(|char| char.is_ascii_alphanumeric() || char == '_');
    !(is_word(before) && is_word(after))
}

/// Runs the pattern over the text. A state is the number of pattern characters that are matched so far.
fn search(pattern: &str, text: &str, words: bool) -> bool {
    let pattern: Vec<char> = lowercase(pattern).collect();
    if pattern.len() > MAX_PATTERN {
        return false;
    }
    let mut text = lowercase(text).peekable();
    let mut before = None;
    // Ascending, without duplicates.
    let mut states: Vec<usize> = Vec::new();
    let mut next: Vec<usize> = Vec::new();
    loop {
        let after = text.peek().copied();
        let may_start = if words {
            is_boundary(before, after)
        } else {
            before.is_none()
        };
        if may_start && states.first() != Some(&0) {
            states.insert(0, 0);
        }
        // A star may also match nothing: its state brings the next one with it.
        next.clear();
        for &state in &states {
            push(&mut next, state);
            let mut state = state;
            while pattern.get(state) == Some(&'*') {
                state += 1;
                push(&mut next, state);
            }
        }
        std::mem::swap(&mut states, &mut next);
        let may_end = if words {
            is_boundary(before, after)
        } else {
            after.is_none()
        };
        if may_end && states.last() == Some(&pattern.len()) {
            return true;
        }
        let Some(char) = text.next() else {
            return false;
        };
        next.clear();
        for &state in &states {
            match pattern.get(state) {
                Some('*') => push(&mut next, state),
                Some('?') => push(&mut next, state + 1),
                Some(&wanted) if wanted == char => push(&mut next, state + 1),
                Some(_) | None => {}
            }
        }
        std::mem::swap(&mut states, &mut next);
        before = Some(char);
        if states.is_empty() && !words {
            return false;
        }
    }
}

/// Adds a state unless it is there. States come in ascending order, but for those that stars bring with them.
fn push(states: &mut Vec<usize>, state: usize) {
    match states.last() {
        Some(&last) if last >= state => {
            if let Err(at) = states.binary_search(&state) {
                states.insert(at, state);
            }
        }
        _ => states.push(state),
    }
}

#[cfg(test)]
mod tests {
    use super::{matches_whole, matches_words};

    #[test]
    fn whole_values() {
        for (pattern, text, expected) in [
            ("lunc?*", "Lunch plans", true),
            ("lunc?*", "LUNCH", true),
            ("lunc?*", " lunch", false),
            ("lunc?*", "lunc", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("?", "", false),
            ("?", "ä", true),
            ("??", "ä", false),
            ("ÄB", "äb", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-cd", false),
            ("**a**", "a", true),
            ("m.notice", "m.notice", true),
            ("m.notice", "mxnotice", false),
            ("[a]", "a", false),
        ] {
            assert_eq!(
                matches_whole(pattern, text),
                expected,
                "{pattern:?} on {text:?}"
            );
        }
    }

    #[test]
    fn words_in_bodies() {
        for (pattern, text, expected) in [
            ("ex*ple", "An example event.", true),
            ("ex*ple", "exple", true),
            ("ex*ple", "An exciting triple-whammy", true),
            ("ex*ple", "An exciting triplet", false),
            ("cake", "CAKE!", true),
            ("cake", "cakes", false),
            ("cake", "pancake", false),
            ("cake", "pancake cake", true),
            ("cake", "cake_", false),
            ("cake", "ücakeü", true),
            ("cake*lie", "the cake is a lie", true),
            ("cake*lie", "the cake is a lied", false),
            ("@room", "hey @room!", true),
            ("@room", "hey@room", true),
            ("?", "a bc", true),
            ("?", "ab", false),
            ("*?", "ä", true),
            ("ÄB?", "x äbc", true),
            ("", "", true),
            ("", "a", false),
            ("a b", "x a b y", true),
        ] {
            assert_eq!(
                matches_words(pattern, text),
                expected,
                "{pattern:?} on {text:?}"
            );
        }
    }

    #[test]
    fn hostile_patterns_end() {
        let pattern = "*a".repeat(250) + "b";
        let text = "a".repeat(60_000);
        assert!(!matches_whole(&pattern, &text));
        assert!(!matches_words(&"?*".repeat(300), &text));
    }
}
