//! `cbin-audit completions SHELL`: what a shell completes.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::args::Cli;
use super::exit::Exit;

/// The command's own arguments.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell that will read it
    shell: Shell,
}

/// Prints the script on standard output.
pub(crate) fn run(arguments: &Completions) -> anyhow::Result<Exit> {
    // The generator panics when its writer fails, and a pipe may be closed.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "cbin-audit", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(Exit::Done)
}
