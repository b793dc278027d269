//! The composition root: all parts of a running server, put together top to bottom.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Router, middleware};
use myelin_client_api::AppState;
use myelin_config::Config;
use myelin_runtime::Tasks;
use tower_http::{CompressionLevel, catch_panic::CatchPanicLayer, compression::CompressionLayer};

use crate::{
    control,
    core::{Core, OpenError, Surroundings},
    data_dir::CONTROL_SOCKET,
    health::{self, Health},
    janitors,
    listeners::{ListenError, Listeners, serve_at},
    metrics::Metrics,
    observe,
    operator::Operator,
    pages,
};

/// How soon it is tried again to call for device lists, when the store could not be read.
const CALL_AGAIN: Duration = Duration::from_secs(1);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its data could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It could not listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The database does not take writes.
    #[error("write to the database")]
    Write(#[from] myelin_store::CommitError),
    /// It could not listen for the operator's commands.
    #[error("listen for operators' commands on {socket}", socket = socket.display())]
    Control {
        /// The socket.
        socket: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// A server that answers. Its tasks belong to the [`Tasks`] it was started with; when these have ended, call
/// [`Server::close`].
#[derive(Debug)]
pub struct Server {
    core: Core,
    state: AppState,
    addresses: Vec<SocketAddr>,
    tls_addresses: Vec<SocketAddr>,
    metrics_address: Option<SocketAddr>,
}

impl Server {
    /// Starts a server. `settings_file` is where the settings came from, for backups.
    pub async fn start(
        config: Config,
        settings_file: Option<&Path>,
        surroundings: Surroundings,
        tasks: &Tasks,
    ) -> Result<Server, StartError> {
        // First the addresses, so that a second server gives up before it touches anything.
        let listeners = Listeners::bind(&config.listen)?;
        let addresses = listeners.plain_addresses();
        let tls_addresses = listeners.tls_addresses();

        let core = Core::open(&config, &surroundings).await?;
        let store = core.store.clone();
        let state = core.app_state(&config);
        janitors::start(&state, tasks);

        let health = Health::new(store.clone(), config.server.data_dir.clone());
        let operator = Operator {
            state: state.clone(),
            data_dir: config.server.data_dir.clone(),
            settings: settings_file.map(Path::to_owned),
            health: health.clone(),
            rotating: Arc::default(),
        };
        let socket = config.server.data_dir.join(CONTROL_SOCKET);
        control::listen(&socket, operator, tasks)
            .map_err(|source| StartError::Control { socket, source })?;

        let (client_api, _routes) = myelin_client_api::router(state.clone());
        let mut router = client_api.merge(pages::router(&config)).merge(
            Router::new()
                .route("/health", axum::routing::get(health::get))
                .with_state(health),
        );
        let federation = &core.federation;
        if federation.is_enabled() {
            janitors::start_federation(federation, tasks);
            let (outbound, soft) = (federation.outbound().clone(), tasks.soft().clone());
            tasks.spawn_essential("sender to other servers", async move {
                outbound.run(soft).await;
            });
            federation.resume_joins();
            let (federation_api, _routes) = myelin_federation_api::router(federation.clone());
            router = router.merge(federation_api);
        } else {
            federation.outbound().retire().await?;
        }
        let mut metrics_address = None;
        if config.metrics.enabled
            && let Some(metrics) = Metrics::start(store, tasks)
        {
            match config.metrics.address {
                Some(address) => {
                    let router = metrics.router();
                    metrics_address = Some(serve_at("metrics listener", address, &router, tasks)?);
                }
                None => router = router.merge(metrics.local_router()),
            }
        }
        let router = router
            .layer(CatchPanicLayer::custom(observe::panicked))
            .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
            .layer(middleware::from_fn(observe::request));

        let (sync, soft) = (state.sync.clone(), tasks.soft().clone());
        tasks.spawn_essential("calls for device lists", async move {
            let calls = async {
                while let Err(error) = sync.call_for_device_lists().await {
                    tracing::warn!(%error, "whom a device list concerns could not be read");
                    tokio::time::sleep(CALL_AGAIN).await;
                }
            };
            soft.run_until_cancelled(calls).await;
        });
        let stopping = state.sync.clone();
        let soft = tasks.soft().clone();
        tasks.spawn("end of long polls", async move {
            soft.cancelled().await;
            stopping.stop_waiting();
        });
        listeners
            .serve(&router, config.listen.tls_files(), tasks)
            .await?;
        Ok(Server {
            core,
            state,
            addresses,
            tls_addresses,
            metrics_address,
        })
    }

    /// The addresses with plain HTTP, with their real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The addresses with HTTPS, with their real ports.
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        &self.tls_addresses
    }

    /// The address that shows nothing but metrics, if there is one.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// What the endpoints work with, for tests that look behind them.
    pub fn state(&self) -> &AppState {
        &self.state
    }

    /// Makes everything durable and closes the database. Call it when the tasks have ended.
    pub async fn close(self) {
        self.core.close().await;
    }
}
