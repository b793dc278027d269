//! Tests of the rules through their public interface; `ruma` is the oracle where it knows an answer.

mod authorisation;
mod authorisation_oracle;
mod canonical_json;
mod events;
mod hostile;
mod push_rules;
mod redaction;
mod resolution;
mod resolution_network;
mod signatures;
mod support;
