//! `cbin-audit size`: the binutils' `size`, and more.
//!
//! Its options are theirs, and so is the way they are read: this command does
//! not share the argument parser of the others.

mod arguments;
mod output;
mod response;

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use rayon::prelude::*;

use cbin_audit::model::{SizeEvent, SizeFault};
use cbin_audit::render::size::{self as text, Format, Listing};
use cbin_audit::scan;
use cbin_audit::scan::objfile::{Wanted, measure};

use arguments::{Arguments, Request};
use output::Output;

/// Operands that one turn of all threads takes.
const TURN: usize = 1024;

const USAGE: &str = "\
Usage: cbin-audit size [OPTION]... [FILE]...
Shows how large the sections of object files and archives are. FILE is a.out if none is given.

  -A, -B, -G, --format=sysv|berkeley|gnu
                    list every section, or sum them up (default: berkeley)
  -o, -d, -x, --radix=8|10|16
                    the base of numbers (default: 10)
  -t, --totals      end with the sums over all objects (berkeley, gnu)
      --common      count common symbols too
      --target=NAME binary: take FILE for data, whatever it holds
  -f                is accepted, and means nothing
      --json        print one JSON document
      --segments    show what is mapped, in pages, and how the object is linked
  -j, --threads=N   read N files at a time (default: 1)
  @FILE             read options and operands from FILE
      --help        show this text
  -v, --version     show the version
";

/// Runs `size` with the arguments that follow its name.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut output = Output::default();
    let status = match run_with(arguments, &mut output) {
        Ok(status) => output.flush().map(|()| status),
        Err(error) => Err(error),
    };
    ExitCode::from(status.unwrap_or_else(|error| output::status_of(&error)))
}

fn run_with(arguments: impl Iterator<Item = OsString>, output: &mut Output) -> io::Result<u8> {
    let arguments = arguments.map(OsString::into_vec).collect();
    let arguments = match response::expand(arguments) {
        Ok(arguments) => arguments,
        Err(message) => {
            output.say(format!("size: {message}\n").as_bytes())?;
            return Ok(1);
        }
    };
    let posix = std::env::var_os("POSIXLY_CORRECT").is_some();
    match arguments::parse(arguments, posix) {
        Arguments::Measure(request) => measure_all(&request, output),
        Arguments::Help => {
            output.text.extend_from_slice(USAGE.as_bytes());
            Ok(0)
        }
        Arguments::Version => {
            let version = concat!("size (cbin-audit) ", env!("CARGO_PKG_VERSION"), "\n");
            output.text.extend_from_slice(version.as_bytes());
            Ok(0)
        }
        Arguments::Refused(message) => refuse(&message, output),
    }
}

fn refuse(message: &[u8], output: &mut Output) -> io::Result<u8> {
    if !message.is_empty() {
        output.say(&[b"size: ", message, b"\n"].concat())?;
    }
    output.say(USAGE.as_bytes())?;
    Ok(1)
}

fn measure_all(request: &Request, output: &mut Output) -> io::Result<u8> {
    let wanted = Wanted {
        names: request.style.format == Format::SysV || request.json,
        common: request.style.common,
        segments: request.segments.then(|| scan::host().page_size),
        target: request.target,
    };
    let mut run = Run { listing: Listing::new(request.style), output, status: 0, ended: false };
    if request.threads == 1 {
        run.one_by_one(&request.operands, wanted)?;
    } else {
        run.in_parallel(&request.operands, wanted, request.threads)?;
    }
    if !run.ended {
        run.listing.finish(&mut run.output.text);
    }
    Ok(run.status)
}

/// One run over all operands. The status is the last one, not the worst.
struct Run<'o> {
    listing: Listing,
    output: &'o mut Output,
    status: u8,
    /// An operand ended the run.
    ended: bool,
}

impl Run<'_> {
    fn one_by_one(&mut self, operands: &[Vec<u8>], wanted: Wanted) -> io::Result<()> {
        for operand in operands {
            let mut result = Ok(());
            measure(operand, wanted, &mut |event| {
                if result.is_ok() {
                    result = self.show(&event);
                }
            });
            result?;
        }
        Ok(())
    }

    /// Many operands at a time; they are shown in their order.
    fn in_parallel(
        &mut self,
        operands: &[Vec<u8>],
        wanted: Wanted,
        threads: usize,
    ) -> io::Result<()> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(io::Error::other)?;
        for operands in operands.chunks(TURN) {
            let events: Vec<Vec<SizeEvent>> = pool.install(|| {
                operands.par_iter().map(|operand| events_of(operand, wanted)).collect()
            });
            for event in events.iter().flatten() {
                self.show(event)?;
            }
        }
        Ok(())
    }

    fn show(&mut self, event: &SizeEvent) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        match event {
            SizeEvent::Object(object) => {
                for oddity in &object.sizes.oddities {
                    self.output.say(&text::oddity(object, oddity))?;
                }
                self.listing.object(object, &mut self.output.text);
            }
            SizeEvent::Failed(name, fault) => {
                let message = text::fault(name, fault);
                if !message.is_empty() {
                    self.output.say(&message)?;
                }
                self.status = fault.status();
                self.ended = *fault == SizeFault::TruncatedSymbols;
            }
        }
        self.output.settle()
    }
}

fn events_of(operand: &[u8], wanted: Wanted) -> Vec<SizeEvent> {
    let mut events = Vec::new();
    measure(operand, wanted, &mut |event| events.push(event));
    events
}
