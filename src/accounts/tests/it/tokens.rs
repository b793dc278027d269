//! The memory of tokens is exact.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use myelin_accounts::{AuthenticateError, Identifier, Login, NewSession, Secret};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

use crate::harness::{PASSWORD, device, server};

#[tokio::test]
async fn unknown_tokens_let_nobody_in() {
    let server = server().await;
    for token in ["", "invalidAccessToken", "mye_", &"x".repeat(10_000)] {
        assert!(matches!(
            server.accounts.authenticate(token, None).await,
            Err(AuthenticateError::Unknown)
        ));
    }
}

#[tokio::test]
async fn a_logout_whose_caller_goes_away_is_still_exact() {
    let server = server().await;
    let session = server.session_of("alice").await;
    assert!(server.lets_in(&session.access_token).await);
    {
        let logout = server.accounts.logout(session.user, &session.device_id);
        tokio::pin!(logout);
        // Polled until its batch is in the queue, then dropped.
        for _ in 0..3 {
            let polled = tokio::time::timeout(std::time::Duration::ZERO, logout.as_mut()).await;
            if polled.is_ok() {
                break;
            }
        }
    }
    server
        .accounts
        .logout(session.user, &session.device_id)
        .await
        .expect("has ended");
    assert!(!server.lets_in(&session.access_token).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn once_a_logout_is_answered_no_request_gets_through() {
    let server = server().await;
    server.register("alice").await;
    for round in 0..30 {
        let session = server
            .login_with("alice", PASSWORD, device(&format!("D{round}")))
            .await
            .expect("may log in");
        let stop = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (accounts, stop) = (server.accounts.clone(), Arc::clone(&stop));
                let token = session.access_token.clone();
                tokio::spawn(async move {
                    while !stop.load(Ordering::SeqCst) {
                        let _ = accounts.authenticate(token.expose(), None).await;
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        server
            .accounts
            .logout(session.user, &session.device_id)
            .await
            .expect("ends");
        for _ in 0..20 {
            assert!(!server.lets_in(&session.access_token).await);
        }
        stop.store(true, Ordering::SeqCst);
        for reader in readers {
            reader.await.expect("does not panic");
        }
        assert!(!server.lets_in(&session.access_token).await);
    }
}

/// What may happen to three devices of a user.
#[derive(Clone, Debug)]
enum Act {
    Login(u8),
    Use(u8),
    Logout(u8),
    LogoutAll,
    ChangePassword { end: bool, kept: u8 },
    Refresh(u8),
}

fn act() -> impl Strategy<Value = Act> {
    let device = 0..3_u8;
    prop_oneof![
        3 => device.clone().prop_map(Act::Login),
        4 => device.clone().prop_map(Act::Use),
        2 => device.clone().prop_map(Act::Logout),
        1 => Just(Act::LogoutAll),
        1 => (any::<bool>(), device.clone())
            .prop_map(|(end, kept)| Act::ChangePassword { end, kept }),
        2 => device.prop_map(Act::Refresh),
    ]
}

/// A session as the model knows it.
#[derive(Clone)]
struct Alive {
    access: Secret,
    refresh: Secret,
}

#[test]
fn whatever_happens_exactly_the_live_tokens_let_somebody_in() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = runtime.block_on(server());
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let user = std::cell::Cell::new(0);
    runner
        .run(&vec(act(), 1..24), |acts| {
            user.set(user.get() + 1);
            runtime.block_on(play(&server, &format!("user{}", user.get()), acts))
        })
        .expect("holds");
}

async fn play(
    server: &crate::harness::Server,
    name: &str,
    acts: Vec<Act>,
) -> Result<(), TestCaseError> {
    let user = server.register(name).await.user;
    server.accounts.logout_all(user).await.expect("end");
    let accounts = &server.accounts;
    let mut alive: [Option<Alive>; 3] = [None, None, None];
    let mut dead: Vec<Secret> = Vec::new();
    let id = |device: u8| format!("D{device}");
    for act in acts {
        match act {
            Act::Login(n) => {
                let session = accounts
                    .login(Login {
                        identifier: Identifier::User(name.to_owned()),
                        password: Secret::new(PASSWORD),
                        session: NewSession {
                            refreshable: true,
                            ..device(&id(n))
                        },
                    })
                    .await
                    .expect("may log in");
                let next = Alive {
                    access: session.access_token,
                    refresh: session.refresh_token.expect("one was wanted"),
                };
                dead.extend(alive[usize::from(n)].replace(next).map(|old| old.access));
            }
            Act::Use(n) => {
                if let Some(session) = &alive[usize::from(n)] {
                    prop_assert!(server.lets_in(&session.access).await);
                }
            }
            Act::Logout(n) => {
                let device_id = ruma::OwnedDeviceId::from(id(n));
                accounts.logout(user, &device_id).await.expect("ends");
                dead.extend(alive[usize::from(n)].take().map(|old| old.access));
            }
            Act::LogoutAll => {
                accounts.logout_all(user).await.expect("end");
                dead.extend(
                    alive
                        .iter_mut()
                        .filter_map(Option::take)
                        .map(|old| old.access),
                );
            }
            Act::ChangePassword { end, kept } => {
                let kept_id = ruma::OwnedDeviceId::from(id(kept));
                accounts
                    .set_password(user, Secret::new(PASSWORD), end, Some(&kept_id))
                    .await
                    .expect("may be changed");
                for (n, session) in alive.iter_mut().enumerate() {
                    if end && n != usize::from(kept) {
                        dead.extend(session.take().map(|old| old.access));
                    }
                }
            }
            Act::Refresh(n) => {
                if let Some(session) = &mut alive[usize::from(n)] {
                    let pair = accounts.refresh(&session.refresh).await.expect("is known");
                    let next = Alive {
                        access: pair.access_token,
                        refresh: pair.refresh_token,
                    };
                    dead.push(std::mem::replace(session, next).access);
                }
            }
        }
        for token in &dead {
            prop_assert!(!server.lets_in(token).await);
        }
    }
    for session in alive.iter().flatten() {
        prop_assert!(server.lets_in(&session.access).await);
    }
    Ok(())
}
