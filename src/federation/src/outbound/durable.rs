//! EDUs that must not be lost: messages to devices, and changes of device lists.
//!
//! Messages to devices stand in the outbox of their server until it has taken them; here it is only noted that something is
//! there. Changes of device lists are not stored for anybody: which lists a destination is to hear of is kept here, and
//! found again by the destination's position when that is lost.

use myelin_types::{Pos, RoomNum, UserNum};

/// How many messages to devices go with a transaction in which there is something else.
pub(super) const MESSAGES_AT_ONCE: usize = 40;
/// How many lists wait for a destination. When there are more, it catches up.
const MOST_LISTS: usize = 200;

/// A device list of which a destination is to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListNews {
    pub(super) user: UserNum,
    /// The first and the last position at which there was something to tell. What was changed before the first is known
    /// there.
    pub(super) from: Pos,
    pub(super) to: Pos,
    /// Whether the list was changed.
    pub(super) changed: bool,
    /// A room that the user came to: who shared none with him before does not know his list.
    pub(super) entered: Option<RoomNum>,
}

impl ListNews {
    /// The list was changed at a position.
    pub(super) fn changed(user: UserNum, at: Pos) -> Self {
        Self {
            user,
            from: at,
            to: at,
            changed: true,
            entered: None,
        }
    }

    /// The user came to a room at a position.
    pub(super) fn entered(user: UserNum, room: RoomNum, at: Pos) -> Self {
        Self {
            user,
            from: at,
            to: at,
            changed: false,
            entered: Some(room),
        }
    }

    fn merge(&mut self, other: Self) {
        self.from = self.from.min(other.from);
        self.to = self.to.max(other.to);
        self.changed |= other.changed;
        self.entered = self.entered.or(other.entered);
    }
}

/// The lists that wait for a destination, and those that are under way to it.
#[derive(Default)]
struct Lists {
    waiting: Vec<ListNews>,
    under_way: Vec<ListNews>,
}

/// What waits for a destination and must not be lost.
#[derive(Default)]
pub(super) struct Durable {
    /// Most destinations have none most of the time, and there are thousands.
    lists: Option<Box<Lists>>,
    /// Whether there may be messages in its outbox.
    messages: bool,
    /// Whether messages are under way.
    messages_under_way: bool,
    /// How often in a row a transaction without events was refused as such.
    pub(super) refusals: u8,
}

impl Durable {
    /// Whether something waits that is not under way.
    pub(super) fn has_work(&self) -> bool {
        self.messages
            || self
                .lists
                .as_ref()
                .is_some_and(|lists| !lists.waiting.is_empty())
    }

    /// Whether no list waits, nor is under way.
    pub(super) fn has_no_lists(&self) -> bool {
        self.lists.is_none()
    }

    /// Whether no further list finds room.
    pub(super) fn is_full(&self) -> bool {
        let lists = self.lists.as_ref();
        lists.is_some_and(|lists| lists.waiting.len() >= MOST_LISTS)
    }

    /// The first and the last position of the lists that have not arrived yet.
    pub(super) fn span(&self) -> Option<(Pos, Pos)> {
        let lists = self.lists.as_ref()?;
        let all = || lists.waiting.iter().chain(&lists.under_way);
        let first = all().map(|news| news.from).min()?;
        let last = all().map(|news| news.to).max()?;
        Some((first, last))
    }

    pub(super) fn add_list(&mut self, news: ListNews) {
        let lists = self.lists.get_or_insert_default();
        let same = |waiting: &&mut ListNews| waiting.user == news.user;
        match lists.waiting.iter_mut().find(same) {
            Some(waiting) => waiting.merge(news),
            None => lists.waiting.push(news),
        }
    }

    /// The oldest lists, which are under way from now on.
    pub(super) fn take_lists(&mut self, most: usize) -> Vec<ListNews> {
        let Some(lists) = &mut self.lists else {
            return Vec::new();
        };
        let count = most.min(lists.waiting.len());
        lists.under_way = lists.waiting.drain(..count).collect();
        lists.under_way.clone()
    }

    /// The lists that were under way have arrived.
    pub(super) fn lists_arrived(&mut self) {
        if let Some(lists) = &mut self.lists {
            lists.under_way.clear();
            if lists.waiting.is_empty() {
                self.lists = None;
            }
        }
    }

    /// The lists that were under way wait again.
    pub(super) fn put_back_lists(&mut self) {
        let under_way = self
            .lists
            .as_mut()
            .map(|lists| std::mem::take(&mut lists.under_way));
        for news in under_way.into_iter().flatten() {
            self.add_list(news);
        }
    }

    /// Forgets the lists that are found again by the destination's position: those that were changed. That a user came to a
    /// room is found nowhere else.
    pub(super) fn forget_changed(&mut self) {
        self.put_back_lists();
        if let Some(lists) = &mut self.lists {
            lists.waiting.retain(|news| news.entered.is_some());
            if lists.waiting.is_empty() {
                self.lists = None;
            }
        }
    }

    /// Something may be in the outbox.
    pub(super) fn add_messages(&mut self) {
        self.messages = true;
    }

    /// Whether there may be messages, which are under way from now on.
    pub(super) fn take_messages(&mut self) -> bool {
        self.messages_under_way = self.messages;
        std::mem::take(&mut self.messages)
    }

    /// Whether messages wait.
    pub(super) fn has_messages(&self) -> bool {
        self.messages
    }

    /// The messages that were under way are not in the outbox any more; perhaps there are others.
    pub(super) fn messages_arrived(&mut self, more: bool) {
        self.messages_under_way = false;
        self.messages |= more;
    }

    /// Messages that were under way, and of which nothing else was said, wait again.
    pub(super) fn put_back_messages(&mut self) {
        self.messages |= std::mem::take(&mut self.messages_under_way);
    }
}
