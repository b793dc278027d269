//! The program `myelin`.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// For RocksDB too, which calls `malloc`. The C library's allocator keeps an arena a thread and hardly gives anything
/// back: a thousand registrations, each hashing in 19 MiB, left a gigabyte behind.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    myelin_homeserver::main()
}
