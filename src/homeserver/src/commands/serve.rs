//! `myelin serve`: runs the server until a signal ends it.

use std::{net::SocketAddr, time::Duration};

use myelin_config::Config;
use myelin_runtime::{Ending, Lifecycle};

use super::{Outcome, Settings, first_run};
use crate::{Server, Surroundings, logging};

/// How long requests and tasks have to finish.
const GRACE: Duration = Duration::from_secs(10);

/// How many threads wait for the disk, for names and for passwords at most; what comes beyond that waits for one of them. Each
/// takes memory, and a disk does not become faster by being asked by more.
const BLOCKING_THREADS: usize = 32;
/// For how long such a thread waits for more to do. Until it ends it keeps pages of memory for itself.
const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(1);

pub(super) fn run(mut settings: Settings, listen: &[SocketAddr]) -> Outcome {
    if !listen.is_empty() {
        let addresses: Vec<String> = listen
            .iter()
            .map(|address| format!("\"{address}\""))
            .collect();
        let setting = "listen.addresses".to_owned();
        settings
            .sources
            .flags
            .push((setting, format!("[{}]", addresses.join(", "))));
    }
    // A server whose name comes from the environment is configured there, and needs no file.
    let named_by_environment = std::env::var_os("MYELIN_SERVER__NAME").is_some();
    let first_run = settings.file().is_none() && !named_by_environment;
    if first_run {
        first_run::write_settings(&settings.path, settings.server_name())?;
    }
    let config = settings.load()?;
    logging::start(&config.log)?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .build()?;
    let ending = runtime.block_on(serve(config, &settings, first_run))?;
    // Whatever the hard stop did not end is abandoned here.
    runtime.shutdown_timeout(Duration::from_millis(500));
    Ok(ending.exit_code())
}

async fn serve(
    config: Config,
    settings: &Settings,
    first_run: bool,
) -> Result<Ending, Box<dyn std::error::Error + Send + Sync>> {
    let life = Lifecycle::new(GRACE);
    // Before anything is begun, so that an early signal still ends in order.
    life.listen_for_signals()?;
    let server = Server::start(
        config.clone(),
        settings.file(),
        Surroundings::default(),
        life.tasks(),
    )
    .await?;
    tracing::info!(
        server_name = %config.server.name,
        version = crate::VERSION,
        addresses = ?server.addresses(),
        tls_addresses = ?server.tls_addresses(),
        metrics_address = ?server.metrics_address(),
        "ready"
    );
    if first_run {
        let address = server.addresses().first().map_or_else(
            || config.server.base_url(),
            |address| format!("http://{address}"),
        );
        first_run::greet(&config, &settings.path, &address)?;
    }
    let ending = life.run().await;
    server.close().await;
    tracing::info!(clean = ending.clean, "stopped");
    Ok(ending)
}
