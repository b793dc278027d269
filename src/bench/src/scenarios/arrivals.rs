//! From the beginning of a request to the arrival of its event in somebody's `/sync`.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use memchr::memmem;
use parking_lot::Mutex;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::load::tags;
use crate::{
    bench::BenchError,
    client::{CallError, Filter, User, parsed},
    figures::Latencies,
};

/// Events of a room that the reader asks for in one answer. Some servers give no more than a hundred.
const TIMELINE: usize = 1_000;
/// How long the reader's requests wait, and so how long it takes at most until it sees that all is over.
const WAIT: Duration = Duration::from_secs(1);

/// What is on its way from senders to the reader.
#[derive(Clone, Default)]
pub(crate) struct Arrivals {
    sent: Arc<Mutex<HashMap<u64, Sent>>>,
    over: Arc<AtomicBool>,
}

struct Sent {
    begun: Instant,
    room: String,
}

/// What the reader has seen.
pub(crate) struct Seen {
    pub(crate) latencies: Latencies,
    /// How many of them stood in no answer, since the room had more news than one answer holds. A client would have to
    /// ask for them; they count as arrived with the answer that left them out, so never later than they did.
    pub(crate) skipped: u64,
}

/// A reader at work.
pub(crate) struct Reading(JoinHandle<Result<Seen, CallError>>);

impl Arrivals {
    /// A request with the message `tag` begins now.
    pub(crate) fn sends(&self, tag: u64, room: &str) {
        let sent = Sent {
            begun: Instant::now(),
            room: room.to_owned(),
        };
        self.sent.lock().insert(tag, sent);
    }

    /// Catches up, then goes on reading beside.
    pub(crate) async fn read(&self, mut reader: User) -> Result<Reading, BenchError> {
        let all = reader.sync(None, &Filter::lazy(1), Duration::ZERO).await?;
        let (arrivals, filter) = (self.clone(), Filter::lazy(TIMELINE));
        let task = tokio::spawn(async move {
            let mut since = all.next_batch;
            let mut seen = Seen {
                latencies: Latencies::new(),
                skipped: 0,
            };
            while !arrivals.over.load(Ordering::Relaxed) {
                let synced = reader.sync(Some(&since), &filter, WAIT).await?;
                let arrived = Instant::now();
                arrivals.arrive(&synced.answer.body, arrived, &mut seen);
                if memmem::find(&synced.answer.body, br#""limited":true"#).is_some() {
                    for (room, first) in limited(&parsed(&synced.answer)) {
                        arrivals.skip(&room, first, arrived, &mut seen);
                    }
                }
                since = synced.next_batch;
            }
            Ok(seen)
        });
        Ok(Reading(task))
    }

    fn arrive(&self, body: &[u8], arrived: Instant, seen: &mut Seen) {
        for tag in tags(body) {
            // Taken one by one: the senders must not wait while an answer is gone through.
            let sent = self.sent.lock().remove(&tag);
            if let Some(sent) = sent {
                seen.latencies.record(arrived - sent.begun);
            }
        }
    }

    /// Whatever was sent into the room before the first message of the answer was left out. A request that was overtaken
    /// by later ones may be counted here that is still on its way; there are as few of them as there are senders.
    fn skip(&self, room: &str, first: u64, arrived: Instant, seen: &mut Seen) {
        self.sent.lock().retain(|&tag, sent| {
            let skipped = tag < first && sent.room == room;
            if skipped {
                seen.latencies.record(arrived - sent.begun);
                seen.skipped += 1;
            }
            !skipped
        });
    }
}

impl Reading {
    /// Waits until everything has arrived, ten seconds at most.
    pub(crate) async fn finish(self, arrivals: &Arrivals) -> Result<Seen, BenchError> {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end && !arrivals.sent.lock().is_empty() && !self.0.is_finished() {
            sleep(Duration::from_millis(20)).await;
        }
        arrivals.over.store(true, Ordering::Relaxed);
        Ok(self.0.await??)
    }
}

/// The rooms of an answer that have more news than stand in it, each with the lowest tag that does.
fn limited(answer: &serde_json::Value) -> Vec<(String, u64)> {
    let rooms = answer["rooms"]["join"].as_object().into_iter().flatten();
    let limited = rooms.filter(|(_, room)| room["timeline"]["limited"] == true);
    limited
        .filter_map(|(id, room)| {
            let first = tags(room["timeline"]["events"].to_string().as_bytes()).min()?;
            Some((id.clone(), first))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_what_an_answer_leaves_out() {
        let arrivals = Arrivals::default();
        for (tag, room) in [(1, "!a"), (2, "!b"), (3, "!a"), (4, "!a")] {
            arrivals.sends(tag, room);
        }
        let event = json!({ "content": { "body": "tag-0000000000000003 text" } });
        let answer = json!({ "rooms": { "join": {
            "!a": { "timeline": { "events": [event], "limited": true } },
            "!b": { "timeline": { "events": [] } },
        } } });
        let mut seen = Seen {
            latencies: Latencies::new(),
            skipped: 0,
        };
        let now = Instant::now();
        arrivals.arrive(answer.to_string().as_bytes(), now, &mut seen);
        for (room, first) in limited(&answer) {
            arrivals.skip(&room, first, now, &mut seen);
        }
        assert_eq!((seen.latencies.count(), seen.skipped), (2, 1));
        let mut left: Vec<u64> = arrivals.sent.lock().keys().copied().collect();
        left.sort_unstable();
        assert_eq!(left, [2, 4]);
    }
}
