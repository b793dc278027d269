//! Passwords, the operator's view, and the end of an account.

use myelin_accounts::{
    CreateError, Deactivation, LoginError, NameError, Passed, RegisterError, Secret,
    SetPasswordError,
};
use myelin_types::{Pos, RoomNum, UserNum};
use serde_json::json;

use crate::harness::{PASSWORD, registering, server};

#[tokio::test]
async fn a_new_password_replaces_the_old_and_ends_the_other_sessions() {
    let server = server().await;
    let phone = server.session_of("alice").await;
    let laptop = server.login("alice", PASSWORD).await.expect("may log in");
    assert!(server.lets_in(&laptop.access_token).await);
    let change = |password: &'static str, end: bool| {
        server.accounts.set_password(
            phone.user,
            Secret::new(password),
            end,
            Some(&phone.device_id),
        )
    };
    let ended = change("my_new_password", true).await.expect("may change");
    assert_eq!(ended, [laptop.device_id]);
    assert!(matches!(
        server.login("alice", PASSWORD).await,
        Err(LoginError::Refused)
    ));
    assert!(!server.lets_in(&laptop.access_token).await);
    assert!(server.lets_in(&phone.access_token).await);

    let tablet = server.login("alice", "my_new_password").await;
    let tablet = tablet.expect("may log in");
    change("new_optional_password", false)
        .await
        .expect("may change");
    assert!(server.lets_in(&tablet.access_token).await);
    assert!(matches!(
        change("short", false).await,
        Err(SetPasswordError::Password(_))
    ));
    let nobody = server
        .accounts
        .set_password(UserNum(99), Secret::new("long enough"), true, None)
        .await;
    assert!(matches!(nobody, Err(SetPasswordError::NoAccount)));
}

#[tokio::test]
async fn a_login_that_races_with_a_new_password_does_not_survive_it() {
    let server = server().await;
    let alice = server.register("alice").await;
    for round in 0..10 {
        let old = format!("{PASSWORD}{round}");
        let new = format!("{PASSWORD}{}", round + 1);
        server
            .accounts
            .set_password(alice.user, Secret::new(&old), true, None)
            .await
            .expect("may change");
        let (login, changed) = tokio::join!(
            server.login("alice", &old),
            server
                .accounts
                .set_password(alice.user, Secret::new(&new), true, None)
        );
        changed.expect("may change");
        if let Ok(session) = login {
            assert!(!server.lets_in(&session.access_token).await);
        }
    }
}

#[tokio::test]
async fn a_deactivated_account_is_closed_for_good() {
    let server = server().await;
    let session = server.session_of("alice").await;
    let accounts = &server.accounts;
    let name = json!("Alice");
    accounts
        .set_profile_field(session.user, "displayname", name)
        .await
        .expect("is legal");
    let content = myelin_data::RawJson::of(&json!({"a": 1})).expect("is JSON");
    accounts
        .set_account_data(session.user, RoomNum::NONE, "test.key", content)
        .await
        .expect("is legal");
    assert!(server.lets_in(&session.access_token).await);

    let ended = accounts
        .deactivate(session.user, false)
        .await
        .expect("ends");
    assert_eq!(ended, [session.device_id]);
    assert!(!server.lets_in(&session.access_token).await);
    assert!(matches!(
        server.login("alice", PASSWORD).await,
        Err(LoginError::Refused)
    ));
    let view = accounts.view();
    let profile = accounts.profile(&view, session.user).expect("is read");
    assert!(profile.fields.is_empty());
    let kept = accounts.account_data(&view, session.user, RoomNum::NONE, "test.key");
    assert!(kept.expect("is read").is_some());
    assert!(matches!(
        accounts
            .register(registering("alice"), Passed::default())
            .await,
        Err(RegisterError::Name(NameError::InUse))
    ));

    accounts
        .deactivate(session.user, false)
        .await
        .expect("has ended");
    accounts
        .deactivate(session.user, true)
        .await
        .expect("is erased");
    let view = accounts.view();
    let gone = accounts.account_data(&view, session.user, RoomNum::NONE, "test.key");
    assert!(gone.expect("is read").is_none());
    let since = accounts.account_data_since(&view, session.user, Pos::ZERO);
    assert!(since.expect("is read").is_empty());
    let account = accounts.account(&view, session.user).expect("is read");
    let account = account.expect("is kept");
    assert!(account.deactivated && account.erased && account.password_hash.is_none());

    assert!(matches!(
        accounts.deactivate(UserNum(99), false).await,
        Err(Deactivation::NoAccount)
    ));
}

#[tokio::test]
async fn the_operator_makes_lists_and_promotes_users() {
    let server = server().await;
    let accounts = &server.accounts;
    let password = || Some(Secret::new(PASSWORD));
    for name in ["alice", "bob", "carol"] {
        accounts
            .create_user(name, password(), false)
            .await
            .expect("the name is free");
    }
    assert!(matches!(
        accounts.create_user("alice", password(), false).await,
        Err(CreateError::Name(NameError::InUse))
    ));
    assert!(matches!(
        accounts.create_user("a b", password(), false).await,
        Err(CreateError::Name(NameError::Invalid))
    ));
    let view = accounts.view();
    let first = accounts.users(&view, None, 2).expect("are read");
    let rest = accounts
        .users(&view, Some(first[1].user), 2)
        .expect("are read");
    let names: Vec<&str> = first
        .iter()
        .chain(&rest)
        .map(|user| user.user_id.localpart())
        .collect();
    assert_eq!(names, ["alice", "bob", "carol"]);

    let session = server.login("alice", PASSWORD).await.expect("may log in");
    let token = session.access_token.expose();
    for admin in [true, true, false] {
        accounts
            .set_admin(session.user, admin)
            .await
            .expect("is there");
        let requester = accounts.authenticate(token, None).await.expect("lets in");
        assert_eq!(requester.admin, admin);
    }
    assert!(
        accounts
            .create_user("nopassword", None, false)
            .await
            .is_ok()
    );
    assert!(matches!(
        server.login("nopassword", "").await,
        Err(LoginError::Refused)
    ));
}
