//! `/metrics`: numbers for Prometheus.

use std::{net::SocketAddr, sync::OnceLock, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, State},
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode, header};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use myelin_runtime::Tasks;
use myelin_store::Store;

/// Requests are answered in fractions of a millisecond or wait half a minute for something new.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];
const COUNTS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 512.0];

/// The recorder of this process, installed once. None where another recorder is in place.
fn handle() -> Option<&'static PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            use metrics_exporter_prometheus::Matcher::Suffix;
            PrometheusBuilder::new()
                .set_buckets_for_metric(Suffix("_seconds".to_owned()), &SECONDS)
                .and_then(|builder| {
                    builder.set_buckets_for_metric(Suffix("_batches".to_owned()), &COUNTS)
                })
                .and_then(PrometheusBuilder::install_recorder)
                .map_err(|error| tracing::warn!(%error, "metrics are off"))
                .ok()
        })
        .as_ref()
}

/// The exposition of this process's metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    handle: &'static PrometheusHandle,
    store: Store,
}

impl Metrics {
    /// Begins to collect, and tidies the collection now and then.
    pub(crate) fn start(store: Store, tasks: &Tasks) -> Option<Self> {
        let handle = handle()?;
        // Histograms keep single observations until they are rendered or tidied.
        tasks.periodic(
            "metrics upkeep",
            Duration::from_secs(10),
            move || async move {
                handle.run_upkeep();
                Ok::<_, String>(())
            },
        );
        metrics::gauge!("myelin_info", "version" => crate::VERSION).set(1.0);
        Some(Self { handle, store })
    }

    fn render(&self) -> Response {
        let counters = self.store.counters();
        metrics::counter!("store_batches_total").absolute(counters.batches);
        metrics::counter!("store_puts_total").absolute(counters.puts);
        metrics::counter!("store_deletes_total").absolute(counters.deletes);
        metrics::counter!("store_group_commits_total").absolute(counters.group_commits);
        metrics::counter!("store_gets_total").absolute(counters.gets);
        metrics::counter!("store_scans_total").absolute(counters.scans);
        metrics::gauge!("store_watermark").set(self.store.watermark().0 as f64);
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], self.handle.render()).into_response()
    }

    /// The router of a listener of its own: whoever reaches it may look.
    pub(crate) fn router(self) -> Router {
        let answer = async |State(metrics): State<Metrics>| metrics.render();
        Router::new()
            .route("/metrics", get(answer))
            .with_state(self)
    }

    /// The router for the public listeners: only who asks from this machine and not through a proxy may look.
    pub(crate) fn local_router(self) -> Router {
        let answer = async |State(metrics): State<Metrics>,
                            ConnectInfo(peer): ConnectInfo<SocketAddr>,
                            headers: HeaderMap| {
            let forwarded = ["forwarded", "x-forwarded-for", "x-forwarded-host", "via"];
            let proxied = forwarded.iter().any(|name| headers.contains_key(*name));
            if peer.ip().to_canonical().is_loopback() && !proxied {
                metrics.render()
            } else {
                StatusCode::FORBIDDEN.into_response()
            }
        };
        Router::new()
            .route("/metrics", get(answer))
            .with_state(self)
    }
}
