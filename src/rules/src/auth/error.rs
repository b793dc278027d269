//! Why an event is not allowed.

use std::fmt;

/// Why an event is not allowed. Each variant names the condition; the text is fit for the user who sent the event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The state has no create event, or that of another room.
    #[error("the room has no create event")]
    NoCreateEvent,
    /// The create event has previous events.
    #[error("the create event has previous events")]
    CreateHasPrevEvents,
    /// v1-11: room ID and creator are of different servers.
    #[error("the room ID is of another server than the room's creator")]
    CreateOnOtherServer,
    /// The create event asks for a version this server does not know.
    #[error("the room version is not supported")]
    UnknownRoomVersion,
    /// v1-10: the create event names no creator.
    #[error("the create event names no creator")]
    NoCreator,
    /// v12: `additional_creators` is not a list of user IDs.
    #[error("the additional creators are not a list of user IDs")]
    BadAdditionalCreators,

    /// Two of the auth events have the same type and state key.
    #[error("two auth events have the same type and state key")]
    DuplicateAuthEvent,
    /// An auth event is not among those that the event's fields select.
    #[error("an auth event does not authorise events like this one")]
    UnexpectedAuthEvent,
    /// An auth event was rejected.
    #[error("an auth event was rejected")]
    RejectedAuthEvent,
    /// v1-11: no create event among the auth events.
    #[error("the create event is not among the auth events")]
    NoCreateInAuthEvents,
    /// An auth event is of another room.
    #[error("an auth event is of another room")]
    AuthEventOfOtherRoom,

    /// v1-10: `type` or `state_key` has more than 255 bytes, though not more code points. Later versions drop such events.
    #[error("the type or state key is too long")]
    TooLong,
    /// The room does not federate and the sender is of another server than the creator.
    #[error("the room does not take users of other servers")]
    NotFederated,
    /// v1-5: an aliases event without state key.
    #[error("the aliases event has no state key")]
    AliasesWithoutStateKey,
    /// v1-5: an aliases event of another server than the sender's.
    #[error("the aliases are of another server than their sender")]
    AliasesOfOtherServer,

    /// A membership event without state key or `membership`.
    #[error("the membership event has no state key or no membership")]
    MalformedMember,
    /// The membership is none that the room version knows.
    #[error("the membership is unknown")]
    UnknownMembership,
    /// The sender changes somebody else's membership to one that everybody can only give himself.
    #[error("nobody can do this for somebody else")]
    NotOwnMembership,
    /// The user is banned.
    #[error("the user is banned from the room")]
    Banned,
    /// The join rule asks for an invitation, and there is none.
    #[error("the user is not invited to the room")]
    NotInvited,
    /// The join rule does not allow to join, or is unknown.
    #[error("nobody can join the room")]
    JoinForbidden,
    /// A restricted join names no member who could invite.
    #[error("the join is not authorised by a member who may invite")]
    JoinNotAuthorised,
    /// The join rule does not allow to knock.
    #[error("the room does not allow knocking")]
    KnockForbidden,
    /// Who is joined, invited or banned cannot knock.
    #[error("the user is joined, invited or banned and cannot knock")]
    CannotKnock,
    /// The target of the invitation is in the room already.
    #[error("the user is already in the room")]
    AlreadyJoined,
    /// Who is not in the room, nor invited, nor knocking, cannot leave.
    #[error("the user is not in the room and cannot leave it")]
    CannotLeave,
    /// The sender may not invite.
    #[error("the sender's power level is too low to invite")]
    CannotInvite,
    /// The sender may not kick, or not this user.
    #[error("the sender's power level is too low to kick the user")]
    CannotKick,
    /// The sender may not ban, or not this user.
    #[error("the sender's power level is too low to ban the user")]
    CannotBan,
    /// The sender may not lift a ban.
    #[error("the sender's power level is too low to unban the user")]
    CannotUnban,
    /// The third-party invite lacks its parts or is not for this user.
    #[error("the third-party invite is malformed")]
    MalformedThirdPartyInvite,
    /// The room has no third-party invite with this token.
    #[error("the third-party invite is unknown to the room")]
    UnknownThirdPartyInvite,
    /// The third-party invite was sent by somebody else.
    #[error("the third-party invite was sent by another user")]
    ThirdPartyInviteOfOtherUser,
    /// None of the invite's signatures is by one of the keys that the room knows.
    #[error("the third-party invite is not signed by a key that the room knows")]
    ThirdPartyInviteUnsigned,

    /// The sender has not joined the room.
    #[error("the sender is not joined to the room")]
    NotJoined,
    /// The sender may not send events of this type.
    #[error("the sender's power level is too low to send this event")]
    CannotSend,
    /// A state key that names a user, who is not the sender.
    #[error("the state key is another user's ID")]
    StateKeyOfOtherUser,
    /// v1-2: the sender may not redact the event.
    #[error("the sender's power level is too low to redact the event")]
    CannotRedact,

    /// The power levels cannot be read: the named property is not what it must be.
    #[error("`{0}` of the power levels is malformed")]
    MalformedPowerLevels(LevelsField),
    /// v12: the power levels name a creator.
    #[error("the power levels name a creator of the room")]
    LevelForCreator,
    /// The named level is being changed by someone below it, from or to.
    #[error("the sender's power level is too low to change `{0}` of the power levels")]
    CannotChangeLevel(LevelsField),
}

impl AuthError {
    /// Whether the event's content is none that anybody could send in this room, whoever he is and whatever the room's state.
    pub const fn is_of_content(&self) -> bool {
        matches!(self, Self::MalformedPowerLevels(_) | Self::LevelForCreator)
    }
}

/// A property of `m.room.power_levels`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the property of that name")]
pub enum LevelsField {
    UsersDefault,
    EventsDefault,
    StateDefault,
    Ban,
    Redact,
    Kick,
    Invite,
    Users,
    Events,
    Notifications,
}

impl LevelsField {
    /// The name of the property.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UsersDefault => "users_default",
            Self::EventsDefault => "events_default",
            Self::StateDefault => "state_default",
            Self::Ban => "ban",
            Self::Redact => "redact",
            Self::Kick => "kick",
            Self::Invite => "invite",
            Self::Users => "users",
            Self::Events => "events",
            Self::Notifications => "notifications",
        }
    }
}

impl fmt::Display for LevelsField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
