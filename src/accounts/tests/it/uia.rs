//! User-interactive authentication.

use std::time::Duration;

use myelin_accounts::{
    Challenge, Flow, Operation, Passed, Registration, Requester, Secret, Stage, StageFailure,
    UiaError,
};
use serde_json::{Value, json};

use crate::harness::{PASSWORD, Server, server, server_with, settings};

fn challenge(result: Result<Passed, UiaError>) -> Challenge {
    match result {
        Err(UiaError::Challenge(challenge)) => *challenge,
        other => panic!("no challenge: {other:?}"),
    }
}

fn operation<'a>(flows: &'a [Flow], requester: Option<&'a Requester>) -> Operation<'a> {
    Operation {
        name: "DELETE /devices",
        subject: b"[\"PHONE\"]",
        flows,
        requester,
    }
}

async fn requester(server: &Server, name: &str) -> Requester {
    let session = server.session_of(name).await;
    let requester = server
        .accounts
        .authenticate(session.access_token.expose(), None)
        .await;
    requester.expect("lets in").as_ref().clone()
}

fn password(user: &str, password: &str) -> Value {
    json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user},
        "password": password,
    })
}

fn with_session(mut auth: Value, session: &str) -> Value {
    auth["session"] = json!(session);
    auth
}

#[tokio::test]
async fn without_auth_there_is_a_challenge_and_with_the_password_a_pass() {
    let server = server().await;
    let alice = requester(&server, "alice").await;
    let flows = [Flow(vec![Stage::Password])];
    let operation = operation(&flows, Some(&alice));
    let accounts = &server.accounts;

    let first = challenge(accounts.interact(&operation, None).await);
    assert_eq!(first.flows, flows);
    assert_eq!((first.completed.len(), first.failure), (0, None));

    let wrong = with_session(password("alice", "wrong password"), &first.session);
    let second = challenge(accounts.interact(&operation, Some(&wrong)).await);
    assert_eq!(second.failure, Some(StageFailure::WrongPassword));
    assert_eq!(second.session, first.session);

    let right = with_session(password("@alice:hs1", PASSWORD), &first.session);
    for _ in 0..2 {
        // Also when the answer was lost and the client asks again.
        let passed = accounts.interact(&operation, Some(&right)).await;
        assert_eq!(passed.expect("is right").user, Some(alice.user));
    }
    let only_session = json!({"session": first.session});
    assert!(
        accounts
            .interact(&operation, Some(&only_session))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_first_stage_needs_no_session() {
    let server = server().await;
    let alice = requester(&server, "alice").await;
    let flows = [Flow(vec![Stage::Password])];
    let operation = operation(&flows, Some(&alice));
    let accounts = &server.accounts;
    let wrong = password("alice", "wrong password");
    let challenge = challenge(accounts.interact(&operation, Some(&wrong)).await);
    assert_eq!(challenge.failure, Some(StageFailure::WrongPassword));
    let right = with_session(password("alice", PASSWORD), &challenge.session);
    assert!(accounts.interact(&operation, Some(&right)).await.is_ok());

    for right in [
        password("alice", PASSWORD),
        json!({"type": "m.login.password", "user": "alice", "password": PASSWORD}),
        json!({"type": "m.login.password", "password": PASSWORD}),
    ] {
        assert!(accounts.interact(&operation, Some(&right)).await.is_ok());
    }
}

#[tokio::test]
async fn another_users_password_is_refused() {
    let server = server().await;
    let alice = requester(&server, "alice").await;
    server.register("bob").await;
    let flows = [Flow(vec![Stage::Password])];
    let operation = operation(&flows, Some(&alice));
    let bobs = password("bob", PASSWORD);
    assert!(matches!(
        server.accounts.interact(&operation, Some(&bobs)).await,
        Err(UiaError::WrongUser)
    ));
}

#[tokio::test]
async fn a_session_is_good_for_one_operation_of_one_user() {
    let server = server().await;
    let alice = requester(&server, "alice").await;
    let bob = requester(&server, "bob").await;
    let flows = [Flow(vec![Stage::Password])];
    let base = operation(&flows, Some(&alice));
    let accounts = &server.accounts;
    let begun = challenge(accounts.interact(&base, None).await);
    let right = with_session(password("alice", PASSWORD), &begun.session);
    for other in [
        Operation {
            name: "POST /account/deactivate",
            ..base
        },
        Operation {
            subject: b"[\"LAPTOP\"]",
            ..base
        },
        Operation {
            requester: Some(&bob),
            ..base
        },
    ] {
        assert!(matches!(
            accounts.interact(&other, Some(&right)).await,
            Err(UiaError::OtherOperation)
        ));
    }
    assert!(accounts.interact(&base, Some(&right)).await.is_ok());
}

#[tokio::test]
async fn sessions_expire() {
    let server = server().await;
    let alice = requester(&server, "alice").await;
    let flows = [Flow(vec![Stage::Password])];
    let operation = operation(&flows, Some(&alice));
    let accounts = &server.accounts;
    let begun = challenge(accounts.interact(&operation, None).await);
    server.clock.advance(Duration::from_mins(31));
    let right = with_session(password("alice", PASSWORD), &begun.session);
    let again = challenge(accounts.interact(&operation, Some(&right)).await);
    assert_eq!(again.failure, Some(StageFailure::UnknownSession));
    assert_ne!(again.session, begun.session);
    let right = with_session(password("alice", PASSWORD), &again.session);
    assert!(accounts.interact(&operation, Some(&right)).await.is_ok());
}

#[tokio::test]
async fn stages_are_completed_in_their_order() {
    let mut by_token = settings();
    by_token.registration = Registration::Token(Some(Secret::new("open-sesame")));
    let server = server_with(by_token).await;
    let flows = [
        Flow(vec![Stage::RegistrationToken, Stage::Dummy]),
        Flow(vec![Stage::RegistrationToken, Stage::Password]),
    ];
    let operation = operation(&flows, None);
    let accounts = &server.accounts;
    let begun = challenge(accounts.interact(&operation, None).await);
    let step = async |auth: Value| {
        let auth = with_session(auth, &begun.session);
        accounts.interact(&operation, Some(&auth)).await
    };
    let early = challenge(step(json!({"type": "m.login.dummy"})).await);
    assert_eq!(early.failure, Some(StageFailure::NotNext));
    let strange = challenge(step(json!({"type": "m.login.recaptcha"})).await);
    assert_eq!(strange.failure, Some(StageFailure::NotOffered));
    let token = |text: &str| json!({"type": "m.login.registration_token", "token": text});
    let wrong = challenge(step(token("abracadabra")).await);
    assert_eq!(wrong.failure, Some(StageFailure::WrongToken));
    let half = challenge(step(token("open-sesame")).await);
    assert_eq!(half.failure, None);
    assert_eq!(half.completed, [Stage::RegistrationToken]);
    let repeated = challenge(step(token("abracadabra")).await);
    assert_eq!((repeated.failure, repeated.completed.len()), (None, 1));
    let passed = step(json!({"type": "m.login.dummy"}))
        .await
        .expect("is complete");
    assert_eq!(passed.registration_token, Some(Secret::new("open-sesame")));
}

#[tokio::test]
async fn nonsense_is_refused() {
    let server = server().await;
    let flows = [Flow(vec![Stage::Password])];
    let operation = operation(&flows, None);
    let accounts = &server.accounts;
    for malformed in [
        json!("m.login.dummy"),
        json!({"type": 1}),
        json!({"type": "m.login.password", "session": 5}),
        json!({"type": "m.login.password", "user": "alice", "password": 5}),
    ] {
        assert!(matches!(
            accounts.interact(&operation, Some(&malformed)).await,
            Err(UiaError::Malformed)
        ));
    }
    for (missing, lacks) in [
        (json!({"type": "m.login.password", "user": "a"}), "password"),
        (
            json!({"type": "m.login.password", "password": "a"}),
            "identifier",
        ),
    ] {
        assert!(matches!(
            accounts.interact(&operation, Some(&missing)).await,
            Err(UiaError::Missing(part)) if part == lacks
        ));
    }
    let empty = json!({});
    challenge(accounts.interact(&operation, Some(&empty)).await);
}

#[tokio::test]
async fn a_password_alone_tells_who_somebody_is() {
    let server = server().await;
    let alice = server.register("alice").await;
    let flows = [Flow(vec![Stage::Password])];
    let operation = operation(&flows, None);
    let auth = password("alice", PASSWORD);
    let passed = server.accounts.interact(&operation, Some(&auth)).await;
    assert_eq!(passed.expect("is right").user, Some(alice.user));
}
