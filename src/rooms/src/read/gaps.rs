//! Where a room's timeline has gaps, and what lies between two of them.

use myelin_data::rooms::{EventStatus, Gaps, Place};
use myelin_store::{Scan, StoreError, View};
use ruma::{EventId, api::Direction};

use super::{Access, ReadError, RoomView, Span, Viewer};
use crate::{RoomHandle, Rooms};

/// A part of a timeline without gaps, and the one at its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    /// The part.
    pub(crate) span: Span,
    /// The segment in front of which something is missing where the part ends, if it ends there.
    pub(crate) gap: Option<u32>,
}

impl Rooms {
    /// The newest gap of a room, if `viewer` is in the room and an event of it is not known so far that he could see it:
    /// then it may lie in that gap.
    pub async fn wanting(
        &self,
        viewer: &Viewer,
        room: &RoomHandle,
        event_id: &EventId,
    ) -> Result<Option<u32>, ReadError> {
        let (rooms, num, user) = (self.clone(), room.num, viewer.user);
        let event_id = event_id.to_owned();
        let read = move |view: &View| {
            let room = RoomView::open(&rooms, view, num)?;
            let Some(gap) = room.last_gap()? else {
                return Ok(None);
            };
            let event = room.event_by_id(&event_id)?;
            let unknown = event.is_none_or(|event| {
                event.header.status == EventStatus::Outlier && !event.is_point()
            });
            let joined = Access::of(&room, user)? == Access::Joined;
            Ok::<_, StoreError>((unknown && joined).then_some(gap))
        };
        Ok(self.store().read(read).await?)
    }
}

impl RoomView<'_> {
    /// The beginning of `span`, as seen in `direction`, up to the first gap. Those in front of the segments `crossed` do
    /// not count.
    pub(crate) fn stretch(
        &self,
        span: Span,
        direction: Direction,
        crossed: &[u32],
    ) -> Result<Stretch, StoreError> {
        let room = self.num();
        let gaps = Scan::prefix(&room).limit(crossed.len() + 1);
        let gaps = match direction {
            Direction::Backward => {
                let gaps = match span.end.segment {
                    u32::MAX => gaps,
                    segment => gaps.until(&(room, segment + 1)),
                };
                gaps.from(&(room, span.start.segment)).reverse()
            }
            Direction::Forward => {
                let gaps = gaps.from(&(room, span.start.segment.saturating_add(1)));
                match span.end.segment {
                    u32::MAX => gaps,
                    segment => gaps.until(&(room, segment + 1)),
                }
            }
        };
        let mut found = None;
        for key in self.view().keys::<Gaps>(gaps) {
            let (_, segment) = key?;
            if !crossed.contains(&segment) {
                found = Some(segment);
                break;
            }
        }
        let Some(segment) = found else {
            return Ok(Stretch { span, gap: None });
        };
        let front = Place {
            segment,
            index: i64::MIN,
        };
        let span = match direction {
            Direction::Backward if front > span.start => Span {
                start: front,
                ..span
            },
            Direction::Forward if front < span.end => Span { end: front, ..span },
            _ => return Ok(Stretch { span, gap: None }),
        };
        Ok(Stretch {
            span,
            gap: Some(segment),
        })
    }

    /// The newest gap.
    pub(crate) fn last_gap(&self) -> Result<Option<u32>, StoreError> {
        let last = Scan::prefix(&self.num()).reverse().limit(1);
        let key = self.view().keys::<Gaps>(last).next().transpose()?;
        Ok(key.map(|(_, segment)| segment))
    }

    /// The newest gap between two places: in front of a segment after the first one, and not after the second.
    pub(crate) fn gap_between(&self, low: Place, high: Place) -> Result<Option<u32>, StoreError> {
        if low.segment >= high.segment {
            return Ok(None);
        }
        let gaps = Scan::prefix(&self.num())
            .from(&(self.num(), low.segment.saturating_add(1)))
            .until(&(self.num(), high.segment.saturating_add(1)))
            .reverse()
            .limit(1);
        let key = self.view().keys::<Gaps>(gaps).next().transpose()?;
        Ok(key.map(|(_, segment)| segment))
    }
}
