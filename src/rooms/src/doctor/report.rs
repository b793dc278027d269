//! What the doctor says.

use myelin_rules::Pdu;
use serde::{Deserialize, Serialize};

use crate::RoomHandle;

/// How many findings are told one by one; further ones are counted.
const MOST_FINDINGS: usize = 1_000;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know; nothing is wrong here.
    Note,
    /// The room works, and something in it is not as it should be.
    Warning,
    /// What the server believes of the room is wrong.
    Damage,
}

/// What kind of thing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// A stored event cannot be read.
    UnreadableEvent,
    /// An event's text has another id than it is stored under.
    WrongEventId,
    /// An event cannot be found by its id.
    LostEventId,
    /// A signature does not fit.
    BadSignature,
    /// The key of a signature cannot be had.
    UnknownKey,
    /// The content of an event has another hash than it says.
    WrongHash,
    /// An event is part of the room that the rules do not allow.
    NotAllowed,
    /// An event was rejected that the rules allow.
    WronglyRejected,
    /// An event that another one refers to is not there.
    MissingReference,
    /// The state before an event is not what its predecessors come to.
    WrongStateBefore,
    /// The state after an event is not that before it and the event.
    WrongStateAfter,
    /// A state cannot be read.
    UnreadableState,
    /// The room's current state is not what its newest events come to.
    WrongCurrentState,
    /// The room's newest events are not those that nothing follows.
    WrongExtremities,
    /// The list of members says something else than the state.
    WrongMember,
    /// A number of members is wrong.
    WrongCount,
    /// The list of servers says something else than the members.
    WrongServer,
    /// The timeline says something else than the events.
    WrongTimeline,
    /// History is missing.
    Gap,
    /// The room was entered without its members, and they are not known yet.
    Incomplete,
    /// Another server has another state.
    OtherState,
    /// Another server could not be asked.
    SilentServer,
}

impl Problem {
    /// How bad it is.
    pub fn severity(self) -> Severity {
        match self {
            Self::UnknownKey | Self::Gap | Self::Incomplete | Self::SilentServer => Severity::Note,
            Self::WronglyRejected | Self::OtherState => Severity::Warning,
            Self::UnreadableEvent
            | Self::WrongEventId
            | Self::LostEventId
            | Self::BadSignature
            | Self::WrongHash
            | Self::NotAllowed
            | Self::MissingReference
            | Self::WrongStateBefore
            | Self::WrongStateAfter
            | Self::UnreadableState
            | Self::WrongCurrentState
            | Self::WrongExtremities
            | Self::WrongMember
            | Self::WrongCount
            | Self::WrongServer
            | Self::WrongTimeline => Severity::Damage,
        }
    }

    /// What it is, in a few words.
    pub fn title(self) -> &'static str {
        match self {
            Self::UnreadableEvent => "an event that cannot be read",
            Self::WrongEventId => "an event under a wrong id",
            Self::LostEventId => "an event that is not found by its id",
            Self::BadSignature => "a signature that does not fit",
            Self::UnknownKey => "a signature that cannot be checked",
            Self::WrongHash => "a content that was changed",
            Self::NotAllowed => "an event that the rules do not allow",
            Self::WronglyRejected => "an event that was rejected, and is allowed",
            Self::MissingReference => "an event that is missing",
            Self::WrongStateBefore => "a wrong state before an event",
            Self::WrongStateAfter => "a wrong state after an event",
            Self::UnreadableState => "a state that cannot be read",
            Self::WrongCurrentState => "a wrong current state",
            Self::WrongExtremities => "wrong newest events",
            Self::WrongMember => "a wrong entry in the list of members",
            Self::WrongCount => "a wrong count",
            Self::WrongServer => "a wrong entry in the list of servers",
            Self::WrongTimeline => "a wrong entry in the timeline",
            Self::Gap => "history that is not here",
            Self::Incomplete => "members that are not known yet",
            Self::OtherState => "another server sees the room otherwise",
            Self::SilentServer => "a server that could not be asked",
        }
    }

    /// What an operator can do.
    pub fn advice(self) -> &'static str {
        match self {
            Self::UnreadableEvent
            | Self::WrongEventId
            | Self::LostEventId
            | Self::WrongHash
            | Self::UnreadableState => {
                "The database was damaged or changed from outside. Check the disk, and restore a backup."
            }
            Self::BadSignature => {
                "If it is of one server alone, that server changed its key without keeping the old one; the event counts \
                 all the same. If it is of many, the database was changed: restore a backup."
            }
            Self::UnknownKey => {
                "The server is gone or cannot be reached. Its events were checked when they came, so nothing need be done."
            }
            Self::NotAllowed
            | Self::MissingReference
            | Self::WrongStateBefore
            | Self::WrongStateAfter
            | Self::WrongCurrentState
            | Self::WrongExtremities => {
                "This should not happen: please report it, with this report. Until it is mended, this server may see the \
                 room otherwise than others."
            }
            Self::WronglyRejected => {
                "The reason for the rejection is gone. If other servers have the event in the room, compare with --compare."
            }
            Self::WrongMember | Self::WrongCount | Self::WrongServer | Self::WrongTimeline => {
                "A list that is derived from the room is wrong, the room itself is not touched by it. Please report it."
            }
            Self::Gap => "It is fetched from other servers when somebody pages back to it.",
            Self::Incomplete => {
                "They are being fetched from other servers. Run this again later; if it stays so, see what the log says of it."
            }
            Self::OtherState => {
                "A few differences right after an event was sent are normal: run this again. If they stay, the reasons say \
                 which server is mistaken. Where it is this one, please report it."
            }
            Self::SilentServer => "Try `myelin federation check` with its name.",
        }
    }
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What kind of thing.
    pub problem: Problem,
    /// How bad it is.
    pub severity: Severity,
    /// The event that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// What exactly, as a sentence or more.
    pub what: String,
}

impl Finding {
    /// A finding about the room.
    pub(super) fn new(problem: Problem, what: impl Into<String>) -> Self {
        Self {
            problem,
            severity: problem.severity(),
            event_id: None,
            what: what.into(),
        }
    }

    /// A finding about an event.
    pub(super) fn of(problem: Problem, event_id: &str, what: impl Into<String>) -> Self {
        Self {
            event_id: Some(event_id.to_owned()),
            ..Self::new(problem, what)
        }
    }

    /// The same, less bad.
    pub(super) fn mild(self) -> Self {
        Self {
            severity: Severity::Note,
            ..self
        }
    }
}

/// Which side of a comparison has an event in its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// We have it.
    Here,
    /// They have it.
    There,
}

/// An event that only one of two servers has in its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The event.
    pub event_id: String,
    /// Who has it.
    pub side: Side,
    /// Which event it is and why it is not on the other side, as far as that is known.
    pub why: String,
}

/// What another server says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The server.
    pub server: String,
    /// The event before which the states were compared.
    pub event_id: String,
    /// Whether they are the same.
    pub agrees: bool,
    /// In what they differ: the first ones.
    pub differences: Vec<Difference>,
    /// How many more there are.
    pub further: usize,
}

/// The last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing is wrong.
    Healthy,
    /// The room works, and something in it is not as it should be.
    Doubtful,
    /// What this server believes of the room is wrong.
    Damaged,
}

/// What the doctor says of a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The room.
    pub room_id: String,
    /// Its version.
    pub version: String,
    /// The last word.
    pub verdict: Verdict,
    /// How many events are part of the room.
    pub accepted: u64,
    /// How many passed their own checks but not those against the state of when they came.
    pub soft_failed: u64,
    /// How many broke the rules.
    pub rejected: u64,
    /// How many are known only because others refer to them.
    pub outliers: u64,
    /// How many users are joined.
    pub joined: u64,
    /// How many servers are in the room, ours among them.
    pub servers: u64,
    /// How many entries the current state has.
    pub state_entries: u64,
    /// How many events have a state that was taken from another server and cannot be derived.
    pub underived: u64,
    /// What was found, in the order in which it was.
    pub findings: Vec<Finding>,
    /// How many more findings there are.
    pub further: u64,
    /// What other servers say.
    pub peers: Vec<Peer>,
    #[serde(skip)]
    worst: Option<Severity>,
}

impl Report {
    pub(super) fn new(handle: &RoomHandle) -> Self {
        Self {
            room_id: handle.room.room_id.clone(),
            version: handle.room.version.clone(),
            verdict: Verdict::Healthy,
            accepted: 0,
            soft_failed: 0,
            rejected: 0,
            outliers: 0,
            joined: 0,
            servers: 0,
            state_entries: 0,
            underived: 0,
            findings: Vec::new(),
            further: 0,
            peers: Vec::new(),
            worst: None,
        }
    }

    pub(super) fn add(&mut self, finding: Finding) {
        self.worst = self.worst.max(Some(finding.severity));
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(finding);
        } else {
            self.further += 1;
        }
    }

    /// How many events were examined.
    pub(super) fn events(&self) -> u64 {
        self.accepted + self.soft_failed + self.rejected + self.outliers
    }

    /// The report with its verdict.
    pub(super) fn closed(mut self) -> Self {
        self.verdict = match self.worst {
            None | Some(Severity::Note) => Verdict::Healthy,
            Some(Severity::Warning) => Verdict::Doubtful,
            Some(Severity::Damage) => Verdict::Damaged,
        };
        self
    }
}

/// Which event it is, for people.
pub(super) fn describe(pdu: &Pdu) -> String {
    match pdu.state_key() {
        None | Some("") => format!("{} by {}", pdu.event_type(), pdu.sender()),
        Some(key) => format!("{} for {key} by {}", pdu.event_type(), pdu.sender()),
    }
}
