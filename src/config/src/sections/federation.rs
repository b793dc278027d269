//! `[federation]`: how the server works together with others.

use std::path::PathBuf;

use crate::{
    macros::{Invalid, Section, SectionDoc, section},
    values::Network,
};

section! {
    /// How the server works together with other Matrix servers.
    pub struct Federation in "federation" {
        /// Whether this server works together with others: its users join their rooms, and theirs join rooms here.
        #[serde(default = "default_enabled")]
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

fn default_enabled() -> bool {
    true
}

impl Default for Federation {
    /// With all servers at public addresses.
    fn default() -> Self {
        Self {
            enabled: default_enabled(),
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
