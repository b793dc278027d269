//! How much memory requests may take before it is proved who sends them. What a server may ask for once it is, `inbound` says.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long large bodies wait for others. Then they are to come again later.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of bodies that are not proved yet may be in memory, in KiB, beyond what each may have.
const BODIES: usize = 64 << 10;
/// How much of a body is read in any case, in bytes: most are no larger, so that those who send large ones without right
/// keep only large ones from being read.
pub const FREE_BODY: usize = 64 << 10;

/// The limits.
pub(crate) struct Admission {
    bodies: Arc<Semaphore>,
}

/// Memory that a body takes. It is free again when this is dropped.
#[derive(Debug)]
pub struct BodyMemory {
    _permit: OwnedSemaphorePermit,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            bodies: Arc::new(Semaphore::new(BODIES)),
        }
    }
}

impl Admission {
    /// Memory for `bytes` of a body beyond [`FREE_BODY`]; none if there was none for too long.
    pub(crate) async fn body(&self, bytes: usize) -> Option<BodyMemory> {
        let count = u32::try_from(bytes.div_ceil(1 << 10)).ok()?;
        let waiting = Arc::clone(&self.bodies).acquire_many_owned(count);
        let permit = tokio::time::timeout(PATIENCE, waiting).await.ok()?;
        // The semaphore is never closed.
        permit.ok().map(|permit| BodyMemory { _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn large_bodies_share_their_memory() {
        let admission = Admission::default();
        let all = admission.body(BODIES << 10).await;
        assert!(all.is_some());
        assert!(admission.body(1).await.is_none());
        drop(all);
        assert!(admission.body(1).await.is_some());
    }
}
