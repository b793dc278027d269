//! Dendrite with PostgreSQL, as its `dendrite-sample.yaml` sets it up: one process with a NATS server inside.

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
    programs: &Path,
    database: &Path,
    dir: &Path,
) -> Result<Server, ServerError> {
    let programs = programs
        .canonicalize()
        .map_err(file("find the programs", programs))?;
    let binary = programs.join("dendrite");
    let (queues, config) = (dir.join("jetstream"), dir.join("dendrite.yaml"));
    make(&queues)?;
    let mut make_key = Command::new(programs.join("generate-keys"));
    make_key
        .arg("--private-key")
        .arg(dir.join("signing.key"))
        .current_dir(dir);
    run(&mut make_key).await?;
    let version = run(Command::new(&binary).arg("--version").current_dir(dir)).await?;

    let postgres = Postgres::start(database, dir, "dendrite").await?;
    let address = format!("127.0.0.1:{}", free_port()?);
    // Every JSON text is YAML too.
    write(&config, &settings(dir, &postgres.host).to_string())?;
    let arguments = vec![
        "--config".to_owned(),
        config.display().to_string(),
        "--http-bind-address".to_owned(),
        address.clone(),
        "--really-enable-open-registration".to_owned(),
    ];
    let mut part = Part::new(&binary, arguments, dir.join("dendrite.log"));
    part.directory = Some(dir.to_path_buf());
    let host = Host::parse(&format!("http://{address}"))?;
    let data = vec![postgres.tables, queues];
    let mut server = Server::new("dendrite", host, vec![postgres.part], Some(part), data);
    server.version = version;
    server.database = Some(postgres.version);
    server.settings = vec![
        "Monolith as in its sample settings, with JetStream's files among its data; open registration, no rate limits, no \
         presence, no federation, log level warn."
            .to_owned(),
        postgres::SETTINGS.to_owned(),
    ];
    Ok(server)
}

fn settings(dir: &Path, database: &Path) -> Value {
    let database = format!(
        "postgresql:///dendrite?host={}&user={}&sslmode=disable",
        database.display(),
        postgres::ROLE
    );
    json!({
        "version": 2,
        "global": {
            "server_name": "localhost",
            "private_key": dir.join("signing.key"),
            "database": {
                "connection_string": database,
                "max_open_conns": 90,
                "max_idle_conns": 5,
                "conn_max_lifetime": -1,
            },
            "cache": { "max_size_estimated": "1gb", "max_age": "1h" },
            "disable_federation": true,
            "presence": { "enable_inbound": false, "enable_outbound": false },
            "report_stats": { "enabled": false },
            "jetstream": { "storage_path": dir.join("jetstream"), "topic_prefix": "Dendrite" },
        },
        "client_api": {
            "registration_disabled": false,
            "rate_limiting": { "enabled": false },
        },
        "media_api": { "base_path": dir.join("media") },
        "sync_api": { "search": { "enabled": false } },
        "logging": [{ "type": "std", "level": "warn" }],
    })
}
