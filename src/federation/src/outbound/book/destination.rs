//! What follows from how things stand with one destination.

use std::collections::VecDeque;

use myelin_types::{Millis, Pos};

use super::{Destination, Lane};

impl Destination {
    pub(super) fn has_work(&self) -> bool {
        self.missed.is_some()
            || self.unread.is_some()
            || !self.queue.is_empty()
            || !self.ephemerals.is_empty()
            || self.durable.has_work()
    }

    /// Whether nothing waits that its position must not pass.
    pub(super) fn has_everything(&self) -> bool {
        self.queue.is_empty() && self.durable.has_no_lists()
    }

    /// Something comes to wait for it.
    pub(super) fn begins_to_lag(&mut self, now: Millis) {
        if self.has_everything() {
            self.since = now;
        }
    }

    pub(super) fn lane(&self) -> Lane {
        if self.failures > 0 || self.slow {
            Lane::Slow
        } else {
            Lane::Quick
        }
    }

    /// Up to where it has everything; none if that is as far as the log was read.
    pub(super) fn floor(&self) -> Option<Pos> {
        if self.missed.is_some() {
            return Some(self.cursor);
        }
        self.first_waiting().map(|first| Pos(first.0 - 1))
    }

    /// The position of the first that waits.
    pub(super) fn first_waiting(&self) -> Option<Pos> {
        let event = self.queue.front().map(|item| item.at.pos);
        let list = self.durable.span().map(|(first, _)| first);
        [event, list].into_iter().flatten().min()
    }

    /// Gives up the queue: what was in it is read from the timelines, and from the device lists.
    pub(super) fn fall_behind(&mut self) {
        let event = self.queue.back().map(|item| item.at.pos);
        let list = self.durable.span().map(|(_, last)| last);
        if let Some(last) = event.max(list)
            && self.missed.is_none()
        {
            self.missed = Some(last);
            self.cursor = self
                .first_waiting()
                .map_or(self.cursor, |first| Pos(first.0 - 1));
        }
        self.queue = VecDeque::new();
        self.durable.forget_changed();
        self.walk = None;
    }
}
