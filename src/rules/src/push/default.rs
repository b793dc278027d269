//! The server's rules. Spec: client-server API, "Predefined Rules" (as of v1.17, which removed those that looked for
//! mentions in the body).

use serde_json::{Value, json};

use super::{Kind, Rule, Ruleset};

/// The rule that turns everything off. It stands above all others, the user's included.
pub(super) const MASTER: &str = ".m.rule.master";

impl Ruleset {
    /// The rules that the server gives a new user.
    pub fn server_default(user_id: &str) -> Self {
        let notify = || json!("notify");
        let sound = |value: &str| json!({ "set_tweak": "sound", "value": value });
        let highlight = || json!({ "set_tweak": "highlight" });
        let event_match = |key: &str, pattern: &str| json!({ "kind": "event_match", "key": key, "pattern": pattern });
        let of_type = |event_type: &str| event_match("type", event_type);
        let two_members = || json!({ "kind": "room_member_count", "is": "2" });

        let master = Rule {
            enabled: false,
            ..rule(MASTER, &[], &[])
        };
        let override_ = vec![
            master,
            rule(
                ".m.rule.suppress_notices",
                &[event_match("content.msgtype", "m.notice")],
                &[],
            ),
            rule(
                ".m.rule.invite_for_me",
                &[
                    of_type("m.room.member"),
                    event_match("content.membership", "invite"),
                    event_match("state_key", user_id),
                ],
                &[notify(), sound("default")],
            ),
            rule(".m.rule.member_event", &[of_type("m.room.member")], &[]),
            rule(
                ".m.rule.is_user_mention",
                &[json!({
                    "kind": "event_property_contains",
                    "key": r"content.m\.mentions.user_ids",
                    "value": user_id,
                })],
                &[notify(), sound("default"), highlight()],
            ),
            rule(
                ".m.rule.is_room_mention",
                &[
                    json!({
                        "kind": "event_property_is",
                        "key": r"content.m\.mentions.room",
                        "value": true,
                    }),
                    json!({ "kind": "sender_notification_permission", "key": "room" }),
                ],
                &[notify(), highlight()],
            ),
            rule(
                ".m.rule.tombstone",
                &[of_type("m.room.tombstone"), event_match("state_key", "")],
                &[notify(), highlight()],
            ),
            rule(".m.rule.reaction", &[of_type("m.reaction")], &[]),
            rule(
                ".m.rule.room.server_acl",
                &[of_type("m.room.server_acl"), event_match("state_key", "")],
                &[],
            ),
            rule(
                ".m.rule.suppress_edits",
                &[json!({
                    "kind": "event_property_is",
                    "key": r"content.m\.relates_to.rel_type",
                    "value": "m.replace",
                })],
                &[],
            ),
        ];
        let underride = vec![
            rule(
                ".m.rule.call",
                &[of_type("m.call.invite")],
                &[notify(), sound("ring")],
            ),
            rule(
                ".m.rule.encrypted_room_one_to_one",
                &[two_members(), of_type("m.room.encrypted")],
                &[notify(), sound("default")],
            ),
            rule(
                ".m.rule.room_one_to_one",
                &[two_members(), of_type("m.room.message")],
                &[notify(), sound("default")],
            ),
            rule(".m.rule.message", &[of_type("m.room.message")], &[notify()]),
            rule(
                ".m.rule.encrypted",
                &[of_type("m.room.encrypted")],
                &[notify()],
            ),
        ];
        Self {
            override_,
            underride,
            ..Self::default()
        }
    }

    /// Brings stored rules up to the server's present defaults: rules that are gone go, new ones come, conditions are
    /// the present ones; what the user may set on them (`enabled`, `actions`) stays. For use after reading stored
    /// rules.
    pub fn refresh_defaults(&mut self, user_id: &str) {
        let mut fresh = Self::server_default(user_id);
        for kind in Kind::ALL {
            let stored = std::mem::take(self.of_kind_mut(kind));
            let defaults = std::mem::take(fresh.of_kind_mut(kind));
            let (mut above, mut below) = (Vec::new(), Vec::new());
            for mut rule in defaults {
                let known = stored
                    .iter()
                    .find(|known| known.default && known.rule_id == rule.rule_id);
                if let Some(known) = known {
                    rule.enabled = known.enabled;
                    rule.actions.clone_from(&known.actions);
                }
                let side = if rule.rule_id == MASTER {
                    &mut above
                } else {
                    &mut below
                };
                side.push(rule);
            }
            let users = stored.into_iter().filter(|rule| !rule.default);
            let rules = self.of_kind_mut(kind);
            rules.extend(above.into_iter().chain(users).chain(below));
        }
    }
}

/// A rule of the server's.
fn rule(rule_id: &str, conditions: &[Value], actions: &[Value]) -> Rule {
    let rule = json!({
        "rule_id": rule_id,
        "default": true,
        "enabled": true,
        "conditions": conditions,
        "actions": actions,
    });
    serde_json::from_value(rule).expect("the server's rules have the form of rules")
}
