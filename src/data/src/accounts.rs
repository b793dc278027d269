//! Tables of users, their devices and what they keep with the server.

use std::fmt;

use myelin_store::{CodecError, Parser, Value, Writer};
use myelin_types::{EventNum, Millis, Pos, RoomNum, UserNum};
use serde::{Deserialize, Serialize};

use crate::{Present, RawJson, json, postcard_value, table};

table! {
    /// The number of a user id, local or remote.
    ///
    /// Floor: one row a user this server ever met; numbers are never given twice.
    UserNums = "user_nums", Point, String => Number
}

table! {
    /// The status messages of users of this server. Floor: a user has one at most; it goes when he sets none, and with his
    /// account.
    PresenceStatuses = "presence_statuses", Point, UserNum => PresenceStatus
}

table! {
    /// The id of a user's number; grows with [`UserNums`].
    UserIds = "user_ids", Point, UserNum => Text
}

table! {
    /// Accounts of local users. Deactivation keeps the row, so that the name is not given to somebody else.
    Accounts = "accounts", Point, UserNum => Account
}

table! {
    /// Devices by user and device id. Floor: logout, device deletion and deactivation.
    Devices = "devices", Scan, (UserNum, String) => Device
}

table! {
    /// Access tokens by the SHA-256 of their text. Floor: logout, rotation by refresh, deactivation. Expired ones stay
    /// until then, since their clients are to be told to refresh rather than that they are unknown.
    AccessTokens = "access_tokens", Point, [u8; 32] => AccessToken
}

table! {
    /// Refresh tokens by the SHA-256 of their text. Floor as for [`AccessTokens`]: a session holds two at most.
    RefreshTokens = "refresh_tokens", Point, [u8; 32] => RefreshToken
}

table! {
    /// Which token hashes belong to a device, so that logout finds them. Rows live as long as their tokens.
    DeviceTokens = "device_tokens", Scan, (UserNum, String, TokenKind, [u8; 32]) => Present
}

table! {
    /// OpenID tokens by the time of their end in milliseconds and the SHA-256 of their text. Floor: the janitor deletes
    /// those that have ended, an hour after they were given out.
    OpenIdTokens = "openid_tokens", Churn, (u64, [u8; 32]) => OpenIdToken
}

table! {
    /// Registration tokens by their text. Floor: deletion by the operator.
    RegistrationTokens = "registration_tokens", Point, String => RegistrationToken
}

table! {
    /// Profiles: one JSON object a user, so that its limit of 64 KiB can be kept exactly. Floor: deletion of the last
    /// field, deactivation.
    Profiles = "profiles", Point, UserNum => RawJson
}

table! {
    /// Account data by user, room ([`RoomNum::NONE`] for global) and type; `m.push_rules`, `m.tag` and `m.fully_read`
    /// among them. One row a type: overwritten in place. An empty object stands for deleted data until its readers
    /// have seen it.
    AccountData = "account_data", Scan, (UserNum, RoomNum, String) => DatedJson
}

table! {
    /// The same, in the order of change: exactly one row for each of [`AccountData`], the older one deleted in the batch
    /// that writes the newer.
    AccountDataByPos = "account_data_by_pos", Churn, (UserNum, Pos, RoomNum, String) => Present
}

table! {
    /// Filters that clients stored. Equal filters of a user share a row, and a user has 1,000 at most.
    Filters = "filters", Scan, (UserNum, u64) => RawJson
}

table! {
    /// What a request with a transaction id was answered, by user, device, request path without the id, and id.
    ///
    /// Floor: rows older than a day go with [`TransactionsByTime`]; a device's go with the device.
    Transactions = "transactions", Point, (UserNum, String, String, String) => Transaction
}

table! {
    /// Transactions by age, for their expiry.
    TransactionsByTime = "transactions_by_time", Churn, (u64, UserNum, String, String, String) => Present
}

/// An interned number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Number(pub u32);
postcard_value!(Number, 1);

/// A piece of text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text(pub String);
postcard_value!(Text, 1);

/// A local account.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// When it was registered.
    pub created_at: Millis,
    /// The argon2id hash of its password in PHC form; none for accounts that cannot log in by password.
    pub password_hash: Option<String>,
    /// Whether it administers this server.
    pub admin: bool,
    /// Whether it was deactivated: nobody logs in to it or invites it any more.
    pub deactivated: bool,
    /// Whether its owner wanted it erased: those who come later are served redacted copies of its events.
    pub erased: bool,
    /// Grows with every token that is given out for this account. Who revokes sessions expects this row, and so notices
    /// one that was opened meanwhile.
    pub sessions: u64,
}
postcard_value!(Account, 1);

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("created_at", &self.created_at)
            .field("has_password", &self.password_hash.is_some())
            .field("admin", &self.admin)
            .field("deactivated", &self.deactivated)
            .field("erased", &self.erased)
            .field("sessions", &self.sessions)
            .finish()
    }
}

/// A token by which a third party learns who a user is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenIdToken {
    /// Who that is.
    pub user: UserNum,
}
postcard_value!(OpenIdToken, 1);

/// A device of a local user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The name that people see.
    pub display_name: Option<String>,
    /// When it logged in first.
    pub created_at: Millis,
    /// When it was last heard of; kept to within some minutes.
    pub last_seen_at: Option<Millis>,
    /// From which address it was last heard.
    pub last_seen_ip: Option<String>,
}
postcard_value!(Device, 1);

/// What an access token opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessToken {
    /// Whose it is.
    pub user: UserNum,
    /// The device that it logged in.
    pub device_id: String,
    /// After this it is refused and must be refreshed; none for sessions without refresh tokens.
    pub expires_at: Option<Millis>,
    /// The refresh token (by hash) that was given out for this pair's predecessor: it stays valid until this access
    /// token is used for the first time, since the answer that carried the new pair may have been lost.
    pub replaces_refresh: Option<[u8; 32]>,
}
postcard_value!(AccessToken, 1);

/// What a refresh token renews.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshToken {
    /// Whose it is.
    pub user: UserNum,
    /// The device that it keeps logged in.
    pub device_id: String,
    /// The access token (by hash) of the same pair, which a refresh revokes.
    pub access: [u8; 32],
    /// The pair that a first use of this token produced, revoked when it is used again.
    pub successor: Option<Successor>,
    /// The refresh token (by hash) whose use produced this one: it is revoked when either of the new pair is used.
    pub replaces: Option<[u8; 32]>,
}
postcard_value!(RefreshToken, 1);

/// The pair that followed a refresh token, by their hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Successor {
    /// The access token.
    pub access: [u8; 32],
    /// The refresh token.
    pub refresh: [u8; 32],
}

/// Which table a token of [`DeviceTokens`] stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenKind {
    /// [`AccessTokens`].
    Access,
    /// [`RefreshTokens`].
    Refresh,
}

impl myelin_store::Key for TokenKind {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(match self {
            TokenKind::Access => 0,
            TokenKind::Refresh => 1,
        });
    }

    fn decode(parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match parser.u8()? {
            0 => Ok(TokenKind::Access),
            1 => Ok(TokenKind::Refresh),
            _ => Err(CodecError::Invalid("kind of token")),
        }
    }
}

/// A token that lets somebody register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationToken {
    /// How many registrations it is good for; none for any number.
    pub uses_allowed: Option<u64>,
    /// How many registrations were completed with it.
    pub completed: u64,
    /// After this it is refused.
    pub expires_at: Option<Millis>,
}
postcard_value!(RegistrationToken, 1);

/// JSON with the position at which it was last changed.
#[derive(Clone, Debug, PartialEq)]
pub struct DatedJson {
    /// Where it was changed.
    pub pos: Pos,
    /// The content.
    pub json: RawJson,
}

impl Value for DatedJson {
    const VERSION: u8 = 1;

    fn encode(&self, writer: &mut Writer) {
        writer.pos(self.pos);
        writer.bytes(self.json.get().as_bytes());
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => Ok(DatedJson {
                pos: parser.pos()?,
                json: json::parse(parser.rest())?,
            }),
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

/// What a request with a transaction id led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// When it was first made.
    pub at: Millis,
    /// The room and number of the event that it sent.
    pub event: Option<(RoomNum, EventNum)>,
    /// The event id that it was answered with.
    pub event_id: Option<String>,
}
postcard_value!(Transaction, 1);

/// What a user wants others to read beside his presence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceStatus {
    /// The message.
    pub text: String,
}
postcard_value!(PresenceStatus, 1);
