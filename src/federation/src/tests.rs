//! Requests to another server, and requests of one.

use std::sync::atomic::Ordering;

use myelin_config::Federation as Settings;
use myelin_data::federation::{OwnOldKeys, ServerKeys};
use myelin_rooms::remote::{Fetch, FetchError, MissingEvents, WantedKey};
use myelin_rules::{Object, Signer, SigningKey, sign};
use myelin_types::{Clock, Millis};
use ruma::{OwnedServerName, event_id, room_id};
use serde_json::{Value, json};

use crate::{
    AuthError, KeyError,
    auth::Signed,
    testing::{Here, NOW, Other, key_document, our_name, our_signer},
};

const REQUEST: Signed<'static> = Signed {
    method: "GET",
    uri: "/_matrix/federation/v1/make_join/!a:here.example/@b:localhost?ver=11",
    content: None,
};

fn wanted(other: &Other, key_id: &str, valid_at: Millis) -> Vec<WantedKey> {
    vec![WantedKey {
        server: other.name.clone(),
        key_id: key_id.to_owned(),
        valid_at,
    }]
}

#[tokio::test]
async fn our_own_keys_are_signed_and_last() {
    let here = Here::new().await;
    let federation = here.federation(&Settings::default());
    let document = federation.own_keys();
    let keys = [(
        "ed25519:here".to_owned(),
        our_signer().key().public_key_bytes(),
    )];
    assert_eq!(
        sign::verify_json(&document, our_name().as_str(), &keys.into()),
        Ok(())
    );
    assert_eq!(document["valid_until_ts"], NOW.0 + 7 * 86_400_000);
    here.clock.advance(std::time::Duration::from_hours(2));
    let later = here.clock.now().0 + 7 * 86_400_000;
    assert_eq!(federation.own_keys()["valid_until_ts"], later);
}

#[tokio::test]
async fn a_signed_request_is_believed() {
    let (here, other) = (Here::new().await, Other::start().await);
    let federation = here.federation(&other.settings());
    let authorization = other.sign(REQUEST);
    for _ in 0..2 {
        let origin = federation.authenticate(REQUEST, &authorization).await;
        assert_eq!(origin.expect("it is signed"), other.name);
    }
    assert_eq!(other.asked(), 1, "keys are remembered");
    let kept = here.store.view().get::<ServerKeys>(&other.name.to_string());
    assert!(kept.expect("the store reads").is_some());

    other.silent.store(true, Ordering::SeqCst);
    let restarted = here.federation(&other.settings());
    let origin = restarted.authenticate(REQUEST, &authorization).await;
    assert_eq!(origin.expect("its keys are in the store"), other.name);
    assert_eq!(other.asked(), 1);
}

#[tokio::test]
async fn what_is_not_signed_for_us_is_not_believed() {
    let (here, other) = (Here::new().await, Other::start().await);
    let federation = here.federation(&other.settings());
    let good = other.sign(REQUEST);

    let mut elsewhere = good.clone();
    elsewhere.destination = Some(other.name.clone());
    let refused = federation.authenticate(REQUEST, &elsewhere).await;
    assert!(matches!(refused, Err(AuthError::Destination)));

    let mut ourselves = good.clone();
    ourselves.origin = our_name();
    let refused = federation.authenticate(REQUEST, &ourselves).await;
    assert!(matches!(refused, Err(AuthError::Ourselves)));

    let changed = Signed {
        method: "PUT",
        ..REQUEST
    };
    let refused = federation.authenticate(changed, &good).await;
    assert!(matches!(refused, Err(AuthError::Signature)));

    let mut other_key = good;
    other_key.key = "ed25519:other".to_owned();
    for _ in 0..3 {
        let refused = federation.authenticate(REQUEST, &other_key).await;
        assert!(matches!(refused, Err(AuthError::Key(KeyError::Unknown))));
    }
    assert_eq!(
        other.asked(),
        1,
        "strangers cannot have us ask all the time"
    );
    here.clock.advance(std::time::Duration::from_secs(11));
    federation
        .authenticate(REQUEST, &other_key)
        .await
        .expect_err("still unknown");
    assert_eq!(other.asked(), 2, "but new keys are found");
}

#[tokio::test]
async fn an_expired_key_signs_no_request() {
    let (here, other) = (Here::new().await, Other::start().await);
    *other.keys.lock() = key_document(&other.signer, NOW.0 - 1, json!({}));
    let federation = here.federation(&other.settings());
    let refused = federation.authenticate(REQUEST, &other.sign(REQUEST)).await;
    assert!(matches!(refused, Err(AuthError::Key(KeyError::Unknown))));
}

#[tokio::test]
async fn a_server_without_an_answer_is_left_alone_for_a_while() {
    let (here, other) = (Here::new().await, Other::start().await);
    let federation = here.federation(&other.settings());
    other.silent.store(true, Ordering::SeqCst);
    let authorization = other.sign(REQUEST);
    let refused = federation.authenticate(REQUEST, &authorization).await;
    assert!(matches!(refused, Err(AuthError::Key(KeyError::Request(_)))));
    let refused = federation.authenticate(REQUEST, &authorization).await;
    assert!(matches!(refused, Err(AuthError::Key(KeyError::Resting))));
    assert_eq!(other.asked(), 1);
    other.silent.store(false, Ordering::SeqCst);
    here.clock.advance(std::time::Duration::from_secs(6));
    let believed = federation.authenticate(REQUEST, &authorization).await;
    assert!(believed.is_ok());
}

#[tokio::test]
async fn documents_that_are_not_the_servers_own_are_no_keys() {
    let (here, other) = (Here::new().await, Other::start().await);
    let federation = here.federation(&other.settings());
    let forged = |change: &dyn Fn(&mut myelin_rules::Object)| {
        let mut document = key_document(&other.signer, NOW.0 + 1_000_000, json!({}));
        change(&mut document);
        document
    };
    let documents = [
        forged(&|document| {
            document.remove("signatures");
        }),
        forged(&|document| {
            document.insert("valid_until_ts".to_owned(), json!(NOW.0 + 2_000_000));
        }),
        forged(&|document| {
            document.insert("server_name".to_owned(), json!("third.example"));
        }),
        forged(&|document| {
            document.remove("valid_until_ts");
        }),
    ];
    for document in documents {
        *other.keys.lock() = document;
        let refused = federation.authenticate(REQUEST, &other.sign(REQUEST)).await;
        assert!(
            matches!(refused, Err(AuthError::Key(KeyError::Malformed(_)))),
            "{refused:?}"
        );
        here.clock.advance(std::time::Duration::from_hours(1));
    }
}

#[tokio::test]
async fn keys_of_events_come_with_the_time_for_which_they_count() {
    let (here, other) = (Here::new().await, Other::start().await);
    let federation = here.federation(&other.settings());
    let old = json!({
        "ed25519:old": { "key": our_signer().key().public_key(), "expired_ts": 5 },
        "ed25519:bad": { "key": "AAAA", "expired_ts": 5 },
    });
    *other.keys.lock() = key_document(&other.signer, u64::from(u32::MAX) << 20, old);
    let keys = federation.keys(&wanted(&other, "ed25519:there", NOW)).await;
    let keys = &keys[other.name.as_str()];
    assert_eq!(keys.len(), 2);
    assert_eq!(
        keys["ed25519:there"].key,
        other.signer.key().public_key_bytes()
    );
    let seven_days = Millis(NOW.0 + 7 * 86_400_000);
    assert_eq!(keys["ed25519:there"].valid_until, Some(seven_days));
    assert_eq!(keys["ed25519:old"].expired, Some(Millis(5)));
    assert_eq!(keys["ed25519:old"].valid_until, None);

    federation
        .keys(&wanted(&other, "ed25519:old", Millis(1)))
        .await;
    assert_eq!(other.asked(), 1);
    here.clock.advance(std::time::Duration::from_secs(11));
    federation
        .keys(&wanted(&other, "ed25519:there", Millis(seven_days.0 + 1)))
        .await;
    assert_eq!(
        other.asked(),
        2,
        "a key that ended too early is asked for again"
    );
}

#[tokio::test]
async fn keys_that_cannot_be_had_are_left_out() {
    let (here, other) = (Here::new().await, Other::start().await);
    let federation = here.federation(&other.settings());
    other.silent.store(true, Ordering::SeqCst);
    let mut all = wanted(&other, "ed25519:there", NOW);
    all.push(WantedKey {
        server: our_name(),
        key_id: "ed25519:here".to_owned(),
        valid_at: NOW,
    });
    let keys = federation.keys(&all).await;
    assert!(keys[other.name.as_str()].is_empty());
    assert!(keys[our_name().as_str()].contains_key("ed25519:here"));
}

#[tokio::test]
async fn keys_of_servers_that_are_gone_are_forgotten() {
    let (here, other) = (Here::new().await, Other::start().await);
    let federation = here.federation(&other.settings());
    federation.keys(&wanted(&other, "ed25519:there", NOW)).await;
    let kept = || {
        let row = here.store.view().get::<ServerKeys>(&other.name.to_string());
        row.expect("the store reads").is_some()
    };
    federation.tidy().await.expect("the store works");
    assert!(kept());
    here.clock
        .advance(std::time::Duration::from_hours(24 * 366));
    federation.tidy().await.expect("the store works");
    assert!(!kept());
}

#[tokio::test]
async fn requests_are_signed_and_their_answers_read() {
    let (here, other) = (Here::new().await, Other::start().await);
    let federation = here.federation(&other.settings());
    let request = MissingEvents {
        earliest: vec![event_id!("$old").to_owned()],
        latest: vec![event_id!("$new").to_owned()],
        limit: 20,
        min_depth: 3,
    };
    let events = federation
        .missing_events(&other.name, room_id!("!r/1:here.example"), &request)
        .await
        .expect("an answer");
    let event: Value = serde_json::from_str(events[0].get()).expect("JSON");
    assert_eq!(
        event["asked"],
        json!({
            "earliest_events": ["$old"],
            "latest_events": ["$new"],
            "limit": 20,
            "min_depth": 3,
        })
    );

    let refused = federation.event(&other.name, event_id!("$a/+b")).await;
    assert!(
        matches!(&refused, Err(FetchError::Refused { status: 404, errcode }) if errcode == "M_NOT_FOUND"),
        "{refused:?}"
    );
    let malformed = federation
        .state_ids(&other.name, room_id!("!r:here.example"), event_id!("$a+"))
        .await;
    assert!(
        matches!(malformed, Err(FetchError::Malformed(_))),
        "{malformed:?}"
    );
}

#[tokio::test]
async fn servers_without_a_known_authority_or_a_public_address_are_not_spoken_to() {
    let (here, other) = (Here::new().await, Other::start().await);
    let unreachable = async |settings: Settings| {
        let federation = here.federation(&settings);
        let answer = federation.event(&other.name, event_id!("$a")).await;
        assert!(
            matches!(answer, Err(FetchError::Unreachable(_))),
            "{answer:?}"
        );
    };
    unreachable(Settings {
        ca_certificates: Vec::new(),
        ..other.settings()
    })
    .await;
    unreachable(Settings {
        allow_private_addresses: Vec::new(),
        ..other.settings()
    })
    .await;
}

/// The settings with which `other` is asked for the keys of others.
fn with_notary(other: &Other) -> Settings {
    Settings {
        trusted_key_servers: vec![other.name.clone()],
        ..other.settings()
    }
}

/// A server that nobody reaches: its signer, and its keys.
fn gone() -> (Signer, Object) {
    let signer = Signer::new("[::1]:1", SigningKey::from_seed("gone", [3; 32]));
    let document = key_document(&signer, NOW.0 - 1_000_000, json!({}));
    (signer, document)
}

#[tokio::test]
async fn notaries_know_the_keys_of_servers_that_are_gone() {
    let (here, other) = (Here::new().await, Other::start().await);
    let federation = here.federation(&with_notary(&other));
    let (signer, mut document) = gone();
    other
        .signer
        .sign_json(&mut document)
        .expect("it can be signed");
    *other.vouched.lock() = vec![document];
    let name = OwnedServerName::try_from(signer.server_name()).expect("a name");
    let wanted = |valid_at: u64| {
        vec![WantedKey {
            server: name.clone(),
            key_id: signer.key().id().to_owned(),
            valid_at: Millis(valid_at),
        }]
    };
    let found = federation.keys(&wanted(NOW.0 - 2_000_000)).await;
    let key = found[name.as_str()]["ed25519:gone"];
    assert_eq!(key.key, signer.key().public_key_bytes());
    assert_eq!(key.valid_until, Some(Millis(NOW.0 - 1_000_000)));
    let asked = json!({ "server_keys": { name.as_str(): {
        "ed25519:gone": { "minimum_valid_until_ts": NOW.0 - 2_000_000 },
    } } });
    assert_eq!(*other.questions.lock(), [asked]);

    // What is known is not asked for, and what is not had is not asked for again and again.
    federation.keys(&wanted(NOW.0 - 2_000_000)).await;
    federation.keys(&wanted(NOW.0)).await;
    federation.keys(&wanted(NOW.0)).await;
    assert_eq!(other.questions.lock().len(), 1);
    // We vouch for it in turn, although it is gone.
    let vouched = federation
        .notarize([(name.clone(), Vec::new())].into())
        .await;
    let vouched = vouched.expect("it is known");
    let signatures = vouched[0]["signatures"].as_object().expect("an object");
    for by in [name.as_str(), other.name.as_str(), our_name().as_str()] {
        assert!(signatures.contains_key(by), "{by}");
    }
}

#[tokio::test]
async fn a_notary_is_believed_only_with_both_signatures() {
    let (here, other) = (Here::new().await, Other::start().await);
    let federation = here.federation(&with_notary(&other));
    let (signer, document) = gone();
    let mut forged = document.clone();
    forged.insert("valid_until_ts".to_owned(), json!(NOW.0 + 5));
    other
        .signer
        .sign_json(&mut forged)
        .expect("it can be signed");
    *other.vouched.lock() = vec![document, forged];
    let name = OwnedServerName::try_from(signer.server_name()).expect("a name");
    let wanted = WantedKey {
        server: name.clone(),
        key_id: signer.key().id().to_owned(),
        valid_at: Millis(0),
    };
    let found = federation.keys(&[wanted]).await;
    assert_eq!(other.questions.lock().len(), 1);
    assert!(found[name.as_str()].is_empty());
}

#[tokio::test]
async fn many_servers_are_one_question_to_a_notary() {
    let (here, other) = (Here::new().await, Other::start().await);
    let federation = here.federation(&with_notary(&other));
    let mut wanted = Vec::new();
    for port in 1..=20 {
        let name = format!("[::1]:{port}");
        let signer = Signer::new(name.as_str(), SigningKey::from_seed("1", [port; 32]));
        let mut document = key_document(&signer, NOW.0 + 1_000_000, json!({}));
        other
            .signer
            .sign_json(&mut document)
            .expect("it can be signed");
        other.vouched.lock().push(document);
        wanted.push(WantedKey {
            server: OwnedServerName::try_from(name).expect("a name"),
            key_id: "ed25519:1".to_owned(),
            valid_at: NOW,
        });
    }
    let found = federation.keys(&wanted).await;
    assert_eq!(other.questions.lock().len(), 1);
    for key in &wanted {
        assert!(
            found[key.server.as_str()].contains_key("ed25519:1"),
            "{}",
            key.server
        );
    }
}

#[tokio::test]
async fn this_server_vouches_for_what_it_knows_and_asks_within_limits() {
    let (here, other) = (Here::new().await, Other::start().await);
    let federation = here.federation(&other.settings());
    let ask = async |until: Option<u64>| {
        let criterion = (Some("ed25519:there".to_owned()), until.map(Millis));
        let queries = [(other.name.clone(), vec![criterion])].into();
        federation.notarize(queries).await.expect("the store works")
    };
    let keys = ask(None).await;
    assert_eq!(keys.len(), 1);
    assert_eq!(other.asked(), 1);
    let ours = [(
        our_signer().key().id().to_owned(),
        our_signer().key().public_key_bytes(),
    )];
    let signed = sign::verify_json(&keys[0], our_name().as_str(), &ours.into());
    assert_eq!(signed, Ok(()));
    ask(None).await;
    assert_eq!(other.asked(), 1, "it is known");
    // Longer than its keys are said to count: it is asked whether there is news, and not at every question.
    for _ in 0..3 {
        here.clock.advance(std::time::Duration::from_secs(4));
        assert_eq!(ask(Some(NOW.0 + 2_000_000)).await.len(), 1);
    }
    assert_eq!(other.asked(), 2);
    other.silent.store(true, Ordering::SeqCst);
    here.clock.advance(std::time::Duration::from_hours(30));
    assert_eq!(ask(None).await.len(), 1, "what was known last");
    assert_eq!(other.asked(), 3);
    let unknown = [(gone_name(), Vec::new())].into();
    let unknown = federation.notarize(unknown).await.expect("the store works");
    assert!(unknown.is_empty());
}

fn gone_name() -> OwnedServerName {
    OwnedServerName::try_from("[::1]:1").expect("a name")
}

#[tokio::test]
async fn a_replaced_key_is_published_as_an_old_one() {
    let here = Here::new().await;
    let federation = here.federation(&Settings::default());
    let before = federation.own_keys();
    assert_eq!(before["old_verify_keys"], json!({}));
    let new = SigningKey::from_seed("new", [9; 32]);
    let new_key = [("ed25519:new".to_owned(), new.public_key_bytes())];
    federation.replace_key(new).await.expect("the store works");
    let after = federation.own_keys();
    let own = our_name();
    let signed = sign::verify_json(&after, own.as_str(), &new_key.into());
    assert_eq!(signed, Ok(()));
    let old = &after["old_verify_keys"]["ed25519:here"];
    assert_eq!(old["key"], our_signer().key().public_key());
    assert_eq!(old["expired_ts"], NOW.0 + 1000);
    let all = federation
        .keys(&[WantedKey {
            server: our_name(),
            key_id: "ed25519:here".to_owned(),
            valid_at: NOW,
        }])
        .await;
    let old = all[our_name().as_str()]["ed25519:here"];
    assert_eq!(old.expired, Some(Millis(NOW.0 + 1000)));
    let row = here
        .store
        .view()
        .get::<OwnOldKeys>(&"ed25519:here".to_owned());
    assert!(row.expect("the store reads").is_some());
}

#[tokio::test]
async fn each_step_of_reaching_a_server_is_shown() {
    let (here, other) = (Here::new().await, Other::start().await);
    let federation = here.federation(&other.settings());
    let report = federation.check(&other.name).await;
    assert!(report.is_good(), "{report}");
    let shown = report.to_string();
    for part in [
        "the name has a port",
        "TLSv1_3",
        "ed25519:there",
        "we are who we are",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }

    let strict = Settings {
        ca_certificates: Vec::new(),
        ..other.settings()
    };
    let report = here.federation(&strict).check(&other.name).await;
    assert!(!report.is_good());
    assert!(
        report.to_string().contains("issued the certificate"),
        "{report}"
    );
    let guarded = Settings {
        allow_private_addresses: Vec::new(),
        ..other.settings()
    };
    let report = here.federation(&guarded).check(&other.name).await;
    assert!(!report.is_good());
    assert!(
        report.to_string().contains("allow_private_addresses"),
        "{report}"
    );
    other.silent.store(true, Ordering::SeqCst);
    let report = federation.check(&other.name).await;
    assert!(!report.is_good());
    assert!(report.to_string().contains("502"), "{report}");
    let report = federation.check(&gone_name()).await;
    assert!(
        report.to_string().contains("Nobody listens on port 1"),
        "{report}"
    );
    let off = Settings {
        enabled: false,
        ..other.settings()
    };
    let report = here.federation(&off).check(&other.name).await;
    assert!(
        report.to_string().contains("federation.enabled"),
        "{report}"
    );
}
