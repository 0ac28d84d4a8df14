//! `completions`: shell completion scripts.

use clap_complete::Shell;

use super::Failure;

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
pub(super) fn run(args: Args) -> Result<(), Failure> {
    clap_complete::generate(args.shell, &mut super::command(), "swarmseal", &mut std::io::stdout());
    Ok(())
}
