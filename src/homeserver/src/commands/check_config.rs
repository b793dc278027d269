//! `myelin check-config`: reads the settings and says what is wrong with them.

use super::{Outcome, Settings, print};
use crate::logging;

pub(super) fn run(settings: &Settings) -> Outcome {
    let config = settings.load()?;
    logging::filter(&config.log)?;
    if let Some(files) = config.listen.tls_files() {
        for (setting, file) in [
            ("listen.tls_certificate", files.certificate),
            ("listen.tls_private_key", files.private_key),
        ] {
            std::fs::File::open(file)
                .map_err(|error| format!("{setting}: open {}: {error}", file.display()))?;
        }
    }
    print(&format!(
        "The settings of {} are valid.",
        config.server.name
    ))
}
