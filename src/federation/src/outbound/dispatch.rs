//! The one reader of the log that all destinations share: it puts each event that goes out into the queues of those whom
//! it concerns, and keeps the durable cursor.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use myelin_data::{
    federation::Destinations,
    log::{Cursor, Cursors, Log, LogRow},
    servers::{RoomServers, ServerInRoom, ServerRooms, Stay},
};
use myelin_rooms::Event;
use myelin_rules::Membership;
use myelin_store::{Batch, CommitError, Scan, StoreError, View};
use myelin_types::{EventNum, Pos, RoomNum, UserNum};
use ruma::{OwnedServerName, ServerName, UserId};

use super::{
    Outbound,
    book::{At, Book, Id, Item},
    durable::ListNews,
    lists,
};

/// The reader's name in [`Cursors`].
const READER: &str = "federation";
/// How many rows of the log, and how many changes of device lists, are read at once.
const ROWS_A_READ: usize = 256;
/// Of how many rooms the servers are remembered. When there are more, all are forgotten and read anew: that is a scan a
/// room with many servers needs anyway now and then, and rooms in use come back at once.
const REMEMBERED_ROOMS: usize = 1_000;
/// How many departures are remembered until they have been told. Further ones are found when their server has caught up,
/// or when the next server comes to or leaves the room.
const MOST_DEPARTURES: usize = 10_000;

/// The servers of a room but ours, with when they were there.
type Around = Arc<[(Id, Vec<Stay>)]>;

/// What the reader keeps between its steps.
#[derive(Default)]
pub(super) struct Dispatcher {
    /// An entry is dropped when the log says that a server came or left; it was read at that position or later, and says
    /// itself from when to when it holds.
    rooms: HashMap<RoomNum, Around>,
    /// Servers that left a room.
    departures: Vec<(RoomNum, OwnedServerName, ServerInRoom)>,
    /// The cursor as it is stored.
    stored: Pos,
}

/// A position, with the events that go out and the servers of their senders, and with the lists that others are to hear of.
#[derive(Default)]
struct Step {
    /// The room into which a server came, or which one left.
    servers_of: Option<RoomNum>,
    outgoing: Vec<Outgoing>,
    /// Users whose device lists were changed, with their rooms.
    changed: Vec<(UserNum, Vec<RoomNum>)>,
    /// Users who came to a room with an event that others send.
    entered: Vec<(UserNum, RoomNum)>,
}

/// Steps by their positions, and whether more may be there.
type Steps = (BTreeMap<Pos, Step>, bool);

/// An event that goes out.
struct Outgoing {
    item: Item,
    /// The server of its sender.
    origin: OwnedServerName,
    /// A server outside the room that it concerns as well: that of a user who waited there, and is turned away.
    outside: Option<OwnedServerName>,
}

impl Outbound {
    /// Reads where the last process stopped. A database that has never sent anything begins with what comes next.
    pub(super) async fn open_book(&self) -> Result<Dispatcher, CommitError> {
        let read = |view: &View| {
            let cursor = view.get::<Cursors>(&READER.to_owned())?;
            let mut rows = Vec::new();
            for row in view.scan::<Destinations>(Scan::all()) {
                let (name, row) = row?;
                if let Ok(name) = OwnedServerName::try_from(name) {
                    rows.push((name, row));
                }
            }
            Ok::<_, StoreError>((cursor, rows))
        };
        let (cursor, rows) = self.0.store.read(read).await.map_err(|error| {
            tracing::error!(error = crate::chain(&error), "destinations cannot be read");
            CommitError::Closed
        })?;
        let stored = if let Some(Cursor(pos)) = cursor {
            pos
        } else {
            let mut batch = Batch::new();
            // At the batch's own position, so that no row after it can have been trimmed.
            batch.put::<Cursors>(&READER.to_owned(), &Cursor(Pos::AT_COMMIT));
            self.0.store.commit(batch).await?
        };
        *self.0.book.lock() = Some(Book::new(stored, rows, self.0.clock.now()));
        // Not before: what comes into an outbox from now on is noted in the book.
        self.open_mail().await.map_err(|error| {
            tracing::error!(error = crate::chain(&error), "outboxes cannot be read");
            CommitError::Closed
        })?;
        Ok(Dispatcher {
            stored,
            ..Dispatcher::default()
        })
    }

    /// Gives up the place in the log, so that it does not grow for a reader that never comes: what is said from now on until
    /// [`run`](Outbound::run) is called is not sent, but for servers that lagged behind already.
    pub async fn retire(&self) -> Result<(), CommitError> {
        let mut batch = Batch::new();
        batch.delete::<Cursors>(&READER.to_owned());
        self.0.store.commit(batch).await.map(drop)
    }

    /// Reads on in the log. Answers whether more may be there.
    pub(super) async fn dispatch(&self, reader: &mut Dispatcher) -> Result<bool, StoreError> {
        let from = self.with(|book| book.dispatched()).unwrap_or(Pos::ZERO);
        let outbound = self.clone();
        let read = move |view: &View| outbound.read_log(view, from);
        let (steps, more) = self.0.store.read(read).await?;
        for (pos, step) in steps {
            if let Some(room) = step.servers_of {
                reader.rooms.remove(&room);
                if step
                    .outgoing
                    .iter()
                    .all(|outgoing| outgoing.item.room != room)
                {
                    // Nobody is told, but somebody may have left.
                    self.servers(reader, room).await?;
                }
            }
            let news = self.list_news(reader, pos, step.changed, step.entered);
            let news = news.await?;
            let mut concerned = Vec::new();
            for outgoing in step.outgoing {
                let servers = self.servers(reader, outgoing.item.room).await?;
                concerned.push((outgoing, servers));
            }
            let now = self.0.clock.now();
            self.with(|book| {
                for (outgoing, servers) in concerned {
                    let item = outgoing.item;
                    let origin = book.id(&outgoing.origin);
                    let mut outside = outgoing.outside.map(|server| book.id(&server));
                    for (id, stays) in &*servers {
                        let there = stays.iter().any(|stay| stay.includes(item.at.pos));
                        if *id != origin && there {
                            outside = outside.filter(|outside| outside != id);
                            book.push(*id, item, now);
                        }
                    }
                    if let Some(id) = outside.filter(|id| *id != origin) {
                        book.push(id, item, now);
                    }
                }
                for (news, ids) in news {
                    for id in ids {
                        book.push_list(id, news, now);
                    }
                }
                book.advance(pos);
            });
            self.0.wake.notify_one();
        }
        Ok(more)
    }

    /// Which destinations are to hear of lists.
    async fn list_news(
        &self,
        reader: &mut Dispatcher,
        at: Pos,
        changed: Vec<(UserNum, Vec<RoomNum>)>,
        entered: Vec<(UserNum, RoomNum)>,
    ) -> Result<Vec<(ListNews, BTreeSet<Id>)>, StoreError> {
        let changed = changed
            .into_iter()
            .map(|(user, rooms)| (ListNews::changed(user, at), rooms));
        let entered = entered
            .into_iter()
            .map(|(user, room)| (ListNews::entered(user, room, at), vec![room]));
        let mut all = Vec::new();
        for (news, rooms) in changed.chain(entered) {
            let mut ids = BTreeSet::new();
            for room in rooms {
                let servers = self.servers(reader, room).await?;
                let there = servers
                    .iter()
                    .filter(|(_, stays)| stays.iter().any(|stay| stay.includes(at)));
                ids.extend(there.map(|(id, _)| *id));
            }
            all.push((news, ids));
        }
        Ok(all)
    }

    fn read_log(&self, view: &View, from: Pos) -> Result<Steps, StoreError> {
        let rooms = &self.0.rooms;
        let mut rows = Vec::new();
        let rest = Scan::all().after(&from).limit(ROWS_A_READ);
        for row in view.scan::<Log>(rest) {
            rows.push(row?);
        }
        let mut more = rows.len() == ROWS_A_READ;
        let through = rows
            .last()
            .filter(|_| more)
            .map_or(view.pos(), |(pos, _)| *pos);
        let lists = lists::changed_between(rooms, view, from, through, ROWS_A_READ)?;
        if let Some(last) = lists.last.filter(|_| lists.more) {
            rows.retain(|(pos, _)| *pos <= last);
            more = true;
        }
        let mut steps: BTreeMap<Pos, Step> = BTreeMap::new();
        // Also where only lists of other servers' users were changed: it need not be looked at again.
        if let Some(last) = lists.last {
            steps.insert(last, Step::default());
        }
        for (pos, user) in lists.users {
            let changed = (user, lists::rooms_of(view, user)?);
            steps.entry(pos).or_default().changed.push(changed);
        }
        self.add_events(view, rows, &mut steps)?;
        Ok((steps, more))
    }

    /// Adds rows of the log to the steps of their positions.
    fn add_events(
        &self,
        view: &View,
        rows: Vec<(Pos, LogRow)>,
        steps: &mut BTreeMap<Pos, Step>,
    ) -> Result<(), StoreError> {
        let rooms = &self.0.rooms;
        let logged = rows.iter().flat_map(|(_, row)| &row.events);
        let keys = |outgoing: bool| -> Vec<(RoomNum, EventNum)> {
            let wanted = logged.clone().filter(|logged| logged.outgoing == outgoing);
            wanted.map(|logged| (logged.room, logged.event)).collect()
        };
        // They have just come, so that they are in memory.
        let others = rooms.events_of_rooms(view, &keys(false))?;
        let others: Vec<Arc<Event>> = others.into_iter().flatten().collect();
        let entering = lists::entering(rooms, view, others.iter().map(|event| &**event))?;
        let mut entered: BTreeMap<EventNum, (UserNum, RoomNum)> = entering
            .into_iter()
            .map(|(index, user, room)| (others[index].num, (user, room)))
            .collect();
        let events = rooms.events_of_rooms(view, &keys(true))?;
        let senders: Vec<UserNum> = events
            .iter()
            .flatten()
            .map(|event| event.header.sender)
            .collect();
        let senders = rooms.interner().user_ids(view, &senders)?;
        let mut origins: BTreeMap<EventNum, OwnedServerName> = BTreeMap::new();
        for (event, sender) in events.iter().flatten().zip(senders) {
            origins.insert(event.num, sender.server_name().to_owned());
        }
        let mut turned_away = self.turned_away(view, &events)?;
        for (pos, row) in rows {
            let step = steps.entry(pos).or_default();
            step.servers_of = row.servers_of;
            for (index, logged) in (0..).zip(&row.events) {
                step.entered.extend(entered.remove(&logged.event));
                // An event that is not there any more was purged with its room.
                let Some(origin) = origins.get(&logged.event).filter(|_| logged.outgoing) else {
                    continue;
                };
                let item = Item {
                    at: At { pos, index },
                    room: logged.room,
                    event: logged.event,
                };
                step.outgoing.push(Outgoing {
                    item,
                    origin: origin.clone(),
                    outside: turned_away.remove(&logged.event),
                });
            }
        }
        Ok(())
    }

    /// The servers of those users who waited outside a room, invited or knocking, until one of some events ended that.
    fn turned_away(
        &self,
        view: &View,
        events: &[Option<Arc<Event>>],
    ) -> Result<BTreeMap<EventNum, OwnedServerName>, StoreError> {
        let mut ends: Vec<(EventNum, OwnedServerName)> = Vec::new();
        let mut replaced: Vec<(RoomNum, EventNum)> = Vec::new();
        for event in events.iter().flatten() {
            let is_end = event.pdu.event_type() == "m.room.member"
                && event.pdu.state_key() != Some(event.pdu.sender())
                && matches!(
                    Membership::of(&event.pdu),
                    Membership::Leave | Membership::Ban
                );
            let target = event.pdu.state_key().filter(|_| is_end);
            let target = target.and_then(|user| <&UserId>::try_from(user).ok());
            if let (Some(target), Some(before)) = (target, event.header.replaces)
                && target.server_name() != self.0.server_name
            {
                ends.push((event.num, target.server_name().to_owned()));
                replaced.push((event.room, before));
            }
        }
        let replaced = self.0.rooms.events_of_rooms(view, &replaced)?;
        let waited = |event: &Option<Arc<Event>>| {
            event.as_ref().is_some_and(|event| {
                matches!(
                    Membership::of(&event.pdu),
                    Membership::Invite | Membership::Knock
                )
            })
        };
        let ends = ends.into_iter().zip(replaced);
        Ok(ends
            .filter(|(_, before)| waited(before))
            .map(|(end, _)| end)
            .collect())
    }

    /// The servers of a room but ours.
    async fn servers(&self, reader: &mut Dispatcher, room: RoomNum) -> Result<Around, StoreError> {
        if let Some(servers) = reader.rooms.get(&room) {
            return Ok(Arc::clone(servers));
        }
        let rooms = self.0.rooms.clone();
        let read = move |view: &View| rooms.server_rows(view, room);
        let mut rows = self.0.store.read(read).await?;
        rows.retain(|(name, _)| *name != self.0.server_name);
        for (name, row) in rows.iter().filter(|(_, row)| row.joined == 0) {
            if reader.departures.len() < MOST_DEPARTURES {
                reader.departures.push((room, name.clone(), row.clone()));
            }
        }
        let servers = self.with(|book| {
            let known = rows.into_iter();
            known
                .map(|(name, row)| (book.id(&name), row.stays))
                .collect::<Around>()
        });
        let servers = servers.unwrap_or_default();
        if reader.rooms.len() >= REMEMBERED_ROOMS {
            reader.rooms.clear();
        }
        reader.rooms.insert(room, Arc::clone(&servers));
        Ok(servers)
    }

    /// Stores what a next process must know, if it differs from what is stored: the cursor, which stands for everybody who
    /// is up to date, and the rows of the others. `stopping`: nothing more will be sent by this process.
    pub(super) async fn persist(
        &self,
        reader: &mut Dispatcher,
        stopping: bool,
    ) -> Result<(), CommitError> {
        let now = self.0.clock.now();
        let Some(what) = self.with(|book| book.unstored(now, stopping)) else {
            return Ok(());
        };
        let cursor = what.cursor.max(reader.stored);
        if cursor > reader.stored || !what.rows.is_empty() {
            let mut batch = Batch::new();
            if cursor > reader.stored {
                batch.put::<Cursors>(&READER.to_owned(), &Cursor(cursor));
            }
            for (_, name, row) in &what.rows {
                let name = name.as_str().to_owned();
                match row {
                    Some(row) => batch.put::<Destinations>(&name, row),
                    None => batch.delete::<Destinations>(&name),
                }
            }
            let done = self.0.store.commit(batch).await;
            self.with(|book| book.stored(what, done.is_ok()));
            done?;
            reader.stored = cursor;
        }
        self.forget_departed(reader).await;
        Ok(())
    }

    /// Deletes the rows of servers that left rooms and have been told everything until then.
    async fn forget_departed(&self, reader: &mut Dispatcher) {
        let departures = std::mem::take(&mut reader.departures);
        for (room, name, row) in departures {
            let last = row.stays.last().and_then(|stay| stay.to);
            let Some(last) = last else { continue };
            let asked = self.with(|book| (book.is_behind(&name), book.has_passed(&name, last)));
            match asked {
                // It is done when that one has caught up.
                None | Some((true, _)) => {}
                Some((false, true)) => self.forget(room, &name, &row).await,
                Some((false, false)) => reader.departures.push((room, name, row)),
            }
        }
    }

    /// Deletes the rows of a server that is not in a room any more, unless it came again.
    async fn forget(&self, room: RoomNum, name: &ServerName, row: &ServerInRoom) {
        let name = name.as_str().to_owned();
        let mut batch = Batch::new();
        batch.expect::<RoomServers>(&(room, name.clone()), Some(row));
        batch.delete::<RoomServers>(&(room, name.clone()));
        batch.delete::<ServerRooms>(&(name, room));
        if let Err(error) = self.0.store.commit(batch).await {
            tracing::debug!(error = crate::chain(&error), "the row of a server stays");
        }
    }

    /// The same for all rooms that a server has left, once it has caught up to a position.
    pub(super) async fn forget_left(
        &self,
        server: &ServerName,
        through: Pos,
    ) -> Result<(), StoreError> {
        let (rooms, name) = (self.0.rooms.clone(), server.to_owned());
        let read = move |view: &View| {
            let left = rooms.rooms_of_server(view, &name)?;
            let keys: Vec<_> = left
                .iter()
                .map(|room| (*room, name.as_str().to_owned()))
                .collect();
            let rows = view.multi_get::<RoomServers>(&keys)?;
            let rows = left.into_iter().zip(rows);
            Ok::<_, StoreError>(
                rows.filter_map(|(room, row)| Some((room, row?)))
                    .filter(|(_, row)| row.joined == 0)
                    .collect::<Vec<_>>(),
            )
        };
        for (room, row) in self.0.store.read(read).await? {
            let last = row.stays.last().and_then(|stay| stay.to);
            if last.is_some_and(|last| last <= through) {
                self.forget(room, server, &row).await;
            }
        }
        Ok(())
    }
}
