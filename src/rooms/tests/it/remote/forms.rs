//! Events that are odd by themselves, redactions of what is not known, and events that go through several hands before
//! they are part of a room.

use myelin_rooms::{
    Enter, Invite, InviteError, Profile, Redact, RedactError,
    remote::{AcceptMembership, AcceptMembershipError, MakeMembership, Step},
};

use super::*;

impl Elsewhere {
    /// How often something was asked for.
    fn times(&self, what: &str) -> usize {
        self.asked
            .lock()
            .iter()
            .filter(|asked| *asked == what)
            .count()
    }
}

#[tokio::test]
async fn history_leads_through_an_event_with_a_long_type_until_version_11() {
    // 70 code points, 280 bytes.
    let long = "\u{1f4a5}".repeat(70);
    for (version, known) in [(RoomVersion::V10, true), (RoomVersion::V11, false)] {
        let mut shared = Shared::new(version).await;
        let join = shared.join.clone();
        // What builds events here would not build this one. Its hash does not fit, so that it counts as redacted.
        let small = shared.build(DORA, "my.room.breaker", None, json!({}), &[&join]);
        let small = small.sign(version, &shared.signer).expect("a small event");
        let mut odd = object(serde_json::from_str(small.json()).expect("JSON"));
        odd.insert("type".to_owned(), long.clone().into());
        odd.remove("signatures");
        shared.signer.sign_json(&mut odd).expect("canonical");
        let odd = Pdu::parse(version, Value::Object(odd).to_string().as_bytes());
        assert_eq!(odd.is_ok(), known, "{version}");
        let Ok(odd) = odd else { continue };
        shared.note(&odd);
        let after = shared.text("After it", &[&odd]);
        *shared.elsewhere.missing.lock() = vec![odd.clone()];
        shared.accept(&after).await;
        assert_eq!(shared.stands(odd.event_id()), Some(Outcome::Rejected));
        assert_eq!(shared.extremities(), [after.event_id()]);
        // And if it comes by itself.
        assert_eq!(shared.deliver(&odd).await, Ok(Outcome::Rejected));
    }
}

#[tokio::test]
async fn a_server_is_asked_on_as_long_as_it_gives_all_that_is_asked_for() {
    // All of it, or ten at a time, which is the end of what it gives.
    for (given, rounds) in [(20, 2), (10, 1)] {
        let mut shared = Shared::new(RoomVersion::V11).await;
        let join = shared.join.clone();
        let chain = shared.chain(31, &join);
        *shared.elsewhere.missing.lock() = chain[..30].to_vec();
        shared.elsewhere.most.store(given, Ordering::SeqCst);
        let outcome = shared.deliver(&chain[30]).await.expect("it is taken");
        assert_eq!(outcome == Outcome::Accepted, given == 20, "{outcome:?}");
        assert_eq!(shared.elsewhere.times("missing_events"), rounds, "{given}");
        assert_eq!(shared.elsewhere.times("state_ids") > 0, given < 20);
    }
}

#[tokio::test]
async fn what_a_server_says_of_a_gap_stands_beside_what_is_known() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let open: Vec<Pdu> = shared.state.values().cloned().collect();
    let rooms = shared.server.rooms.clone();
    // Later than the rule that it replaces.
    shared.server.clock.advance(Duration::from_secs(1));
    let closed = json!({"join_rule": "invite"});
    let closed = state(&shared.room, ALICE, "m.room.join_rules", "", closed);
    let closed = rooms.send_state(closed).await.expect("allowed");
    let closed = shared.stored(closed.as_str()).expect("stored").pdu.clone();
    // The first of these follows upon that, but the other server gives it without what is before it, and says that the room
    // is open there.
    let chain = shared.chain(3, &closed);
    *shared.elsewhere.state.lock() = Some(open);
    *shared.elsewhere.missing.lock() = vec![chain[1].clone()];
    shared.accept(&chain[2]).await;
    assert_eq!(shared.stands(chain[0].event_id()), None, "an outlier");
    let mut extremities = shared.extremities();
    extremities.sort_unstable();
    let mut expected = [closed.event_id(), chain[2].event_id()];
    expected.sort_unstable();
    assert_eq!(extremities, expected);
    let rule = shared.server.content(&shared.room, "m.room.join_rules", "");
    assert_eq!(rule["join_rule"], "invite");
}

#[tokio::test]
async fn what_is_not_known_is_redacted_by_those_who_may_redact_everything() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    shared.server.join(&shared.room, BOB).await;
    let join = shared.join.clone();
    let secret = shared.text("A secret", &[&join]);
    let redact = |who: &str| Redact {
        room_id: shared.room.clone(),
        sender: user(who),
        event_id: id(&secret),
        content: object(json!({"reason": "it is one"})),
        transaction: None,
    };
    let rooms = shared.server.rooms.clone();
    let refused = rooms.redact(redact(BOB)).await;
    assert!(
        matches!(refused, Err(RedactError::EventNotFound)),
        "{refused:?}"
    );
    let redaction = rooms.redact(redact(ALICE)).await.expect("she may");
    let redaction = shared.stored(redaction.as_str()).expect("it was sent");
    assert_eq!(redaction.pdu.redacts(), Some(secret.event_id()));
    // It waits for the event, which comes pruned.
    shared.accept(&secret).await;
    let stored = shared.stored(secret.event_id()).expect("stored");
    assert_eq!(stored.header.redacted_by, Some(redaction.num));
    assert!(stored.pdu.content().is_empty());
    let view = shared.server.view();
    assert_eq!(view.scan::<AwaitedTargets>(Scan::all()).count(), 0);
}

/// A room of version 11 whose policy server is Dora's.
async fn guarded() -> Shared {
    let shared = Shared::new(RoomVersion::V11).await;
    let key = policy_key().public_key();
    let content = json!({"via": "there.org", "public_keys": {"ed25519": key}});
    let policy = state(&shared.room, ALICE, "m.room.policy", "", content);
    let rooms = &shared.server.rooms;
    rooms.send_state(policy).await.expect("allowed");
    rooms.ask_policies_through(Arc::new(Moderator));
    shared
}

fn is_recommended(event: &Pdu) -> bool {
    event.json().contains("ed25519:policy_server")
}

#[tokio::test]
async fn a_policy_server_sees_those_who_come_and_go() {
    let shared = guarded().await;
    let rooms = shared.server.rooms.clone();
    let enter = |reason: &str| Enter {
        room_id: shared.room.clone(),
        user: user(BOB),
        profile: Profile::default(),
        reason: Some(reason.to_owned()),
        extra: object(json!({})),
    };
    let refused = rooms.join(enter("spam")).await;
    assert!(refused.is_err(), "{refused:?}");
    let join = rooms.join(enter("curious")).await.expect("recommended");
    let join = shared.stored(join.as_str()).expect("stored");
    assert!(is_recommended(&join.pdu));

    // Who leaves from elsewhere by a handshake is not asked for it himself.
    let make = MakeMembership {
        room_id: shared.room.clone(),
        user: user(DORA),
        step: Step::Leave,
        origin: owned_server_name!("there.org"),
        versions: None,
    };
    let template = rooms.make_membership(make).await.expect("she is there");
    let event = Value::Object(template.event);
    let known = shared.server.known(&shared.room);
    let hand_in = |leave: &Pdu| AcceptMembership {
        room_id: shared.room.clone(),
        event_id: id(leave),
        step: Step::Leave,
        pdu: raw(leave),
        origin: owned_server_name!("there.org"),
    };
    let mut spam = event.clone();
    spam["content"]["reason"] = "spam".into();
    let spam = fill_in(&spam, template.room_version, &known);
    let fetch = Arc::clone(&shared.elsewhere) as Arc<dyn Fetch>;
    let refused = rooms.accept_membership(fetch, hand_in(&spam)).await;
    assert!(
        matches!(refused, Err(AcceptMembershipError::Forbidden(_))),
        "{refused:?}"
    );
    let leave = fill_in(&event, template.room_version, &known);
    let fetch = Arc::clone(&shared.elsewhere) as Arc<dyn Fetch>;
    let taken = rooms.accept_membership(fetch, hand_in(&leave)).await;
    taken.expect("recommended");
    let leave = shared.stored(leave.event_id()).expect("stored");
    assert!(is_recommended(&leave.pdu));
}

#[tokio::test]
async fn a_policy_server_sees_an_invitation_before_it_leaves() {
    let shared = guarded().await;
    let rooms = shared.server.rooms.clone();
    let invite = |reason: &str| Invite {
        room_id: shared.room.clone(),
        sender: user(ALICE),
        target: user(EVE),
        profile: Profile::default(),
        reason: Some(reason.to_owned()),
        is_direct: false,
    };
    let refused = rooms.draw_up_invite(invite("spam").into()).await;
    let Err(InviteError::Append(AppendError::Forbidden(text))) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(text, "It looks like an advertisement");
    let drawn = rooms.draw_up_invite(invite("come").into()).await;
    let drawn = drawn.expect("recommended");
    assert!(is_recommended(&drawn.event));
    let answer = drawn.event.countersigned(&shared.signer);
    let fetch = Arc::clone(&shared.elsewhere) as Arc<dyn Fetch>;
    let completed = rooms.complete_invite(fetch, drawn.event, raw(&answer));
    let invited = completed.await.expect("signed by all");
    let invited = shared.stored(invited.as_str()).expect("stored");
    assert!(is_recommended(&invited.pdu));
    assert_eq!(invited.header.status, EventStatus::Accepted);
}
