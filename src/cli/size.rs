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

use cbin_audit::model::{Bytes, Host, SizeEvent, SizeFault, SizedObject};
use cbin_audit::render::json::{self, SizeDocument};
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
    let host = scan::host();
    let facts = request.segments || request.json;
    let wanted = Wanted {
        names: request.style.format == Format::SysV || request.json,
        common: request.style.common,
        segments: facts.then_some(host.page_size),
        target: request.target,
    };
    if request.json {
        return document(request, wanted, &host, output);
    }
    let segments = request.segments.then_some(host.page_size);
    let listing = Listing::new(request.style);
    let mut run = Run { listing, segments, output, status: 0, ended: false };
    for_each_event(request, wanted, &mut |event| run.show(event))?;
    if segments.is_none() && !run.ended {
        run.listing.finish(&mut run.output.text);
    }
    Ok(run.status)
}

/// All that was found as one JSON document.
fn document(request: &Request, wanted: Wanted, host: &Host, output: &mut Output) -> io::Result<u8> {
    let mut events = Vec::new();
    for_each_event(request, wanted, &mut |event| {
        events.push(event.clone());
        Ok(())
    })?;
    let document = SizeDocument::new(&events, host, request.style.format.rule());
    json::write(&mut output.text, &document)?;
    let mut faults = events.iter().filter_map(|event| match event {
        SizeEvent::Failed(_, fault) => Some(fault.status()),
        SizeEvent::Object(_) => None,
    });
    Ok(faults.next_back().unwrap_or(0))
}

/// Measures the operands and shows what is found, in their order.
fn for_each_event(
    request: &Request,
    wanted: Wanted,
    show: &mut dyn FnMut(&SizeEvent) -> io::Result<()>,
) -> io::Result<()> {
    if request.threads > 1 {
        return in_parallel(request, wanted, show);
    }
    for operand in &request.operands {
        let mut result = Ok(());
        measure(operand, wanted, &mut |event| {
            if result.is_ok() {
                result = show(&event);
            }
        });
        result?;
    }
    Ok(())
}

fn in_parallel(
    request: &Request,
    wanted: Wanted,
    show: &mut dyn FnMut(&SizeEvent) -> io::Result<()>,
) -> io::Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(request.threads).build();
    let pool = pool.map_err(io::Error::other)?;
    for operands in request.operands.chunks(TURN) {
        let events: Vec<Vec<SizeEvent>> = pool
            .install(|| operands.par_iter().map(|operand| events_of(operand, wanted)).collect());
        events.iter().flatten().try_for_each(&mut *show)?;
    }
    Ok(())
}

fn events_of(operand: &[u8], wanted: Wanted) -> Vec<SizeEvent> {
    let mut events = Vec::new();
    measure(operand, wanted, &mut |event| events.push(event));
    events
}

/// One run over all operands. The status is the last one, not the worst.
struct Run<'o> {
    listing: Listing,
    /// Segments are shown instead, in pages of this size.
    segments: Option<Bytes>,
    output: &'o mut Output,
    status: u8,
    /// An operand ended the run.
    ended: bool,
}

impl Run<'_> {
    fn show(&mut self, event: &SizeEvent) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        match event {
            SizeEvent::Object(object) => self.object(object)?,
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

    fn object(&mut self, object: &SizedObject) -> io::Result<()> {
        let oddities = text::oddities(object);
        if !oddities.is_empty() {
            self.output.say(&oddities)?;
        }
        match self.segments {
            Some(page_size) => text::segments(object, page_size, &mut self.output.text),
            None => self.listing.object(object, &mut self.output.text),
        }
        Ok(())
    }
}
