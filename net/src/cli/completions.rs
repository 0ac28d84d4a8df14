//! `completions`: shell completion scripts.

use clap_complete::Shell;

use super::{Failure, Output};

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  swarmseal completions bash > ~/.local/share/bash-completion/completions/swarmseal"
)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub(super) fn run(args: Args, output: Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "swarmseal", &mut script);
    output.text(&String::from_utf8_lossy(&script));
    Ok(())
}
