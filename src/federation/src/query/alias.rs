//! Where aliases lead, of this server and of others.

use std::collections::HashSet;

use myelin_store::StoreError;
use ruma::{OwnedRoomId, OwnedServerName, RoomAliasId};
use serde::Deserialize;

use super::QueryError;
use crate::Federation;

/// How many servers of an answer are looked at: whoever joins tries one after the other, and never as many.
const MOST_SERVERS: usize = 100;

/// The room of an alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedAlias {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Servers that are likely to be in it, none twice, the likeliest first.
    pub servers: Vec<OwnedServerName>,
}

/// Why it is not known where an alias leads.
#[derive(Debug, thiserror::Error)]
pub enum ResolveAliasError {
    /// There is no such alias (`M_NOT_FOUND`).
    #[error("there is no such alias")]
    NotFound,
    /// The alias is of another server, which could not be asked.
    #[error("ask the server of the alias")]
    Query(#[source] QueryError),
    /// The store could not be read.
    #[error("read an alias")]
    Store(#[from] StoreError),
}

/// The answer to `query/directory`.
#[derive(Deserialize)]
struct Directory {
    room_id: OwnedRoomId,
    /// What is no server name is skipped.
    #[serde(default)]
    servers: Vec<String>,
}

impl Federation {
    /// The room of an alias, and servers that are in it. An alias of another server is asked for there.
    pub async fn resolve_alias(
        &self,
        alias: &RoomAliasId,
    ) -> Result<ResolvedAlias, ResolveAliasError> {
        if alias.server_name() == self.server_name() {
            return self.own_alias(alias).await;
        }
        let server = alias.server_name();
        let query = vec![("room_alias", alias.to_string())];
        let answer: Directory = self
            .ask(server, ["query", "directory"], query)
            .await
            .map_err(|error| {
                if error.is_not_found() {
                    ResolveAliasError::NotFound
                } else {
                    ResolveAliasError::Query(error)
                }
            })?;
        let mut seen = HashSet::new();
        // The server of the alias need not be in the room, but mostly is.
        let servers = answer
            .servers
            .into_iter()
            .take(MOST_SERVERS)
            .filter_map(|name| OwnedServerName::try_from(name).ok())
            .chain([server.to_owned()])
            .filter(|name| seen.insert(name.clone()))
            .collect();
        Ok(ResolvedAlias {
            room_id: answer.room_id,
            servers,
        })
    }

    async fn own_alias(&self, alias: &RoomAliasId) -> Result<ResolvedAlias, ResolveAliasError> {
        let (rooms, alias) = (self.0.rooms.clone(), alias.to_owned());
        let found = self.0.rooms.store().read(move |view| {
            let Some(room) = rooms.resolve_alias(view, &alias)? else {
                return Ok::<_, StoreError>(None);
            };
            let servers = rooms.servers_in_room(view, room.num)?;
            Ok(Some((room, servers)))
        });
        let (room, others) = found.await?.ok_or(ResolveAliasError::NotFound)?;
        let here = self.server_name();
        let others = others.into_iter().filter(|name| name != here);
        Ok(ResolvedAlias {
            room_id: room.room_id().to_owned(),
            servers: [here.to_owned()]
                .into_iter()
                .chain(others)
                .take(MOST_SERVERS)
                .collect(),
        })
    }
}
