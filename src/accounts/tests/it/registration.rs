//! Who may register, under which name.

use myelin_accounts::{
    NameError, NewSession, Passed, RegisterError, Registering, Registration, Secret, TokenError,
};

use crate::harness::{PASSWORD, registering, server, server_with, settings};

#[tokio::test]
async fn a_registration_gives_an_account_and_a_session() {
    let server = server().await;
    let registered = server
        .accounts
        .register(
            Registering {
                session: Some(NewSession {
                    device_id: Some("my_device_id".to_owned()),
                    device_display_name: Some("phone".to_owned()),
                    refreshable: true,
                }),
                ..registering("user-UPPER")
            },
            Passed::default(),
        )
        .await
        .expect("the name is free");
    assert_eq!(registered.user_id, "@user-upper:hs1");
    let session = registered.session.expect("one was wanted");
    assert_eq!(session.device_id, "my_device_id");
    assert!(session.refresh_token.is_some());
    assert!(session.expires_in.is_some());
    assert!(session.access_token.expose().starts_with("mye_"));
    assert_eq!(session.access_token.expose().len(), 47);
    let requester = server
        .accounts
        .authenticate(session.access_token.expose(), None)
        .await
        .expect("lets in");
    assert_eq!(requester.user_id, registered.user_id);
    assert_eq!(requester.user, registered.user);
    assert_eq!(requester.device_id, "my_device_id");
    assert!(!requester.admin);
}

#[tokio::test]
async fn a_taken_or_illegal_name_is_refused() {
    let server = server().await;
    server.register("alice").await;
    let register = |name: &'static str| {
        server
            .accounts
            .register(registering(name), Passed::default())
    };
    for name in ["alice", "ALICE"] {
        assert!(matches!(
            register(name).await,
            Err(RegisterError::Name(NameError::InUse))
        ));
        assert!(matches!(
            server.accounts.check_username(name).await,
            Err(NameError::InUse)
        ));
    }
    assert!(matches!(
        register("us,er").await,
        Err(RegisterError::Name(NameError::Invalid))
    ));
    assert!(server.accounts.check_username("bob").await.is_ok());
}

#[tokio::test]
async fn a_registration_without_login_opens_no_session() {
    let server = server().await;
    let registered = server
        .accounts
        .register(
            Registering {
                session: None,
                ..registering("alice")
            },
            Passed::default(),
        )
        .await
        .expect("the name is free");
    assert_eq!(registered.session, None);
    let view = server.accounts.view();
    let devices = server.accounts.devices(&view, registered.user);
    assert!(devices.expect("are read").is_empty());
    assert!(server.login("alice", PASSWORD).await.is_ok());
}

#[tokio::test]
async fn without_a_name_one_is_drawn() {
    let server = server().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let wanted = Registering {
            username: None,
            ..registering("")
        };
        let registered = server.accounts.register(wanted, Passed::default()).await;
        ids.push(registered.expect("there are names left").user_id);
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn passwords_must_be_there_and_of_a_fair_length() {
    let server = server().await;
    let register = |password: Option<String>| {
        let wanted = Registering {
            password: password.map(Secret::new),
            ..registering("alice")
        };
        server.accounts.register(wanted, Passed::default())
    };
    assert!(matches!(
        register(None).await,
        Err(RegisterError::PasswordMissing)
    ));
    for refused in ["short".to_owned(), "x".repeat(513)] {
        assert!(matches!(
            register(Some(refused)).await,
            Err(RegisterError::Password(_))
        ));
    }
    let umlauts = "übers3kr1t".to_owned();
    assert!(register(Some(umlauts.clone())).await.is_ok());
    assert!(server.login("alice", &umlauts).await.is_ok());
}

#[tokio::test]
async fn one_of_many_gets_a_name_that_all_want() {
    let server = server().await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let accounts = server.accounts.clone();
            tokio::spawn(async move {
                accounts
                    .register(registering("alice"), Passed::default())
                    .await
            })
        })
        .collect();
    let mut made = Vec::new();
    for task in tasks {
        match task.await.expect("does not panic") {
            Ok(registered) => made.push(registered),
            Err(RegisterError::Name(NameError::InUse)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(made.len(), 1);
    let session = made.remove(0).session.expect("one was wanted");
    assert!(server.lets_in(&session.access_token).await);
    let view = server.accounts.view();
    let devices = server.accounts.devices(&view, session.user);
    assert_eq!(devices.expect("are read").len(), 1);
}

#[tokio::test]
async fn where_registration_is_closed_nobody_registers_and_the_operator_makes_accounts() {
    let mut closed = settings();
    closed.registration = Registration::Closed;
    let server = server_with(closed).await;
    assert!(server.accounts.registration_flows().is_none());
    assert!(matches!(
        server
            .accounts
            .register(registering("alice"), Passed::default())
            .await,
        Err(RegisterError::Closed)
    ));
    assert!(matches!(
        server
            .accounts
            .registration_token_valid(&Secret::new("any"))
            .await,
        Err(RegisterError::Closed)
    ));
    let id = server
        .accounts
        .create_user("Alice", Some(Secret::new(PASSWORD)), true)
        .await
        .expect("the name is free");
    assert_eq!(id, "@alice:hs1");
    let session = server.login("alice", PASSWORD).await.expect("may log in");
    let requester = server
        .accounts
        .authenticate(session.access_token.expose(), None)
        .await
        .expect("lets in");
    assert!(requester.admin);
}

#[tokio::test]
async fn a_token_is_good_for_as_many_as_it_says_even_at_once() {
    let mut by_token = settings();
    by_token.registration = Registration::Token(Some(Secret::new("operators")));
    let server = server_with(by_token).await;
    let twice = Secret::new("twice");
    let accounts = &server.accounts;
    accounts
        .create_registration_token(&twice, Some(2), None)
        .await
        .expect("is new");
    assert!(matches!(
        accounts.create_registration_token(&twice, None, None).await,
        Err(TokenError::Exists)
    ));
    for (text, valid) in [("operators", true), ("twice", true), ("unknown", false)] {
        let is_valid = accounts.registration_token_valid(&Secret::new(text)).await;
        assert_eq!(
            is_valid.expect("registration is not closed"),
            valid,
            "{text}"
        );
    }

    assert!(matches!(
        accounts
            .register(registering("alice"), Passed::default())
            .await,
        Err(RegisterError::TokenSpent)
    ));

    let tasks: Vec<_> = (0..6)
        .map(|number| {
            let (accounts, token) = (accounts.clone(), twice.clone());
            tokio::spawn(async move {
                let passed = Passed {
                    registration_token: Some(token),
                    ..Passed::default()
                };
                accounts
                    .register(registering(&format!("user{number}")), passed)
                    .await
            })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        match task.await.expect("does not panic") {
            Ok(_) => made += 1,
            Err(RegisterError::TokenSpent) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(made, 2);
    let valid = accounts.registration_token_valid(&twice).await;
    assert!(!valid.expect("registration is not closed"));

    let listed = accounts
        .registration_tokens(&accounts.view())
        .expect("are read");
    assert_eq!(listed[0].1.completed, 2);
    accounts
        .delete_registration_token(&twice)
        .await
        .expect("is there");
    assert!(matches!(
        accounts.delete_registration_token(&twice).await,
        Err(TokenError::NotFound)
    ));
}
