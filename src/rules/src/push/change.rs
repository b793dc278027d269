//! Changes to rules. Spec: client-server API, `PUT` and `DELETE /pushrules/global/{kind}/{ruleId}` and below.

use serde::Deserialize;
use serde_json::Value;

use super::{Action, Condition, Kind, Rule, Ruleset, default::MASTER, glob};

/// Where a new or changed rule goes among the user's rules of its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placement<'a> {
    /// Directly above this rule. Wins over `after`.
    pub before: Option<&'a str>,
    /// Directly below this rule.
    pub after: Option<&'a str>,
}

/// Why a change to the rules is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The kind is none of the five.
    #[error("unknown kind of push rule")]
    UnknownKind,
    /// The rule's identifier is empty, or holds `/` or `\`.
    #[error("push rule ID is empty or has illegal characters")]
    InvalidId,
    /// Identifiers with a leading dot, and rules that have one, are the server's.
    #[error("push rule IDs with a leading dot are the server's")]
    ServerDefault,
    /// There is no such rule.
    #[error("push rule not found")]
    NotFound,
    /// The rule in `before` or `after` is not there, or is the server's.
    #[error("before/after rule not found: {0}")]
    NoSuchNeighbour(String),
    /// A `content` rule needs a pattern.
    #[error("content rules need a pattern")]
    MissingPattern,
    /// A pattern is longer than 512 characters.
    #[error("pattern is too long")]
    PatternTooLong,
    /// An action is none of the spec's.
    #[error("invalid push action")]
    InvalidAction,
    /// A condition is not an object with a `kind`.
    #[error("invalid push condition")]
    InvalidCondition,
}

/// A rule as a client sends it to `PUT /pushrules/global/{kind}/{ruleId}`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct NewRule {
    /// See [`Rule::actions`].
    pub actions: Vec<Value>,
    /// See [`Rule::conditions`]. Ignored for kinds that have none.
    #[serde(default)]
    pub conditions: Vec<Value>,
    /// See [`Rule::pattern`]. Ignored for kinds that have none.
    #[serde(default)]
    pub pattern: Option<String>,
}

impl Ruleset {
    /// Adds a rule of the user, enabled, or changes the one of this kind and ID.
    ///
    /// Without a placement a new rule becomes the most important of the user's, and a changed one stays where it is.
    pub fn put(
        &mut self,
        kind: Kind,
        rule_id: &str,
        rule: NewRule,
        placement: Placement<'_>,
    ) -> Result<(), RuleError> {
        if rule_id.starts_with('.') {
            return Err(RuleError::ServerDefault);
        }
        if rule_id.is_empty() || rule_id.contains(['/', '\\']) {
            return Err(RuleError::InvalidId);
        }
        let mut new = Rule {
            rule_id: rule_id.to_owned(),
            default: false,
            enabled: true,
            actions: read_actions(&rule.actions)?,
            conditions: None,
            pattern: None,
        };
        match kind {
            Kind::Override | Kind::Underride => {
                new.conditions = Some(read_conditions(&rule.conditions)?);
            }
            Kind::Content => {
                let pattern = rule.pattern.ok_or(RuleError::MissingPattern)?;
                check_pattern(&pattern)?;
                new.pattern = Some(pattern);
            }
            Kind::Room | Kind::Sender => {}
        }

        let rules = self.of_kind_mut(kind);
        let present = rules.iter().position(|rule| rule.rule_id == rule_id);
        // Looked up before anything is changed, so that a refusal leaves the rules as they were.
        let neighbour = placement.before.or(placement.after);
        if let Some(id) = neighbour {
            let known = rules.iter().any(|rule| rule.rule_id == id && !rule.default);
            if !known || id == rule_id {
                return Err(RuleError::NoSuchNeighbour(id.to_owned()));
            }
        }
        if let Some(at) = present {
            new.enabled = rules.remove(at).enabled;
        }
        let place_of = |id: &str| rules.iter().position(|rule| rule.rule_id == id);
        let at = if let Some(at) = placement.before.and_then(place_of) {
            at
        } else if let Some(at) = placement.after.and_then(place_of) {
            at + 1
        } else if let Some(at) = present {
            at
        } else {
            // Only the master switch stands above the user's rules.
            usize::from(rules.first().is_some_and(|first| first.rule_id == MASTER))
        };
        rules.insert(at, new);
        Ok(())
    }

    /// Deletes a rule of the user.
    pub fn delete(&mut self, kind: Kind, rule_id: &str) -> Result<(), RuleError> {
        let rules = self.of_kind_mut(kind);
        let at = rules.iter().position(|rule| rule.rule_id == rule_id);
        let at = at.ok_or(RuleError::NotFound)?;
        if rules[at].default {
            return Err(RuleError::ServerDefault);
        }
        rules.remove(at);
        Ok(())
    }

    /// Enables or disables a rule, also one of the server's.
    pub fn set_enabled(
        &mut self,
        kind: Kind,
        rule_id: &str,
        enabled: bool,
    ) -> Result<(), RuleError> {
        self.get_mut(kind, rule_id)?.enabled = enabled;
        Ok(())
    }

    /// Sets the actions of a rule, also one of the server's.
    pub fn set_actions(
        &mut self,
        kind: Kind,
        rule_id: &str,
        actions: &[Value],
    ) -> Result<(), RuleError> {
        let actions = read_actions(actions)?;
        self.get_mut(kind, rule_id)?.actions = actions;
        Ok(())
    }

    fn get_mut(&mut self, kind: Kind, rule_id: &str) -> Result<&mut Rule, RuleError> {
        let mut rules = self.of_kind_mut(kind).iter_mut();
        rules
            .find(|rule| rule.rule_id == rule_id)
            .ok_or(RuleError::NotFound)
    }
}

fn read_actions(actions: &[Value]) -> Result<Vec<Action>, RuleError> {
    actions.iter().map(Action::from_value).collect()
}

fn read_conditions(conditions: &[Value]) -> Result<Vec<Condition>, RuleError> {
    let conditions: Vec<_> = conditions
        .iter()
        .map(Condition::from_value)
        .collect::<Result<_, _>>()?;
    for condition in &conditions {
        if let Condition::EventMatch { pattern, .. } = condition {
            check_pattern(pattern)?;
        }
    }
    Ok(conditions)
}

fn check_pattern(pattern: &str) -> Result<(), RuleError> {
    if pattern.chars().count() > glob::MAX_PATTERN {
        return Err(RuleError::PatternTooLong);
    }
    Ok(())
}
