//! Profiles.

use myelin_accounts::ProfileError;
use serde_json::{Value, json};

use crate::harness::server;

#[tokio::test]
async fn fields_are_set_read_and_removed() {
    let server = server().await;
    let user = server.register("alice").await.user;
    let accounts = &server.accounts;
    let set = |key: &'static str, value: Value| accounts.set_profile_field(user, key, value);

    let shown = set("displayname", json!("Alice")).await.expect("is legal");
    assert_eq!(shown.expect("rooms show it").display_name(), Some("Alice"));
    let again = set("displayname", json!("Alice")).await.expect("is legal");
    assert_eq!(again, None, "nothing changed");
    let avatar = json!("mxc://example.com/SEsfnsuifSDFSSEF");
    let shown = set("avatar_url", avatar.clone()).await.expect("is legal");
    let shown = shown.expect("rooms show it");
    assert_eq!(shown.display_name(), Some("Alice"));
    assert_eq!(shown.avatar_url(), avatar.as_str());
    let custom = set("com.example.pronouns", json!(["she"])).await;
    assert_eq!(custom.expect("is legal"), None, "rooms do not show it");

    let profile = accounts.profile(&accounts.view(), user).expect("is read");
    assert_eq!(
        Value::Object(profile.fields),
        json!({
            "displayname": "Alice",
            "avatar_url": "mxc://example.com/SEsfnsuifSDFSSEF",
            "com.example.pronouns": ["she"],
        })
    );

    for _ in 0..2 {
        accounts
            .delete_profile_field(user, "com.example.pronouns")
            .await
            .expect("is gone or goes");
    }
    let shown = set("displayname", json!("")).await.expect("is legal");
    assert_eq!(shown.expect("rooms show it").display_name(), None);
    let shown = accounts.delete_profile_field(user, "avatar_url").await;
    assert!(
        shown
            .expect("is there")
            .expect("rooms show it")
            .fields
            .is_empty()
    );
}

#[tokio::test]
async fn what_a_field_cannot_be_is_refused() {
    let server = server().await;
    let user = server.register("alice").await.user;
    let accounts = &server.accounts;
    for (key, value) in [
        ("displayname", json!(null)),
        ("displayname", json!(5)),
        ("displayname", json!("x".repeat(257))),
        (
            "avatar_url",
            json!(format!("mxc://example.com/{}", "x".repeat(1000))),
        ),
        ("avatar_url", json!({})),
        ("m.tz", json!(1)),
    ] {
        assert!(matches!(
            accounts.set_profile_field(user, key, value).await,
            Err(ProfileError::InvalidValue(_))
        ));
    }
    assert!(matches!(
        accounts.set_profile_field(user, "Nope", json!(1)).await,
        Err(ProfileError::InvalidKey)
    ));
    assert!(matches!(
        accounts.delete_profile_field(user, "Nope").await,
        Err(ProfileError::InvalidKey)
    ));
    assert!(matches!(
        accounts
            .set_profile_field(myelin_types::UserNum(99), "a.b", json!(1))
            .await,
        Err(ProfileError::NoAccount)
    ));
}

#[tokio::test]
async fn a_profile_stays_below_its_limit_whatever_happens_at_once() {
    let server = server().await;
    let user = server.register("alice").await.user;
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let accounts = server.accounts.clone();
            tokio::spawn(async move {
                let value = json!("x".repeat(20_000));
                accounts
                    .set_profile_field(user, &format!("org.example.f{number}"), value)
                    .await
            })
        })
        .collect();
    let mut refused = 0;
    for task in tasks {
        match task.await.expect("does not panic") {
            Ok(_) => {}
            Err(ProfileError::TooLarge) => refused += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(refused, 5, "three of 20 kB fit into 64 KiB");
    let profile = server.accounts.profile(&server.accounts.view(), user);
    assert_eq!(profile.expect("is read").fields.len(), 3);
}
