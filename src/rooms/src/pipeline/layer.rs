//! What batches wrote that is not in the store's views yet: state nodes, state events and the room's servers, laid over a
//! view.

use std::{collections::HashMap, sync::Arc};

use myelin_data::servers::ServerInRoom;
use myelin_state::{Node, NodeHash, Nodes, TreeError, Updated};
use myelin_store::{StoreError, View};
use myelin_types::{EventNum, RoomNum, StateKeyNum};

use crate::{
    Rooms,
    event::{Event, TreeNodes, tree_error},
};

/// The state nodes, state events and servers of one batch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layer {
    nodes: HashMap<NodeHash, Arc<Node>>,
    events: HashMap<EventNum, Arc<Event>>,
    /// Servers whose relation to the room changed, by name.
    servers: HashMap<String, ServerInRoom>,
}

impl Layer {
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.events.is_empty() && self.servers.is_empty()
    }

    /// Adds what a change of state wrote.
    pub(crate) fn add(&mut self, updated: &Updated) -> Result<(), StoreError> {
        for (hash, bytes) in &updated.new_nodes {
            let node =
                Node::found::<StoreError>(*hash, Some(bytes.as_slice())).map_err(tree_error)?;
            self.nodes.insert(*hash, node);
        }
        Ok(())
    }

    /// Adds a state event, or its newer form.
    pub(crate) fn replace(&mut self, event: &Arc<Event>) {
        self.events.insert(event.num, Arc::clone(event));
    }

    /// What the batch says of a server.
    pub(super) fn server(&self, name: &str) -> Option<&ServerInRoom> {
        self.servers.get(name)
    }

    /// Notes what the batch says of a server.
    pub(super) fn set_server(&mut self, name: String, row: ServerInRoom) {
        self.servers.insert(name, row);
    }

    /// Nodes and events of the layer, for the caches once they are durable.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&NodeHash, &Arc<Node>)> {
        self.nodes.iter()
    }
}

/// A stack of layers, the newest last. Cheap to clone.
///
/// Must be taken before the view that it is laid over: what is missing here was durable then, so that the view has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers(pub(crate) Vec<Arc<Layer>>);

impl Layers {
    /// The layer that this batch writes to.
    pub(crate) fn newest(&mut self) -> &mut Layer {
        if self.0.is_empty() {
            self.0.push(Arc::default());
        }
        let last = self.0.len() - 1;
        Arc::make_mut(&mut self.0[last])
    }

    /// What the newest batch that changed it says of a server's relation to the room.
    pub(super) fn server(&self, name: &str) -> Option<&ServerInRoom> {
        self.0.iter().rev().find_map(|layer| layer.server(name))
    }

    /// Whether any batch says something of the room's servers.
    pub(super) fn have_servers(&self) -> bool {
        self.0.iter().any(|layer| !layer.servers.is_empty())
    }

    /// State events by number, as of the layers and below them `view`.
    pub(crate) fn events(
        &self,
        rooms: &Rooms,
        view: &View,
        room: RoomNum,
        nums: &[EventNum],
    ) -> Result<Vec<Option<Arc<Event>>>, StoreError> {
        let mut found: Vec<Option<Arc<Event>>> = nums
            .iter()
            .map(|num| {
                let mut layers = self.0.iter().rev();
                layers.find_map(|layer| layer.events.get(num).cloned())
            })
            .collect();
        let missing: Vec<EventNum> = nums
            .iter()
            .zip(&found)
            .filter(|(_, event)| event.is_none())
            .map(|(num, _)| *num)
            .collect();
        if !missing.is_empty() {
            let mut stored = rooms.events(view, room, &missing)?.into_iter();
            for slot in found.iter_mut().filter(|slot| slot.is_none()) {
                *slot = stored.next().flatten();
            }
        }
        Ok(found)
    }

    /// The events of a state under some keys.
    pub(crate) fn state(
        &self,
        rooms: &Rooms,
        view: &View,
        room: RoomNum,
        root: myelin_state::Root,
        keys: &[StateKeyNum],
    ) -> Result<Vec<Option<Arc<Event>>>, StoreError> {
        let nodes = self.over(rooms.nodes(view, room));
        let nums = myelin_state::get_many(&nodes, root, keys).map_err(tree_error)?;
        let present: Vec<EventNum> = nums.iter().flatten().copied().collect();
        let mut events = self.events(rooms, view, room, &present)?.into_iter();
        nums.into_iter()
            .map(|num| match num {
                None => Ok(None),
                Some(_) => match events.next().flatten() {
                    Some(event) => Ok(Some(event)),
                    None => Err(StoreError::Missing("events")),
                },
            })
            .collect()
    }

    /// The nodes of the layers and below them `base`.
    pub(crate) fn over<'a>(&'a self, base: TreeNodes<'a>) -> LayeredNodes<'a> {
        LayeredNodes { layers: self, base }
    }
}

/// State nodes of layers over a view.
pub(crate) struct LayeredNodes<'a> {
    layers: &'a Layers,
    base: TreeNodes<'a>,
}

impl Nodes for LayeredNodes<'_> {
    type Error = StoreError;

    fn node(&self, hash: NodeHash) -> Result<Arc<Node>, TreeError<StoreError>> {
        let mut layers = self.layers.0.iter().rev();
        match layers.find_map(|layer| layer.nodes.get(&hash)) {
            Some(node) => Ok(Arc::clone(node)),
            None => self.base.node(hash),
        }
    }
}
