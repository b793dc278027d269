//! Refresh tokens and their rotation.

use std::time::Duration;

use myelin_accounts::{AuthenticateError, RefreshError, Refreshed, Secret, Session};

use crate::harness::{PASSWORD, Server, device, refreshable, server};

async fn session(server: &Server) -> Session {
    server.register("alice").await;
    server
        .login_with("alice", PASSWORD, refreshable())
        .await
        .expect("may log in")
}

async fn refresh(server: &Server, token: &Secret) -> Result<Refreshed, RefreshError> {
    server.accounts.refresh(token).await
}

#[tokio::test]
async fn an_access_token_expires_softly_and_is_refreshed() {
    let server = server().await;
    let session = session(&server).await;
    assert_eq!(session.expires_in, Some(Duration::from_mins(5)));
    let token = session.refresh_token.expect("one was wanted");
    assert!(server.lets_in(&session.access_token).await);
    server.clock.advance(Duration::from_mins(5));
    for _ in 0..2 {
        // Also the second time: the client is to refresh, not to throw its keys away.
        assert!(matches!(
            server
                .accounts
                .authenticate(session.access_token.expose(), None)
                .await,
            Err(AuthenticateError::Expired)
        ));
    }
    let pair = refresh(&server, &token).await.expect("is known");
    let requester = server
        .accounts
        .authenticate(pair.access_token.expose(), None)
        .await
        .expect("lets in");
    assert_eq!(requester.device_id, session.device_id);
}

#[tokio::test]
async fn a_refresh_revokes_the_old_access_token_at_once() {
    let server = server().await;
    let session = session(&server).await;
    let token = session.refresh_token.expect("one was wanted");
    assert!(server.lets_in(&session.access_token).await);
    refresh(&server, &token).await.expect("is known");
    assert!(matches!(
        server
            .accounts
            .authenticate(session.access_token.expose(), None)
            .await,
        Err(AuthenticateError::Unknown)
    ));
}

#[tokio::test]
async fn a_refresh_token_lasts_until_its_new_access_token_is_used() {
    let server = server().await;
    let session = session(&server).await;
    let token = session.refresh_token.expect("one was wanted");
    let lost = refresh(&server, &token).await.expect("is known");
    let kept = refresh(&server, &token)
        .await
        .expect("nobody used the new pair");
    assert!(!server.lets_in(&lost.access_token).await);
    assert!(matches!(
        refresh(&server, &lost.refresh_token).await,
        Err(RefreshError::Unknown)
    ));
    assert!(server.lets_in(&kept.access_token).await);
    assert!(matches!(
        refresh(&server, &token).await,
        Err(RefreshError::Unknown)
    ));
    assert!(server.lets_in(&kept.access_token).await);
    assert!(refresh(&server, &kept.refresh_token).await.is_ok());
}

#[tokio::test]
async fn a_refresh_token_lasts_until_its_new_refresh_token_is_used() {
    let server = server().await;
    let session = session(&server).await;
    let first = session.refresh_token.expect("one was wanted");
    let second = refresh(&server, &first).await.expect("is known");
    let third = refresh(&server, &second.refresh_token)
        .await
        .expect("is known");
    assert!(matches!(
        refresh(&server, &first).await,
        Err(RefreshError::Unknown)
    ));
    assert!(server.lets_in(&third.access_token).await);
}

#[tokio::test]
async fn an_expired_pair_that_was_never_used_does_not_block_its_predecessor() {
    let server = server().await;
    let session = session(&server).await;
    let first = session.refresh_token.expect("one was wanted");
    let lost = refresh(&server, &first).await.expect("is known");
    server.clock.advance(Duration::from_hours(1));
    assert!(matches!(
        server
            .accounts
            .authenticate(lost.access_token.expose(), None)
            .await,
        Err(AuthenticateError::Expired)
    ));
    assert!(
        refresh(&server, &first).await.is_ok(),
        "expired is not used"
    );
}

#[tokio::test]
async fn refreshing_many_times_at_once_leaves_one_pair() {
    let server = server().await;
    let session = session(&server).await;
    let token = session.refresh_token.expect("one was wanted");
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (accounts, token) = (server.accounts.clone(), token.clone());
            tokio::spawn(async move { accounts.refresh(&token).await })
        })
        .collect();
    let mut pairs = Vec::new();
    for task in tasks {
        pairs.push(
            task.await
                .expect("does not panic")
                .expect("is not used yet"),
        );
    }
    let mut alive = 0;
    for pair in &pairs {
        alive += usize::from(server.lets_in(&pair.access_token).await);
    }
    assert_eq!(alive, 1);
}

#[tokio::test]
async fn a_logout_ends_the_refresh_token_too() {
    let server = server().await;
    let session = session(&server).await;
    let token = session.refresh_token.expect("one was wanted");
    let pair = refresh(&server, &token).await.expect("is known");
    server
        .accounts
        .logout(session.user, &session.device_id)
        .await
        .expect("ends");
    for dead in [&token, &pair.refresh_token] {
        assert!(matches!(
            refresh(&server, dead).await,
            Err(RefreshError::Unknown)
        ));
    }
    assert!(!server.lets_in(&pair.access_token).await);
}

#[tokio::test]
async fn logging_the_device_in_again_ends_the_refresh_token() {
    let server = server().await;
    let session = session(&server).await;
    let token = session.refresh_token.expect("one was wanted");
    server
        .login_with("alice", PASSWORD, device(session.device_id.as_str()))
        .await
        .expect("may log in");
    assert!(matches!(
        refresh(&server, &token).await,
        Err(RefreshError::Unknown)
    ));
}

#[tokio::test]
async fn pairs_outlive_a_restart() {
    let server = server().await;
    let session = session(&server).await;
    let token = session.refresh_token.expect("one was wanted");
    let pair = refresh(&server, &token).await.expect("is known");
    let server = server.restart().await;
    assert!(server.lets_in(&pair.access_token).await);
    assert!(matches!(
        refresh(&server, &token).await,
        Err(RefreshError::Unknown)
    ));
}
