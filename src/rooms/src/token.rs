//! The tokens by which clients name a point in the log or in a room's history.
//!
//! Two kinds, told apart by their first letter, both accepted wherever the specification asks for a pagination token:
//! - `s{pos}_{typing}_{presence}_d{pos}.{index}`: what a sync answered up to; the position in the log, the serials of typing
//!   and of presence, and the last message to the device. Presence is left out where it is zero, and the message where all
//!   of them were told, as in tokens of before there were any.
//! - `t{pos}_{segment}_{index}`: the point just *before* a place of a room's timeline, as seen at a position.

use std::{fmt, str::FromStr};

use myelin_data::rooms::Place;
use myelin_types::Pos;
use thiserror::Error;

/// A point of all of a user's rooms: `s{pos}_{typing}_{presence}_d{pos}.{index}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyncToken {
    /// Everything up to and including this position has been told.
    pub pos: Pos,
    /// The serial of the typing state that has been told; serials start again with the process.
    pub typing: u64,
    /// The serial of the presence that has been told.
    pub presence: u64,
    /// Where too many messages waited for the device to tell all of them: the last that has been.
    pub to_device: Option<InboxPlace>,
}

/// A message in the inbox of a device: the position of its batch, and its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InboxPlace {
    /// The position.
    pub pos: Pos,
    /// The place.
    pub index: u32,
}

impl SyncToken {
    /// Up to where messages to the device have been told, this place included.
    pub fn inbox(&self) -> InboxPlace {
        self.to_device.unwrap_or(InboxPlace {
            pos: self.pos,
            index: u32::MAX,
        })
    }
}

/// A point of one room's timeline: `t{pos}_{segment}_{index}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimelineToken {
    /// The position at which the token was made.
    pub pos: Pos,
    /// The point lies just before the event at this place.
    pub place: Place,
}

/// Either kind of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Token {
    /// From `next_batch`.
    Sync(SyncToken),
    /// From `prev_batch`, `start` or `end`.
    Timeline(TimelineToken),
}

/// The text is no token of this server.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("not a token of this server")]
pub struct TokenError;

impl Token {
    /// The position at which the token was made.
    pub const fn pos(&self) -> Pos {
        match self {
            Token::Sync(token) => token.pos,
            Token::Timeline(token) => token.pos,
        }
    }
}

impl From<SyncToken> for Token {
    fn from(token: SyncToken) -> Self {
        Token::Sync(token)
    }
}

impl From<TimelineToken> for Token {
    fn from(token: TimelineToken) -> Self {
        Token::Timeline(token)
    }
}

impl fmt::Display for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}_{}", self.pos, self.typing)?;
        if self.presence != 0 {
            write!(f, "_{}", self.presence)?;
        }
        match self.to_device {
            None => Ok(()),
            Some(InboxPlace { pos, index }) => write!(f, "_d{pos}.{index}"),
        }
    }
}

impl fmt::Display for TimelineToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { segment, index } = self.place;
        write!(f, "t{}_{segment}_{index}", self.pos)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Sync(token) => token.fmt(f),
            Token::Timeline(token) => token.fmt(f),
        }
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (kind, rest) = text.split_at_checked(1).ok_or(TokenError)?;
        let mut parts = rest.split('_');
        let token = match kind {
            "s" => {
                let pos = Pos(unsigned(parts.next())?);
                let typing = unsigned(parts.next())?;
                let mut last = parts.next();
                let presence = match last {
                    Some(presence) if !presence.starts_with('d') => {
                        last = parts.next();
                        match unsigned(Some(presence))? {
                            // It would have another spelling.
                            0 => return Err(TokenError),
                            presence => presence,
                        }
                    }
                    _ => 0,
                };
                Token::Sync(SyncToken {
                    pos,
                    typing,
                    presence,
                    to_device: last.map(inbox_place).transpose()?,
                })
            }
            "t" => Token::Timeline(TimelineToken {
                pos: Pos(unsigned(parts.next())?),
                place: Place {
                    segment: u32::try_from(unsigned(parts.next())?).map_err(|_| TokenError)?,
                    index: signed(parts.next())?,
                },
            }),
            _ => return Err(TokenError),
        };
        match parts.next() {
            None if token.pos() != Pos::AT_COMMIT => Ok(token),
            _ => Err(TokenError),
        }
    }
}

impl FromStr for SyncToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        match text.parse()? {
            Token::Sync(token) => Ok(token),
            Token::Timeline(_) => Err(TokenError),
        }
    }
}

fn inbox_place(part: &str) -> Result<InboxPlace, TokenError> {
    let place = part.strip_prefix('d').ok_or(TokenError)?;
    let (pos, index) = place.split_once('.').ok_or(TokenError)?;
    Ok(InboxPlace {
        pos: Pos(unsigned(Some(pos))?),
        index: u32::try_from(unsigned(Some(index))?).map_err(|_| TokenError)?,
    })
}

/// A number as it is printed: digits alone, so that a token has one spelling.
fn unsigned(part: Option<&str>) -> Result<u64, TokenError> {
    let part = part.ok_or(TokenError)?;
    if !part.bytes().all(|byte| byte.is_ascii_digit()) || (part.len() > 1 && part.starts_with('0'))
    {
        return Err(TokenError);
    }
    part.parse().map_err(|_| TokenError)
}

fn signed(part: Option<&str>) -> Result<i64, TokenError> {
    let part = part.ok_or(TokenError)?;
    let digits = part.strip_prefix('-').unwrap_or(part);
    unsigned(Some(digits))?;
    match part.parse() {
        Ok(0) if part != "0" => Err(TokenError),
        parsed => parsed.map_err(|_| TokenError),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{InboxPlace, Place, Pos, SyncToken, TimelineToken, Token, TokenError};

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "s",
            "s1",
            "s1_",
            "s1_2_0",
            "s1_2_3_4",
            "s1_2_",
            "s1_2_d",
            "s1_2_d3",
            "s1_2_d3.",
            "s1_2_d3.04",
            "s1_2_d3.4294967296",
            "s1_2_d3.4_5",
            "s1_2_3_d4.5_6",
            "s1_2_0_d4.5",
            "s1_2_3_4.5",
            "s_1",
            "s-1_2",
            "s+1_2",
            "s01_2",
            "x1_2",
            "t1_2",
            "t1_2_",
            "t1_2_-0",
            "t1_2_3_4",
            "t1_4294967296_0",
            "t1_-1_0",
            "s18446744073709551615_0",
            "s18446744073709551616_0",
            "é1_2",
        ] {
            assert_eq!(text.parse::<Token>(), Err(TokenError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn tokens_round_trip(
            pos in 0..u64::MAX, typing: u64, presence in 0..3_u64, inbox: Option<(u64, u32)>, segment: u32, index: i64,
        ) {
            let to_device = inbox.map(|(pos, index)| InboxPlace { pos: Pos(pos), index });
            let sync = Token::Sync(SyncToken { pos: Pos(pos), typing, presence, to_device });
            prop_assert_eq!(sync.to_string().parse(), Ok(sync));
            let place = Place { segment, index };
            let timeline = Token::Timeline(TimelineToken { pos: Pos(pos), place });
            prop_assert_eq!(timeline.to_string().parse(), Ok(timeline));
        }

        #[test]
        fn a_token_has_one_spelling(text in "[st][0-9_+-]{0,12}(_d[0-9]{1,3}\\.[0-9]{1,3})?") {
            if let Ok(token) = text.parse::<Token>() {
                prop_assert_eq!(token.to_string(), text);
            }
        }
    }
}
