//! What the scenarios send: texts that compress about as well as prose, each with a tag by which it is found again in an
//! answer without parsing it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use memchr::memmem;
use tokio::{task::JoinSet, time::Instant};

use super::arrivals::Arrivals;
use crate::{
    bench::BenchError,
    client::{CallError, User},
    figures::Latencies,
};

/// The size of a text in the scenarios of sending, in bytes: about a kilobyte of event.
pub(crate) const KILOBYTE: usize = 1_000;
/// The size of a text where the number of messages matters and not their size: a line or two, as people write.
pub(crate) const LINE: usize = 100;

/// What a tag begins with. No word has a hyphen.
const MARK: &[u8] = b"tag-";
/// Hexadecimal digits of a tag.
const DIGITS: usize = 16;
/// How many different texts there are: two megabytes of long ones, so that none comes again within what a server
/// compresses together.
const TEXTS: u64 = 2_048;
/// How many words there are.
const WORDS: u64 = 4_000;

/// A number for each message, by which its arrival is recognised.
pub(crate) fn next_tag() -> u64 {
    static TAGS: AtomicU64 = AtomicU64::new(1);
    TAGS.fetch_add(1, Ordering::Relaxed)
}

/// The tags of the messages in an answer, in the order in which they stand there.
pub(crate) fn tags(body: &[u8]) -> impl Iterator<Item = u64> {
    memmem::find_iter(body, MARK).filter_map(|at| {
        let digits = body.get(at + MARK.len()..at + MARK.len() + DIGITS)?;
        u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    })
}

/// Texts of one size, made beforehand: while something is measured only the tag is new.
///
/// Repeated letters would compress to nothing, and noise not at all; either would make a lie of every figure about disks.
/// These are words of a made-up language, the frequent ones as much more frequent than the rare ones as in a real one
/// (Zipf's law).
#[derive(Clone)]
pub(crate) struct Texts(Arc<[String]>);

impl Texts {
    /// Texts of `size` bytes, the tag included.
    pub(crate) fn new(size: usize) -> Self {
        let mut chance = Chance(7);
        let words: Vec<String> = (0..WORDS).map(|rank| word(&mut chance, rank)).collect();
        let size = size.saturating_sub(MARK.len() + DIGITS);
        let texts = (0..TEXTS).map(|_| {
            let mut text = String::with_capacity(size + 16);
            while text.len() < size {
                text.push(' ');
                // Evenly spread logarithms: the chance of the rank n is as 1 / n.
                let rank = (WORDS as f64).powf(chance.share()) as usize;
                text.push_str(&words[rank.min(words.len()) - 1]);
            }
            text.truncate(size);
            text
        });
        Self(texts.collect())
    }

    /// The text of the message `tag`.
    pub(crate) fn of(&self, tag: u64) -> String {
        let rest = &self.0[(tag % TEXTS) as usize];
        format!("tag-{tag:016x}{rest}")
    }
}

/// One syllable for the most frequent, two or three for the others.
fn word(chance: &mut Chance, rank: u64) -> String {
    const CONSONANTS: &[u8] = b"bcdfghjklmnprstvwz";
    const VOWELS: &[u8] = b"aaeeeiioou";

    let syllables = match rank {
        0..60 => 1,
        60..1_000 => 2,
        _ => 3,
    };
    let mut word = String::new();
    for _ in 0..syllables {
        word.push(char::from(CONSONANTS[chance.below(CONSONANTS.len())]));
        word.push(char::from(VOWELS[chance.below(VOWELS.len())]));
        if chance.below(3) == 0 {
            word.push(char::from(CONSONANTS[chance.below(CONSONANTS.len())]));
        }
    }
    word
}

/// Numbers without a pattern, the same in every run (SplitMix64).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to 1, without the 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// 0 to `count`, without `count`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        (self.share() * count as f64) as usize
    }
}

/// Somebody who sends into one room.
pub(crate) struct Sender {
    pub(crate) user: User,
    pub(crate) room: String,
    pub(crate) texts: Texts,
}

/// Lets every sender send until `length` is over, each waiting for its answer before it sends the next, and gives the
/// senders back.
pub(crate) async fn send(
    senders: Vec<Sender>,
    length: Duration,
    arrivals: Option<&Arrivals>,
) -> Result<(Vec<Sender>, Latencies), BenchError> {
    let end = Instant::now() + length;
    // A set ends what is left of it when it is dropped: after an error nobody goes on sending.
    let mut tasks = JoinSet::new();
    for mut sender in senders {
        let arrivals = arrivals.cloned();
        tasks.spawn(async move {
            let mut latencies = Latencies::new();
            while Instant::now() < end {
                let tag = next_tag();
                let text = sender.texts.of(tag);
                if let Some(arrivals) = &arrivals {
                    arrivals.sends(tag, &sender.room);
                }
                let answer = sender.user.send(&sender.room, &text).await?;
                latencies.record(answer.took);
            }
            Ok::<_, CallError>((sender, latencies))
        });
    }
    let mut all = Latencies::new();
    let mut senders = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let (sender, latencies) = done??;
        all.add(&latencies);
        senders.push(sender);
    }
    Ok((senders, all))
}

/// The average size of the latest events with a tag in a room, in bytes as a client gets them.
pub(crate) async fn event_json(user: &mut User, room: &str) -> Result<f64, BenchError> {
    let page = user.messages(room, None, 100).await?;
    let events = page.events();
    let sizes = events.iter().map(|event| event.get().as_bytes());
    let sizes = sizes.filter(|event| tags(event).next().is_some());
    let sizes: Vec<usize> = sizes.map(<[u8]>::len).collect();
    if sizes.is_empty() {
        let wrong = "nothing of what was sent is at the end of the room's history";
        return Err(BenchError::Wrong(wrong.to_owned()));
    }
    Ok(sizes.iter().sum::<usize>() as f64 / sizes.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_its_tags_again() {
        let texts = Texts::new(KILOBYTE);
        let (one, other) = (texts.of(1), texts.of(0xfedc_ba98));
        assert_eq!(one.len(), KILOBYTE);
        let answer = format!(r#"{{"a":"{one}","b":"tag-","c":"{other}","d":"tag-77"}}"#);
        let found: Vec<u64> = tags(answer.as_bytes()).collect();
        assert_eq!(found, [1, 0xfedc_ba98]);
    }
}
