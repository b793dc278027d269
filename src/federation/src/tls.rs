//! Which certificates of other servers are believed.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{
        CertificateDer,
        pem::{Error as PemError, PemObject as _},
    },
};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A certificate file cannot be read.
    #[error("read the certificates in {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A certificate file does not hold certificates in PEM.
    #[error("read the certificates in {path}", path = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: PemError,
    },
    /// A certificate file does not hold certificates of authorities.
    #[error("use the certificates in {path}", path = path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rustls::Error,
    },
}

/// Believes in the authorities of the operating system, and in those in these files.
///
/// Where the operating system has none (containers often have not), those that Mozilla believes in, which came with the
/// program, take their place: they are as old as the program, but a server that finds nobody is worse.
pub(crate) fn client_config(files: &[PathBuf]) -> Result<ClientConfig, ClientError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "certificates of the operating system cannot be read");
    }
    let mut authorities = system_authorities(found.certs);
    for path in files {
        add_file(&mut authorities, path)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the algorithms of TLS 1.2 and 1.3")
        .with_root_certificates(authorities)
        .with_no_client_auth();
    Ok(config)
}

fn system_authorities(found: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(found);
    if authorities.is_empty() {
        tracing::info!(
            "the operating system has no certificates of authorities; those that came with the program are used"
        );
        authorities.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    authorities
}

fn add_file(authorities: &mut RootCertStore, path: &PathBuf) -> Result<(), ClientError> {
    let text = std::fs::read(path).map_err(|source| ClientError::Read {
        path: path.clone(),
        source,
    })?;
    let unreadable = |source| ClientError::Pem {
        path: path.clone(),
        source,
    };
    let mut found = 0;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        authorities
            .add(certificate.map_err(unreadable)?)
            .map_err(|source| ClientError::Certificates {
                path: path.clone(),
                source,
            })?;
        found += 1;
    }
    if found == 0 {
        return Err(unreadable(PemError::NoItemsFound));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_authorities_of_the_system_there_are_others() {
        let ours = rcgen::generate_simple_self_signed(vec!["ours.example".to_owned()]);
        let ours = ours.expect("a certificate can be made").cert.der().clone();
        assert_eq!(system_authorities(vec![ours]).len(), 1);
        assert!(system_authorities(Vec::new()).len() > 50);
    }

    #[test]
    fn files_that_hold_no_certificates_are_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("authority.pem");
        let missing = client_config(std::slice::from_ref(&path));
        assert!(matches!(missing, Err(ClientError::Read { .. })));
        std::fs::write(&path, "nothing").expect("a file can be written");
        let empty = client_config(std::slice::from_ref(&path));
        assert!(matches!(empty, Err(ClientError::Pem { .. })));
    }
}
