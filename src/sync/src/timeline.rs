//! The timeline section of a room.

use std::{collections::BTreeMap, sync::Arc};

use myelin_data::rooms::Place;
use myelin_rooms::{
    Event,
    read::{Direction, RoomView, Sight, Span},
};
use myelin_state::Root;
use myelin_store::StoreError;
use myelin_types::{EventNum, StateKeyNum};

use crate::answer::Context;

/// The last events of a part of a room's history that the user wants and may see.
pub(crate) struct Recent {
    /// Oldest first.
    pub(crate) events: Vec<Arc<Event>>,
    /// Whether there are more of them, older ones.
    pub(crate) limited: bool,
    /// The point before the first of them.
    pub(crate) start: Place,
    /// Whether the first event of the room's history that is known here was looked at.
    pub(crate) from_front: bool,
}

/// The newest events of `span`.
///
/// A timeline is told without gaps: where the room's own history has one, it begins anew, as limited.
pub(crate) fn recent(
    context: &Context<'_>,
    room: &RoomView<'_>,
    sight: &mut Sight<'_>,
    mut span: Span,
) -> Result<Recent, StoreError> {
    let filters = &context.filters;
    if filters.timeline.takes_nothing() || !filters.timeline.takes_room(room.room_id()) {
        return Ok(Recent {
            events: Vec::new(),
            limited: false,
            start: span.end,
            from_front: false,
        });
    }
    let first_of_segment = room
        .last_before(span.end)?
        .map_or(Place::START, |(last, _)| Place {
            index: i64::MIN,
            ..last
        });
    let gap = span.start < first_of_segment && room.last_before(first_of_segment)?.is_some();
    if gap {
        span.start = match span.start {
            Place::START => first_of_segment,
            // To whoever was told of the room already, what was filled in before the segment is nothing new.
            _ => Place {
                index: 0,
                ..first_of_segment
            },
        };
    }
    let ignored = context.ignored()?;
    let mut page = room.walk(span, Direction::Backward, filters.timeline_limit, |event| {
        Ok(filters.timeline.takes(event) && !ignored.hides(event) && sight.sees(event)?)
    })?;
    page.events.reverse();
    let limited = page.more || gap;
    Ok(Recent {
        events: page.events,
        limited,
        from_front: !limited && span.start == Place::START && filters.timeline_limit > 0,
        // Older history may be filled in before the first event that is known.
        start: if limited || span.start == Place::START {
            page.next
        } else {
            span.start
        },
    })
}

impl Recent {
    /// Whether there is more than the client gets. A room that was joined through another server may begin in the middle of
    /// its history: the first event that is known of it has a state before it. What is missing is fetched when the client
    /// pages back.
    pub(crate) fn is_limited(&self, start: Root) -> bool {
        self.limited || self.from_front && start != Root::EMPTY
    }

    /// Leaves out the older part of the timeline, as far as applying it would give the client an outdated state.
    ///
    /// That happens when the user sees an event that set an entry of the state, but not a later one that set it again:
    /// because history was hidden from him in between, or his filter hides it. Clients apply the timeline after the state
    /// section, so that the latter cannot set it right.
    ///
    /// An event whose entry is as an earlier event set it is left where it is: it lost against that one when the room's state
    /// was resolved, but it is part of the history, and to leave it out would hide whatever came with it from those who
    /// watch the room. Clients who want the state right in spite of that ask for `state_after`.
    pub(crate) fn without_outdated_state(
        mut self,
        room: &RoomView<'_>,
        end: Root,
        end_place: Place,
    ) -> Result<Self, StoreError> {
        let states = self.events.iter().enumerate();
        let (indexes, pairs): (Vec<usize>, Vec<(&str, &str)>) = states
            .filter(|(_, event)| event.header.place.is_some_and(|place| place <= end_place))
            .filter_map(|(index, event)| {
                Some((index, (event.pdu.event_type(), event.pdu.state_key()?)))
            })
            .unzip();
        let keys = room
            .rooms()
            .interner()
            .find_state_keys(room.view(), &pairs)?;
        let keyed = keys.into_iter().zip(indexes);
        // Later events of the same key take the place of earlier ones.
        let last: BTreeMap<StateKeyNum, usize> = keyed
            .filter_map(|(key, index)| Some((key?, index)))
            .collect();
        let keys: Vec<StateKeyNum> = last.keys().copied().collect();
        let differing: Vec<(usize, EventNum)> = last
            .values()
            .zip(room.state_nums(end, &keys)?)
            .filter_map(|(index, current)| Some((*index, current?)))
            .filter(|(index, current)| *current != self.events[*index].num)
            .collect();
        let nums: Vec<EventNum> = differing.iter().map(|(_, current)| *current).collect();
        let outdated = differing
            .iter()
            .zip(room.events(&nums)?)
            .filter(|((index, _), current)| current.header.place > self.events[*index].header.place)
            .map(|((index, _), _)| *index)
            .max();
        if let Some(outdated) = outdated {
            let removed = self.events.drain(..=outdated).next_back();
            let place = removed.and_then(|event| event.header.place);
            self.start = place.map_or(self.start, Place::next);
            self.limited = true;
        }
        Ok(self)
    }
}
