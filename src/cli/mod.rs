//! One file per command, and what they share.

mod args;
mod completions;
mod exit;
mod interrupt;
mod man;
mod memory;
mod message;
mod output;
mod progress;
mod report;
mod size;
mod terminal;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use args::{Cli, Command};
use exit::Exit;

/// Runs the command that `argv` names.
pub(crate) fn run(argv: impl Iterator<Item = OsString>) -> ExitCode {
    let argv: Vec<OsString> = argv.collect();
    if argv.get(1).is_some_and(|command| command == "size") {
        return size::run(argv.into_iter().skip(2));
    }
    let cli = match Cli::try_parse_from(&argv) {
        Ok(cli) => cli,
        Err(error) => return args::refuse(&error),
    };
    match dispatch(&cli) {
        Ok(exit) => exit.into(),
        Err(error) => message::report(&error).into(),
    }
}

fn dispatch(cli: &Cli) -> anyhow::Result<Exit> {
    if let Some(threads) = cli.shared.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into());
        pool.build_global().context("cannot start threads")?;
    }
    match &cli.command {
        Command::Memory(arguments) => memory::run(arguments, &cli.shared),
        Command::Completions(arguments) => completions::run(arguments),
        Command::Man(arguments) => man::run(arguments),
        Command::Report(arguments) => report::run(&cli.shared, arguments),
    }
}
