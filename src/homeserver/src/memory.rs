//! How much memory the caches may take when the operator does not say.

use std::fs;

use myelin_config::{ByteSize, Server};

const SMALLEST: u64 = ByteSize::mebibytes(64).0;
const LARGEST: u64 = ByteSize::mebibytes(256).0;
/// What is taken where nothing can be learnt about the machine.
const UNKNOWN: u64 = ByteSize::mebibytes(128).0;
/// The share of what there is. Small, since the operating system keeps the database's files in what is free anyway, and
/// gives that up to whoever needs it, which caches of ours do not.
const SHARE: u64 = 32;

/// The memory budget in bytes: what is configured, or a thirty-second of what the machine or its container has.
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
        (None, None) => return UNKNOWN,
    };
    (available / SHARE).clamp(SMALLEST, LARGEST)
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
        assert_eq!(share(None, Some(4 * GIB)), GIB / 8);
        assert_eq!(share(Some(3 * GIB), Some(4 * GIB)), 3 * GIB / 32);
        // A control group without a limit names an absurd number.
        assert_eq!(share(Some(u64::MAX / 2), Some(4 * GIB)), GIB / 8);
        assert_eq!(share(Some(GIB / 16), Some(8 * GIB)), SMALLEST);
        assert_eq!(share(None, Some(1024 * GIB)), LARGEST);
        assert_eq!(share(None, None), UNKNOWN);
    }

    #[test]
    fn the_total_is_read_from_meminfo() {
        let meminfo = "MemTotal:       16384 kB\nMemFree:        1 kB\n";
        assert_eq!(total_of(meminfo), Some(16 << 20));
        assert_eq!(total_of("nonsense"), None);
    }
}
