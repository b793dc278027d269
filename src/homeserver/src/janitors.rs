//! The small steps that keep what is temporary from piling up.

use std::{sync::Arc, time::Duration};

use myelin_client_api::AppState;
use myelin_federation::Federation;
use myelin_runtime::Tasks;

const EVERY: Duration = Duration::from_mins(1);
/// How soon after its time something of the inbox is tried again. A look in memory.
const INBOX_EVERY: Duration = Duration::from_secs(1);
/// Freed memory may go back to the system a second after it was freed.
const MEMORY_EVERY: Duration = Duration::from_secs(1);
/// How soon after its time another server's device list is tried again. Reads nothing when there is none.
const LISTS_EVERY: Duration = Duration::from_secs(2);
/// How often all messages to devices, and all device lists of other servers, are looked through.
const TO_DEVICE_EVERY: Duration = Duration::from_hours(1);
const KEYS_EVERY: Duration = Duration::from_hours(6);

/// Starts all janitors.
pub(crate) fn start(state: &AppState, tasks: &Tasks) {
    let accounts = state.accounts.clone();
    let soft = tasks.soft().clone();
    tasks.periodic("accounts' janitor", EVERY, move || {
        let (accounts, soft) = (accounts.clone(), soft.clone());
        async move {
            while accounts.tidy().await? && !soft.is_cancelled() {}
            Ok::<_, myelin_accounts::Failure>(())
        }
    });
    let rooms = state.rooms.clone();
    let soft = tasks.soft().clone();
    // The index of servers is built once, for rooms of before there was one; from then on this looks up a single row.
    tasks.periodic("rooms' janitor", EVERY, move || {
        let (rooms, soft) = (rooms.clone(), soft.clone());
        async move {
            while rooms.index_servers().await? && !soft.is_cancelled() {}
            while rooms.trim_log().await? > 0 && !soft.is_cancelled() {}
            Ok::<_, myelin_rooms::Failure>(())
        }
    });
    tasks.periodic("memory", MEMORY_EVERY, || async {
        crate::memory::give_back()
    });
    let e2ee = state.e2ee.clone();
    let soft = tasks.soft().clone();
    tasks.periodic(
        "janitor of messages to devices",
        TO_DEVICE_EVERY,
        move || {
            let (e2ee, soft) = (e2ee.clone(), soft.clone());
            async move {
                while e2ee.tidy_to_device().await? && !soft.is_cancelled() {}
                while e2ee.tidy_outbox().await? && !soft.is_cancelled() {}
                let mut after = None;
                loop {
                    after = e2ee.tidy_lists(after).await?;
                    if after.is_none() || soft.is_cancelled() {
                        break;
                    }
                }
                Ok::<_, myelin_e2ee::Failure>(())
            }
        },
    );
    let limiter = Arc::clone(&state.limiter);
    tasks.periodic("rate limits' janitor", EVERY, move || {
        limiter.forget_quiet();
        async { Ok::<_, String>(()) }
    });
}

/// Starts the janitor of what is known of other servers, and what brings up again what waits in the inbox.
pub(crate) fn start_federation(federation: &Federation, tasks: &Tasks) {
    let inbox = federation.clone();
    tasks.periodic("inbox", INBOX_EVERY, move || {
        let inbox = inbox.clone();
        async move { inbox.work_inbox().await }
    });
    let lists = federation.clone();
    tasks.periodic("device lists of other servers", LISTS_EVERY, move || {
        let lists = lists.clone();
        async move { lists.fetch_stale_lists().await }
    });
    let limits = federation.clone();
    tasks.periodic("federation's rate limits' janitor", EVERY, move || {
        limits.forget_quiet();
        async { Ok::<_, String>(()) }
    });
    let federation = federation.clone();
    tasks.periodic("federation's janitor", KEYS_EVERY, move || {
        let federation = federation.clone();
        async move { federation.tidy().await }
    });
}
