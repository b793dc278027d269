//! `[metrics]`: numbers for Prometheus.

use std::net::SocketAddr;

use crate::macros::{Section, SectionDoc, section};

section! {
    /// Numbers about the server's work for Prometheus, under `/metrics`.
    pub struct Metrics in "metrics" {
        /// Whether they are collected and shown.
        #[serde(default = "default_enabled")]
        pub enabled: bool,
        /// A separate address to show them on, to everybody who reaches it. Without one they stand on the
        /// addresses of `listen`, and only a request made on this machine and not through a proxy may see them.
        pub address: Option<SocketAddr> => r#""127.0.0.1:9008""#,
    }
}

fn default_enabled() -> bool {
    true
}

impl Section for Metrics {
    const DOC: SectionDoc = Self::SECTION;
}
