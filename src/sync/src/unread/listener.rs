//! What a user's push rules say of whole classes of events, so that most events need not be read to be counted.
//!
//! The pipeline has put every event into a class by the default rules ([`EventTraits`]). A user's rules are walked once
//! for each class, with what is known of its events: their type for those that notify, that they mention nobody, that
//! they are in this room. Rules of which that decides whether they match give the answer; rules of which it does not
//! are of no matter as long as they would say the same. So the default rules, their actions changed or not, and rules
//! for whole rooms, like those that mute one, are decided without reading. Keywords, names and other conditions on the
//! content are not: for such a user every event is read once.

use std::sync::{Arc, LazyLock};

use myelin_data::rooms::{EventTraits, TimelineEntry};
use myelin_rooms::{
    NOTIFYING_TYPES,
    read::{RoomView, Viewer},
};
use myelin_rules::{
    Object,
    push::{Condition, Kind, Outcome, PushContext, PushEvent, Rule, Ruleset},
};
use myelin_store::{StoreError, View};
use myelin_types::{Pos, UserNum};

use crate::{Inner, UnreadNotifications, ignored::Ignored};

/// What a user wants to hear, in whatever room.
pub(crate) struct Listener {
    pub(super) rules: Arc<Ruleset>,
    /// The default rules, if the user's are others.
    default: Option<Ruleset>,
    /// Whose messages he does not want to hear.
    ignored: Vec<UserNum>,
    /// Those for whom he has rules.
    watched: Vec<UserNum>,
    /// Where any of this was changed last.
    pub(super) changed: Pos,
}

/// What a user hears of the events of a room.
pub(super) struct Hearing<'a> {
    listener: &'a Listener,
    /// What his rules say of events that notify everybody and are not special, of such that notify nobody, and of all
    /// others; None where that depends on the event.
    plain: Option<UnreadNotifications>,
    quiet: Option<UnreadNotifications>,
    special: Option<UnreadNotifications>,
}

/// What an event may be.
#[derive(Default)]
struct Class<'a> {
    /// Its type, where that is known.
    event_type: Option<&'a str>,
    /// What holds for it.
    certain: Vec<&'a Condition>,
    /// Conditions that do not all hold for it.
    impossible: Vec<&'a [Condition]>,
}

impl Listener {
    /// The rules of a user, and whom he ignores.
    pub(crate) fn of(
        sync: &Inner,
        view: &View,
        viewer: &Viewer,
        ignored: &Ignored,
    ) -> Result<Listener, StoreError> {
        let user = viewer.user;
        let changed = sync.accounts.push_rules_pos(view, user)?;
        let rules = sync.accounts.push_rules(view, user)?;
        let default =
            (changed > Pos::ZERO).then(|| Ruleset::server_default(viewer.user_id.as_str()));
        let senders = enabled(&rules).filter(|(kind, _)| *kind == Kind::Sender);
        let senders = senders.filter_map(|(_, rule)| rule.rule_id.as_str().try_into().ok());
        let interner = sync.rooms.interner();
        let mut watched = Vec::new();
        for sender in senders {
            watched.extend(interner.find_user(view, sender)?);
        }
        let mut hushed = Vec::new();
        for id in &ignored.0 {
            hushed.extend(interner.find_user(view, id)?);
        }
        Ok(Listener {
            rules,
            default,
            ignored: hushed,
            watched,
            changed: changed.max(sync.accounts.ignored_users_pos(view, user)?),
        })
    }

    /// Whether the rules say the same in a room with one number of members as with another.
    pub(super) fn is_same(&self, one: u64, other: u64) -> bool {
        let counts = |rule: &Rule| {
            let conditions = rule.conditions.iter().flatten();
            conditions
                .filter(|condition| matches!(condition, Condition::RoomMemberCount { .. }))
                .all(|condition| {
                    condition.holds(&unknown("", ""), &members(one))
                        == condition.holds(&unknown("", ""), &members(other))
                })
        };
        // The default rules only choose another sound.
        self.default.is_none() || one == other || enabled(&self.rules).all(|(_, rule)| counts(rule))
    }

    /// What the user hears in a room with so many members.
    pub(super) fn in_room(&self, room: &RoomView<'_>, joined: u64) -> Hearing<'_> {
        let Some(default) = &self.default else {
            return Hearing {
                listener: self,
                plain: Some(NOTIFIES),
                quiet: Some(NOTHING),
                special: None,
            };
        };
        let room_id = room.room_id().as_str();
        let says = |class: &Class<'_>| self.says(class, room_id, joined);
        let agreed = |classes: &[Class<'_>]| {
            let (first, others) = classes.split_first()?;
            let said = says(first)?;
            others
                .iter()
                .all(|class| says(class) == Some(said))
                .then_some(said)
        };
        let special = agreed(&[Class::default()]);
        Hearing {
            listener: self,
            plain: special.or_else(|| agreed(&Class::plain(default))),
            quiet: special.or_else(|| agreed(&Class::quiet(default))),
            special,
        }
    }

    /// What the rules say of all events of a class but those of watched senders, if they say the same of all.
    fn says(&self, class: &Class<'_>, room_id: &str, joined: u64) -> Option<UnreadNotifications> {
        let mut possible = None;
        for (kind, rule) in enabled(&self.rules) {
            let matches = match kind {
                Kind::Override | Kind::Underride => class.matches(rule, room_id, joined),
                Kind::Content => None,
                Kind::Room => Some(rule.rule_id == room_id),
                Kind::Sender => Some(false),
            };
            if matches == Some(false) {
                continue;
            }
            let said = outcome(rule);
            if *possible.get_or_insert(said) != said {
                return None;
            }
            if matches == Some(true) {
                return possible;
            }
        }
        match possible {
            None => Some(NOTHING),
            Some(said) => (said == NOTHING).then_some(said),
        }
    }
}

const NOTHING: UnreadNotifications = UnreadNotifications {
    notification_count: 0,
    highlight_count: 0,
};
const NOTIFIES: UnreadNotifications = UnreadNotifications {
    notification_count: 1,
    highlight_count: 0,
};

impl Hearing<'_> {
    /// Whether nothing in the room counts.
    pub(super) fn is_deaf(&self) -> bool {
        let said = [self.plain, self.quiet, self.special];
        said.iter().all(|said| *said == Some(NOTHING)) && self.listener.watched.is_empty()
    }

    /// What each event that notifies everybody and is not special counts for; None if that depends on the event, or if
    /// other events count as well.
    pub(super) fn of_plain(&self) -> Option<UnreadNotifications> {
        self.plain.filter(|_| self.quiet == Some(NOTHING))
    }

    /// Whose messages are heard otherwise than those of others.
    pub(super) fn particular(&self) -> impl Iterator<Item = UserNum> {
        let listener = self.listener;
        listener.ignored.iter().chain(&listener.watched).copied()
    }

    /// What an event counts for; None if it must be read.
    pub(super) fn of(&self, entry: &TimelineEntry) -> Option<UnreadNotifications> {
        let EventTraits {
            state,
            notifies,
            special,
            ..
        } = entry.traits;
        // State is always told, so that rooms look the same to everybody.
        if !state && self.listener.ignored.contains(&entry.sender) {
            Some(NOTHING)
        } else if self.listener.watched.contains(&entry.sender) {
            None
        } else if special {
            self.special
        } else if notifies {
            self.plain
        } else {
            self.quiet
        }
    }
}

impl<'a> Class<'a> {
    /// What notifies everybody by the default rules and is not special.
    fn plain(default: &'a Ruleset) -> Vec<Class<'a>> {
        let class = |event_type: &'static str| Class {
            event_type: Some(event_type),
            certain: Vec::new(),
            impossible: [NOTICES, EDITS, INVITES]
                .into_iter()
                .map(|rule_id| conditions(default, rule_id))
                .chain(mentions(default))
                .collect(),
        };
        NOTIFYING_TYPES.into_iter().map(class).collect()
    }

    /// What notifies nobody by the default rules and is not special: notices, edits, and everything that has none of the
    /// types that notify.
    fn quiet(default: &'a Ruleset) -> [Class<'a>; 3] {
        let unmentioning = || {
            let impossible = [INVITES].map(|rule_id| conditions(default, rule_id));
            impossible.into_iter().chain(mentions(default))
        };
        // A tombstone that is no notice is special.
        let no_notice = || {
            let impossible = [NOTICES, TOMBSTONES].map(|rule_id| conditions(default, rule_id));
            unmentioning().chain(impossible)
        };
        let of_type = |condition: &&Condition| matches!(condition, Condition::EventMatch { key, .. } if key == "type");
        let types = default
            .of_kind(Kind::Underride)
            .iter()
            .flat_map(|rule| rule.conditions.iter().flatten())
            .filter(of_type)
            .map(std::slice::from_ref);
        [
            Class {
                event_type: None,
                certain: conditions(default, NOTICES).iter().collect(),
                impossible: unmentioning().collect(),
            },
            Class {
                event_type: None,
                certain: conditions(default, EDITS).iter().collect(),
                impossible: no_notice().collect(),
            },
            Class {
                event_type: None,
                certain: Vec::new(),
                impossible: no_notice()
                    .chain([conditions(default, EDITS)])
                    .chain(types)
                    .collect(),
            },
        ]
    }

    /// Whether a rule matches the events of the class; None if it may match some of them.
    fn matches(&self, rule: &Rule, room_id: &str, joined: u64) -> Option<bool> {
        let conditions = rule.conditions.as_deref().unwrap_or_default();
        let refuted = self.impossible.iter().any(|impossible| {
            !impossible.is_empty() && impossible.iter().all(|one| conditions.contains(one))
        });
        if refuted {
            return Some(false);
        }
        let mut all = Some(true);
        for condition in conditions {
            match self.decides(condition, room_id, joined) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => all = None,
            }
        }
        all
    }

    /// Whether a condition holds for the events of the class; None if it may hold for some of them.
    fn decides(&self, condition: &Condition, room_id: &str, joined: u64) -> Option<bool> {
        let known = match condition {
            Condition::EventMatch { key, .. } | Condition::EventPropertyIs { key, .. } => {
                key == "room_id" || (key == "type" && self.event_type.is_some())
            }
            Condition::RoomMemberCount { .. } | Condition::Unknown(_) => true,
            _ => false,
        };
        if known {
            let event = unknown(room_id, self.event_type.unwrap_or_default());
            return Some(condition.holds(&event, &members(joined)));
        }
        self.certain.contains(&condition).then_some(true)
    }
}

const NOTICES: &str = ".m.rule.suppress_notices";
const EDITS: &str = ".m.rule.suppress_edits";
const INVITES: &str = ".m.rule.invite_for_me";
const TOMBSTONES: &str = ".m.rule.tombstone";
const USER_MENTIONS: &str = ".m.rule.is_user_mention";
const ROOM_MENTIONS: &str = ".m.rule.is_room_mention";

/// The conditions of a default rule; none if there is no such rule.
fn conditions<'a>(default: &'a Ruleset, rule_id: &str) -> &'a [Condition] {
    let rule = default.get(Kind::Override, rule_id);
    rule.and_then(|rule| rule.conditions.as_deref())
        .unwrap_or_default()
}

/// The conditions that hold for what mentions the user, or the room.
fn mentions(default: &Ruleset) -> impl Iterator<Item = &[Condition]> {
    // That the sender may mention the room comes after.
    let room = conditions(default, ROOM_MENTIONS);
    [
        conditions(default, USER_MENTIONS),
        &room[..room.len().min(1)],
    ]
    .into_iter()
}

/// The rules that are in force, in order.
fn enabled(rules: &Ruleset) -> impl Iterator<Item = (Kind, &Rule)> {
    Kind::ALL
        .into_iter()
        .flat_map(|kind| rules.of_kind(kind).iter().map(move |rule| (kind, rule)))
        .filter(|(_, rule)| rule.enabled)
}

/// What a rule says of events that it matches.
fn outcome(rule: &Rule) -> UnreadNotifications {
    Outcome::of(&rule.actions).into()
}

impl From<Outcome<'_>> for UnreadNotifications {
    fn from(outcome: Outcome<'_>) -> Self {
        Self {
            notification_count: outcome.notify.into(),
            highlight_count: outcome.highlight.into(),
        }
    }
}

/// An event of which no more is known.
fn unknown<'a>(room_id: &'a str, event_type: &'a str) -> PushEvent<'a> {
    static EMPTY: LazyLock<Object> = LazyLock::new(Object::new);
    PushEvent {
        event_id: "",
        room_id,
        sender: "",
        event_type,
        state_key: None,
        content: &EMPTY,
    }
}

/// Circumstances of which no more is known than how many members there are.
fn members(joined: u64) -> PushContext<'static> {
    PushContext {
        user_id: "",
        display_name: None,
        member_count: joined,
        power_levels: None,
    }
}
