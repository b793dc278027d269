//! The room doctor: a room that is as it should be, and rooms that were broken on purpose.

use std::sync::Arc;

use myelin_data::{
    rooms::{
        EventIds, EventRecord, EventStatus, Events, Heads, Membership, RoomMembers, StateNodes,
        Timeline, UserRooms,
    },
    servers::RoomServers,
};
use myelin_rooms::{
    Preset,
    doctor::{Examination, ExamineError, Problem, Report, Side, Verdict},
    remote::{Fetch, FetchError, Fetching, MissingEvents, StateEvents, StateIds, WantedKey},
};
use myelin_rules::{RoomVersion, sign::VerifyKeys};
use myelin_store::Batch;
use myelin_types::{EventNum, RoomNum};
use parking_lot::Mutex;
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId, ServerName, room_id};
use serde_json::{json, value::RawValue};

use crate::support::{ALICE, BOB, CHARLIE, Server, moderate, state};

const FAR: &str = "far.org";

/// Other servers: none has keys or events; the state that they name can be set.
#[derive(Default)]
struct Others {
    state: Mutex<Option<Vec<OwnedEventId>>>,
}

fn refuse<T>() -> Result<T, FetchError> {
    Err(FetchError::Unreachable("nobody is there".to_owned()))
}

impl Fetch for Others {
    fn missing_events<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: &'a MissingEvents,
    ) -> Fetching<'a, Result<Vec<Box<RawValue>>, FetchError>> {
        Box::pin(async { refuse() })
    }

    fn event<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a EventId,
    ) -> Fetching<'a, Result<Box<RawValue>, FetchError>> {
        Box::pin(async { refuse() })
    }

    fn state_ids<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: &'a EventId,
    ) -> Fetching<'a, Result<StateIds, FetchError>> {
        let state = self.state.lock().clone();
        Box::pin(async move {
            match state {
                Some(state) => Ok(StateIds {
                    state,
                    auth_chain: Vec::new(),
                }),
                None => refuse(),
            }
        })
    }

    fn state<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: &'a EventId,
    ) -> Fetching<'a, Result<StateEvents, FetchError>> {
        Box::pin(async { refuse() })
    }

    fn keys<'a>(&'a self, _: &'a [WantedKey]) -> Fetching<'a, VerifyKeys> {
        Box::pin(async { VerifyKeys::new() })
    }
}

/// A room with some history, on a server that remembers nothing of it but what is stored.
struct Patient {
    server: Server,
    room_id: OwnedRoomId,
    room: RoomNum,
    /// A message that others follow.
    message: OwnedEventId,
    /// A topic that others follow.
    topic: OwnedEventId,
}

impl Patient {
    async fn new(version: RoomVersion) -> Patient {
        let server = Server::new().await;
        let room_id = server.room(Preset::PublicChat, version).await;
        for who in [BOB, CHARLIE] {
            server.join(&room_id, who).await;
        }
        let topic = state(
            &room_id,
            ALICE,
            "m.room.topic",
            "",
            json!({ "topic": "One" }),
        );
        let topic = server.rooms.send_state(topic).await.expect("she may");
        let message = server.say(&room_id, BOB, "hello").await;
        let second = state(
            &room_id,
            ALICE,
            "m.room.topic",
            "",
            json!({ "topic": "Two" }),
        );
        server.rooms.send_state(second).await.expect("she may");
        let banned = server.rooms.ban(moderate(&room_id, ALICE, CHARLIE)).await;
        banned.expect("she has the power");
        server.say(&room_id, ALICE, "good bye").await;
        let server = server.restart().await;
        Patient {
            room: server.handle(&room_id).num,
            server,
            room_id,
            message,
            topic,
        }
    }

    fn record(&self, id: &EventId) -> (EventNum, EventRecord) {
        let view = self.server.view();
        let key = (self.room, id.to_string());
        let num = view.get::<EventIds>(&key).expect("read").expect("known").0;
        let record = view.get::<Events>(&(self.room, num)).expect("read");
        (num, record.expect("stored"))
    }

    /// Writes something behind the server's back.
    async fn write(&self, change: impl FnOnce(&mut Batch)) {
        let mut batch = Batch::new();
        change(&mut batch);
        self.server.store.commit(batch).await.expect("committed");
    }

    async fn change_event(&self, id: &EventId, change: impl FnOnce(&mut EventRecord)) {
        let (num, mut record) = self.record(id);
        change(&mut record);
        self.write(|batch| batch.put::<Events>(&(self.room, num), &record))
            .await;
    }

    async fn compare(&self, others: Others, compare_with: usize) -> Report {
        let examined = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&examined);
        let report = self
            .server
            .rooms
            .examine(
                &self.room_id,
                Examination { compare_with },
                Arc::new(others),
                Arc::new(move |events| *counted.lock() = events),
            )
            .await
            .expect("the room can be examined");
        assert!(*examined.lock() > 0);
        report
    }

    async fn examine(&self) -> Report {
        self.compare(Others::default(), 0).await
    }
}

fn problems(report: &Report) -> Vec<Problem> {
    let mut problems = Vec::new();
    for finding in &report.findings {
        if !problems.contains(&finding.problem) {
            problems.push(finding.problem);
        }
    }
    problems
}

#[tokio::test]
async fn a_room_of_every_version_is_healthy() {
    for version in [
        RoomVersion::V1,
        RoomVersion::V3,
        RoomVersion::V6,
        RoomVersion::V11,
        RoomVersion::V12,
    ] {
        let patient = Patient::new(version).await;
        let report = patient.examine().await;
        assert_eq!(report.findings, [], "{version}");
        assert_eq!(report.verdict, Verdict::Healthy);
        assert_eq!((report.joined, report.servers), (2, 1));
        assert!(report.accepted >= 11 && report.rejected + report.outliers == 0);
        assert!(report.state_entries >= 7);
    }
}

#[tokio::test]
async fn a_room_that_is_not_there_is_not_examined() {
    let server = Server::new().await;
    let examined = server
        .rooms
        .examine(
            room_id!("!nowhere:here.org"),
            Examination::default(),
            Arc::new(Others::default()),
            Arc::new(|_| {}),
        )
        .await;
    assert!(matches!(examined, Err(ExamineError::RoomNotFound)));
}

#[tokio::test]
async fn changed_texts_are_found() {
    let patient = Patient::new(RoomVersion::V11).await;
    let message = patient.message.clone();
    let swap = |record: &mut EventRecord, old: &str, new: &str| {
        let text = String::from_utf8(record.json.clone()).expect("JSON");
        assert!(text.contains(old));
        record.json = text.replace(old, new).into_bytes();
    };
    // The content is not part of the id, but of the hash that is.
    patient
        .change_event(&message, |record| swap(record, "hello", "jello"))
        .await;
    let report = patient.examine().await;
    assert_eq!(problems(&report), [Problem::WrongHash]);
    assert_eq!(report.verdict, Verdict::Damaged);
    let finding = &report.findings[0];
    assert_eq!(finding.event_id.as_deref(), Some(message.as_str()));
    assert!(finding.what.contains(BOB) && !finding.what.contains("jello"));

    patient
        .change_event(&message, |record| swap(record, BOB, "@eve:here.org"))
        .await;
    let found = problems(&patient.examine().await);
    for expected in [
        Problem::WrongEventId,
        Problem::BadSignature,
        Problem::NotAllowed,
    ] {
        assert!(found.contains(&expected), "{found:?}");
    }

    patient
        .change_event(&message, |record| record.json = b"{}".to_vec())
        .await;
    let found = problems(&patient.examine().await);
    assert!(found.contains(&Problem::UnreadableEvent), "{found:?}");
}

#[tokio::test]
async fn signatures_of_servers_that_are_gone_are_a_note() {
    let patient = Patient::new(RoomVersion::V11).await;
    let message = patient.message.clone();
    patient
        .change_event(&message, |record| {
            let text = String::from_utf8(record.json.clone()).expect("JSON");
            record.json = text
                .replace("ed25519:a_test", "ed25519:b_lost")
                .into_bytes();
        })
        .await;
    let report = patient.examine().await;
    assert_eq!(problems(&report), [Problem::UnknownKey]);
    assert_eq!(report.verdict, Verdict::Healthy);
}

#[tokio::test]
async fn wrong_states_and_verdicts_are_found() {
    let patient = Patient::new(RoomVersion::V11).await;
    let (_, topic) = patient.record(&patient.topic);
    let before = topic.header.state_before.expect("a state event has one");
    // The topic never came into the state of the message.
    patient
        .change_event(&patient.message, |record| {
            record.header.state_after = before;
        })
        .await;
    let report = patient.examine().await;
    assert!(problems(&report).contains(&Problem::WrongStateBefore));
    let named = report.findings.iter();
    let named = named.filter(|finding| finding.what.contains("They differ in m.room.topic."));
    assert_eq!(named.count(), 2, "of the message and of what follows it");

    let patient = Patient::new(RoomVersion::V11).await;
    patient
        .change_event(&patient.topic, |record| record.header.state_after = before)
        .await;
    let found = problems(&patient.examine().await);
    assert!(found.contains(&Problem::WrongStateAfter), "{found:?}");

    let patient = Patient::new(RoomVersion::V11).await;
    patient
        .change_event(&patient.message, |record| {
            record.header.status = EventStatus::Rejected;
        })
        .await;
    let found = problems(&patient.examine().await);
    for expected in [Problem::WronglyRejected, Problem::WrongTimeline] {
        assert!(found.contains(&expected), "{found:?}");
    }
}

#[tokio::test]
async fn a_wrong_head_is_found() {
    let patient = Patient::new(RoomVersion::V11).await;
    let (num, record) = patient.record(&patient.message);
    let mut head = patient.server.head(&patient.room_id);
    head.state = record.header.state_after;
    head.joined = 7;
    patient
        .write(|batch| batch.put::<Heads>(&patient.room, &head))
        .await;
    let found = problems(&patient.examine().await);
    assert_eq!(
        found[..2],
        [Problem::WrongCurrentState, Problem::WrongCount]
    );

    head.extremities = vec![(num, patient.message.to_string())];
    patient
        .write(|batch| batch.put::<Heads>(&patient.room, &head))
        .await;
    let report = patient.examine().await;
    let extremities = report.findings.iter();
    let extremities = extremities.filter(|finding| finding.problem == Problem::WrongExtremities);
    // Others follow it; the last one is not named; the depth is another.
    assert_eq!(extremities.count(), 3);
}

#[tokio::test]
async fn wrong_lists_are_found() {
    let patient = Patient::new(RoomVersion::V11).await;
    let room = patient.room;
    let view = patient.server.view();
    let interner = patient.server.rooms.interner();
    let bob = interner.find_user(&view, &crate::support::user(BOB));
    let bob = bob.expect("read").expect("known");
    let row = view.get::<UserRooms>(&(bob, room)).expect("read");
    let row = row.expect("he is in the room");
    let servers = (room, "here.org".to_owned());
    let mut counted = view
        .get::<RoomServers>(&servers)
        .expect("read")
        .expect("there");
    counted.joined = 5;
    patient
        .write(|batch| {
            batch.delete::<RoomMembers>(&(room, Membership::Join, bob));
            let mut row = row.clone();
            row.membership = Membership::Ban;
            batch.put::<UserRooms>(&(bob, room), &row);
            batch.put::<RoomServers>(&servers, &counted);
            batch.delete::<Timeline>(&(room, row.place));
            batch.delete::<EventIds>(&(room, patient.message.to_string()));
        })
        .await;
    let found = problems(&patient.examine().await);
    for expected in [
        Problem::WrongMember,
        Problem::WrongServer,
        Problem::WrongTimeline,
        Problem::LostEventId,
    ] {
        assert!(found.contains(&expected), "{found:?}");
    }
}

#[tokio::test]
async fn a_state_that_is_not_there_is_found_and_nothing_else_stops() {
    let patient = Patient::new(RoomVersion::V11).await;
    let head = patient.server.head(&patient.room_id);
    patient
        .write(|batch| batch.delete::<StateNodes>(&(patient.room, head.state)))
        .await;
    let report = patient.examine().await;
    assert!(problems(&report).contains(&Problem::UnreadableState));
    assert_eq!(report.verdict, Verdict::Damaged);
}

#[tokio::test]
async fn differences_from_other_servers_are_explained() {
    let patient = Patient::new(RoomVersion::V11).await;
    let server = &patient.server;
    // A server that is in the room.
    let mut row = server
        .view()
        .get::<RoomServers>(&(patient.room, "here.org".to_owned()))
        .expect("read")
        .expect("there");
    row.joined = 1;
    patient
        .write(|batch| {
            batch.put::<RoomServers>(&(patient.room, FAR.to_owned()), &row);
        })
        .await;
    let silent = patient.compare(Others::default(), 3).await;
    assert!(problems(&silent).contains(&Problem::SilentServer));

    // It has the first topic instead of the second one, and something that nobody here knows.
    let mut ids = Vec::new();
    let head = server.head(&patient.room_id);
    let view = server.view();
    let nodes = server.rooms.nodes(&view, patient.room);
    for entry in myelin_state::iter(&nodes, head.root()) {
        let (_, num) = entry.expect("the state is there");
        let event = server.rooms.event(&view, patient.room, num);
        let event = event.expect("read").expect("known");
        let id = match event.pdu.event_type() {
            "m.room.topic" => patient.topic.to_string(),
            _ => event.header.event_id.clone(),
        };
        ids.push(OwnedEventId::try_from(id).expect("an id"));
    }
    let unknown = OwnedEventId::try_from("$unknown").expect("an id");
    ids.push(unknown.clone());
    let others = Others {
        state: Mutex::new(Some(ids)),
    };
    let report = patient.compare(others, 3).await;
    assert!(problems(&report).contains(&Problem::OtherState));
    let [peer] = report.peers.as_slice() else {
        panic!("one server was asked");
    };
    assert_eq!((peer.server.as_str(), peer.agrees), (FAR, false));
    let why = |id: &str, side: Side| {
        let found = peer
            .differences
            .iter()
            .find(|other| other.event_id == id && other.side == side);
        found.map(|found| found.why.clone()).expect("it differs")
    };
    let topic = why(patient.topic.as_str(), Side::There);
    assert!(
        topic.contains("the state has another in its place"),
        "{topic}"
    );
    let unknown = why(unknown.as_str(), Side::There);
    assert!(unknown.contains("does not know the event"), "{unknown}");
    let here = peer
        .differences
        .iter()
        .filter(|other| other.side == Side::Here);
    assert_eq!(here.count(), 1, "the second topic");
}
