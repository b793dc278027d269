//! Devices and logouts.

use std::{net::IpAddr, time::Duration};

use myelin_accounts::DeviceError;
use myelin_data::accounts::{DeviceTokens, Transaction, Transactions};
use myelin_store::{Batch, Scan};
use ruma::device_id;

use crate::harness::{PASSWORD, device, server};

#[tokio::test]
async fn devices_are_listed_named_and_deleted() {
    let server = server().await;
    let phone = server.session_of("alice").await;
    let laptop = server
        .login_with("alice", PASSWORD, device("LAPTOP"))
        .await
        .expect("may log in");
    let accounts = &server.accounts;
    let user = phone.user;
    let devices = accounts.devices(&accounts.view(), user).expect("are read");
    assert_eq!(devices.len(), 2);

    accounts
        .set_device_name(user, &laptop.device_id, Some("new name".to_owned()))
        .await
        .expect("is there");
    let renamed = accounts
        .device(&accounts.view(), user, &laptop.device_id)
        .expect("is read")
        .expect("is there");
    assert_eq!(renamed.display_name.as_deref(), Some("new name"));
    accounts
        .set_device_name(user, &laptop.device_id, None)
        .await
        .expect("nothing to do");

    let unknown = device_id!("unknown");
    assert!(matches!(
        accounts
            .set_device_name(user, unknown, Some("x".to_owned()))
            .await,
        Err(DeviceError::NotFound)
    ));
    assert!(matches!(
        accounts
            .set_device_name(user, &laptop.device_id, Some("x".repeat(256)))
            .await,
        Err(DeviceError::NameTooLong)
    ));
    assert!(
        accounts
            .device(&accounts.view(), user, unknown)
            .expect("is read")
            .is_none()
    );

    for _ in 0..2 {
        accounts
            .delete_devices(user, vec![laptop.device_id.clone(), unknown.to_owned()])
            .await
            .expect("what is gone is no error");
        assert!(!server.lets_in(&laptop.access_token).await);
        assert!(server.lets_in(&phone.access_token).await);
    }
}

#[tokio::test]
async fn nothing_of_a_deleted_device_is_left() {
    let server = server().await;
    let phone = server.session_of("alice").await;
    let mut batch = Batch::new();
    let key = |device: &str| {
        (
            phone.user,
            device.to_owned(),
            "PUT /send".to_owned(),
            "1".to_owned(),
        )
    };
    let made = Transaction {
        at: myelin_types::Millis(1),
        event: None,
        event_id: Some("$event".to_owned()),
    };
    batch.put::<Transactions>(&key(phone.device_id.as_str()), &made);
    batch.put::<Transactions>(&key("OTHER"), &made);
    server.store.commit(batch).await.expect("is written");
    server
        .accounts
        .logout(phone.user, &phone.device_id)
        .await
        .expect("ends");
    let view = server.store.view();
    let gone = key(phone.device_id.as_str());
    assert!(!view.contains::<Transactions>(&gone).expect("is read"));
    assert!(
        view.contains::<Transactions>(&key("OTHER"))
            .expect("is read")
    );
    assert_eq!(view.keys::<DeviceTokens>(Scan::all()).count(), 0);
}

#[tokio::test]
async fn all_sessions_of_one_user_end_at_once() {
    let server = server().await;
    let phone = server.session_of("alice").await;
    let laptop = server.login("alice", PASSWORD).await.expect("may log in");
    let bob = server.session_of("bob").await;
    for token in [&phone.access_token, &laptop.access_token] {
        assert!(server.lets_in(token).await);
    }
    let ended = server.accounts.logout_all(phone.user).await.expect("end");
    assert_eq!(ended.len(), 2);
    for token in [&phone.access_token, &laptop.access_token] {
        assert!(!server.lets_in(token).await);
    }
    assert!(server.lets_in(&bob.access_token).await);
    let ended = server.accounts.logout_all(phone.user).await.expect("end");
    assert!(ended.is_empty());
}

#[tokio::test]
async fn when_a_device_was_seen_is_kept_now_and_then() {
    let server = server().await;
    let session = server.session_of("alice").await;
    let accounts = &server.accounts;
    let ip: IpAddr = "192.0.2.7".parse().expect("is an address");
    let token = session.access_token.expose();
    let written = || server.store.counters().batches;

    accounts
        .authenticate(token, Some(ip))
        .await
        .expect("lets in");
    // A later commit is answered after an earlier one.
    server.store.commit(Batch::new()).await.expect("is written");
    let before = written();
    for _ in 0..10 {
        accounts
            .authenticate(token, Some(ip))
            .await
            .expect("lets in");
    }
    server.store.commit(Batch::new()).await.expect("is written");
    assert_eq!(written(), before + 1, "only our own");

    server.clock.advance(Duration::from_mins(6));
    accounts.authenticate(token, None).await.expect("lets in");
    server.store.commit(Batch::new()).await.expect("is written");
    let seen = accounts
        .device(&accounts.view(), session.user, &session.device_id)
        .expect("is read")
        .expect("is there");
    assert_eq!(seen.last_seen_ip.as_deref(), Some("192.0.2.7"));
    assert_eq!(
        seen.last_seen_at,
        Some(myelin_types::Millis(1_700_000_000_000).after(Duration::from_mins(6)))
    );
}
