//! Benches of the rules.
fn main() {}
