//! `[server]`: who the server is and where it lives.

use std::path::PathBuf;

use ruma::OwnedServerName;

use crate::{
    macros::{Invalid, Section, SectionDoc, section},
    values::{BaseUrl, ByteSize},
};

section! {
    /// Who this server is and where it keeps its data.
    pub struct Server in "server" {
        /// The name that stands behind the colon in every user id of this server, as in `@alice:example.org`.
        /// It can never be changed once the first user exists. It need not be the host the server runs on:
        /// see `well_known`. Required.
        pub name: OwnedServerName => r#""example.org""#,
        /// Where clients reach the server from outside, if that is not `https://` followed by `name`.
        pub public_base_url: Option<BaseUrl> => r#""https://matrix.example.org""#,
        /// The directory of the database and of the server's signing key. Whoever can read it can act as this
        /// server; it is created readable by its owner only.
        #[serde(default = "default_data_dir")]
        pub data_dir: PathBuf,
        /// How much memory the server may take for all that it keeps in memory, for example "512 MiB". Without it the
        /// server takes a sixteenth of the memory of the machine or of its container, at least 32 MiB and at most
        /// 40 MiB. The program itself and the requests at work need some 40 MiB besides. More of it makes a busy
        /// server of many users faster.
        pub memory_budget: Option<ByteSize> => r#""512 MiB""#,
    }
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("myelin-data")
}

/// Below this the database works against itself.
const SMALLEST_BUDGET: ByteSize = ByteSize::mebibytes(32);

impl Server {
    /// Where clients reach the server from outside.
    pub fn base_url(&self) -> String {
        match &self.public_base_url {
            Some(url) => url.as_str().to_owned(),
            None => format!("https://{}", self.name),
        }
    }
}

impl Section for Server {
    const DOC: SectionDoc = Self::SECTION;

    fn validate(&self) -> Result<(), Invalid> {
        if self.data_dir.as_os_str().is_empty() {
            return Err(Invalid::new("data_dir", "must name a directory"));
        }
        if self
            .memory_budget
            .is_some_and(|size| size < SMALLEST_BUDGET)
        {
            return Err(Invalid::new(
                "memory_budget",
                format!("must be at least {SMALLEST_BUDGET}"),
            ));
        }
        Ok(())
    }
}
