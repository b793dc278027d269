//! Certificates: read at start, and read again when their files change.

use std::{
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use axum_server::tls_rustls::RustlsConfig;
use myelin_config::TlsFiles;
use myelin_runtime::Tasks;

use super::ListenError;

/// How often the files are looked at. Certificates are renewed weeks before they expire.
const LOOK_EVERY: Duration = Duration::from_mins(5);

/// Reads the files, and keeps the result up to date.
pub(super) async fn load(files: TlsFiles<'_>, tasks: &Tasks) -> Result<RustlsConfig, ListenError> {
    // One provider for the whole process; whoever comes second finds it installed.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let certificate = files.certificate.to_owned();
    let private_key = files.private_key.to_owned();
    let config = RustlsConfig::from_pem_file(&certificate, &private_key)
        .await
        .map_err(|source| ListenError::Tls {
            certificate: certificate.clone(),
            source,
        })?;

    let reloaded = config.clone();
    let mut loaded = modified(&certificate);
    tasks.periodic("certificate reload", LOOK_EVERY, move || {
        let (config, certificate, private_key) =
            (reloaded.clone(), certificate.clone(), private_key.clone());
        let now = modified(&certificate);
        let changed = now != loaded;
        loaded = now;
        async move {
            if changed {
                config
                    .reload_from_pem_file(&certificate, &private_key)
                    .await?;
                tracing::info!(certificate = %certificate.display(), "certificate loaded again");
            }
            Ok::<_, io::Error>(())
        }
    });
    Ok(config)
}

fn modified(path: &PathBuf) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}
