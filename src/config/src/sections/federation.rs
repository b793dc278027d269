//! `[federation]`: how the server works together with others.

use std::path::PathBuf;

use crate::{
    macros::{Invalid, Section, SectionDoc, section},
    values::Network,
};

section! {
    /// How the server works together with other Matrix servers.
    pub struct Federation in "federation" {
        /// Whether other servers may join the rooms of this one and send events to them. EXPERIMENTAL: nothing is
        /// sent to other servers yet, so that their users do not see what is written here, and users of this server
        /// cannot join rooms of others. Servers that are found only by an SRV record are not found.
        #[serde(default)]
        pub enabled: bool,
        /// PEM files with certificates of authorities to believe in besides those of the operating system.
        #[serde(default)]
        pub ca_certificates: Vec<PathBuf> => r#"["/etc/myelin/our-authority.pem"]"#,
        /// Addresses or networks within the machine or its private network that other servers may have. Without it
        /// only public addresses are connected to, so that nobody can have this server call upon its neighbours.
        #[serde(default)]
        pub allow_private_addresses: Vec<Network> => r#"["10.0.0.0/8"]"#,
    }
}

impl Default for Federation {
    /// Nothing to do with other servers, or nobody but the public ones.
    fn default() -> Self {
        Self {
            enabled: false,
            ca_certificates: Vec::new(),
            allow_private_addresses: Vec::new(),
        }
    }
}

impl Section for Federation {
    const DOC: SectionDoc = Self::SECTION;

    fn validate(&self) -> Result<(), Invalid> {
        let unnamed = |path: &PathBuf| path.as_os_str().is_empty();
        if self.ca_certificates.iter().any(unnamed) {
            return Err(Invalid::new("ca_certificates", "must name files"));
        }
        Ok(())
    }
}
