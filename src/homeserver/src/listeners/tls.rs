//! Certificates: read at start, and read again when their files change.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use axum_server::tls_rustls::RustlsConfig;
use myelin_config::TlsFiles;
use myelin_runtime::Tasks;

use super::ListenError;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Reads the files, and keeps the result up to date.
pub(super) async fn load(files: TlsFiles<'_>, tasks: &Tasks) -> Result<RustlsConfig, ListenError> {
    // One provider for the whole process; whoever comes second finds it installed.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let watched = Watched::load(files.certificate, files.private_key)
        .await
        .map_err(|source| ListenError::Tls {
            certificate: files.certificate.to_owned(),
            source,
        })?;
    let config = watched.config.clone();
    let watched = std::sync::Arc::new(tokio::sync::Mutex::new(watched));
    tasks.periodic("certificate reload", LOOK_EVERY, move || {
        let watched = std::sync::Arc::clone(&watched);
        async move {
            watched.lock().await.look().await;
            Ok::<_, String>(())
        }
    });
    Ok(config)
}

/// When the two files were last changed.
type Changed = [Option<SystemTime>; 2];

/// A certificate, its key, and what is used of them.
struct Watched {
    certificate: PathBuf,
    private_key: PathBuf,
    config: RustlsConfig,
    /// The state of the files that was tried last, with or without success.
    tried: Changed,
}

/// What a look at the files came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Unchanged,
    Loaded,
    /// The earlier certificate is still used.
    Unusable,
}

impl Watched {
    async fn load(certificate: &Path, private_key: &Path) -> io::Result<Self> {
        // Before they are read: a change that comes in between is seen at the next look.
        let tried = changed(certificate, private_key).await;
        Ok(Self {
            certificate: certificate.to_owned(),
            private_key: private_key.to_owned(),
            config: RustlsConfig::from_pem_file(certificate, private_key).await?,
            tried,
        })
    }

    /// Reads the files again if one of them changed. They are replaced one after the other, so that they may not fit for a
    /// moment: then the next change is waited for.
    async fn look(&mut self) -> Look {
        let now = changed(&self.certificate, &self.private_key).await;
        if now == self.tried {
            return Look::Unchanged;
        }
        self.tried = now;
        let loaded = self
            .config
            .reload_from_pem_file(&self.certificate, &self.private_key)
            .await;
        let certificate = self.certificate.display();
        match loaded {
            Ok(()) => {
                tracing::info!(%certificate, "certificate loaded again");
                Look::Loaded
            }
            Err(error) => {
                tracing::warn!(
                    %certificate,
                    private_key = %self.private_key.display(),
                    %error,
                    "the changed certificate and its key cannot be used together; the earlier one is kept"
                );
                Look::Unusable
            }
        }
    }
}

async fn changed(certificate: &Path, private_key: &Path) -> Changed {
    let modified = async |path: &Path| tokio::fs::metadata(path).await.ok()?.modified().ok();
    [modified(certificate).await, modified(private_key).await]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["test.example".to_owned()]);
        let made = made.expect("a certificate can be made");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    /// Writes a file with a time of its own, however coarse the file system's clock is.
    fn write(path: &Path, text: &str, second: u64) {
        std::fs::write(path, text).expect("a file can be written");
        let file = std::fs::File::options().write(true).open(path);
        let time = std::time::UNIX_EPOCH + Duration::from_secs(second);
        file.and_then(|file| file.set_modified(time))
            .expect("a file's time can be set");
    }

    #[tokio::test]
    async fn changed_files_are_loaded_when_they_fit() {
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (certificate, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
        let (first, second) = (pair(), pair());
        write(&certificate, &first.0, 1);
        write(&key, &first.1, 1);
        let mut watched = Watched::load(&certificate, &key).await.expect("they fit");
        let before = watched.config.get_inner();
        assert_eq!(watched.look().await, Look::Unchanged);

        write(&certificate, &second.0, 2);
        assert_eq!(watched.look().await, Look::Unusable);
        assert!(std::sync::Arc::ptr_eq(&before, &watched.config.get_inner()));
        assert_eq!(watched.look().await, Look::Unchanged, "said once");
        write(&key, &second.1, 3);
        assert_eq!(watched.look().await, Look::Loaded);
        assert!(!std::sync::Arc::ptr_eq(
            &before,
            &watched.config.get_inner()
        ));

        std::fs::remove_file(&key).expect("it is there");
        assert_eq!(watched.look().await, Look::Unusable);
    }
}
