//! The floor: what a durable answer costs when nothing else is done. See `bin/floor.rs`.

use std::path::Path;

use super::{file, free_port};
use crate::{
    http::Host,
    server::{Part, Server, ServerError},
};

pub(super) fn prepare(binary: &Path, dir: &Path) -> Result<Server, ServerError> {
    let binary = binary
        .canonicalize()
        .map_err(file("find the binary", binary))?;
    let (address, data) = (format!("127.0.0.1:{}", free_port()?), dir.join("data"));
    let arguments = vec![
        "--listen".to_owned(),
        address.clone(),
        "--data".to_owned(),
        data.display().to_string(),
    ];
    let part = Part::new(binary, arguments, dir.join("floor.log"));
    let host = Host::parse(&format!("http://{address}"))?;
    let mut server = Server::new("floor", host, Vec::new(), Some(part), vec![data]);
    env!("CARGO_PKG_VERSION").clone_into(&mut server.version);
    server.settings = vec![
        "Parses the body, hashes and signs an event, writes it to RocksDB with a synced group commit and answers: no \
         accounts, no state, no checks."
            .to_owned(),
    ];
    Ok(server)
}
