//! The authorisation rules about membership: rule 5 of v12, whose numbers the comments have.

use serde_json::Value;

use super::{AuthError, AuthState, JoinRule, Membership, check::Room, third_party};
use crate::Pdu;

/// Checks a `m.room.member` event.
pub(super) fn check<S: AuthState>(event: &Pdu, room: &Room<'_, S>) -> Result<(), AuthError> {
    // 5.1. State key and membership
    let target = event.state_key().ok_or(AuthError::MalformedMember)?;
    let membership = event.content().get("membership");
    let membership = membership.ok_or(AuthError::MalformedMember)?;
    match membership.as_str().and_then(Membership::from_value) {
        Some(Membership::Join) => check_join(event, target, room),
        Some(Membership::Invite) => check_invite(event, target, room),
        Some(Membership::Leave) => check_leave(event, target, room),
        Some(Membership::Ban) => check_ban(event, target, room),
        Some(Membership::Knock) if room.rules.knock => check_knock(event, target, room),
        // 5.8.
        Some(Membership::Knock) | None => Err(AuthError::UnknownMembership),
    }
}

/// 5.3.
fn check_join<S: AuthState>(
    event: &Pdu,
    target: &str,
    room: &Room<'_, S>,
) -> Result<(), AuthError> {
    // 5.3.1. The creator joins right after creating the room.
    let mut previous = event.prev_events();
    let follows_create = previous.len() == 1 && previous.next() == Some(room.create.event_id());
    let creator = room.levels.create().creator.as_deref();
    if follows_create && creator == Some(target) {
        return Ok(());
    }
    // 5.3.2.
    if event.sender() != target {
        return Err(AuthError::NotOwnMembership);
    }
    // 5.3.3.
    let current = room.membership(target);
    if current == Membership::Ban {
        return Err(AuthError::Banned);
    }
    let invited_or_joined = matches!(current, Membership::Invite | Membership::Join);
    match join_rule(room) {
        // 5.3.4.
        JoinRule::Invite | JoinRule::Knock => {
            if invited_or_joined {
                Ok(())
            } else {
                Err(AuthError::NotInvited)
            }
        }
        // 5.3.5.
        JoinRule::Restricted | JoinRule::KnockRestricted => {
            // 5.3.5.1.
            if invited_or_joined {
                return Ok(());
            }
            // 5.3.5.2.
            let authoriser = event
                .content()
                .get("join_authorised_via_users_server")
                .and_then(Value::as_str)
                .ok_or(AuthError::NotInvited)?;
            if room.membership(authoriser) == Membership::Join
                && room.levels.user(authoriser) >= room.levels.invite()
            {
                Ok(())
            } else {
                Err(AuthError::JoinNotAuthorised)
            }
        }
        // 5.3.6.
        JoinRule::Public => Ok(()),
        // 5.3.7.
        JoinRule::Private | JoinRule::Unknown => Err(AuthError::JoinForbidden),
    }
}

/// 5.4.
fn check_invite<S: AuthState>(
    event: &Pdu,
    target: &str,
    room: &Room<'_, S>,
) -> Result<(), AuthError> {
    // 5.4.1.
    if let Some(invite) = event.content().get("third_party_invite") {
        return third_party::check(event, target, invite, room);
    }
    // 5.4.2.
    if room.membership(event.sender()) != Membership::Join {
        return Err(AuthError::NotJoined);
    }
    // 5.4.3.
    match room.membership(target) {
        Membership::Join => return Err(AuthError::AlreadyJoined),
        Membership::Ban => return Err(AuthError::Banned),
        Membership::Leave | Membership::Invite | Membership::Knock => {}
    }
    // 5.4.4. and 5.4.5.
    if room.levels.user(event.sender()) >= room.levels.invite() {
        Ok(())
    } else {
        Err(AuthError::CannotInvite)
    }
}

/// 5.5.
fn check_leave<S: AuthState>(
    event: &Pdu,
    target: &str,
    room: &Room<'_, S>,
) -> Result<(), AuthError> {
    let current = room.membership(target);
    // 5.5.1.
    if event.sender() == target {
        return match current {
            Membership::Invite | Membership::Join => Ok(()),
            Membership::Knock if room.rules.knock => Ok(()),
            Membership::Ban => Err(AuthError::Banned),
            Membership::Knock | Membership::Leave => Err(AuthError::CannotLeave),
        };
    }
    // 5.5.2.
    if room.membership(event.sender()) != Membership::Join {
        return Err(AuthError::NotJoined);
    }
    // 5.5.3.
    let sender = room.levels.user(event.sender());
    if current == Membership::Ban && sender < room.levels.ban() {
        return Err(AuthError::CannotUnban);
    }
    // 5.5.4. and 5.5.5.
    if sender >= room.levels.kick() && room.levels.user(target) < sender {
        Ok(())
    } else {
        Err(AuthError::CannotKick)
    }
}

/// 5.6.
fn check_ban<S: AuthState>(event: &Pdu, target: &str, room: &Room<'_, S>) -> Result<(), AuthError> {
    // 5.6.1.
    if room.membership(event.sender()) != Membership::Join {
        return Err(AuthError::NotJoined);
    }
    // 5.6.2. and 5.6.3.
    let sender = room.levels.user(event.sender());
    if sender >= room.levels.ban() && room.levels.user(target) < sender {
        Ok(())
    } else {
        Err(AuthError::CannotBan)
    }
}

/// 5.7.
fn check_knock<S: AuthState>(
    event: &Pdu,
    target: &str,
    room: &Room<'_, S>,
) -> Result<(), AuthError> {
    // 5.7.1.
    if !matches!(join_rule(room), JoinRule::Knock | JoinRule::KnockRestricted) {
        return Err(AuthError::KnockForbidden);
    }
    // 5.7.2.
    if event.sender() != target {
        return Err(AuthError::NotOwnMembership);
    }
    // 5.7.3. and 5.7.4.
    match room.membership(target) {
        Membership::Ban | Membership::Invite | Membership::Join => Err(AuthError::CannotKnock),
        Membership::Leave | Membership::Knock => Ok(()),
    }
}

/// The join rule in force; those that the room version does not have are unknown to it.
fn join_rule<S: AuthState>(room: &Room<'_, S>) -> JoinRule {
    let event = room.state.get("m.room.join_rules", "");
    match event.map(JoinRule::of).unwrap_or_default() {
        JoinRule::Knock if !room.rules.knock => JoinRule::Unknown,
        JoinRule::Restricted if !room.rules.restricted => JoinRule::Unknown,
        JoinRule::KnockRestricted if !room.rules.knock_restricted => JoinRule::Unknown,
        rule => rule,
    }
}
