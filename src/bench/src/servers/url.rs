//! A server that somebody else has started: only what its answers show can be measured.

use std::time::Duration;

use http::Method;
use serde_json::Value;

use crate::{
    client::{Registration, parsed},
    http::{Connection, Host},
    machine,
    server::{Server, ServerError},
};

/// Where it is, and how accounts are made there.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Remote {
    /// The base URL of a server that runs already. It must let anybody register or know the token, and limit no rates.
    #[arg(long)]
    url: Option<String>,
    /// What the server at the URL is called in the figures.
    #[arg(long, requires = "url", default_value = "other")]
    name: String,
    /// The token that registering there takes.
    #[arg(long, requires = "url")]
    registration_token: Option<String>,
}

impl Remote {
    /// What it is called, if there is one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.url.as_ref().map(|_| self.name.as_str())
    }

    /// Waits until it answers.
    pub(crate) async fn start(&self) -> Result<Server, ServerError> {
        let host = Host::parse(self.url.as_deref().unwrap_or_default())?;
        let mut server = Server::new(&self.name, host, Vec::new(), None, Vec::new());
        if let Some(token) = &self.registration_token {
            server.registration = Registration::Token(token.clone());
        }
        // No user of an earlier run has a name like this.
        server.prefix = format!("bench-{}-", machine::now().replace([' ', ':'], "-"));
        server.start().await?;
        server.version = version(&server.host).await;
        server.settings = vec!["As its operator has set them.".to_owned()];
        Ok(server)
    }
}

/// What it says of itself to other servers, if it does.
async fn version(host: &Host) -> String {
    let path = "/_matrix/federation/v1/version";
    let patience = Duration::from_secs(10);
    let mut connection = Connection::new(host.clone());
    let asked = connection
        .send(&Method::GET, path, None, None, patience)
        .await;
    let said = asked.map_or(Value::Null, |answer| parsed(&answer));
    let field = |name: &str| said["server"][name].as_str().map(str::to_owned);
    match (field("name"), field("version")) {
        (Some(name), Some(version)) => format!("{name} {version}"),
        _ => "unknown".to_owned(),
    }
}
