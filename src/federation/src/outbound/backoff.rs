//! How long a server is left alone that does not answer.

use std::time::Duration;

use myelin_types::Random;

/// The pause after the first failure.
const FIRST: Duration = Duration::from_secs(5);
/// The longest pause.
const LONGEST: Duration = Duration::from_hours(6);

/// The pause after so many failures: about twice that before, from seconds to hours. Chance shortens it by up to a third,
/// so that servers which failed together are not tried together.
pub(crate) fn pause(failures: u32, random: &dyn Random) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    let whole = (FIRST * (1 << doublings)).min(LONGEST);
    let mut byte = [0];
    random.fill(&mut byte);
    whole.saturating_sub(whole * u32::from(byte[0]) / (3 * 255))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use myelin_types::SeededRandom;

    use super::pause;

    #[test]
    fn pauses_grow_from_seconds_to_hours() {
        let random = SeededRandom::new(1);
        for (failures, shortest, longest) in [
            (1, 3, 5),
            (2, 6, 10),
            (5, 53, 80),
            (20, 14_400, 21_600),
            (u32::MAX, 14_400, 21_600),
        ] {
            let mut seen = Vec::new();
            for _ in 0..100 {
                let pause = pause(failures, &random);
                assert!(
                    pause >= Duration::from_secs(shortest),
                    "{failures}: {pause:?}"
                );
                assert!(
                    pause <= Duration::from_secs(longest),
                    "{failures}: {pause:?}"
                );
                seen.push(pause);
            }
            seen.dedup();
            assert!(seen.len() > 10, "chance has a part");
        }
    }
}
