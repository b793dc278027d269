//! Who may log in, and what becomes of the device.

use myelin_accounts::{Identifier, Login, LoginError, NewSession, Secret};

use crate::harness::{PASSWORD, device, server};

#[tokio::test]
async fn a_user_logs_in_by_any_form_of_his_name() {
    let server = server().await;
    server.register("alice").await;
    for name in ["alice", "@alice:hs1", "ALICE", "@ALICE:hs1"] {
        let session = server.login(name, PASSWORD).await.expect("may log in");
        assert_eq!(session.user_id, "@alice:hs1");
        assert!(server.lets_in(&session.access_token).await);
        assert!(session.refresh_token.is_none());
        assert!(session.expires_in.is_none());
    }
}

#[tokio::test]
async fn everybody_else_is_refused_alike() {
    let server = server().await;
    server.register("alice").await;
    for (name, password) in [
        ("alice", "wrong password"),
        ("nobody", PASSWORD),
        ("@alice:elsewhere", PASSWORD),
        ("alice", ""),
        ("", PASSWORD),
    ] {
        let refused = server.login(name, password).await;
        assert!(matches!(refused, Err(LoginError::Refused)), "{name:?}");
    }
    let by_phone = Login {
        identifier: Identifier::Other,
        password: Secret::new(PASSWORD),
        session: NewSession::default(),
    };
    assert!(matches!(
        server.accounts.login(by_phone).await,
        Err(LoginError::Refused)
    ));
}

#[tokio::test]
async fn a_known_device_loses_its_old_token_and_keeps_its_name() {
    let server = server().await;
    server.register("alice").await;
    let first = NewSession {
        device_display_name: Some("phone".to_owned()),
        ..device("PHONE")
    };
    let first = server
        .login_with("alice", PASSWORD, first)
        .await
        .expect("may log in");
    assert!(server.lets_in(&first.access_token).await);
    let second = NewSession {
        device_display_name: Some("other".to_owned()),
        ..device("PHONE")
    };
    let second = server
        .login_with("alice", PASSWORD, second)
        .await
        .expect("may log in");
    assert_eq!(second.device_id, "PHONE");
    assert!(!server.lets_in(&first.access_token).await);
    assert!(server.lets_in(&second.access_token).await);
    let view = server.accounts.view();
    let phone = server
        .accounts
        .device(&view, second.user, &second.device_id)
        .expect("is read")
        .expect("is there");
    assert_eq!(phone.display_name.as_deref(), Some("phone"));
}

#[tokio::test]
async fn logging_one_device_in_many_times_at_once_leaves_one_session() {
    let server = server().await;
    let user = server.register("alice").await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let accounts = server.accounts.clone();
            tokio::spawn(async move {
                accounts
                    .login(Login {
                        identifier: Identifier::User("alice".to_owned()),
                        password: Secret::new(PASSWORD),
                        session: device("PHONE"),
                    })
                    .await
            })
        })
        .collect();
    let mut alive = 0;
    let mut sessions = Vec::new();
    for task in tasks {
        let session = task.await.expect("does not panic").expect("may log in");
        sessions.push(session);
    }
    for session in &sessions {
        alive += usize::from(server.lets_in(&session.access_token).await);
    }
    assert_eq!(alive, 1);
    let view = server.accounts.view();
    let devices = server.accounts.devices(&view, user.user).expect("are read");
    assert_eq!(devices.len(), 2, "the one of the registration, and PHONE");
}

#[tokio::test]
async fn what_is_too_long_is_refused() {
    let server = server().await;
    server.register("alice").await;
    let long = "x".repeat(256);
    for session in [
        device(&long),
        NewSession {
            device_display_name: Some(long.clone()),
            ..NewSession::default()
        },
    ] {
        assert!(matches!(
            server.login_with("alice", PASSWORD, session).await,
            Err(LoginError::DeviceTooLong)
        ));
    }
    let empty = server
        .login_with("alice", PASSWORD, device(""))
        .await
        .expect("an empty device id is none");
    assert_eq!(empty.device_id.as_str().len(), 10);
}

#[tokio::test]
async fn sessions_outlive_a_restart() {
    let server = server().await;
    let session = server.session_of("alice").await;
    let server = server.restart().await;
    assert!(server.lets_in(&session.access_token).await);
    assert!(server.login("alice", PASSWORD).await.is_ok());
}

#[tokio::test]
async fn a_session_can_be_opened_without_a_password() {
    let server = server().await;
    let user = server.register("alice").await;
    let session = server
        .accounts
        .login_as(user.user, user.user_id.clone(), NewSession::default())
        .await
        .expect("the account is there");
    assert!(server.lets_in(&session.access_token).await);
    server
        .accounts
        .deactivate(user.user, false)
        .await
        .expect("is deactivated");
    assert!(matches!(
        server
            .accounts
            .login_as(user.user, user.user_id, NewSession::default())
            .await,
        Err(LoginError::Refused)
    ));
}
