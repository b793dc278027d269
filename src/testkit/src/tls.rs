//! An authority of the tests' own, and certificates by it.

use std::path::{Path, PathBuf};

use myelin_config::Config;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// A certificate authority that only those servers believe in whose settings name it.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    /// A new one. Its files go with it.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("there is a temporary directory");
        let mut params = CertificateParams::new(Vec::new()).expect("no names are valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.self_signed(&key).expect("a certificate can be made");
        std::fs::write(dir.path().join("authority.pem"), certificate.pem())
            .expect("a file can be written");
        Self {
            issuer: Issuer::new(params, key),
            dir,
        }
    }

    /// Its own certificate, PEM.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("authority.pem")
    }

    /// Makes a certificate for these names and addresses: a certificate and its private key, both PEM.
    pub fn issue(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let params = CertificateParams::new(names).expect("a test gives valid names");
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("a certificate can be made");
        (certificate.pem(), key.serialize_pem())
    }

    /// The same as the files `<label>.pem` and `<label>.key`, made or overwritten.
    pub fn issue_files(&self, label: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.issue(names);
        let path = |extension| self.dir.path().join(format!("{label}.{extension}"));
        let write = |path: &Path, text: String| {
            std::fs::write(path, text).expect("a file can be written");
        };
        let files = (path("pem"), path("key"));
        write(&files.0, certificate);
        write(&files.1, key);
        files
    }

    /// Lets a server believe in this authority, and connect to servers on this machine.
    pub fn trust(&self, config: &mut Config) {
        config.federation.ca_certificates = vec![self.certificate()];
        // Nobody outside is asked for anything.
        config.federation.trusted_key_servers = Vec::new();
        config.federation.allow_private_addresses = ["127.0.0.0/8", "::1"]
            .map(|network| network.parse().expect("a network"))
            .to_vec();
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
