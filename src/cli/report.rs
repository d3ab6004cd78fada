//! `cbin-audit report`: the audit, in the form that was asked for.

mod arguments;
mod cache;

use std::io::Write;

use clap::CommandFactory as _;

use cbin_audit::model::{Bytes, Host, Report};
use cbin_audit::ops::{AuditError, AuditOptions, Limits, audit};
use cbin_audit::render::json::ReportDocument;
use cbin_audit::render::next::{self, Asked};
use cbin_audit::render::{Page, html, json, openmetrics, report as page, sort};
use cbin_audit::scan;

use super::args::Cli;
use super::exit::Exit;
use super::message::{self, Hinted};
use super::output::{Leftover, Output};
use super::progress::Display;
use super::shared::Shared;
use super::{interrupt, terminal};
use arguments::Format;

pub(crate) use arguments::{Arguments, Select};

/// Rows of a table, unless the user says otherwise.
const TOP: usize = 20;

/// Audits, and writes the answer.
pub(crate) fn run(shared: &Shared, args: &Arguments) -> anyhow::Result<Exit> {
    let output = Output::open(args.output.as_deref())?;
    let progress = Display::new(shared.progress);
    let mut kept = args.cache.open()?;
    let (shown, leftovers) = (progress.clone(), [output.leftover(), kept.leftover()]);
    interrupt::on_signal(move || {
        shown.clear();
        leftovers.iter().for_each(Leftover::remove);
    })?;
    let found = audit(&options(args), &mut kept.cache, &progress);
    progress.clear();
    let mut report = found.map_err(hinted)?;
    report.notices.extend(kept.notice());
    sort(&mut report, args.sort.into());
    message::notices(&report.notices, shared);
    let host = scan::host();
    output.write(|out| render(out, shared, args, &report, &host))?;
    kept.write()?;
    let exit = exit(args, &report);
    // The process ends sooner than all of it is taken apart.
    rayon::spawn(|| drop(report));
    Ok(exit)
}

fn options(args: &Arguments) -> AuditOptions {
    AuditOptions {
        roots: args.roots.clone(),
        select: args.select.into(),
        trees: !args.no_trees,
        memory: !args.no_memory,
        limits: Limits { max_entries: args.max_entries, max_file_size: Bytes(args.max_file_size) },
    }
}

fn hinted(error: AuditError) -> anyhow::Error {
    match error {
        AuditError::NoRoots => {
            let hint = "name a directory that is a container's /, or one that holds several";
            Hinted::new(error, hint).into()
        }
        error => error.into(),
    }
}

fn render(
    out: &mut dyn Write,
    shared: &Shared,
    args: &Arguments,
    report: &Report,
    host: &Host,
) -> std::io::Result<()> {
    let top = args.top.map(|top| if top == 0 { usize::MAX } else { top });
    match args.format(shared) {
        // A program asked, and gets everything unless it says otherwise.
        Format::Json => {
            json::write(out, &ReportDocument::new(report, host).top(top.unwrap_or(usize::MAX)))
        }
        Format::Html => html::write(out, report, host, top.unwrap_or(TOP)),
        Format::Openmetrics => openmetrics::write(out, report, host, top.unwrap_or(TOP)),
        Format::Table => {
            let to_file = args.output.is_some();
            let page = Page {
                width: if to_file { 100 } else { terminal::width() },
                color: terminal::color(shared.color, to_file),
                verbose: shared.verbose,
                top: top.unwrap_or(TOP),
            };
            let dedupe = Cli::command().find_subcommand("dedupe").is_some();
            let asked = Asked { roots: &args.roots, verbose: shared.verbose, dedupe };
            page::write(out, &page, report, host, &next::steps(report, &asked))
        }
    }
}

/// What `--check` found counts more than what could not be looked at: like
/// grep(1), which says "found" even when a file could not be read.
fn exit(args: &Arguments, report: &Report) -> Exit {
    if args.check && could_be_shared(report) {
        Exit::Found
    } else if report.notices.complete() {
        Exit::Done
    } else {
        Exit::Partial
    }
}

fn could_be_shared(report: &Report) -> bool {
    let totals = &report.totals;
    [totals.wasted_disk, totals.wasted_trees, totals.wasted_memory]
        .iter()
        .any(|&sum| sum > Bytes(0))
}
