//! The trees against a `BTreeMap`, what they cost, and what they make of damaged nodes.

mod chains;
mod corruption;
mod cost;
mod model;
mod support;
