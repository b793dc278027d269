//! A room of another server that was entered without its members.

use std::{sync::Arc, time::Duration};

use myelin_rooms::{
    CreateRoom, Preset, Rooms,
    remote::{
        AcceptJoin, Fetch, FetchError, Fetching, JoinAnswer, MakeJoin, MissingEvents, StateEvents,
        StateIds, Wanted, WantedKey,
    },
};
use myelin_rules::{
    Pdu, RoomVersion,
    sign::{VerifyKey, VerifyKeys},
};
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName, owned_server_name,
};
use serde_json::{Value, json, value::RawValue};

use crate::support::{ALICE, Client, Server, brief, of, profile, signing_key, user};

const DORA: &str = "@dora:there.org";
const LONG: Duration = Duration::from_mins(1);

/// The other server, as far as this one asks it.
struct There(Rooms);

impl There {
    async fn state(&self, room: &RoomId, event: &EventId) -> Result<[Vec<Pdu>; 2], FetchError> {
        let served = self.0.serve_state(here(), room, event.to_owned()).await;
        let state = served.map_err(|error| FetchError::Malformed(error.to_string()))?;
        Ok([state.state, state.auth_chain]
            .map(|events| events.iter().map(|event| event.pdu.clone()).collect()))
    }
}

fn here() -> OwnedServerName {
    owned_server_name!("here.org")
}

fn raw(pdus: &[Pdu]) -> Vec<Box<RawValue>> {
    let raw = |pdu: &Pdu| RawValue::from_string(pdu.json().to_owned()).expect("events are JSON");
    pdus.iter().map(raw).collect()
}

fn ids(pdus: &[Pdu]) -> Vec<OwnedEventId> {
    let id = |pdu: &Pdu| OwnedEventId::try_from(pdu.event_id()).expect("an event id");
    pdus.iter().map(id).collect()
}

impl Fetch for There {
    fn missing_events<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: &'a MissingEvents,
    ) -> Fetching<'a, Result<Vec<Box<RawValue>>, FetchError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn event<'a>(
        &'a self,
        _: &'a ServerName,
        event_id: &'a EventId,
    ) -> Fetching<'a, Result<Box<RawValue>, FetchError>> {
        Box::pin(async move {
            let served = self.0.serve_event(here(), event_id.to_owned()).await;
            let pdu = served.map_err(|error| FetchError::Malformed(error.to_string()))?;
            Ok(raw(&[pdu]).remove(0))
        })
    }

    fn state_ids<'a>(
        &'a self,
        _: &'a ServerName,
        room: &'a RoomId,
        event_id: &'a EventId,
    ) -> Fetching<'a, Result<StateIds, FetchError>> {
        Box::pin(async move {
            let [state, auth_chain] = self.state(room, event_id).await?;
            Ok(StateIds {
                state: ids(&state),
                auth_chain: ids(&auth_chain),
            })
        })
    }

    fn state<'a>(
        &'a self,
        _: &'a ServerName,
        room: &'a RoomId,
        event_id: &'a EventId,
    ) -> Fetching<'a, Result<StateEvents, FetchError>> {
        Box::pin(async move {
            let [state, auth_chain] = There::state(self, room, event_id).await?;
            Ok(StateEvents {
                state: raw(&state),
                auth_chain: raw(&auth_chain),
            })
        })
    }

    fn keys<'a>(&'a self, wanted: &'a [WantedKey]) -> Fetching<'a, VerifyKeys> {
        let mut keys = VerifyKeys::new();
        for wanted in wanted {
            let key = VerifyKey {
                key: signing_key().public_key_bytes(),
                valid_until: None,
                expired: None,
            };
            let of_server = keys.entry(wanted.server.to_string()).or_default();
            of_server.insert(wanted.key_id.clone(), key);
        }
        Box::pin(std::future::ready(keys))
    }
}

/// Two servers, and a room of the other one with Dora and others.
struct Two {
    here: Server,
    there: Server,
    room: OwnedRoomId,
}

impl Two {
    async fn new() -> Two {
        let (here, there) = (Server::new().await, Server::named("there.org").await);
        let mut request = CreateRoom::new(user(DORA), profile("Dora"));
        request.preset = Some(Preset::PublicChat);
        let room = there.rooms.create_room(request).await;
        let room = room.expect("the room is made");
        for number in 0..9 {
            there.join(&room, &format!("@user{number}:there.org")).await;
        }
        Two { here, there, room }
    }

    fn asked(&self) -> There {
        There(self.there.rooms.clone())
    }

    /// Alice enters the room, without its members.
    async fn enter(&self) {
        let room_id = self.room.clone();
        let make = MakeJoin {
            room_id: room_id.clone(),
            user: user(ALICE),
            origin: here(),
            versions: RoomVersion::ALL.map(|version| version.to_string()).to_vec(),
        };
        let template = self.there.rooms.make_join(make).await;
        let template = template.expect("anybody may join");
        let version = template.room_version;
        let draft = serde_json::value::to_raw_value(&template.event).expect("JSON");
        let server = owned_server_name!("there.org");
        let wanted = Wanted::join(&Server::enter(&room_id, ALICE), version, server.clone());
        let join = self.here.rooms.fill_in(&draft, &wanted);
        let join = join.expect("the draft is good");
        let accept = AcceptJoin {
            room_id: room_id.clone(),
            event_id: ids(std::slice::from_ref(&join)).remove(0),
            pdu: raw(std::slice::from_ref(&join)).remove(0),
            origin: here(),
            omit_members: true,
        };
        let accepted = self
            .there
            .rooms
            .accept_join(Arc::new(self.asked()), accept)
            .await
            .expect("anybody may join");
        assert!(accepted.members_omitted);
        let pdus = |events: &[Arc<myelin_rooms::Event>]| -> Vec<Pdu> {
            events.iter().map(|event| event.pdu.clone()).collect()
        };
        let answer = JoinAnswer {
            room_id,
            version,
            server,
            join,
            event: None,
            state: raw(&pdus(&accepted.state)),
            auth_chain: raw(&pdus(&accepted.auth_chain)),
            members_omitted: true,
            servers: accepted.servers,
        };
        let entered = self.here.rooms.enter(Arc::new(self.asked()), answer).await;
        entered.expect("the answer is good");
    }

    async fn complete(&self) {
        let server = owned_server_name!("there.org");
        self.here
            .rooms
            .complete(&self.asked(), &self.room, &server)
            .await
            .expect("the answer is good");
    }

    async fn alice(&self, lazily: bool) -> Client {
        let filter = json!({ "room": { "state": { "lazy_load_members": lazily } } });
        self.here.client(ALICE).await.filter(filter)
    }

    /// How many members an answer shows of the room; none if it does not show the room.
    fn members(&self, response: &Value) -> Option<usize> {
        let room = of(response, "join", &self.room);
        let events = ["state", "timeline"].map(|part| brief(&room[part]["events"]));
        let joins = events.iter().flatten();
        let joins = joins.filter(|event| event.starts_with("join "));
        room.is_object().then(|| joins.count())
    }
}

#[tokio::test]
async fn whoever_wants_all_members_is_shown_the_room_when_they_are_known() {
    let two = Two::new().await;
    let mut eager = two.alice(false).await;
    let mut lazy = two.alice(true).await;
    lazy.viewer.device_id = Some("LAZY".to_owned());
    eager.sync().await;
    lazy.sync().await;
    two.enter().await;

    let shown = lazy.sync().await;
    assert!(
        two.members(&shown).is_some_and(|count| count < 10),
        "{shown}"
    );
    let shown = eager.sync().await;
    assert_eq!(two.members(&shown), None);
    let mut fresh = two.alice(false).await;
    let shown = fresh.sync().await;
    assert_eq!(two.members(&shown), None);
    // What happens meanwhile does not show it either.
    two.here.say(&two.room, ALICE, "Hello").await;
    let shown = eager.sync().await;
    assert_eq!(two.members(&shown), None);

    let (shown, ()) = tokio::join!(eager.wait(LONG), two.complete());
    assert_eq!(two.members(&shown), Some(11));
    let timeline = &of(&shown, "join", &two.room)["timeline"];
    assert_eq!(brief(&timeline["events"]), ["join @alice", "Hello"]);
    assert_eq!(timeline["limited"], true);
    // Whoever comes later is shown the same, and nobody is shown it twice.
    let shown = fresh.sync().await;
    assert_eq!(two.members(&shown), Some(11));
    let shown = eager.sync().await;
    assert_eq!(two.members(&shown), None);
    let shown = lazy.sync().await;
    assert!(
        two.members(&shown).is_some_and(|count| count < 10),
        "{shown}"
    );
}
