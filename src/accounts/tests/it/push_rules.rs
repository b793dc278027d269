//! Push rules.

use myelin_accounts::PushRuleError;
use myelin_rules::push::{Kind, NewRule, RuleError};
use myelin_types::{Pos, RoomNum};
use serde_json::{Value, json};

use crate::harness::{Server, server};

fn rule(actions: &Value) -> NewRule {
    serde_json::from_value(json!({"actions": actions})).expect("is a rule")
}

fn rules(server: &Server, user: myelin_types::UserNum) -> Value {
    let view = server.accounts.view();
    let content = server
        .accounts
        .account_data(&view, user, RoomNum::NONE, "m.push_rules")
        .expect("is read")
        .expect("everybody has them");
    serde_json::from_str(content.get()).expect("is JSON")
}

#[tokio::test]
async fn rules_are_added_changed_and_deleted() {
    let server = server().await;
    let user = server.register("alice").await.user;
    let accounts = &server.accounts;
    let room = "!foo:example.com";
    let start = accounts.view().pos();
    assert_eq!(
        accounts
            .push_rules_pos(&accounts.view(), user)
            .expect("is read"),
        Pos::ZERO
    );
    accounts
        .put_push_rule(user, Kind::Room, room, rule(&json!(["notify"])), None, None)
        .await
        .expect("is legal");
    let added = rules(&server, user);
    assert_eq!(added["global"]["room"][0]["rule_id"], room);
    assert_eq!(added["global"]["room"][0]["actions"], json!(["notify"]));
    assert_eq!(added["global"]["room"][0]["enabled"], true);
    let changes = accounts
        .account_data_since(&accounts.view(), user, start)
        .expect("are read");
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].kind, "m.push_rules");

    accounts
        .set_push_rule_enabled(user, Kind::Room, room, false)
        .await
        .expect("is there");
    accounts
        .set_push_rule_actions(user, Kind::Room, room, Vec::new())
        .await
        .expect("is there");
    let changed = rules(&server, user);
    assert_eq!(changed["global"]["room"][0]["enabled"], false);
    assert_eq!(changed["global"]["room"][0]["actions"], json!([]));
    let before = accounts.view().pos();
    accounts
        .set_push_rule_enabled(user, Kind::Room, room, false)
        .await
        .expect("is there");
    assert_eq!(accounts.view().pos(), before, "nothing changed");

    let decoded = accounts
        .push_rules(&accounts.view(), user)
        .expect("are read");
    assert!(
        decoded
            .get(Kind::Room, room)
            .is_some_and(|rule| !rule.enabled)
    );

    accounts
        .delete_push_rule(user, Kind::Room, room)
        .await
        .expect("is there");
    assert!(matches!(
        accounts.delete_push_rule(user, Kind::Room, room).await,
        Err(PushRuleError::Refused(RuleError::NotFound))
    ));
}

#[tokio::test]
async fn the_servers_rules_are_switched_but_not_deleted_and_survive_a_restart() {
    let server = server().await;
    let user = server.register("alice").await.user;
    server
        .accounts
        .set_push_rule_enabled(user, Kind::Override, ".m.rule.master", true)
        .await
        .expect("is there");
    assert!(matches!(
        server
            .accounts
            .delete_push_rule(user, Kind::Override, ".m.rule.master")
            .await,
        Err(PushRuleError::Refused(RuleError::ServerDefault))
    ));
    let server = server.restart().await;
    let view = server.accounts.view();
    let decoded = server.accounts.push_rules(&view, user).expect("are read");
    let master = decoded.get(Kind::Override, ".m.rule.master");
    assert!(master.is_some_and(|rule| rule.enabled && rule.default));
}

#[tokio::test]
async fn historical_actions_are_given_back_as_they_came() {
    let server = server().await;
    let user = server.register("alice").await.user;
    server
        .accounts
        .put_push_rule(
            user,
            Kind::Sender,
            "@alice:hs1",
            rule(&json!(["dont_notify"])),
            None,
            None,
        )
        .await
        .expect("is legal");
    for _ in 0..2 {
        let rules = rules(&server, user);
        assert_eq!(rules["global"]["sender"][0]["actions"][0], "dont_notify");
    }
}

#[tokio::test]
async fn rules_added_at_once_are_all_kept() {
    let server = server().await;
    let user = server.register("alice").await.user;
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let accounts = server.accounts.clone();
            tokio::spawn(async move {
                let id = format!("@user{number}:hs1");
                accounts
                    .put_push_rule(user, Kind::Sender, &id, rule(&json!([])), None, None)
                    .await
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("does not panic").expect("is legal");
    }
    let rules = rules(&server, user);
    assert_eq!(rules["global"]["sender"].as_array().map(Vec::len), Some(8));
}
