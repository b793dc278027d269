//! See `myelin_federation::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| myelin_federation::fuzzing::transaction(bytes));
