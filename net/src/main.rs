//! The `swarmseal` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    swarmseal::cli::main()
}
