//! How much memory the server may take, and how its parts share it.

use std::{fs, hint::black_box, io, thread};

use myelin_config::{ByteSize, Server};

/// Keeps the system from backing our memory with huge pages. Freed blocks would stay, since two megabytes go back to the system
/// only when nothing in them is used; with huge pages the process grew to three times what it had allocated. The allocator
/// does not ask for them either, but on some systems that makes no difference.
pub(crate) fn without_huge_pages() {
    // It fails only where there are none.
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_thp_disable(true).ok();
}

/// Has the allocator give back to the system what was freed. It looks at that as it finds new memory for somebody or as a
/// thread ends: after a burst of work the first does not happen, and threads that wait for more work do not end.
pub(crate) fn give_back() -> io::Result<()> {
    let thread = thread::Builder::new().name("give-back".to_owned());
    // Only a thread that has allocated something matters to it. Nobody need wait for it to end.
    let ending = thread.spawn(|| drop(black_box(Vec::<u8>::with_capacity(64))));
    ending.map(drop)
}

const SMALLEST: u64 = ByteSize::mebibytes(32).0;
/// Enough for some thousand users. The operating system keeps the database's files in what is free anyway, and gives that up
/// to whoever needs it, which caches of ours do not.
const LARGEST: u64 = ByteSize::mebibytes(40).0;
/// The share of what there is.
const SHARE: u64 = 16;

/// The memory budget in bytes: what is configured, or a sixteenth of what the machine or its container has.
pub(crate) fn budget(server: &Server) -> usize {
    server
        .memory_budget
        .unwrap_or_else(|| ByteSize(share(container_limit(), machine_memory())))
        .as_usize()
}

fn share(container: Option<u64>, machine: Option<u64>) -> u64 {
    let available = match (container, machine) {
        (Some(container), Some(machine)) => container.min(machine),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => return LARGEST,
    };
    (available / SHARE).clamp(SMALLEST, LARGEST)
}

/// What each part of the server may take of the budget, in bytes. Whatever is kept from one request to the next belongs to
/// one of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shares {
    /// The database: rows that are not in files yet, blocks of files, and batches that wait for the disk.
    pub(crate) store: usize,
    /// Decoded events.
    pub(crate) events: usize,
    /// Decoded nodes of state trees.
    pub(crate) nodes: usize,
    /// The decoded states of the rooms that are written to.
    pub(crate) heads: usize,
    /// The numbers of users, rooms and state keys.
    pub(crate) names: usize,
    /// Sessions and push rules.
    pub(crate) sessions: usize,
    /// What is remembered of those who sync: their rooms, unread counts, the members that they were told of.
    pub(crate) sync: usize,
    /// What is remembered of other servers, and of what is to be sent to them.
    pub(crate) federation: usize,
    /// Who is there.
    pub(crate) presence: usize,
    /// The hashing of passwords.
    pub(crate) hashes: usize,
}

impl Shares {
    /// The shares of a budget of so many bytes.
    pub(crate) fn of(budget: usize) -> Self {
        let part = |sixtyfourths| budget / 64 * sixtyfourths;
        Self {
            store: part(24),
            events: part(6),
            nodes: part(4),
            heads: part(4),
            names: part(4),
            sessions: part(2),
            sync: part(6),
            federation: part(4),
            presence: part(2),
            hashes: part(8),
        }
    }
}
/// The limit of the control group that this process runs in, version 2 or 1.
fn container_limit() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = own.lines().find_map(|line| line.strip_prefix("0::"));
    let mut files = Vec::new();
    if let Some(group) = group {
        files.push(format!(
            "/sys/fs/cgroup{}/memory.max",
            group.trim_end_matches('/')
        ));
    }
    files.push("/sys/fs/cgroup/memory.max".to_owned());
    files.push("/sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned());
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
        .min()
}

fn machine_memory() -> Option<u64> {
    total_of(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_machine_and_container_counts() {
        const GIB: u64 = 1 << 30;
        assert_eq!(share(None, Some(GIB * 5 / 8)), GIB * 5 / 128);
        assert_eq!(share(Some(GIB * 5 / 8), Some(4 * GIB)), GIB * 5 / 128);
        // A control group without a limit names an absurd number.
        assert_eq!(share(Some(u64::MAX / 2), Some(GIB / 2)), GIB / 32);
        assert_eq!(share(Some(GIB / 16), Some(8 * GIB)), SMALLEST);
        assert_eq!(share(None, Some(1024 * GIB)), LARGEST);
        assert_eq!(share(None, None), LARGEST);
    }

    #[test]
    fn the_shares_are_the_budget() {
        for mebibytes in [32, 64, 100, 4096] {
            let budget = mebibytes << 20;
            let Shares {
                store,
                events,
                nodes,
                heads,
                names,
                sessions,
                sync,
                federation,
                presence,
                hashes,
            } = Shares::of(budget);
            let all = [
                store, events, nodes, heads, names, sessions, sync, federation, presence, hashes,
            ];
            assert!(all.iter().all(|share| *share > 0));
            assert_eq!(all.into_iter().sum::<usize>(), budget);
        }
    }

    #[test]
    fn the_total_is_read_from_meminfo() {
        let meminfo = "MemTotal:       16384 kB\nMemFree:        1 kB\n";
        assert_eq!(total_of(meminfo), Some(16 << 20));
        assert_eq!(total_of("nonsense"), None);
    }
}
