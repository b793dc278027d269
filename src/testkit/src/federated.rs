//! Several servers that know each other, over TLS on loopback.

use std::{
    fmt,
    ops::{Index, IndexMut},
    sync::Arc,
};

use myelin_config::Config;
use myelin_types::MockClock;

use crate::{Authority, Builder, ReservedPort, TestServer};

/// Several servers that can speak with each other. Server `i` is `federated[i]`, and is called `localhost:<port>`.
///
/// Each has an address with TLS for the others and one with plain HTTP for clients ([`TestServer::url`]). Both stay the same
/// when it is stopped or killed and resumed, and so do sessions of its clients.
#[derive(Debug)]
pub struct Federated {
    servers: Vec<TestServer>,
    authority: Arc<Authority>,
    _ports: Vec<ReservedPort>,
}

/// Changes the settings of the server with this number.
type Change = Box<dyn Fn(usize, &mut Config) + Send>;

/// [`Federated`] servers before they start.
pub struct FederatedBuilder {
    count: usize,
    authority: Arc<Authority>,
    clock: Option<Arc<MockClock>>,
    changes: Vec<Change>,
}

impl fmt::Debug for FederatedBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FederatedBuilder")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl FederatedBuilder {
    /// Changes the settings of each server; the first argument is its number.
    #[must_use]
    pub fn configure(mut self, change: impl Fn(usize, &mut Config) + Send + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// Lets all servers live by one clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<MockClock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Uses this authority: for tests that make servers of their own beside these.
    #[must_use]
    pub fn authority(mut self, authority: Arc<Authority>) -> Self {
        self.authority = authority;
        self
    }

    /// Starts them.
    pub async fn start(self) -> Federated {
        let (certificate, key) = self
            .authority
            .issue_files("localhost", &["localhost", "127.0.0.1"]);
        let mut servers = Vec::new();
        let mut ports = Vec::new();
        for index in 0..self.count {
            let (https, http) = (ReservedPort::take(), ReservedPort::take());
            let name = format!("localhost:{}", https.port());
            let mut builder = Builder::new(&name).configure(|config| {
                config.listen.addresses = vec![http.address()];
                config.listen.tls_addresses = vec![https.address()];
                config.listen.tls_certificate = Some(certificate.clone());
                config.listen.tls_private_key = Some(key.clone());
                self.authority.trust(config);
                for change in &self.changes {
                    change(index, config);
                }
            });
            if let Some(clock) = &self.clock {
                builder = builder.clock(Arc::clone(clock));
            }
            servers.push(builder.start().await);
            ports.extend([https, http]);
        }
        Federated {
            servers,
            authority: self.authority,
            _ports: ports,
        }
    }
}

impl Federated {
    /// Starts `count` servers with the settings of [`Builder`](crate::Builder).
    pub async fn start(count: usize) -> Federated {
        Self::builder(count).start().await
    }

    /// The same, to be changed before they start.
    pub fn builder(count: usize) -> FederatedBuilder {
        FederatedBuilder {
            count,
            authority: Arc::default(),
            clock: None,
            changes: Vec::new(),
        }
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.servers.len()
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, TestServer> {
        self.servers.iter()
    }

    /// The authority they believe in, for servers that a test makes itself.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }
}

impl<'a> IntoIterator for &'a Federated {
    type Item = &'a TestServer;
    type IntoIter = std::slice::Iter<'a, TestServer>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Index<usize> for Federated {
    type Output = TestServer;

    fn index(&self, index: usize) -> &TestServer {
        &self.servers[index]
    }
}

impl IndexMut<usize> for Federated {
    fn index_mut(&mut self, index: usize) -> &mut TestServer {
        &mut self.servers[index]
    }
}
