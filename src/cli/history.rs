//! `cbin-audit history`.

use cbin_audit::model::RunSummary;
use cbin_audit::ops;
use cbin_audit::render::escape::{escape, escape_controls};
use cbin_audit::render::json::HistoryDocument;
use cbin_audit::scan;

use super::change::{self, JournalAt};
use super::exit::Exit;
use super::shared::Shared;

/// List the runs of dedupe, and what stands of them
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    journal: JournalAt,
}

pub(crate) fn run(shared: &Shared, arguments: &Arguments) -> anyhow::Result<Exit> {
    let runs = ops::history(&arguments.journal.dir).map_err(change::hinted)?;
    let host = scan::host();
    let document = HistoryDocument::new(&runs, &host);
    change::print(shared.json, &document, || match runs.as_slice() {
        [] => "no run yet\n".to_owned(),
        runs => runs.iter().map(line).collect(),
    })?;
    let damaged = runs.iter().any(|run| run.damage.is_some());
    Ok(if damaged { Exit::Damaged } else { Exit::Done })
}

fn line(run: &RunSummary) -> String {
    let Some(state) = run.state else {
        let damage = run.damage.as_deref().unwrap_or_default();
        return format!("run {}: {}\n", run.run, escape_controls(damage));
    };
    format!(
        "run {}: {} at {}; {} of {} entries stand, {} were put back; {} roots; store {}\n",
        run.run,
        change::words(state),
        time(run.time_seconds),
        run.standing,
        run.steps,
        run.undone,
        run.roots.len(),
        escape(run.store.as_bytes()),
    )
}

/// `2026-11-24 04:12 UTC`: days since the epoch to a date as the Gregorian calendar has it.
fn time(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Counted in 400 years from the 1st of March of year 0, so that leap days come last.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let civil = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(civil <= 2);
    format!("{year:04}-{civil:02}-{of_month:02} {:02}:{:02} UTC", rest / 3600, rest % 3600 / 60)
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_dates() {
        assert_eq!(super::time(0), "1970-01-01 00:00 UTC");
        assert_eq!(super::time(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(super::time(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(super::time(1_795_493_520), "2026-11-24 04:12 UTC");
    }
}
