//! Working together with other servers.
//!
//! Is: how they are found, asked and believed: discovery, the guard against addresses that are none of their business,
//! signed requests, the key ring, what a transaction of theirs does here, and what they are sent of our own accord.
//! Is not: aware of HTTP as it comes in, or of what an event means: what was fetched or received is checked by `rooms`.

mod admission;
pub mod auth;
pub mod check;
mod client;
mod connect;
mod discovery;
mod dns;
mod e2ee;
mod fetch;
mod flights;
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod history;
mod inbound;
pub mod join;
mod keys;
mod membership;
mod memory;
mod outbound;
mod policy;
mod query;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod transport;

use std::{error::Error as StdError, fmt, sync::Arc};

use myelin_accounts::Accounts;
use myelin_config::Federation as Settings;
use myelin_e2ee::E2ee;
use myelin_rooms::Rooms;
use myelin_rules::{Object, Signer, SigningKey};
use myelin_store::Store;
use myelin_types::{Clock, Random};
use ruma::{OwnedServerName, ServerName};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub use admission::{BodyMemory, FREE_BODY};
use auth::{Authorization, Signed};
pub use client::RequestError;
pub use connect::ConnectError;
use discovery::route::Ports;
pub use dns::DnsError;
pub use e2ee::{ClaimAnswer, KeysAnswer};
pub use inbound::{Kind, MAX_EDUS, MAX_PDUS, Permit, TooMuch, Transaction, TransactionError};
pub use keys::{KeyError, notary::Queries};
pub use membership::{
    BoundInvite, ExchangeError, InviteError, KnockError, MOST_BOUND, ReceiveInviteError,
};
pub use memory::MEMORY;
use memory::Shares;
pub use outbound::{Edu, EphemeralKey, Outbound};
pub use query::{LookUpProfileError, QueryError, ResolveAliasError, ResolvedAlias};
pub use tls::ClientError;
pub use transport::TransportError;

/// Everything that has to do with other servers. Cheap to clone; every clone is the same.
#[derive(Clone)]
pub struct Federation(Arc<Inner>);

struct Inner {
    enabled: bool,
    server_name: OwnedServerName,
    client: Arc<client::Client>,
    keys: keys::KeyRing,
    admission: admission::Admission,
    rooms: Rooms,
    accounts: Accounts,
    e2ee: E2ee,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    inbound: inbound::Inbound,
    outbound: Outbound,
    answers: query::Answers,
    joining: join::Joining,
    fills: history::Fills,
    lists: e2ee::Lists,
    /// How many bindings of addresses may still be dealt with.
    bindings: Arc<Semaphore>,
    completion: join::Completion,
    tasks: TaskTracker,
}

/// What a [`Federation`] is made of besides its settings.
pub struct Parts {
    /// The name of this server.
    pub server_name: OwnedServerName,
    /// What signs requests and events as `server_name`.
    pub signer: Arc<Signer>,
    /// How many bytes what is remembered of other servers may take: [`MEMORY`] by default.
    pub memory: usize,
    /// The database.
    pub store: Store,
    /// The rooms that events of other servers go to.
    pub rooms: Rooms,
    /// The users whom other servers may ask for.
    pub accounts: Accounts,
    /// Their keys, and what other servers tell of theirs.
    pub e2ee: E2ee,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where chance comes from.
    pub random: Arc<dyn Random>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

impl fmt::Debug for Federation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Federation").finish_non_exhaustive()
    }
}

/// Why a request is not believed to come from the server it names.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// It is for another server.
    #[error("the request is for another server")]
    Destination,
    /// It names this server as its origin: nobody sends requests to oneself.
    #[error("the request names this server as its origin")]
    Ourselves,
    /// The key it is signed with cannot be had.
    #[error("the key of the signature cannot be had")]
    Key(#[source] KeyError),
    /// The signature does not fit.
    #[error("the signature does not verify")]
    Signature,
}

/// A request whose header could be right: the server exists and has the key.
#[derive(Clone)]
pub struct Announced {
    here: OwnedServerName,
    outbound: Outbound,
    authorization: Authorization,
    key: [u8; 32],
}

impl fmt::Debug for Announced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announced")
            .field("authorization", &self.authorization)
            .finish_non_exhaustive()
    }
}

impl Announced {
    /// The server that is said to call.
    pub fn origin(&self) -> &ServerName {
        &self.authorization.origin
    }

    /// Proves that the request comes from the server that its header names.
    pub fn prove(&self, request: Signed<'_>) -> Result<OwnedServerName, AuthError> {
        if request.verify(&self.authorization, &self.here, &self.key) {
            self.outbound.heard(&self.authorization.origin);
            Ok(self.authorization.origin.clone())
        } else {
            Err(AuthError::Signature)
        }
    }
}

impl Federation {
    /// Reads the certificate files, so not to be called on an async thread that must not block for long.
    pub fn new(settings: &Settings, parts: Parts) -> Result<Federation, ClientError> {
        let dns = dns::Dns::system(Shares::of(parts.memory).addresses);
        Self::within(settings, parts, dns, Ports::default())
    }

    /// The same, with names looked up so, and servers answering at these ports.
    fn within(
        settings: &Settings,
        parts: Parts,
        dns: dns::Dns,
        ports: Ports,
    ) -> Result<Federation, ClientError> {
        let Parts {
            server_name,
            signer,
            memory,
            store,
            rooms,
            accounts,
            e2ee,
            clock,
            random,
        } = parts;
        let memory = Shares::of(memory);
        let client = Arc::new(client::Client::new(client::ClientParts {
            memory,
            enabled: settings.enabled,
            origin: server_name.clone(),
            signer: Arc::clone(&signer),
            clock: Arc::clone(&clock),
            random: Arc::clone(&random),
            guard: guard::Guard::new(settings.allow_private_addresses.clone()),
            dns,
            tls: tls::client_config(&settings.ca_certificates)?,
            ports,
        }));
        let outbound = Outbound::new(
            server_name.clone(),
            rooms.clone(),
            e2ee.clone(),
            Arc::clone(&clock),
            Arc::clone(&random),
            Arc::clone(&client) as Arc<dyn outbound::Wire>,
        );
        if settings.enabled {
            outbound.serve_outbox_of(&e2ee);
        }
        rooms.ask_policies_through(Arc::new(policy::Policies(Arc::clone(&client))));
        Ok(Federation(Arc::new(Inner {
            enabled: settings.enabled,
            server_name,
            keys: keys::KeyRing::new(
                store,
                Arc::clone(&clock),
                Arc::clone(&client),
                signer,
                settings.trusted_key_servers.clone(),
                memory.keys,
            ),
            admission: admission::Admission::default(),
            client,
            rooms,
            accounts,
            e2ee,
            answers: query::Answers::new(Arc::clone(&clock), memory.answers),
            fills: history::Fills::new(&clock),
            lists: e2ee::Lists::new(Arc::clone(&clock)),
            bindings: Arc::new(Semaphore::new(membership::BINDINGS_AT_ONCE)),
            clock,
            random,
            inbound: inbound::Inbound::new(settings),
            joining: join::Joining::default(),
            outbound,
            completion: join::Completion::default(),
            tasks: TaskTracker::new(),
        })))
    }

    /// Whether this server works together with others. If not, every request to them fails with
    /// [`RequestError::Disabled`].
    pub fn is_enabled(&self) -> bool {
        self.0.enabled
    }

    /// The users of this server.
    pub fn accounts(&self) -> &Accounts {
        &self.0.accounts
    }

    /// The keys of its users' devices, and what is known of others'.
    pub fn e2ee(&self) -> &E2ee {
        &self.0.e2ee
    }

    /// The name of this server.
    pub fn server_name(&self) -> &ServerName {
        &self.0.server_name
    }

    /// The rooms that events of other servers go to.
    pub fn rooms(&self) -> &Rooms {
        &self.0.rooms
    }

    /// What time it is.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.clock
    }

    /// Where chance comes from.
    pub fn random(&self) -> &Arc<dyn Random> {
        &self.0.random
    }

    /// What is sent to other servers.
    pub fn outbound(&self) -> &Outbound {
        &self.0.outbound
    }

    /// This server's keys, signed, as it publishes them: the answer to `GET /_matrix/key/v2/server`.
    pub fn own_keys(&self) -> Arc<Object> {
        self.0.keys.own()
    }

    /// The keys of these servers as they signed them, each with our signature: this server as a notary.
    pub async fn notarize(&self, queries: Queries) -> Result<Vec<Object>, KeyError> {
        self.0.keys.notarize(queries).await
    }

    /// Signs with `key` from now on. The key of before is published as an old one and remembered for good, so that what it
    /// signed still verifies. The caller has made sure that `key` is not lost.
    pub async fn replace_key(&self, key: SigningKey) -> Result<(), KeyError> {
        self.0.keys.replace_own(key).await
    }

    /// What a header says, as far as it can be proved without the request's body: whoever does not get this far has not had
    /// his body read.
    pub async fn announce(&self, authorization: Authorization) -> Result<Announced, AuthError> {
        let here = self.server_name();
        if let Some(destination) = &authorization.destination
            && destination != here
        {
            return Err(AuthError::Destination);
        }
        if authorization.origin == here {
            return Err(AuthError::Ourselves);
        }
        let key = self
            .0
            .keys
            .request_key(&authorization.origin, &authorization.key)
            .await
            .map_err(AuthError::Key)?;
        Ok(Announced {
            here: here.to_owned(),
            outbound: self.0.outbound.clone(),
            authorization,
            key,
        })
    }

    /// Proves that a request comes from the server that its header names.
    pub async fn authenticate(
        &self,
        request: Signed<'_>,
        authorization: &Authorization,
    ) -> Result<OwnedServerName, AuthError> {
        let announced = self.announce(authorization.clone()).await?;
        announced.prove(request)
    }

    /// Memory for so many bytes of a body that is not proved yet; none if there is too much of it already. The first
    /// [`FREE_BODY`] bytes of each need none.
    pub async fn admit_body(&self, bytes: usize) -> Option<BodyMemory> {
        self.0.admission.body(bytes).await
    }

    /// Forgets what was known of servers that have been gone for long.
    pub async fn tidy(&self) -> Result<(), KeyError> {
        let mut after = None;
        loop {
            after = self.0.keys.tidy(after).await?;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}

/// An error with its sources, as one sentence.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
