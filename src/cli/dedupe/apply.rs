//! `--apply`: the plan is carried out, and what came of it is told.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::bail;
use cbin_audit::model::{Action, Applied, Method, Plan, Recovered, RootId, RunId, RunState};
use cbin_audit::ops::{self, ApplyOptions};
use cbin_audit::render::escape::{escape, escape_controls};
use cbin_audit::render::human;
use cbin_audit::render::json::AppliedDocument;
use cbin_audit::scan;

use super::Arguments;
use crate::cli::change;
use crate::cli::exit::Exit;
use crate::cli::progress::Display;
use crate::cli::shared::Shared;

/// Ends what was cut off before, so that the plan is made of what then is.
pub(super) fn recover(args: &Arguments) -> anyhow::Result<Vec<Recovered>> {
    ops::recover(&args.journal).map_err(change::hinted)
}

/// Carries the plan out.
pub(super) fn run(
    shared: &Shared,
    args: &Arguments,
    plan: &Plan,
    recovered: Vec<Recovered>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Exit> {
    if stop.load(Ordering::Relaxed) {
        bail!("stopped before anything was changed");
    }
    let progress = Display::new(shared.progress);
    let options = ApplyOptions { journal: &args.journal, host: Path::new("/"), stop };
    let applied = ops::apply(plan, options, &progress);
    progress.clear();
    let mut applied = applied.map_err(change::hinted)?;
    applied.recovered.splice(0..0, recovered);
    let host = scan::host();
    let document = AppliedDocument::new(plan, &applied, &host);
    change::print(shared.json, &document, || text(plan, &applied))?;
    let complete = applied.state == RunState::Applied && plan.notices.complete();
    Ok(if complete { Exit::Done } else { Exit::Partial })
}

fn text(plan: &Plan, applied: &Applied) -> String {
    let mut text = change::recovered(&applied.recovered);
    let Some(run) = applied.run else {
        text.push_str("nothing to do: nothing was changed\n");
        return text;
    };
    text.push_str(&outcome(plan.settings.method, run, applied));
    text.push_str(&memory(plan, applied));
    text.push_str(&restarts(plan, applied));
    if !applied.left.is_empty() {
        let left = applied.left.len() as u64;
        text.push_str(&human::plural(left, "step was", "steps were"));
        text.push_str(" not carried out:\n");
        text.push_str(&change::left(&applied.left));
    }
    for advice in &applied.advice {
        text.push_str(&format!("note: {}\n", escape_controls(advice)));
    }
    text
}

fn outcome(method: Method, run: RunId, applied: &Applied) -> String {
    let state = change::words(applied.state);
    if method == Method::Reflink {
        let files = human::plural(applied.changed, "file shares its", "files share their");
        return format!(
            "run {run} is {state}: {files} blocks with another; no entry was changed, so there is nothing to undo\n\
             disk: {} of blocks of their own are gone\n",
            human::size(applied.freed)
        );
    }
    let entries = human::plural(applied.changed, "entry", "entries");
    format!(
        "run {run} is {state}: {entries} changed; cbin-audit undo {run} puts it back\n\
         disk: {} of old copies are gone, {} are new in the store\n",
        human::size(applied.freed),
        human::size(applied.stored),
    )
}

/// How the containers are started anew that still run something of before.
fn restarts(plan: &Plan, applied: &Applied) -> String {
    let pending: BTreeSet<RootId> = applied.pending_restart.iter().map(|it| it.root).collect();
    let commands = plan.steps.iter().filter_map(|step| match &step.action {
        Action::Mount(mount) if pending.contains(&step.root) => mount.restart.as_deref(),
        _ => None,
    });
    commands.map(|command| format!("restart: {}\n", escape_controls(command))).collect()
}

/// No saving is claimed that has not come yet.
fn memory(plan: &Plan, applied: &Applied) -> String {
    const MOST: usize = 20;
    let expected = human::size(plan.saves.memory);
    let pending = &applied.pending_restart;
    if pending.is_empty() && plan.saves.memory.0 == 0 {
        return String::new();
    }
    if pending.is_empty() {
        return format!("memory: {expected} less from the next start of the containers on\n");
    }
    let mut text = format!(
        "memory: {expected} less once these have been restarted ({} of the old files):\n",
        human::plural(pending.len() as u64, "process", "processes")
    );
    for process in pending.iter().take(MOST) {
        let (comm, path) = (escape(process.comm.as_bytes()), escape(process.path.as_bytes()));
        text.push_str(&format!("  {} {comm}: {path}\n", process.pid));
    }
    if pending.len() > MOST {
        text.push_str(&format!("  {} more: --json names them\n", pending.len() - MOST));
    }
    text
}
