//! History before a gap, fetched from the other server.

use std::sync::Arc;

use myelin_data::{log::Log, rooms::EventStatus};
use myelin_rooms::{
    read::{Direction, Messages, MessagesQuery, ReadError, Viewer},
    remote::{BackfillError, Backfilled, Fetch},
    token::Token,
};
use ruma::{api::client::filter::RoomEventFilter, owned_server_name};
use serde_json::{Value, json};

use super::*;

impl Shared {
    /// A room whose last two events are the last of a chain, of which all others are missing; and the chain. The last one
    /// was pushed; the one before it, number `count`, was asked for.
    async fn with_gap(count: usize) -> (Shared, Vec<Pdu>) {
        let mut shared = Shared::new(RoomVersion::V11).await;
        let join = shared.join.clone();
        let chain = shared.chain(count + 1, &join);
        let state = shared.state.values().cloned().collect();
        *shared.elsewhere.state.lock() = Some(state);
        *shared.elsewhere.history.lock() = chain[..count - 1].to_vec();
        *shared.elsewhere.missing.lock() = vec![chain[count - 1].clone()];
        shared.accept(&chain[count]).await;
        shared.elsewhere.asked.lock().clear();
        (shared, chain)
    }

    async fn backfill(&self) -> Backfilled {
        self.try_backfill().await.expect("the other server answers")
    }

    async fn try_backfill(&self) -> Result<Backfilled, BackfillError> {
        let fetch = Arc::clone(&self.elsewhere) as Arc<dyn Fetch>;
        let there = owned_server_name!("there.org");
        let handle = self.server.handle(&self.room);
        self.server.rooms.backfill(fetch, there, handle, 2).await
    }

    fn gaps(&self) -> Vec<Vec<String>> {
        let view = self.server.view();
        let num = self.server.handle(&self.room).num;
        view.scan::<Gaps>(Scan::prefix(&num))
            .map(|row| row.expect("gaps are read").1.missing)
            .collect()
    }

    async fn alice(&self) -> Viewer {
        Viewer {
            user: self
                .server
                .rooms
                .interner()
                .user(&user(ALICE))
                .await
                .expect("users are numbered"),
            user_id: user(ALICE),
            device_id: None,
        }
    }

    async fn page(&self, direction: Direction, from: Option<&str>, crossed: &[u32]) -> Messages {
        let query = MessagesQuery {
            from: from.map(|from| from.parse::<Token>().expect("tokens are read")),
            to: None,
            direction,
            limit: Some(1_000),
            filter: RoomEventFilter::default(),
            crossed: crossed.to_vec(),
        };
        let alice = self.alice().await;
        let page = self.server.rooms.messages(&alice, &self.room, query).await;
        page.expect("Alice is in the room")
    }
}

fn ids(pdus: &[Pdu]) -> Vec<String> {
    pdus.iter().map(|pdu| pdu.event_id().to_owned()).collect()
}

fn shown(page: &Messages) -> Vec<String> {
    let events = page.chunk.iter().map(|event| {
        let event: Value = serde_json::from_str(event.get()).expect("events are JSON");
        event["event_id"].as_str().expect("an id").to_owned()
    });
    events.collect()
}

#[tokio::test]
async fn a_gap_is_filled_from_its_end_until_it_is_gone() {
    let (shared, chain) = Shared::with_gap(151).await;
    let before = shared.shown();
    let (head, log) = (
        shared.server.head(&shared.room),
        shared.server.view().keys::<Log>(Scan::all()).count(),
    );
    let (old, last) = before.split_at(before.len() - 2);
    assert_eq!(shared.gaps(), [[chain[149].event_id()]]);

    let first = shared.backfill().await;
    assert_eq!((first.placed, first.closed), (100, false));
    assert_eq!(shared.gaps(), [[chain[49].event_id()]]);
    let expected = [old, &ids(&chain[50..])].concat();
    assert_eq!(shared.shown(), expected);

    let second = shared.backfill().await;
    assert_eq!((second.placed, second.closed), (50, true));
    assert!(shared.gaps().is_empty());
    let expected = [old, &ids(&chain)].concat();
    assert_eq!(shared.shown(), expected);
    assert_eq!(last, ids(&chain[150..]));

    // One state for each answer whose beginning is not known: not for the second, which begins where Dora joined.
    let asked = shared.elsewhere.asked.lock().clone();
    assert_eq!(asked, ["backfill", "event", "state_ids", "backfill"]);
    // Nothing of it is news.
    let now = shared.server.head(&shared.room);
    assert_eq!((now.last, now.extremities), (head.last, head.extremities));
    assert_eq!(now.notifying, head.notifying);
    let logged = shared.server.view().keys::<Log>(Scan::all()).count();
    assert_eq!(logged, log);

    // Without a gap nobody is asked.
    let third = shared.backfill().await;
    assert_eq!((third.placed, third.closed), (0, true));
    assert_eq!(shared.elsewhere.asked.lock().len(), asked.len());
}

#[tokio::test]
async fn pages_end_at_a_gap_and_go_on_when_it_is_filled() {
    let (shared, chain) = Shared::with_gap(121).await;
    let all = shared.shown();
    let old: Vec<String> = all[..all.len() - 2].iter().rev().cloned().collect();

    let first = shared.page(Direction::Backward, None, &[]).await;
    let mut expected = ids(&chain[120..]);
    expected.reverse();
    assert_eq!(shown(&first), expected);
    assert_eq!(first.gap, Some(2));
    let end = first.end.expect("there is more");
    let waiting = shared.page(Direction::Backward, Some(&end), &[]).await;
    assert_eq!((waiting.chunk.len(), waiting.gap), (0, Some(2)));
    assert_eq!(waiting.end.as_deref(), Some(end.as_str()));
    // Whoever gives up on it goes on behind it.
    let crossed = shared.page(Direction::Backward, Some(&end), &[2]).await;
    assert_eq!((shown(&crossed), crossed.end), (old.clone(), None));

    shared.backfill().await;
    let second = shared.page(Direction::Backward, Some(&end), &[]).await;
    let mut expected = ids(&chain[20..120]);
    expected.reverse();
    assert_eq!((shown(&second), second.gap), (expected, Some(2)));
    shared.backfill().await;
    let end = second.end.expect("there is more");
    let third = shared.page(Direction::Backward, Some(&end), &[]).await;
    let mut expected = ids(&chain[..20]);
    expected.reverse();
    expected.extend(old);
    assert_eq!((shown(&third), third.gap), (expected, None));
    assert!(third.end.is_none());
}

#[tokio::test]
async fn forwards_a_page_ends_at_a_gap_too() {
    let (shared, chain) = Shared::with_gap(11).await;
    let all = shared.shown();
    let first = shared.page(Direction::Forward, None, &[]).await;
    assert_eq!(
        (shown(&first).as_slice(), first.gap),
        (&all[..all.len() - 2], Some(2))
    );
    let end = first.end.expect("there is more");
    let crossed = shared.page(Direction::Forward, Some(&end), &[2]).await;
    assert_eq!(shown(&crossed), ids(&chain[10..]));
    shared.backfill().await;
    let second = shared.page(Direction::Forward, Some(&end), &[]).await;
    assert_eq!((shown(&second), second.gap), (ids(&chain), None));
}

#[tokio::test]
async fn the_past_is_not_judged_by_the_present() {
    let (shared, chain) = Shared::with_gap(11).await;
    let ban = moderate(&shared.room, ALICE, DORA);
    shared.server.rooms.ban(ban).await.expect("Alice may ban");
    let filled = shared.backfill().await;
    assert_eq!((filled.placed, filled.closed), (10, true));
    for event in ids(&chain) {
        let event = shared.stored(&event).expect("it is stored");
        assert_eq!(event.header.status, EventStatus::Accepted);
    }
}

#[tokio::test]
async fn what_the_rules_refuse_is_passed_over_and_not_shown() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let join = shared.join.clone();
    let first = shared.text("First", &[&join]);
    // Eve never joined.
    let content = json!({"msgtype": "m.text", "body": "Let me in"});
    let refused = shared
        .build(EVE, "m.room.message", None, content, &[&first])
        .sign(RoomVersion::V11, &shared.signer)
        .expect("a small event");
    let last = shared.text("Last", &[&refused]);
    let newest = shared.text("Newest", &[&last]);
    let state = shared.state.values().cloned().collect();
    *shared.elsewhere.state.lock() = Some(state);
    *shared.elsewhere.history.lock() = vec![last.clone(), refused.clone(), first.clone()];
    *shared.elsewhere.missing.lock() = vec![last.clone()];
    shared.note(&refused);
    let old = shared.shown();
    shared.accept(&newest).await;
    let filled = shared.backfill().await;
    assert!(filled.closed);
    let rejected = shared.stored(refused.event_id()).expect("it is stored");
    assert_eq!(rejected.header.status, EventStatus::Rejected);
    let expected = [old, ids(&[first, last, newest])].concat();
    assert_eq!(shared.shown(), expected);
}

#[tokio::test]
async fn nothing_but_what_was_asked_for_is_taken() {
    let (mut shared, chain) = Shared::with_gap(4).await;
    let unasked = shared.text("Unasked", &[&chain[0]]);
    // Signed by somebody else in the name of Dora's server.
    let forger = Signer::new("there.org", SigningKey::from_seed("b_test", [7; 32]));
    let content = json!({"msgtype": "m.text", "body": "Forged"});
    let forged = shared
        .build(DORA, "m.room.message", None, content, &[&chain[0]])
        .sign(RoomVersion::V11, &forger)
        .expect("a small event");
    struct Hostile(Arc<Elsewhere>, Vec<Box<RawValue>>);
    impl Fetch for Hostile {
        fn missing_events<'a>(
            &'a self,
            _: &'a ServerName,
            _: &'a RoomId,
            _: &'a MissingEvents,
        ) -> Fetching<'a, Result<Vec<Box<RawValue>>, FetchError>> {
            Box::pin(async { refuse() })
        }
        fn backfill<'a>(
            &'a self,
            _: &'a ServerName,
            _: &'a RoomId,
            _: &'a [OwnedEventId],
            _: usize,
        ) -> Fetching<'a, Result<Vec<Box<RawValue>>, FetchError>> {
            Box::pin(async { Ok(self.1.clone()) })
        }
        fn event<'a>(
            &'a self,
            server: &'a ServerName,
            event_id: &'a EventId,
        ) -> Fetching<'a, Result<Box<RawValue>, FetchError>> {
            self.0.event(server, event_id)
        }
        fn state_ids<'a>(
            &'a self,
            server: &'a ServerName,
            room: &'a RoomId,
            event_id: &'a EventId,
        ) -> Fetching<'a, Result<StateIds, FetchError>> {
            self.0.state_ids(server, room, event_id)
        }
        fn state<'a>(
            &'a self,
            _: &'a ServerName,
            _: &'a RoomId,
            _: &'a EventId,
        ) -> Fetching<'a, Result<StateEvents, FetchError>> {
            Box::pin(async { refuse() })
        }
        fn keys<'a>(&'a self, wanted: &'a [WantedKey]) -> Fetching<'a, VerifyKeys> {
            self.0.keys(wanted)
        }
    }
    let garbage = RawValue::from_string("{\"room_id\": 3}".to_owned()).expect("JSON");
    let answer = vec![garbage, raw(&unasked), raw(&forged), raw(&chain[2])];
    let hostile = Arc::new(Hostile(Arc::clone(&shared.elsewhere), answer));
    let handle = shared.server.handle(&shared.room);
    let there = owned_server_name!("there.org");
    let filled = shared
        .server
        .rooms
        .backfill(hostile, there, handle, 2)
        .await
        .expect("there is an answer");
    assert_eq!((filled.placed, filled.closed), (1, false));
    assert_eq!(shared.gaps(), [[chain[1].event_id()]]);
    assert!(shared.stored(unasked.event_id()).is_none());
    assert!(shared.stored(forged.event_id()).is_none());
}

#[tokio::test]
async fn without_a_state_to_begin_with_nothing_is_taken() {
    let (shared, chain) = Shared::with_gap(151).await;
    *shared.elsewhere.state.lock() = None;
    let filled = shared.backfill().await;
    assert_eq!((filled.placed, filled.closed), (0, false));
    assert_eq!(shared.gaps(), [[chain[149].event_id()]]);
}

#[tokio::test]
async fn one_event_of_the_past_is_read_by_itself_until_the_gap_reaches_it() {
    let (shared, chain) = Shared::with_gap(151).await;
    let rooms = &shared.server.rooms;
    let (alice, handle) = (shared.alice().await, shared.server.handle(&shared.room));
    let wanted = id(&chain[60]);
    let read = async || rooms.client_event(&alice, &shared.room, &wanted).await;
    assert!(matches!(read().await, Err(ReadError::NotFound)));
    let gap = rooms.wanting(&alice, &handle, &wanted).await;
    assert_eq!(gap.expect("it is read"), Some(2));

    let fetch = || Arc::clone(&shared.elsewhere) as Arc<dyn Fetch>;
    let there = owned_server_name!("there.org");
    for _ in 0..2 {
        let fetched = rooms.fetch_point(fetch(), there.clone(), handle.clone(), wanted.clone());
        assert!(fetched.await.expect("there is an answer"));
        assert!(read().await.is_ok());
        let gap = rooms.wanting(&alice, &handle, &wanted).await;
        assert_eq!(gap.expect("it is read"), None);
    }
    let context = rooms
        .context(
            &alice,
            &shared.room,
            &wanted,
            Some(10),
            RoomEventFilter::default(),
        )
        .await
        .expect("it is seen");
    assert!(context.events_before.is_empty() && context.events_after.is_empty());
    assert!(!context.state.is_empty());
    let page = shared
        .page(Direction::Backward, Some(&context.start), &[])
        .await;
    assert_eq!((page.chunk.len(), page.gap), (0, Some(2)));
    // It is no part of the timeline before what lies between is known, and does not end the gap.
    assert!(!shared.shown().contains(&wanted.to_string()));
    shared.backfill().await;
    assert!(shared.shown().contains(&wanted.to_string()));
    shared.backfill().await;
    assert!(shared.gaps().is_empty());
    let all = shared.shown();
    assert!(all.ends_with(&ids(&chain)));
}
