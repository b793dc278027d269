//! The index of servers in rooms, as memberships change it.

use std::collections::BTreeMap;

use myelin_data::{
    Present,
    servers::{RoomServers, ServerInRoom, ServerRooms},
};
use myelin_store::View;
use myelin_types::RoomNum;
use ruma::ServerName;

use super::guard::RoomGuard;
use crate::{Failure, servers};

impl RoomGuard {
    /// Counts a user of a server in or out of the room. Only with the first and the last one more is written than the one
    /// row of the server.
    pub(super) async fn count_server(
        &mut self,
        server: &ServerName,
        joined_before: bool,
        joined_after: bool,
    ) -> Result<(), Failure> {
        if joined_before == joined_after {
            return Ok(());
        }
        let room = self.num();
        let mut row = self.server_row(server).await?;
        let moved = if joined_after {
            row.enter()
        } else {
            row.leave()
        };
        let name = server.as_str().to_owned();
        if row.joined == 0 && server == self.rooms.0.server_name {
            // Nobody has to tell us that we left.
            self.batch.delete::<RoomServers>(&(room, name.clone()));
            self.batch.delete::<ServerRooms>(&(name.clone(), room));
        } else {
            self.batch.put::<RoomServers>(&(room, name.clone()), &row);
            if moved && joined_after {
                self.batch
                    .put::<ServerRooms>(&(name.clone(), room), &Present);
            }
        }
        if moved {
            self.log.servers_of = Some(room);
        }
        self.layers.newest().set_server(name, row);
        Ok(())
    }

    /// A server's relation to the room, with what this batch and those before it have changed.
    async fn server_row(&mut self, server: &ServerName) -> Result<ServerInRoom, Failure> {
        if let Some(row) = self.layers.newest().server(server.as_str()) {
            return Ok(row.clone());
        }
        let earlier = self.layers.server(server.as_str());
        match earlier {
            Some(row) if !row.is_open() => return Ok(row.clone()),
            // The batch that opened or closed a stay must tell where before another one writes the row again.
            Some(_) => self.settle().await?,
            None => {}
        }
        let Some(head) = &self.expected else {
            // The room is being made.
            return Ok(ServerInRoom::default());
        };
        let (room, name) = (self.num(), server.as_str().to_owned());
        // Layers know of the servers only what changed: as soon as there is one, the room has rows.
        let may_lack = head.joined > 0 && !self.layers.have_servers();
        let read = move |view: &View| {
            let row = view.get::<RoomServers>(&(room, name.clone()))?;
            let lacking = row.is_none() && may_lack && servers::lacks_rows(view, room)?;
            Ok::<_, myelin_store::StoreError>((row, lacking))
        };
        let (row, lacking) = self.rooms.0.store.read(read).await?;
        if lacking {
            self.index_servers().await?;
            let row = self.layers.newest().server(server.as_str()).cloned();
            return Ok(row.unwrap_or_default());
        }
        Ok(row.unwrap_or_default())
    }

    /// Writes the rows of a room that has members and no rows, since it was written to by a version of the program that
    /// did not know of them.
    pub(crate) async fn index_servers(&mut self) -> Result<(), Failure> {
        // The members are read from a view, which must have what is still on its way.
        self.settle().await?;
        let (rooms, room) = (self.rooms.clone(), self.num());
        let view = self.rooms.0.store.view();
        let counted = tokio::task::spawn_blocking(move || rooms.count_servers(&view, room))
            .await
            .map_err(|_| Failure::CutShort)??;
        self.put_servers(room, counted);
        Ok(())
    }

    fn put_servers(&mut self, room: RoomNum, counted: BTreeMap<String, u64>) {
        for (name, joined) in counted {
            let row = ServerInRoom::long_there(joined);
            self.batch.put::<RoomServers>(&(room, name.clone()), &row);
            self.batch
                .put::<ServerRooms>(&(name.clone(), room), &Present);
            self.layers.newest().set_server(name, row);
        }
    }
}
