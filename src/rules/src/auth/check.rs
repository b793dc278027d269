//! The authorisation rules, except those about membership (rule 5), which are in [`super::member`].

use std::{collections::BTreeMap, str::FromStr};

use serde_json::Value;

use super::{
    AuthError, AuthState, Create, Membership, PowerLevel, PowerLevels, auth_types,
    error::LevelsField, member, power::Levels,
};
use crate::{Pdu, RoomVersion, limits, version::Rules};

/// One of an event's `auth_events`.
#[derive(Clone, Copy, Debug)]
pub struct AuthEvent<'a> {
    /// The event.
    pub event: &'a Pdu,
    /// Whether it was rejected.
    pub rejected: bool,
}

/// What the rules ask for again and again.
pub(super) struct Room<'a, S> {
    pub(super) rules: &'static Rules,
    pub(super) state: &'a S,
    pub(super) create: &'a Pdu,
    pub(super) levels: PowerLevels,
}

impl<S: AuthState> Room<'_, S> {
    pub(super) fn membership(&self, user_id: &str) -> Membership {
        let member = self.state.get("m.room.member", user_id);
        member.map(Membership::of).unwrap_or_default()
    }
}

/// Checks `event` against `state`, by the rules of the event's room version.
///
/// That the authorising server of a restricted join signed it (rule 5.2) is part of [`crate::sign::verify`]; what
/// concerns the list of `auth_events` (rule 3) is [`check_auth_events`]. That the create event was accepted (rule 2) is
/// the caller's promise by having it in `state`.
pub fn check(event: &Pdu, state: &impl AuthState) -> Result<(), AuthError> {
    let rules = event.version().rules();
    // What the format of the version lets pass for the sake of what builds on it.
    let texts = [Some(event.event_type()), event.state_key()];
    if texts
        .into_iter()
        .flatten()
        .any(|text| text.len() > limits::MAX_ID_BYTES)
    {
        return Err(AuthError::TooLong);
    }
    // 1. If type is m.room.create
    if event.event_type() == "m.room.create" {
        return check_create(event, rules);
    }
    let create = state.create().ok_or(AuthError::NoCreateEvent)?;
    // 2. The room ID must be the create event's. (Before v12 rule 2.5 about auth events sees to it.)
    if event.room_id() != create.room_id() {
        return Err(AuthError::NoCreateEvent);
    }
    let room = Room {
        rules,
        state,
        create,
        levels: PowerLevels::new(create, state.get("m.room.power_levels", "")),
    };
    // 4. m.federate
    if !room.levels.create().federate && !same_server(event.sender(), create.sender()) {
        return Err(AuthError::NotFederated);
    }
    // v1-5, 4. If type is m.room.aliases
    if rules.aliases_rule && event.event_type() == "m.room.aliases" {
        let server = event.state_key().ok_or(AuthError::AliasesWithoutStateKey)?;
        if limits::server_name_of(event.sender()) != Some(server) {
            return Err(AuthError::AliasesOfOtherServer);
        }
        return Ok(());
    }
    // 5. If type is m.room.member
    if event.event_type() == "m.room.member" {
        return member::check(event, &room);
    }
    // 6. The sender must have joined.
    if room.membership(event.sender()) != Membership::Join {
        return Err(AuthError::NotJoined);
    }
    let sender_level = room.levels.user(event.sender());
    // 7. If type is m.room.third_party_invite: allow if and only if the sender may invite
    if event.event_type() == "m.room.third_party_invite" {
        return if sender_level >= room.levels.invite() {
            Ok(())
        } else {
            Err(AuthError::CannotInvite)
        };
    }
    // 8. Required power level
    let is_state = event.state_key().is_some();
    if room.levels.event(event.event_type(), is_state) > sender_level {
        return Err(AuthError::CannotSend);
    }
    // 9. State keys that start with @ are their users' own.
    if let Some(state_key) = event.state_key()
        && state_key.starts_with('@')
        && state_key != event.sender()
    {
        return Err(AuthError::StateKeyOfOtherUser);
    }
    // 10. If type is m.room.power_levels
    if event.event_type() == "m.room.power_levels" {
        return check_power_levels(event, &room, sender_level);
    }
    // v1-2, 11. If type is m.room.redaction
    if rules.redaction_rule && event.event_type() == "m.room.redaction" {
        let same_server = event
            .redacts()
            .is_some_and(|target| same_server(target, event.event_id()));
        return if sender_level >= room.levels.redact() || same_server {
            Ok(())
        } else {
            Err(AuthError::CannotRedact)
        };
    }
    // 11. Otherwise, allow.
    Ok(())
}

fn check_create(event: &Pdu, rules: &Rules) -> Result<(), AuthError> {
    // 1.1. No prev_events
    if event.prev_events().len() > 0 {
        return Err(AuthError::CreateHasPrevEvents);
    }
    // 1.2. From v12 on it has no room ID, or else it is no event at all. Before, it is of the sender's server.
    if !rules.room_id_is_create_hash && !same_server(event.room_id(), event.sender()) {
        return Err(AuthError::CreateOnOtherServer);
    }
    // 1.3. A recognised room version
    if let Some(version) = event.content().get("room_version") {
        let known = version.as_str().map(RoomVersion::from_str);
        if !matches!(known, Some(Ok(_))) {
            return Err(AuthError::UnknownRoomVersion);
        }
    }
    // v1-10, 1.4. A creator
    if !rules.creator_is_sender && !event.content().contains_key("creator") {
        return Err(AuthError::NoCreator);
    }
    // 1.4. additional_creators
    if rules.privileged_creators
        && let Some(creators) = event.content().get("additional_creators")
    {
        let is_user = |id: &Value| id.as_str().is_some_and(limits::is_user_id);
        let valid = creators
            .as_array()
            .is_some_and(|creators| creators.iter().all(is_user));
        if !valid {
            return Err(AuthError::BadAdditionalCreators);
        }
    }
    Ok(())
}

/// Checks the list of `event`'s own auth events (rule 3; rule 2 before v12).
pub fn check_auth_events(event: &Pdu, auth_events: &[AuthEvent<'_>]) -> Result<(), AuthError> {
    if event.event_type() == "m.room.create" {
        // Rule 1 allows or rejects it before auth events are considered.
        return Ok(());
    }
    let expected = auth_types(
        event.version(),
        event.event_type(),
        event.sender(),
        event.state_key(),
        event.content(),
    );
    let mut has_create = false;
    for (
        index,
        AuthEvent {
            event: auth,
            rejected,
        },
    ) in auth_events.iter().enumerate()
    {
        let key = (auth.event_type(), auth.state_key());
        // 3.1. No duplicates
        let same_key =
            |other: &AuthEvent<'_>| (other.event.event_type(), other.event.state_key()) == key;
        if auth_events[..index].iter().any(same_key) {
            return Err(AuthError::DuplicateAuthEvent);
        }
        // 3.2. Only what the selection names
        let selected = expected
            .iter()
            .any(|(event_type, state_key)| key == (*event_type, Some(state_key)));
        if !selected {
            return Err(AuthError::UnexpectedAuthEvent);
        }
        // 3.3. None that was rejected
        if *rejected {
            return Err(AuthError::RejectedAuthEvent);
        }
        // 3.5. All of the same room
        if auth.room_id() != event.room_id() {
            return Err(AuthError::AuthEventOfOtherRoom);
        }
        has_create |= auth.is_state("m.room.create", "");
    }
    // v1-11, 2.4. The create event is among them
    if !has_create && !event.version().rules().room_id_is_create_hash {
        return Err(AuthError::NoCreateInAuthEvents);
    }
    Ok(())
}

/// Whether a redaction may be applied to its target: "Handling redactions" of v3 and later. In v1-2 rule 11 has
/// decided when the redaction was accepted.
pub fn may_redact(redaction: &Pdu, target: &Pdu, levels: &PowerLevels) -> bool {
    if redaction.room_id() != target.room_id() || redaction.redacts() != Some(target.event_id()) {
        return false;
    }
    redaction.version().rules().redaction_rule
        || levels.user(redaction.sender()) >= levels.redact()
        || same_server(redaction.sender(), target.sender())
}

fn check_power_levels<S: AuthState>(
    event: &Pdu,
    room: &Room<'_, S>,
    sender_level: PowerLevel,
) -> Result<(), AuthError> {
    // 10.1. to 10.3. The format
    let new = Levels::decode(room.rules, event.content())?;
    // 10.4. No creators among the users
    if room.rules.privileged_creators {
        let create: &Create = room.levels.create();
        if new.users.keys().any(|user| create.is_creator(user)) {
            return Err(AuthError::LevelForCreator);
        }
    }
    // 10.5. Nothing to compare with
    let Some(current) = room.levels.levels() else {
        return Ok(());
    };
    let above_sender = |level: i64| PowerLevel::Level(level) > sender_level;
    // 10.6. Changes of single levels. What counts is what the events say: a level that is not there is neither the
    // default nor above anybody. The spec leaves this open (matrix-spec issue 2388), most servers read it like this,
    // and a different reading would split rooms from them.
    for ((field, current), (_, new)) in current.single().into_iter().zip(new.single()) {
        let too_high = |level: Option<i64>| level.is_some_and(above_sender);
        if current != new && (too_high(current) || too_high(new)) {
            return Err(AuthError::CannotChangeLevel(field));
        }
    }
    // 10.7. and 10.8. Changes of events; of notifications from v6 on
    let check_map = |field, current: &BTreeMap<String, i64>, new: &BTreeMap<String, i64>| {
        let forbidden = changes(current, new).any(|(_, current, new)| {
            current.is_some_and(above_sender) || new.is_some_and(above_sender)
        });
        if forbidden {
            return Err(AuthError::CannotChangeLevel(field));
        }
        Ok(())
    };
    check_map(LevelsField::Events, &current.events, &new.events)?;
    if room.rules.notifications_checked {
        check_map(
            LevelsField::Notifications,
            &current.notifications,
            &new.notifications,
        )?;
    }
    for (user, current, new) in changes(&current.users, &new.users) {
        // 10.9. Nobody changes the level of those who are not below him, but his own,
        let not_below = |level| PowerLevel::Level(level) >= sender_level;
        if user != event.sender() && current.is_some_and(not_below) {
            return Err(AuthError::CannotChangeLevel(LevelsField::Users));
        }
        // 10.10. and nobody gives a level above his own.
        if new.is_some_and(above_sender) {
            return Err(AuthError::CannotChangeLevel(LevelsField::Users));
        }
    }
    Ok(())
}

/// The entries that differ, with their current and new values.
fn changes<'a>(
    current: &'a BTreeMap<String, i64>,
    new: &'a BTreeMap<String, i64>,
) -> impl Iterator<Item = (&'a str, Option<i64>, Option<i64>)> {
    let changed_or_removed = current.iter().filter_map(|(key, &level)| {
        let changed = new.get(key).copied();
        (changed != Some(level)).then_some((key.as_str(), Some(level), changed))
    });
    let added = new
        .iter()
        .filter(|(key, _)| !current.contains_key(*key))
        .map(|(key, &level)| (key.as_str(), None, Some(level)));
    changed_or_removed.chain(added)
}

/// Whether both identifiers have a server name, and the same.
fn same_server(one: &str, other: &str) -> bool {
    let server = limits::server_name_of(one);
    server.is_some() && server == limits::server_name_of(other)
}
