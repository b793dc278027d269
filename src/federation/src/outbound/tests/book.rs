//! The book as a machine: who is served when, and what is stored of it.

use std::time::Duration;

use myelin_types::{Clock, EventNum, Millis, MockClock, Pos, RoomNum, SeededRandom, UserNum};

use super::{
    super::book::{At, Attempt, Book, Events, Item, Job, Lane, Outcome, Sent},
    support::server,
};
use crate::outbound::{Edu, EphemeralKey};

/// A row that was stored: whose it is, how far it is and how often it failed; none where it was deleted.
type Row = (String, Option<(Pos, u32)>);

struct Machine {
    book: Book,
    clock: MockClock,
    random: SeededRandom,
}

fn item(pos: u64) -> Item {
    Item {
        at: At {
            pos: Pos(pos),
            index: 0,
        },
        room: RoomNum(1),
        event: EventNum(pos),
    }
}

impl Machine {
    fn new() -> Self {
        let clock = MockClock::new(Millis(1_000_000));
        Self {
            book: Book::new(Pos(10), Vec::new(), clock.now()),
            clock,
            random: SeededRandom::new(1),
        }
    }

    fn push(&mut self, number: usize, pos: u64) {
        let id = self.book.id(&server(number));
        self.book.push(id, item(pos), self.clock.now());
        self.book.advance(Pos(pos));
    }

    fn take(&mut self) -> Option<Job> {
        self.book.wake(self.clock.now());
        let quick = self.book.take(Lane::Quick);
        quick.or_else(|| self.book.take(Lane::Slow))
    }

    fn finish(&mut self, job: &Job, outcome: Outcome) {
        let sent = match &job.events {
            Events::Queued(sent) => sent.clone(),
            // There was something, of which no more is known here.
            Events::Missed(from, _) => Sent {
                items: vec![item(from.0 + 1)],
                through: *from,
            },
        };
        let attempt = Attempt {
            now: self.clock.now(),
            took: Duration::ZERO,
            random: &self.random,
        };
        self.book.finish(job.id, &sent, None, outcome, attempt);
    }

    fn store(&mut self) -> (Pos, Vec<Row>) {
        let what = self.book.unstored(self.clock.now(), false);
        let rows = what.rows.iter().map(|(_, name, row)| {
            let row = row.map(|row| (row.cursor, row.failures));
            (name.to_string(), row)
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort();
        let cursor = what.cursor;
        self.book.stored(what, true);
        (cursor, rows)
    }
}

#[test]
fn dead_servers_are_tried_a_few_times_an_hour_and_looked_at_no_oftener() {
    const DEAD: usize = 3_000;
    let mut machine = Machine::new();
    for number in 0..DEAD {
        machine.push(number, 11);
    }
    let mut attempts = 0;
    let mut stored = 0;
    for _ in 0..3_600 {
        while let Some(job) = machine.take() {
            attempts += 1;
            machine.finish(&job, Outcome::Failed);
        }
        stored += machine.store().1.len();
        machine.clock.advance(Duration::from_secs(1));
    }
    // The pauses double from five seconds on, less up to a third: the tenth ends after 28 minutes at the earliest and 43 at
    // the latest.
    assert!(
        (DEAD * 9..=DEAD * 11).contains(&attempts),
        "{attempts} attempts"
    );
    assert_eq!(
        stored, attempts,
        "a row is written for each attempt, and for nothing else"
    );
    // At any time of the day nobody is due, there is nothing to walk through.
    let due = machine.book.next_due().expect("somebody waits");
    assert!(due > machine.clock.now());
    let census = machine.book.census();
    assert_eq!((census.waiting, census.queued_events), (DEAD, 0));
}

#[test]
fn a_server_that_is_heard_of_is_tried_at_once() {
    let mut machine = Machine::new();
    machine.push(0, 11);
    for _ in 0..10 {
        machine.clock.advance(Duration::from_hours(6));
        let job = machine.take().expect("it is due");
        machine.finish(&job, Outcome::Failed);
    }
    assert!(machine.take().is_none());
    assert!(!machine.book.heard(&server(1)), "nobody knows that one");
    assert!(machine.book.heard(&server(0)));
    let job = machine.take().expect("it is there again");
    assert!(matches!(job.events, Events::Missed(Pos(10), _)));
    // The pause begins anew, too.
    machine.finish(&job, Outcome::Failed);
    machine.clock.advance(Duration::from_secs(5));
    assert!(machine.take().is_some());
}

#[test]
fn the_cursor_waits_for_what_is_under_way_and_not_for_what_lags() {
    let mut machine = Machine::new();
    machine.push(0, 11);
    machine.push(1, 12);
    assert_eq!(machine.store(), (Pos(10), vec![]));
    let first = machine.take().expect("ready");
    machine.finish(&first, Outcome::Delivered);
    assert_eq!(machine.store(), (Pos(11), vec![]));
    // The second one takes its time, until it gets a row and is waited for no more.
    let second = machine.take().expect("ready");
    machine.clock.advance(Duration::from_secs(31));
    let row = |cursor| Some((Pos(cursor), 0));
    let lagging = vec![(server(1).to_string(), row(11))];
    assert_eq!(machine.store(), (Pos(12), lagging));
    machine.push(0, 13);
    assert_eq!(machine.store(), (Pos(12), vec![]));
    machine.finish(&second, Outcome::Delivered);
    let gone = vec![(server(1).to_string(), None)];
    assert_eq!(machine.store(), (Pos(12), gone));
    let third = machine.take().expect("ready");
    machine.finish(&third, Outcome::Delivered);
    assert_eq!(machine.store(), (Pos(13), vec![]));
}

#[test]
fn what_was_caught_up_with_is_not_queued_again() {
    let mut machine = Machine::new();
    machine.push(0, 11);
    let job = machine.take().expect("ready");
    machine.finish(&job, Outcome::Failed);
    machine.push(0, 12);
    machine.clock.advance(Duration::from_secs(5));
    let job = machine.take().expect("due");
    // The walk went on beyond what the reader of the log has seen.
    machine.book.caught_up(job.id, Pos(20));
    machine.push(0, 19);
    assert!(machine.take().is_none());
    machine.push(0, 21);
    let job = machine.take().expect("ready");
    let Events::Queued(sent) = &job.events else {
        panic!("it is up to date");
    };
    assert_eq!(
        (sent.items.as_slice(), sent.through),
        (&[item(21)][..], Pos(21))
    );
}

#[test]
fn what_came_while_it_was_walked_is_walked_too() {
    let mut machine = Machine::new();
    machine.push(0, 11);
    let job = machine.take().expect("ready");
    machine.finish(&job, Outcome::Failed);
    machine.clock.advance(Duration::from_secs(5));
    let job = machine.take().expect("due");
    machine.push(0, 15);
    machine.book.caught_up(job.id, Pos(14));
    let job = machine.take().expect("ready");
    assert!(matches!(job.events, Events::Missed(Pos(14), None)));
    machine.book.caught_up(job.id, Pos(15));
    assert!(machine.take().is_none());
}

#[test]
fn what_is_refused_again_and_again_is_passed_over() {
    let mut machine = Machine::new();
    machine.push(0, 11);
    for _ in 0..2 {
        let job = machine.take().expect("due");
        machine.finish(&job, Outcome::Refused);
        assert!(machine.take().is_none());
        machine.clock.advance(Duration::from_secs(10));
    }
    let job = machine.take().expect("due");
    machine.finish(&job, Outcome::Refused);
    assert!(machine.take().is_some(), "it goes on at once");
}

#[test]
fn a_batch_that_does_not_fit_is_sent_again_as_a_whole_after_a_crash() {
    let items = |range: std::ops::Range<u32>| {
        range.map(|index| Item {
            at: At { pos: Pos(7), index },
            ..item(7)
        })
    };
    let next = items(2..3).next();
    let sent = Sent::before(items(0..2).collect(), next.as_ref());
    assert_eq!(sent.through, Pos(6));
    assert_eq!(
        Sent::before(items(0..2).collect(), Some(&item(8))).through,
        Pos(7)
    );
}

#[test]
fn receipts_are_missed_by_those_who_do_not_answer_and_nothing_else_is() {
    let receipt = |user| EphemeralKey::Receipt(RoomNum(1), UserNum(user), "".into());
    let edu = || Edu::new("m.receipt", serde_json::json!({}));
    let mut machine = Machine::new();
    let (dead, other) = (machine.book.id(&server(0)), machine.book.id(&server(1)));
    machine.book.told_receipts(Pos(12));
    machine.book.ephemeral(dead, receipt(1), edu());
    machine
        .book
        .ephemeral(other, EphemeralKey::Presence(UserNum(1)), edu());
    for _ in 0..2 {
        let job = machine.take().expect("ready");
        machine.finish(&job, Outcome::Failed);
    }
    machine.book.told_receipts(Pos(14));
    machine.book.ephemeral(dead, receipt(2), edu());
    assert!(machine.take().is_none());
    machine.clock.advance(Duration::from_secs(10));
    machine.book.advance(Pos(15));
    // There are no events to catch up with, and nothing of the other one.
    let job = machine.take().expect("due");
    assert_eq!(job.id, dead);
    assert!(matches!(job.events, Events::Missed(Pos(15), None)));
    assert!(machine.take().is_none());
    assert_eq!(machine.book.caught_up(dead, Pos(16)), Some(Pos(10)));
    assert!(machine.take().is_none());

    // What was delivered is told for good.
    machine.book.ephemeral(dead, receipt(2), edu());
    let job = machine.take().expect("ready");
    machine.finish(&job, Outcome::Delivered);
    machine.book.told_receipts(Pos(20));
    machine.book.ephemeral(dead, receipt(3), edu());
    let job = machine.take().expect("ready");
    machine.finish(&job, Outcome::Failed);
    machine.clock.advance(Duration::from_secs(10));
    machine.take().expect("due");
    assert_eq!(machine.book.caught_up(dead, Pos(20)), Some(Pos(14)));
}

#[test]
fn what_a_destination_costs_in_memory() {
    // Of 5,000 destinations, by estimate: the entries of list and map, and the name on the heap twice.
    let each = Book::SIZE_OF_ONE + size_of::<(ruma::OwnedServerName, u32)>() + 2 * 32;
    assert!(
        5_000 * each <= crate::memory::Shares::destinations(crate::MEMORY),
        "{each} bytes each"
    );
    let mut machine = Machine::new();
    let id = machine.book.id(&server(0));
    for user in 0..1_000 {
        let key = EphemeralKey::Presence(UserNum(user));
        let edu = Edu::new("m.presence", serde_json::json!({}));
        machine.book.ephemeral(id, key, edu);
        machine.push(0, 11 + u64::from(user));
    }
    let census = machine.book.census();
    assert_eq!((census.queued_events, census.queued_edus), (0, 200));
}
