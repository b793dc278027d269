//! Where fuzzers enter: whatever reads bytes of strangers, here and in the crates below, with what must hold for any bytes.
//!
//! `fuzz/` has a target of libFuzzer for each, and documents to start from. The tests here run every one of these, and
//! variants of them, each time that all tests run; a finding becomes one more document.

use myelin_rooms::token::Token;
use myelin_rules::{
    Pdu, RoomVersion,
    auth::{self, AuthEvents},
    canonical::{self, Numbers},
    sign::{self, VerifyKeys},
};
use ruma::{ServerName, server_name};
use serde_json::Value;

use crate::{
    Transaction,
    auth::Authorization,
    discovery::well_known,
    join::{Reader, SendJoinAnswer, read_answer},
    keys::{document::Document, notary},
};

/// What takes the bytes.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: [(&str, Target); 9] = [
    ("authorization", authorization),
    ("canonical_json", canonical_json),
    ("event", event),
    ("keys", keys),
    ("notary", notary),
    ("send_join", send_join),
    ("token", token),
    ("transaction", transaction),
    ("well_known", well_known),
];

/// The value of an `Authorization` header.
pub fn authorization(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let Ok(read) = Authorization::parse(text) else {
        return;
    };
    // What could be a key and has nothing in it that ends a quoted string is written as it was read.
    if read.check().is_ok() && !read.key.contains(['"', '\\']) {
        assert_eq!(Authorization::parse(&read.header()).as_ref(), Ok(&read));
    }
}

/// Any JSON that is signed or hashed.
pub fn canonical_json(bytes: &[u8]) {
    for numbers in [Numbers::Whole, Numbers::Any] {
        let Ok(object) = canonical::parse_object(bytes, numbers) else {
            continue;
        };
        let text = canonical::object_to_string(&object, numbers).expect("what was read is legal");
        let again = canonical::parse_object(text.as_bytes(), numbers);
        let again = again.expect("what was written can be read");
        let again = canonical::object_to_string(&again, numbers);
        let again = again.expect("what was written is legal");
        // FIXME: doubles, which rooms of versions 1 to 5 allow, are not always read back as they were written: serde_json
        // rounds the last place roughly unless its feature `float_roundtrip` is on. With it this holds for both.
        if numbers == Numbers::Whole {
            assert_eq!(again, text, "the form is not canonical");
        }
    }
}

/// An event, of whichever room version.
pub fn event(bytes: &[u8]) {
    for version in RoomVersion::ALL {
        let Ok(read) = Pdu::parse(version, bytes) else {
            continue;
        };
        let stored = Pdu::from_stored(version, read.event_id(), read.json());
        let stored = stored.expect("what was read can be stored");
        assert_eq!(stored.json(), read.json());
        // FIXME: see `canonical_json`; with `float_roundtrip` this holds for all versions.
        if version >= RoomVersion::V6 {
            assert_eq!(stored.content(), read.content());
        }
        let redacted = stored.redacted();
        assert_eq!(redacted.event_id(), read.event_id());
        assert_eq!(redacted.redacted().json(), redacted.json());
        let shown: Result<Value, _> = serde_json::from_str(&read.client_json(true, None));
        assert!(shown.is_ok(), "clients would be shown no JSON");
        let _ = sign::verify(&read, &VerifyKeys::new());
        let _ = auth::check(&read, &AuthEvents::default());
        let alone: AuthEvents = [read.clone()].into_iter().collect();
        let _ = auth::check(&read, &alone);
    }
}

/// The answer of `GET /_matrix/key/v2/server`.
pub fn keys(bytes: &[u8]) {
    let _ = Document::read(bytes);
}

/// The answer of `POST /_matrix/key/v2/query`.
pub fn notary(bytes: &[u8]) {
    let _ = notary::read_answer(bytes);
}

/// The answer of `send_join`. However it is cut on its way, the same is read.
pub fn send_join(bytes: &[u8]) {
    let whole = read_answer(bytes);
    let mut reader = Reader::new();
    let pieces = bytes.chunks(7).try_for_each(|piece| reader.push(piece));
    let cut = pieces.and_then(|()| reader.finish());
    let counts = |answer: &SendJoinAnswer| {
        let events = (answer.state.len(), answer.auth_chain.len());
        (events, answer.event.is_some(), answer.servers_in_room.len())
    };
    match (whole, cut) {
        (Ok(whole), Ok(cut)) => assert_eq!(counts(&whole), counts(&cut)),
        (whole, cut) => assert_eq!(whole.err(), cut.err()),
    }
}

/// A token with which a client goes on.
pub fn token(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes)
        && let Ok(token) = text.parse::<Token>()
    {
        assert_eq!(token.to_string(), text, "a token has two spellings");
    }
}

/// The body of a transaction.
pub fn transaction(bytes: &[u8]) {
    let origin: &ServerName = server_name!("there.example");
    if let Ok(read) = Transaction::parse(origin.to_owned(), "1".to_owned(), bytes) {
        let _ = read.read_all();
    }
}

/// The body of `/.well-known/matrix/server`.
pub fn well_known(bytes: &[u8]) {
    let _ = well_known::parse(bytes);
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use myelin_types::{Random, SeededRandom};

    use super::{TARGETS, Target};

    /// How many variants of each document are tried.
    const VARIANTS: usize = 400;
    /// What is put into documents: where readers of JSON and of numbers, names and nesting go wrong.
    const PIECES: [&[u8]; 20] = [
        b"null",
        b"-1",
        b"1e400",
        b"0.1",
        b"-0",
        b"9007199254740993",
        b"99999999999999999999999999",
        b"\"",
        b"\\",
        b"\"\\ud800\"",
        b"\"\\u0000\"",
        b"{}",
        b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
        b"{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":",
        b",",
        b":",
        b"\0",
        b"\xff",
        "\u{feff}\u{202e}\u{1f9e0}".as_bytes(),
        b"  \n",
    ];

    struct Chance(SeededRandom);

    impl Chance {
        fn below(&self, end: usize) -> usize {
            let mut bytes = [0; 8];
            self.0.fill(&mut bytes);
            (u64::from_le_bytes(bytes) % end.max(1) as u64) as usize
        }

        /// Some bytes of a text that stand together.
        fn range(&self, text: &[u8], most: usize) -> (usize, usize) {
            let start = self.below(text.len() + 1);
            (start, (start + self.below(most + 1)).min(text.len()))
        }

        /// A document in which a few things were changed.
        fn vary(&self, document: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
            let mut text = document.to_vec();
            for _ in 0..=self.below(3) {
                let (start, end) = self.range(&text, 24);
                match self.below(7) {
                    0 if !text.is_empty() => {
                        let at = self.below(text.len());
                        text[at] ^= 1 << self.below(8);
                    }
                    1 => drop(text.drain(start..end)),
                    2 => {
                        let again = text[start..end].to_vec();
                        text.splice(start..start, again);
                    }
                    3 => {
                        let piece = PIECES[self.below(PIECES.len())];
                        text.splice(start..end, piece.iter().copied());
                    }
                    4 => {
                        let other = &others[self.below(others.len())];
                        let (from, to) = self.range(other, 80);
                        text.splice(start..end, other[from..to].iter().copied());
                    }
                    // A number or a word becomes another one.
                    5 => {
                        let digit = text.iter().skip(start).position(u8::is_ascii_digit);
                        if let Some(at) = digit {
                            let piece = PIECES[self.below(7)];
                            text.splice(start + at..=start + at, piece.iter().copied());
                        }
                    }
                    _ => text.truncate(start),
                }
            }
            text
        }
    }

    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
        let mut paths: Vec<_> = fs::read_dir(root.join(name))
            .expect("every target has documents")
            .map(|entry| entry.expect("the directory can be read").path())
            .collect();
        paths.sort_unstable();
        let read = |path| fs::read(path).expect("documents can be read");
        paths.into_iter().map(read).collect()
    }

    fn try_variants(name: &str, target: Target) {
        let documents = corpus(name);
        assert!(!documents.is_empty(), "{name} has no documents");
        let chance = Chance(SeededRandom::new(6));
        for document in &documents {
            target(document);
            for _ in 0..VARIANTS {
                let variant = chance.vary(document, &documents);
                let outcome = std::panic::catch_unwind(|| target(&variant));
                assert!(
                    outcome.is_ok(),
                    "{name} fails on {:?}",
                    String::from_utf8_lossy(&variant)
                );
            }
        }
    }

    #[test]
    fn no_variant_of_a_document_breaks_what_reads_it() {
        for (name, target) in TARGETS {
            try_variants(name, target);
        }
    }

    #[test]
    fn every_target_is_one_of_the_fuzzer() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
        let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the fuzzer has one");
        for (name, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            let source = fs::read_to_string(root.join(format!("fuzz_targets/{name}.rs")));
            let source = source.expect("every target has its file");
            assert!(source.contains(&format!("fuzzing::{name}(")), "{name}");
        }
    }
}
