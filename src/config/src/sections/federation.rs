//! `[federation]`: how the server works together with others.

use std::path::PathBuf;

use ruma::{OwnedServerName, owned_server_name};

use crate::{
    Rate,
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
        /// Servers that are asked for the keys of others which do not answer themselves, one after the other. What they
        /// say is believed, so name only servers you trust with that; an empty list asks nobody.
        #[serde(default = "default_trusted_key_servers")]
        pub trusted_key_servers: Vec<OwnedServerName>,
        /// Addresses or networks within the machine or its private network that other servers may have. Without it
        /// only public addresses are connected to, so that nobody can have this server call upon its neighbours.
        #[serde(default)]
        pub allow_private_addresses: Vec<Network> => r#"["10.0.0.0/8"]"#,
        /// Whether `transactions` and `requests` hold. How many requests of one server run at once is limited in any case.
        #[serde(default = "default_rate_limits")]
        pub rate_limits: bool,
        /// How many transactions one server may send: each brings up to 50 events and 100 notices. A bucket that holds
        /// `burst` of them and refills with `per_second`. Further ones are refused, and sent again later.
        #[serde(default = "default_transactions")]
        pub transactions: Rate,
        /// How many other requests one server may make.
        #[serde(default = "default_requests")]
        pub requests: Rate,
        /// How many requests of one server, transactions not counted, run at once.
        #[serde(default = "default_concurrent_requests")]
        pub concurrent_requests: u32,
    }
}

fn default_enabled() -> bool {
    true
}

fn default_trusted_key_servers() -> Vec<OwnedServerName> {
    vec![owned_server_name!("matrix.org")]
}

fn default_rate_limits() -> bool {
    true
}

fn default_transactions() -> Rate {
    Rate {
        per_second: 50.0,
        burst: 500,
    }
}

fn default_requests() -> Rate {
    Rate {
        per_second: 100.0,
        burst: 1_000,
    }
}

fn default_concurrent_requests() -> u32 {
    50
}

impl Default for Federation {
    /// With all servers at public addresses.
    fn default() -> Self {
        Self {
            enabled: default_enabled(),
            ca_certificates: Vec::new(),
            trusted_key_servers: default_trusted_key_servers(),
            allow_private_addresses: Vec::new(),
            rate_limits: default_rate_limits(),
            transactions: default_transactions(),
            requests: default_requests(),
            concurrent_requests: default_concurrent_requests(),
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
        let rates = [
            ("transactions", self.transactions),
            ("requests", self.requests),
        ];
        for (field, rate) in rates {
            if !rate.is_valid() {
                return Err(Invalid::new(field, Rate::VALID));
            }
        }
        if self.concurrent_requests == 0 {
            return Err(Invalid::new("concurrent_requests", "must be at least 1"));
        }
        Ok(())
    }
}
