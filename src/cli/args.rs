//! What the command line may say.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use super::completions::Completions;
use super::exit::Exit;
use super::man::Man;
use super::report::Arguments as Report;
use super::shared::Shared;

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

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show which programs and trees container roots hold twice, and what sharing would save
    Report(Report),
    /// Show which text pages are shared, private and held twice, by program, container, process
    Memory(super::memory::Arguments),
    /// Show how what is held twice becomes one, and with --apply make it so
    Dedupe(super::dedupe::Arguments),
    /// Show what this host and each container allow, why not, and what would change it
    Doctor(super::doctor::Arguments),
    /// Put back what a run of dedupe changed
    Undo(super::undo::Arguments),
    /// Bring a run to an end that was cut off
    Recover(super::recover::Arguments),
    /// List the runs of dedupe, and what stands of them
    History(super::history::Arguments),
    /// Remove objects from the store that no run needs
    Gc(super::gc::Arguments),
    /// Check that what runs changed still stands: store, links, mounts, pages in memory
    Verify(super::verify::Arguments),
    /// Print section sizes, byte for byte as the binutils' size does
    #[command(disable_help_flag = true)]
    Size(Size),
    /// Print the completions of a shell
    Completions(Completions),
    /// Print a manual page
    Man(Man),
}

/// What `size` is given. It reads its options itself, as the binutils do: see
/// `cbin-audit size --help`.
#[derive(Debug, Args)]
pub(crate) struct Size {
    /// Options of the binutils' size, --json, --segments, and object files or archives
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION|FILE")]
    pub(crate) arguments: Vec<OsString>,
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
