//! The program `myelin`.

use std::process::ExitCode;

fn main() -> ExitCode {
    myelin_homeserver::main()
}
