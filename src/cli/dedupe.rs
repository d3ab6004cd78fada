//! `cbin-audit dedupe`: the plan, printed or saved, and with `--apply` carried out.

mod apply;
mod arguments;

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use anyhow::Context as _;
use cbin_audit::model::{ContainerPath, HostPath, Method, Plan, PlanSettings};
use cbin_audit::ops::{self, Limits, PlanError, PlanOptions};
use cbin_audit::render::json::{self, PlanDocument};
use cbin_audit::render::next::{Step, shell_word};
use cbin_audit::render::plan as page;
use cbin_audit::scan;

use super::exit::Exit;
use super::message::{self, Hinted};
use super::progress::Display;
use super::shared::Shared;
use super::{interrupt, terminal};

pub(crate) use arguments::Arguments;

/// Plans, and prints the plan or carries it out.
pub(crate) fn run(shared: &Shared, args: &Arguments) -> anyhow::Result<Exit> {
    // Every root is held open.
    if args.apply {
        let stop = interrupt::stop_flag()?;
        let recovered = apply::recover(args)?;
        let plan = planned(shared, args)?;
        return apply::run(shared, args, &plan, recovered, &stop);
    }
    let plan = planned(shared, args)?;
    let mut out = io::stdout().lock();
    if shared.json {
        json::write(&mut out, &PlanDocument::new(&plan, &scan::host()))?;
    } else {
        page::write(&mut out, &terminal::page(shared, 20), &plan, &next(&plan))?;
    }
    out.flush()?;
    Ok(if plan.notices.complete() { Exit::Done } else { Exit::Partial })
}

/// The plan, and its notices told.
fn planned(shared: &Shared, args: &Arguments) -> anyhow::Result<Plan> {
    let plan = match &args.plan {
        Some(file) => load(file)?,
        None => make(shared, args)?,
    };
    message::notices(&plan.notices, shared);
    Ok(plan)
}

fn make(shared: &Shared, args: &Arguments) -> anyhow::Result<Plan> {
    let progress = Display::new(shared.progress);
    if !args.apply {
        let shown = progress.clone();
        interrupt::on_signal(move || shown.clear())?;
    }
    let found = ops::plan(&options(args)?, &progress);
    progress.clear();
    found.map_err(|error| match error {
        PlanError::NoRoots => {
            let hint = "name a directory that is a container's /, or one that holds several";
            Hinted::new(error, hint).into()
        }
        error => error.into(),
    })
}

fn load(file: &std::path::Path) -> anyhow::Result<Plan> {
    let named = || format!("cannot take the plan {}", message::quoted(file));
    let bytes = std::fs::read(file).with_context(named)?;
    PlanDocument::parse(&bytes).with_context(named)
}

fn options(args: &Arguments) -> anyhow::Result<PlanOptions> {
    let store = std::path::absolute(&args.store).context("--store")?;
    Ok(PlanOptions {
        roots: args.roots.clone(),
        settings: PlanSettings {
            select: args.select.into(),
            method: args.method.into(),
            store: HostPath(store),
            store_format: args.store_format.into(),
            mount_point: ContainerPath(args.mount_point.clone()),
            applets: args.applets.into(),
            live: args.live,
            include_setid: args.include_setid,
            trust_domain: args.trust_domain.clone(),
        },
        mounts: args.mounts.means(),
        limits: Limits::default(),
        journal: args.journal.clone(),
    })
}

/// The same command once more, with `--apply`.
fn next(plan: &Plan) -> Vec<Step> {
    if plan.steps.is_empty() {
        return Vec::new();
    }
    let mut words = vec!["cbin-audit".to_owned()];
    for argument in std::env::args_os().skip(1) {
        words.push(shell_word(argument.as_bytes()));
        if argument == "dedupe" && !words.iter().any(|word| word == "--apply") {
            words.push("--apply".to_owned());
        }
    }
    let why = match plan.settings.method {
        Method::Reflink => "carries it out: blocks are shared, and no entry changes",
        Method::Symlink | Method::Hardlink => "carries it out; cbin-audit undo takes it back",
    };
    vec![Step { command: words.join(" "), why }]
}
