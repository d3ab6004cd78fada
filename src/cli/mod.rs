//! One file per command, and what they share.

mod args;
mod change;
mod completions;
mod dedupe;
mod doctor;
mod exit;
mod gc;
mod history;
mod interrupt;
mod man;
mod memory;
mod message;
mod output;
mod progress;
mod recover;
mod report;
mod shared;
mod size;
mod terminal;
mod undo;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context as _;
use cbin_audit::scan;
use clap::Parser;

use args::{Cli, Command};
use shared::Shared;

/// Runs the command that `argv` names.
pub(crate) fn run(argv: impl Iterator<Item = OsString>) -> ExitCode {
    let argv: Vec<OsString> = argv.collect();
    // Its options are read the binutils' way: clap would understand some of them otherwise.
    if argv.get(1).is_some_and(|command| command == "size") {
        return size::run(argv.into_iter().skip(2));
    }
    let cli = match Cli::try_parse_from(&argv) {
        Ok(cli) => cli,
        Err(error) => return args::refuse(&error),
    };
    match dispatch(&cli) {
        Ok(code) => code,
        Err(error) => message::report(&error).into(),
    }
}

fn dispatch(cli: &Cli) -> anyhow::Result<ExitCode> {
    scan::prepare_for_threads();
    if let Some(threads) = cli.shared.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into());
        pool.build_global().context("cannot start threads")?;
    }
    let exit = match &cli.command {
        Command::Report(arguments) => report::run(&cli.shared, arguments),
        Command::Undo(arguments) => undo::run(&cli.shared, arguments),
        Command::Recover(arguments) => recover::run(&cli.shared, arguments),
        Command::History(arguments) => history::run(&cli.shared, arguments),
        Command::Gc(arguments) => gc::run(&cli.shared, arguments),
        Command::Memory(arguments) => memory::run(arguments, &cli.shared),
        Command::Dedupe(arguments) => dedupe::run(&cli.shared, arguments),
        Command::Doctor(arguments) => doctor::run(&cli.shared, arguments),
        Command::Verify(arguments) => verify::run(&cli.shared, arguments),
        Command::Size(size) => return Ok(size::run(sized(&cli.shared, size))),
        Command::Completions(arguments) => completions::run(arguments),
        Command::Man(arguments) => man::run(arguments),
    };
    exit.map(ExitCode::from)
}

/// The arguments of a `size` that shared options stand before.
fn sized(shared: &Shared, size: &args::Size) -> impl Iterator<Item = OsString> {
    let json = shared.json.then(|| OsString::from("--json"));
    json.into_iter().chain(size.arguments.clone())
}
