//! Push rules, which are account data of type `m.push_rules`. Spec: client-server API, "Push Rules: API".
//!
//! Stored is a ruleset as a whole; the server's own rules in it are brought up to date when it is read, so that a newer
//! program has its newer rules without a migration.

use std::sync::Arc;

use myelin_data::{
    RawJson,
    accounts::{AccountData, DatedJson},
};
use myelin_rules::push::{Kind, NewRule, Placement, RuleError, Ruleset};
use myelin_store::{StoreError, View};
use myelin_types::{Pos, RoomNum, UserNum};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Accounts, Failure, account_data::PUSH_RULES};

/// How many rules of his own a user may have, so that nobody makes every event expensive for us.
const MAX_RULES: usize = 1000;

/// Why a push rule was not changed.
#[derive(Debug, thiserror::Error)]
pub enum PushRuleError {
    /// The change is one that the rules forbid.
    #[error(transparent)]
    Refused(#[from] RuleError),
    /// The user has a thousand rules. (`M_RESOURCE_LIMIT_EXCEEDED`)
    #[error("there are too many push rules")]
    TooMany,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(PushRuleError);

/// The content of `m.push_rules`.
#[derive(Serialize, Deserialize)]
struct Content<R> {
    global: R,
}

impl Accounts {
    /// The push rules of `user`, his own and the server's.
    pub fn push_rules(&self, view: &View, user: UserNum) -> Result<Arc<Ruleset>, StoreError> {
        let row = view.get::<AccountData>(&key(user))?;
        let pos = row.as_ref().map_or(Pos::ZERO, |row| row.pos);
        if let Some(rules) = self.0.rulesets.get(&(user, pos)) {
            return Ok(rules);
        }
        let user_id = self.0.interner.user_id(view, user)?;
        let stored = row.as_ref().map(|row| &row.json);
        let rules = Arc::new(decode(stored, user_id.as_str()));
        self.0.rulesets.insert((user, pos), Arc::clone(&rules));
        Ok(rules)
    }

    /// Where the push rules of `user` were last changed; [`Pos::ZERO`] if they never were.
    pub fn push_rules_pos(&self, view: &View, user: UserNum) -> Result<Pos, StoreError> {
        let row = view.get::<AccountData>(&key(user))?;
        Ok(row.map_or(Pos::ZERO, |row: DatedJson| row.pos))
    }

    /// The content of the `m.push_rules` of `user`.
    pub(crate) fn push_rules_content(
        &self,
        view: &View,
        user: UserNum,
    ) -> Result<RawJson, StoreError> {
        let rules = self.push_rules(view, user)?;
        Ok(RawJson::of(&Content { global: &*rules })
            .expect("a ruleset has no maps but JSON's own, so it can be written as JSON"))
    }

    /// Adds or replaces a rule of the user.
    pub async fn put_push_rule(
        &self,
        user: UserNum,
        kind: Kind,
        rule_id: &str,
        rule: NewRule,
        before: Option<&str>,
        after: Option<&str>,
    ) -> Result<(), PushRuleError> {
        let rule_id = rule_id.to_owned();
        let (before, after) = (before.map(str::to_owned), after.map(str::to_owned));
        self.change_push_rules(user, move |rules| {
            if rules.get(kind, &rule_id).is_none() && own_rules(rules) >= MAX_RULES {
                return Err(PushRuleError::TooMany);
            }
            let placement = Placement {
                before: before.as_deref(),
                after: after.as_deref(),
            };
            rules.put(kind, &rule_id, rule.clone(), placement)?;
            Ok(())
        })
        .await
    }

    /// Deletes a rule of the user.
    pub async fn delete_push_rule(
        &self,
        user: UserNum,
        kind: Kind,
        rule_id: &str,
    ) -> Result<(), PushRuleError> {
        let rule_id = rule_id.to_owned();
        self.change_push_rules(user, move |rules| Ok(rules.delete(kind, &rule_id)?))
            .await
    }

    /// Enables or disables a rule, also one of the server's.
    pub async fn set_push_rule_enabled(
        &self,
        user: UserNum,
        kind: Kind,
        rule_id: &str,
        enabled: bool,
    ) -> Result<(), PushRuleError> {
        let rule_id = rule_id.to_owned();
        self.change_push_rules(user, move |rules| {
            Ok(rules.set_enabled(kind, &rule_id, enabled)?)
        })
        .await
    }

    /// Sets the actions of a rule, also of one of the server's.
    pub async fn set_push_rule_actions(
        &self,
        user: UserNum,
        kind: Kind,
        rule_id: &str,
        actions: Vec<Value>,
    ) -> Result<(), PushRuleError> {
        let rule_id = rule_id.to_owned();
        self.change_push_rules(user, move |rules| {
            Ok(rules.set_actions(kind, &rule_id, &actions)?)
        })
        .await
    }

    async fn change_push_rules(
        &self,
        user: UserNum,
        change: impl Fn(&mut Ruleset) -> Result<(), PushRuleError> + Send + Sync + 'static,
    ) -> Result<(), PushRuleError> {
        let interner = self.0.interner.clone();
        let user_id = self
            .0
            .store
            .read(move |view| interner.user_id(view, user))
            .await?;
        self.replace_account_data(user, RoomNum::NONE, PUSH_RULES, move |stored| {
            let mut rules = decode(stored, user_id.as_str());
            let before = rules.clone();
            change(&mut rules)?;
            if rules == before {
                return Ok(None);
            }
            let content = RawJson::of(&Content { global: rules }).map_err(Failure::from)?;
            Ok(Some(content))
        })
        .await
    }
}

fn key(user: UserNum) -> (UserNum, RoomNum, String) {
    (user, RoomNum::NONE, PUSH_RULES.to_owned())
}

/// A stored ruleset with the server's present rules; those alone if nothing is stored.
fn decode(stored: Option<&RawJson>, user_id: &str) -> Ruleset {
    let stored =
        stored.and_then(|stored| serde_json::from_str::<Content<Ruleset>>(stored.get()).ok());
    match stored {
        Some(Content { global: mut rules }) => {
            rules.refresh_defaults(user_id);
            rules
        }
        None => Ruleset::server_default(user_id),
    }
}

fn own_rules(rules: &Ruleset) -> usize {
    Kind::ALL
        .into_iter()
        .flat_map(|kind| rules.of_kind(kind))
        .filter(|rule| !rule.default)
        .count()
}
