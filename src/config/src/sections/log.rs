//! `[log]`: what the server writes about its work.

use serde::{Deserialize, Serialize};

use crate::macros::{Invalid, Section, SectionDoc, section};

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

section! {
    /// What the server writes about its work, to standard error.
    pub struct Log in "log" {
        /// Which messages: "error", "warn", "info", "debug" or "trace", and exceptions for parts of the server after
        /// commas, as in "info,myelin_rooms=debug".
        #[serde(default = "default_filter")]
        pub filter: String,
        /// "text" for people, "json" for machines.
        #[serde(default = "default_format")]
        pub format: LogFormat,
    }
}

fn default_filter() -> String {
    "info".to_owned()
}

fn default_format() -> LogFormat {
    LogFormat::Text
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Section for Log {
    const DOC: SectionDoc = Self::SECTION;

    fn validate(&self) -> Result<(), Invalid> {
        for directive in self.filter.split(',') {
            let level = directive
                .rsplit_once('=')
                .map_or(directive, |(_, level)| level);
            if !LEVELS.contains(&level.trim().to_ascii_lowercase().as_str()) {
                return Err(Invalid::new(
                    "filter",
                    format!(
                        "\"{}\" is no level; use one of {}",
                        level.trim(),
                        LEVELS.join(", ")
                    ),
                ));
            }
        }
        Ok(())
    }
}
