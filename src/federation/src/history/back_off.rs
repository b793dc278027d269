//! What is left alone for a while because it failed, longer each time.

use std::{hash::Hash, sync::Arc, time::Duration};

use myelin_types::{Clock, Millis};
use quick_cache::sync::Cache;

/// How long something is left alone after its first failure; twice as long after each further one.
const FIRST: Duration = Duration::from_secs(30);
/// The longest that it is left alone.
const LONGEST: Duration = Duration::from_hours(6);
/// How many failures are remembered; of more the oldest are forgotten, and what failed is tried again too early.
const REMEMBERED: usize = 2_000;

#[derive(Clone, Copy, Debug)]
struct Failed {
    times: u32,
    until: Millis,
}

/// What has failed lately.
pub(crate) struct BackOff<K> {
    failed: Cache<K, Failed>,
    clock: Arc<dyn Clock>,
}

impl<K: Clone + Eq + Hash> BackOff<K> {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            failed: Cache::new(REMEMBERED),
            clock,
        }
    }

    /// Whether something is to be left alone now.
    pub(crate) fn rests(&self, what: &K) -> bool {
        let failed = self.failed.get(what);
        failed.is_some_and(|failed| failed.until > self.clock.now())
    }

    /// It failed.
    pub(crate) fn failed(&self, what: &K) {
        let times = self.failed.get(what).map_or(0, |failed| failed.times);
        let wait = FIRST.saturating_mul(1 << times.min(20)).min(LONGEST);
        let failed = Failed {
            times: times.saturating_add(1),
            until: self.clock.now().after(wait),
        };
        self.failed.insert(what.clone(), failed);
    }

    /// It went well.
    pub(crate) fn succeeded(&self, what: &K) {
        self.failed.remove(what);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use myelin_types::MockClock;

    use super::BackOff;
    use crate::testing::NOW;

    #[test]
    fn what_fails_again_is_left_alone_for_longer() {
        let clock = Arc::new(MockClock::new(NOW));
        let back_off = BackOff::new(Arc::clone(&clock) as Arc<_>);
        assert!(!back_off.rests(&1));
        for seconds in [30, 60, 120] {
            back_off.failed(&1);
            clock.advance(Duration::from_secs(seconds - 1));
            assert!(back_off.rests(&1));
            assert!(!back_off.rests(&2));
            clock.advance(Duration::from_secs(1));
            assert!(!back_off.rests(&1));
        }
        back_off.succeeded(&1);
        back_off.failed(&1);
        clock.advance(Duration::from_secs(30));
        assert!(!back_off.rests(&1));
        for _ in 0..100 {
            back_off.failed(&1);
        }
        clock.advance(Duration::from_hours(6));
        assert!(!back_off.rests(&1));
    }
}
