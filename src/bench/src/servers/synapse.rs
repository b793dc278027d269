//! Synapse with PostgreSQL, set up for production as its documentation says: see `docs/postgres.md` and "Configuration
//! Manual" there. One process, as it is without workers.

use std::path::Path;

use serde_json::{Value, json};
use tokio::process::Command;

use super::{
    file, free_port, make,
    postgres::{self, Postgres},
    run, write,
};
use crate::{
    http::Host,
    server::{Part, Server, ServerError},
};

pub(super) async fn prepare(
    environment: &Path,
    database: &Path,
    jemalloc: Option<&Path>,
    dir: &Path,
) -> Result<Server, ServerError> {
    // Not resolved further: which environment a Python uses depends on where it was started from.
    let environment =
        std::path::absolute(environment).map_err(file("find the environment", environment))?;
    let python = environment.join("bin/python");
    let (media, config) = (dir.join("media"), dir.join("homeserver.yaml"));
    make(&media)?;
    let mut postgres = Postgres::start(database, dir, "synapse").await?;

    let port = free_port()?;
    // Every JSON text is YAML too.
    write(&dir.join("log.yaml"), &logging().to_string())?;
    write(&config, &settings(port, dir, &postgres.host).to_string())?;
    let arguments = ["-m", "synapse.app.homeserver", "--config-path"];
    let arguments: Vec<String> = arguments
        .map(str::to_owned)
        .into_iter()
        .chain([config.display().to_string()])
        .collect();
    let mut make_keys = Command::new(&python);
    make_keys
        .args(&arguments)
        .arg("--generate-keys")
        .current_dir(dir);
    let made = run(&mut make_keys).await;
    if let Err(cause) = made {
        postgres.part.end().await?;
        return Err(cause);
    }

    let mut part = Part::new(&python, arguments, dir.join("synapse.log"));
    part.directory = Some(dir.to_path_buf());
    if let Some(library) = jemalloc {
        part.environment
            .push(("LD_PRELOAD".to_owned(), library.display().to_string()));
    }
    let host = Host::parse(&format!("http://127.0.0.1:{port}"))?;
    let data = vec![postgres.tables, media];
    let mut server = Server::new("synapse", host, vec![postgres.part], Some(part), data);
    let ask = "from importlib.metadata import version; print(version('matrix-synapse'))";
    server.version = run(Command::new(&python).args(["-c", ask])).await?;
    server.database = Some(postgres.version);
    server.settings = vec![
        format!(
            "One process, psycopg2 with 5 to 10 connections, caches and bcrypt_rounds as by default, {} jemalloc; open \
             registration, no rate limits, no presence, no federation, log level WARNING.",
            if jemalloc.is_some() {
                "with"
            } else {
                "without"
            }
        ),
        postgres::SETTINGS.to_owned(),
    ];
    Ok(server)
}

fn settings(port: u16, dir: &Path, database: &Path) -> Value {
    let unlimited = json!({ "per_second": 1_000_000, "burst_count": 1_000_000 });
    json!({
        "server_name": "localhost",
        "report_stats": false,
        "suppress_key_server_warning": true,
        "trusted_key_servers": [],
        "federation_domain_whitelist": [],
        "signing_key_path": dir.join("signing.key"),
        "media_store_path": dir.join("media"),
        "log_config": dir.join("log.yaml"),
        "listeners": [{
            "port": port,
            "bind_addresses": ["127.0.0.1"],
            "type": "http",
            "resources": [{ "names": ["client"], "compress": false }],
        }],
        "database": {
            "name": "psycopg2",
            "args": {
                "user": postgres::ROLE,
                "dbname": "synapse",
                "host": database,
                "cp_min": 5,
                "cp_max": 10,
            },
        },
        "presence": { "enabled": false },
        "enable_registration": true,
        "enable_registration_without_verification": true,
        "rc_message": unlimited,
        "rc_registration": unlimited,
        "rc_registration_token_validity": unlimited,
        "rc_login": { "address": unlimited, "account": unlimited, "failed_attempts": unlimited },
        "rc_joins": { "local": unlimited, "remote": unlimited },
        "rc_joins_per_room": unlimited,
        "rc_invites": { "per_room": unlimited, "per_user": unlimited, "per_issuer": unlimited },
        "rc_room_creation": unlimited,
        "rc_admin_redaction": unlimited,
        "rc_presence": { "per_user": unlimited },
    })
}

/// For Python's `logging.config`.
fn logging() -> Value {
    json!({
        "version": 1,
        "formatters": {
            "precise": { "format": "%(asctime)s - %(name)s - %(levelname)s - %(message)s" },
        },
        "handlers": {
            "console": { "class": "logging.StreamHandler", "formatter": "precise" },
        },
        "root": { "level": "WARNING", "handlers": ["console"] },
        "disable_existing_loggers": false,
    })
}
