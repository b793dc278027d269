//! Walking along a room's timeline.

use std::sync::Arc;

use myelin_data::rooms::{EventStatus, Place, Timeline};
use myelin_store::{Scan, StoreError};
use ruma::api::Direction;

use super::RoomView;
use crate::Event;

/// A part of a timeline: from `start` inclusive to `end` exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first place that belongs to it.
    pub start: Place,
    /// The first place after it.
    pub end: Place,
}

impl Span {
    /// The whole timeline.
    pub const ALL: Span = Span {
        start: Place::START,
        end: Place {
            segment: u32::MAX,
            index: i64::MAX,
        },
    };
}

/// What a walk found.
#[derive(Clone, Debug)]
pub struct Page {
    /// The events that were wanted, in the order of the walk.
    pub events: Vec<Arc<Event>>,
    /// The point at which the next page begins: in the way that tokens name it, just before this place. It lies next to
    /// the last of a full page's events, else behind everything that was looked at.
    pub next: Place,
    /// Whether there is, or may be, something wanted beyond `next`.
    pub more: bool,
}

/// At most this many events are looked at for one page, however few of them are wanted.
const MOST_LOOKED_AT: usize = 2_000;

impl RoomView<'_> {
    /// The first `limit` wanted events of `span`, walking in `direction`. Only events that are part of the room are shown to
    /// `wanted`.
    pub fn walk(
        &self,
        span: Span,
        direction: Direction,
        limit: usize,
        mut wanted: impl FnMut(&Event) -> Result<bool, StoreError>,
    ) -> Result<Page, StoreError> {
        let backward = direction == Direction::Backward;
        let mut left = span;
        let mut page = Page {
            events: Vec::new(),
            next: if backward { span.end } else { span.start },
            more: false,
        };
        let mut looked_at = 0;
        loop {
            // One more than is wanted shows whether anything follows.
            let size = (limit - page.events.len() + 1).clamp(16, 256);
            let rows = self.entries(left, direction, size)?;
            let nums: Vec<_> = rows.iter().map(|(_, event)| *event).collect();
            for ((place, _), event) in rows.iter().zip(self.events(&nums)?) {
                let taken = event.header.status == EventStatus::Accepted && wanted(&event)?;
                if taken && page.events.len() == limit {
                    page.more = true;
                    return Ok(page);
                }
                let point = if backward { *place } else { place.next() };
                if page.events.len() < limit {
                    page.next = point;
                }
                if taken {
                    page.events.push(event);
                }
                if backward {
                    left.end = point;
                } else {
                    left.start = point;
                }
            }
            if rows.len() < size {
                return Ok(page);
            }
            looked_at += rows.len();
            if looked_at >= MOST_LOOKED_AT {
                page.more = true;
                return Ok(page);
            }
        }
    }

    fn entries(
        &self,
        span: Span,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Place, myelin_types::EventNum)>, StoreError> {
        let room = self.num();
        let scan = Scan::prefix(&room)
            .from(&(room, span.start))
            .until(&(room, span.end))
            .limit(limit);
        let scan = match direction {
            Direction::Backward => scan.reverse(),
            Direction::Forward => scan,
        };
        self.view()
            .scan::<Timeline>(scan)
            .map(|row| row.map(|((_, place), entry)| (place, entry.event)))
            .collect()
    }
}
