//! Work on the inbox of one room: a few events are verified, what they need is fetched, they are judged, and one batch
//! stores them and deletes their rows.

use std::{collections::BTreeMap, time::Duration};

use myelin_data::inbox::{Inbox as Rows, InboxRow};
use myelin_rules::Pdu;
use myelin_store::{Batch, StoreError, View};
use myelin_types::{Millis, Random, RoomNum};
use ruma::OwnedServerName;
use tokio_util::sync::CancellationToken;

use super::report;
use crate::{
    Failure, Rooms,
    remote::{Fetch, receive::Outcome},
};

/// How many events are worked on at once: those of a full transaction.
const EVENTS_A_STEP: usize = 50;
/// How long an event waits after it could not be judged; three times as long after each further time.
const FIRST_WAIT: Duration = Duration::from_secs(10);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_hours(1);
/// How often it is tried to judge an event: over some three hours. Then it is dropped; its room goes on without it until
/// an event that builds on it comes, with which it is asked for again.
const MOST_ATTEMPTS: u32 = 8;

/// The right to work on the inbox of one room. Nobody else does until it is dropped.
#[derive(Debug)]
pub struct InboxWork {
    rooms: Rooms,
    room: RoomNum,
}

/// What became of an event of the inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Its id.
    pub event_id: String,
    /// The server that sent it.
    pub origin: String,
    /// What became of it.
    pub outcome: Outcome,
}

impl Drop for InboxWork {
    fn drop(&mut self) {
        if let Some(index) = self.rooms.0.inbox.index.get() {
            index.lock().release(self.room);
        }
    }
}

impl InboxWork {
    pub(super) fn new(rooms: Rooms, room: RoomNum) -> Self {
        Self { rooms, room }
    }

    /// Works on some events that are due; none are left if the answer is empty. Once `stop` is cancelled nothing is
    /// fetched any more, and what was not judged by then stays where it is.
    pub async fn step(
        &mut self,
        fetch: &dyn Fetch,
        stop: &CancellationToken,
    ) -> Result<Vec<Judged>, Failure> {
        let (room, now) = (self.room, self.rooms.0.clock.now());
        let index = self.rooms.inbox().await?;
        let seqs = index.lock().due_of(room, now, EVENTS_A_STEP);
        if seqs.is_empty() || stop.is_cancelled() {
            return Ok(Vec::new());
        }
        let judged = self.judge(fetch, stop, &seqs).await;
        let mut index = index.lock();
        let judged = match judged {
            Ok(judged) => judged,
            Err(failure) => {
                // Each is tried alone then, so that one that cannot be dealt with does not hold up the others.
                for seq in seqs {
                    let attempts = index.attempts(room, seq) + 1;
                    let due = now.after(wait(attempts, &*self.rooms.0.random));
                    index.set_due(room, seq, due, attempts);
                }
                return Err(failure);
            }
        };
        for (seq, row, outcome) in &judged {
            match outcome {
                Outcome::Postponed(_) => index.set_due(room, *seq, row.due, row.attempts),
                _ => index.remove(room, *seq),
            }
        }
        report(&index);
        Ok(judged
            .into_iter()
            .map(|(_, row, outcome)| Judged {
                event_id: row.event_id,
                origin: row.origin,
                outcome,
            })
            .collect())
    }

    /// Judges the events of some rows, and writes down what became of them. None of them if it was stopped before.
    async fn judge(
        &self,
        fetch: &dyn Fetch,
        stop: &CancellationToken,
        seqs: &[u64],
    ) -> Result<Vec<(u64, InboxRow, Outcome)>, Failure> {
        let (rooms, room) = (&self.rooms, self.room);
        let keys: Vec<(RoomNum, u64)> = seqs.iter().map(|seq| (room, *seq)).collect();
        let read = {
            let (rooms, keys) = (rooms.clone(), keys.clone());
            move |view: &View| {
                let rows = view.multi_get::<Rows>(&keys)?;
                let handle = rooms.handle(view, room)?;
                Ok::<_, StoreError>((rows, handle, rooms.is_resident(view, room)?))
            }
        };
        let (rows, handle, is_resident) = rooms.0.store.read(read).await?;
        let mut waiting: Waiting = Waiting::default();
        for (seq, row) in seqs.iter().zip(rows) {
            match row {
                Some(row) => drop(waiting.rows.insert(*seq, row)),
                // Somebody has purged the room.
                None => {
                    if let Some(index) = rooms.0.inbox.index.get() {
                        index.lock().remove(room, *seq);
                    }
                }
            }
        }
        let origin = waiting.rows.values().next();
        let Some(origin) = origin.and_then(|row| OwnedServerName::try_from(&*row.origin).ok())
        else {
            return Ok(Vec::new());
        };
        if !is_resident {
            for (seq, row) in &waiting.rows {
                let pdu = Pdu::from_stored(handle.version, &row.event_id, &row.json);
                let outcome = match pdu {
                    Ok(pdu) => rooms.turn_away(fetch, &handle, pdu).await?,
                    Err(error) => Outcome::Dropped(error.to_string()),
                };
                waiting.outcomes.insert(*seq, outcome);
            }
            let batch = waiting.batch(room, rooms.0.clock.now(), &*rooms.0.random);
            rooms.0.store.commit(batch).await?;
            return Ok(waiting.done());
        }
        if !rooms
            .take_in_waiting(&handle, fetch, &origin, stop, &mut waiting)
            .await?
        {
            return Ok(Vec::new());
        }
        Ok(waiting.done())
    }
}

/// Events that are worked on, by their places in the inbox.
#[derive(Debug, Default)]
pub(in crate::remote) struct Waiting {
    pub(in crate::remote) rows: BTreeMap<u64, InboxRow>,
    pub(in crate::remote) outcomes: BTreeMap<u64, Outcome>,
}

impl Waiting {
    /// Deletes the rows of those events that something became of, and puts off the others. What was put off too often is
    /// dropped.
    pub(in crate::remote) fn settle(
        &mut self,
        batch: &mut Batch,
        room: RoomNum,
        now: Millis,
        random: &dyn Random,
    ) {
        for (seq, outcome) in &mut self.outcomes {
            let Some(row) = self.rows.get_mut(seq) else {
                continue;
            };
            if let Outcome::Postponed(reason) = outcome {
                row.attempts += 1;
                if row.attempts < MOST_ATTEMPTS {
                    row.due = now.after(wait(row.attempts, random));
                    batch.put::<Rows>(&(room, *seq), row);
                    continue;
                }
                *outcome = Outcome::Dropped(std::mem::take(reason));
            }
            batch.delete::<Rows>(&(room, *seq));
        }
    }

    fn batch(&mut self, room: RoomNum, now: Millis, random: &dyn Random) -> Batch {
        let mut batch = Batch::new();
        self.settle(&mut batch, room, now, random);
        batch
    }

    fn done(self) -> Vec<(u64, InboxRow, Outcome)> {
        let Self { rows, mut outcomes } = self;
        rows.into_iter()
            .filter_map(|(seq, row)| Some((seq, row, outcomes.remove(&seq)?)))
            .collect()
    }
}

/// How long an event waits after so many vain attempts, a fifth more or less, so that not all come back at once.
fn wait(attempts: u32, random: &dyn Random) -> Duration {
    let factor = 3_u32.saturating_pow(attempts.saturating_sub(1));
    let wait = FIRST_WAIT.saturating_mul(factor).min(LONGEST_WAIT);
    let mut byte = [0];
    random.fill(&mut byte);
    wait * (205 + u32::from(byte[0]) * 102 / 255) / 256
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use myelin_types::SeededRandom;

    use super::{LONGEST_WAIT, wait};

    #[test]
    fn waits_grow_and_are_spread() {
        let random = SeededRandom::new(1);
        for (attempts, least, most) in [(1, 8, 12), (2, 24, 36), (3, 72, 108), (20, 2880, 4320)] {
            for _ in 0..50 {
                let waited = wait(attempts, &random);
                assert!(
                    waited >= Duration::from_secs(least),
                    "{attempts}: {waited:?}"
                );
                assert!(
                    waited <= Duration::from_secs(most),
                    "{attempts}: {waited:?}"
                );
            }
        }
        assert!(wait(u32::MAX, &random) <= LONGEST_WAIT * 2);
    }
}
