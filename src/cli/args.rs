//! What the command line may say.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::completions::Completions;
use super::exit::Exit;
use super::man::Man;
use super::report::Arguments as Report;

/// Finds the programs that container roots hold twice, on disk and in memory.
#[derive(Debug, Parser)]
#[command(name = "cbin-audit", version, max_term_width = 100, propagate_version = true)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) shared: Shared,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command has.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Shared options")]
pub(crate) struct Shared {
    /// Print one JSON document on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Colour the output (NO_COLOR is respected)
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: When,
    /// Show progress on standard error
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) progress: When,
    /// Print no notices
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print every notice, also those that leave the answer complete
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Use N threads (default: one per core)
    #[arg(short = 'j', long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
}

/// When to do what depends on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal
    Auto,
    /// Also into a pipe or file
    Always,
    /// Not at all
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show which programs and trees container roots hold twice, and what sharing would save
    Report(Report),
    Memory(super::memory::Arguments),
    /// Print the completions of a shell
    Completions(Completions),
    /// Print a manual page
    Man(Man),
}

/// Prints what clap has to say: help on standard output, a refusal on standard error.
pub(crate) fn refuse(error: &clap::Error) -> ExitCode {
    let text = error.render();
    if error.use_stderr() {
        // Nothing is left to be told to anybody when standard error is gone.
        let _gone = write!(std::io::stderr(), "{text}");
        Exit::Usage.into()
    } else {
        match write!(std::io::stdout(), "{text}") {
            Ok(()) => Exit::Done.into(),
            Err(error) => super::message::report(&error.into()).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_options_do_not_contradict_each_other() {
        super::Cli::command().debug_assert();
    }
}
