//! Killed at any moment, the store keeps every acknowledged batch and shows no half of one.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use myelin_store::{Batch, Scan, Store};
use myelin_types::{Pos, Random, RoomNum, SeededRandom};

use crate::support::{Blobs, Entry, Log, Names, open};

/// Set in a child process: the directory that it shall write to until it is killed.
const CHILD_DIR: &str = "MYELIN_STORE_TEST_CRASH";
/// Set in a child process: makes the ids of its batches unique.
const CHILD_ROUND: &str = "MYELIN_STORE_TEST_ROUND";

const ROUNDS: u64 = 15;
const WRITERS: u64 = 16;
/// A child's lines that are acknowledgements begin with this; the test harness prints others.
const ACKNOWLEDGED: &str = "acknowledged ";

/// One row in each of three tables, under the same id.
fn batch(id: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put::<Names>(&id.to_string(), &id);
    batch.put::<Log>(
        &(RoomNum(1), Pos::AT_COMMIT),
        &Entry {
            pos: Pos::AT_COMMIT,
            text: id.to_string(),
        },
    );
    // Big enough that some rounds flush memtables.
    batch.put::<Blobs>(&id, &vec![b'x'; 3000]);
    batch
}

/// Not a test on its own: the process that `acknowledged_batches_survive_being_killed` kills.
#[test]
fn child_that_writes() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let round: u64 = std::env::var(CHILD_ROUND)
        .ok()
        .and_then(|round| round.parse().ok())
        .expect("the parent gives a number");
    let store = open(Path::new(&dir));
    let (acknowledge, acknowledged) = mpsc::channel::<u64>();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("threads can be started");
    for writer in 0..WRITERS {
        let (store, acknowledge) = (store.clone(), acknowledge.clone());
        runtime.spawn(async move {
            for turn in 0.. {
                let id = (round * WRITERS + writer) * 1_000_000 + turn;
                store.commit(batch(id)).await.expect("the disk works");
                acknowledge
                    .send(id)
                    .expect("the printer lives as long as we do");
            }
        });
    }
    // Past the harness, which keeps what is printed until the test is over.
    let mut out = std::io::stdout().lock();
    for id in acknowledged {
        writeln!(out, "{ACKNOWLEDGED}{id}").expect("the parent reads");
        out.flush().expect("the parent reads");
    }
}

/// Everything in the store, checked to be whole.
fn ids(store: &Store) -> HashSet<u64> {
    let view = store.view();
    let named: HashSet<u64> = view
        .scan::<Names>(Scan::all())
        .map(|row| row.expect("readable").1)
        .collect();
    let logged: Vec<(Pos, u64)> = view
        .scan::<Log>(Scan::prefix(&RoomNum(1)))
        .map(|row| {
            let ((_, pos), entry) = row.expect("readable");
            assert_eq!(pos, entry.pos);
            (pos, entry.text.parse().expect("we wrote a number"))
        })
        .collect();
    let blobs: HashSet<u64> = view
        .keys::<Blobs>(Scan::all())
        .map(|key| key.expect("readable"))
        .collect();
    assert_eq!(
        logged.iter().map(|(_, id)| *id).collect::<HashSet<_>>(),
        named
    );
    assert_eq!(blobs, named);
    let positions: Vec<u64> = logged.iter().map(|(pos, _)| pos.0).collect();
    let expected: Vec<u64> = (1..=store.watermark().0).collect();
    assert_eq!(positions, expected, "no position is missing or given twice");
    named
}

#[test]
fn acknowledged_batches_survive_being_killed() {
    let dir = tempfile::tempdir().expect("temporary directories can be made");
    let random = SeededRandom::new(15);
    let mut acknowledged = HashSet::new();
    for round in 0..ROUNDS {
        let this = std::env::current_exe().expect("a test has a binary");
        let mut child = Command::new(this)
            .args(["--exact", "crash::child_that_writes", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .env(CHILD_ROUND, round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("our own binary runs");
        let mut entropy = [0; 2];
        random.fill(&mut entropy);
        let life = Duration::from_millis(u64::from(u16::from_be_bytes(entropy)) % 250);
        let lines = BufReader::new(child.stdout.take().expect("was piped")).lines();
        // Reads on until the pipe ends, so that nothing acknowledged before the kill is forgotten. The clock starts
        // at the first acknowledgement; one round in three is killed while it opens.
        let mut deadline = (round % 3 == 2).then(|| Instant::now() + life / 4);
        let (report, reports) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(id) = line.strip_prefix(ACKNOWLEDGED) {
                    report.send(id.parse::<u64>().ok()).ok();
                }
            }
        });
        loop {
            let left = deadline.map_or(Duration::from_secs(30), |deadline: Instant| {
                deadline.saturating_duration_since(Instant::now())
            });
            match reports.recv_timeout(left) {
                Ok(id) => {
                    acknowledged.extend(id);
                    deadline.get_or_insert_with(|| Instant::now() + life);
                    if left.is_zero() {
                        break;
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => break,
                Err(mpsc::RecvTimeoutError::Disconnected) => panic!("the child died by itself"),
            }
        }
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
        // The last line may be torn; a torn number is dropped with its line end missing only if it still parses, so
        // only whole lines count: `lines` yields the torn one last, and the store must have every whole one.
        reader.join().expect("no panic");
        acknowledged.extend(reports.try_iter().flatten());

        let store = open(dir.path());
        let found = ids(&store);
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "round {round} lost {lost:?}");
    }
    assert!(!acknowledged.is_empty(), "some round got to write");
}
