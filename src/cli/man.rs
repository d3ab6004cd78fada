//! `cbin-audit man [COMMAND]`: the manual pages.

use std::io::Write;

use anyhow::Context;
use clap::{Args, CommandFactory};

use super::args::Cli;
use super::exit::Exit;

/// The command's own arguments.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Print the page of this command (default: the page of cbin-audit itself)
    command: Option<String>,
}

/// Prints the page, as roff source, on standard output.
pub(crate) fn run(arguments: &Man) -> anyhow::Result<Exit> {
    std::io::stdout().write_all(&page(arguments.command.as_deref())?)?;
    Ok(Exit::Done)
}

fn page(name: Option<&str>) -> anyhow::Result<Vec<u8>> {
    let mut cli = Cli::command();
    // Lets each command know the options that all share, and its full name.
    cli.build();
    let command = match name {
        None => cli,
        Some(name) => cli
            .find_subcommand(name)
            .with_context(|| format!("there is no command {name}"))?
            .clone(),
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).manual("cbin-audit").render(&mut page)?;
    Ok(page)
}
