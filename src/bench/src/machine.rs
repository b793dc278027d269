//! The machine that a run is made on, and the day.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use tokio::time::Instant;

use crate::report::run_info::Machine;

/// Looks at this machine. The synced writes go to a file in `dir`, and the disk is the one which holds that.
pub(crate) fn look(dir: &Path) -> io::Result<Machine> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let mounts = fs::read_to_string("/proc/mounts")?;
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let kibibytes = value(&memory, "MemTotal", ':')
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    Ok(Machine {
        processor: value(&cpu, "model name", ':')
            .unwrap_or_default()
            .to_owned(),
        cores: std::thread::available_parallelism()?.get(),
        memory: kibibytes.unwrap_or(0) * 1024,
        system: value(&system, "PRETTY_NAME", '=')
            .unwrap_or_default()
            .to_owned(),
        kernel: kernel.trim().to_owned(),
        disk: file_system(&mounts, &dir.canonicalize()?).unwrap_or_default(),
        synced_write_ms: Some(synced_write(dir)?),
    })
}

/// The file system that holds `path`, of those in `mounts`, with the device.
fn file_system(mounts: &str, path: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (device, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        path.starts_with(place)
            .then(|| (place.len(), format!("{kind} on {device}")))
    });
    // Of two at the same place the later one hides the earlier.
    let (_, found) = mounts.max_by_key(|(length, _)| *length)?;
    Some(found)
}

/// What `text` has behind `name` and `separator`, without quotes.
fn value<'a>(text: &'a str, name: &str, separator: char) -> Option<&'a str> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(separator));
    let (_, value) = pairs.find(|(key, _)| key.trim() == name)?;
    Some(value.trim().trim_matches('"'))
}

/// The median time in milliseconds of appending 32 KB to a file and syncing it.
fn synced_write(dir: &Path) -> io::Result<f64> {
    let mut file = tempfile::tempfile_in(dir)?;
    let block: Vec<u8> = (0..32 * 1024_u32)
        .map(|number| (number * 31 / 7) as u8)
        .collect();
    let mut took = Vec::new();
    for _ in 0..101 {
        let begun = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        took.push(begun.elapsed());
    }
    took.sort();
    Ok((took[took.len() / 2].as_secs_f64() * 1e6).round() / 1e3)
}

/// The time of day and the day, UTC.
pub(crate) fn now() -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "the report says on which day it was measured; nothing is decided by it"
    )]
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH);
    date(since.map_or(0, |since| since.as_secs()))
}

/// `seconds` since the beginning of 1970 as `2026-01-31 17:05`.
fn date(seconds: u64) -> String {
    let (mut days, minutes) = (seconds / 86_400, seconds % 86_400 / 60);
    let mut year = 1970;
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= months[month] {
        days -= months[month];
        month += 1;
    }
    format!(
        "{year}-{:02}-{:02} {:02}:{:02}",
        month + 1,
        days + 1,
        minutes / 60,
        minutes % 60
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{date, file_system, look, value};

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00");
        assert_eq!(date(951_782_340), "2000-02-28 23:59");
        assert_eq!(date(951_782_400), "2000-02-29 00:00");
        assert_eq!(date(1_798_761_599), "2026-12-31 23:59");
        assert_eq!(date(1_798_761_600), "2027-01-01 00:00");
    }

    #[test]
    fn values_are_found_by_name() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2:1\nPRETTY_NAME=\"A B\"\n";
        assert_eq!(value(text, "model name", ':'), Some("Some CPU @ 2:1"));
        assert_eq!(value(text, "PRETTY_NAME", '='), Some("A B"));
        assert_eq!(value(text, "name", ':'), None);
    }

    #[test]
    fn the_file_system_is_that_of_the_nearest_mount() {
        let mounts =
            "overlay / overlay rw 0 0\n/dev/vda1 /var/data ext4 rw 0 0\ntmpfs /var tmpfs rw 0 0\n";
        let of = |path| file_system(mounts, Path::new(path));
        assert_eq!(of("/var/data/x").as_deref(), Some("ext4 on /dev/vda1"));
        assert_eq!(of("/var/database").as_deref(), Some("tmpfs on tmpfs"));
        assert_eq!(of("/home").as_deref(), Some("overlay on overlay"));
    }

    #[test]
    fn this_machine_can_be_described() {
        let dir = tempfile::tempdir().expect("a directory");
        let machine = look(dir.path()).expect("Linux");
        assert!(machine.cores > 0 && machine.memory > 0);
        assert!(machine.synced_write_ms.is_some_and(|time| time > 0.0));
    }
}
