//! A plan is carried out.

mod mounts;
mod objects;
mod prepare;
mod room;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::batch::{self, Open};
use super::bind;
use super::directories::Directories;
use super::error::ExecError;
use super::journal::Journal;
use super::lock::Lock;
use super::recover;
use super::roots::Roots;
use super::share::Sharer;
use super::store::Store;
use super::surroundings::inside;
use super::work::Checker;
use super::{generations, twin};
use crate::model::{
    Action, Applied, Bytes, Changed, HostPath, Left, Method, ObjectName, Outcome, Phase, Plan,
    Progress, Record, RootId, RootPath, RunState, Step, StoreFormat,
};
use crate::scan::candidate::label;
use prepare::{begin, make_store, open_roots};
use room::Room;

/// How a plan is carried out.
#[derive(Debug, Clone, Copy)]
pub struct ApplyOptions<'a> {
    /// The journal's directory.
    pub journal: &'a Path,
    /// The host's own root directory: where its link to the store is made.
    pub host: &'a Path,
    /// Set when the work shall end after the batch that is under way.
    pub stop: &'a AtomicBool,
}

/// Carries a plan out. `allowed` is asked once nobody else can change what a plan depends
/// on, and before anything is changed.
///
/// # Errors
///
/// When another command is at work, the store or the journal cannot be used, there is
/// no room, or it is not allowed: then nothing was changed. [`ExecError::Stopped`] when it
/// was stopped half way.
pub fn apply(
    plan: &Plan,
    options: ApplyOptions<'_>,
    progress: &dyn Progress,
    allowed: &dyn Fn() -> Result<(), ExecError>,
) -> Result<Applied, ExecError> {
    let makes_hardlinks = |step: &Step| matches!(step.action, Action::Hardlink { .. });
    if plan.settings.trust_domain.is_none() && plan.steps.iter().any(makes_hardlinks) {
        return Err(ExecError::NoDomain);
    }
    let open = Open::new(batch::most_held(plan.roots.len()));
    let mut lock = Lock::take(options.journal)?;
    let recovered = recover::recover_all(&lock)?;
    if plan.steps.is_empty() {
        return Ok(Applied { recovered, ..nothing() });
    }
    allowed()?;
    let store = make_store(plan, &mut lock)?;
    let mut left = Vec::new();
    let roots = open_roots(plan, &mut left);
    let (journal, host) = (lock.journal.as_path(), options.host);
    Room { plan, store: store.as_ref(), roots: &roots, journal, host }.check()?;
    let journal = begin(plan, &lock)?;
    let directories = Directories::default();
    let run = Applying {
        plan,
        options,
        store,
        roots,
        open,
        journal,
        directories,
        done: nothing(),
        dead: left,
    };
    let applied = run.run(&lock.journal, progress)?;
    Ok(Applied { recovered, ..applied })
}

fn nothing() -> Applied {
    Applied {
        run: None,
        state: RunState::Applied,
        changed: 0,
        left: Vec::new(),
        advice: Vec::new(),
        pending_restart: Vec::new(),
        freed: Bytes(0),
        stored: Bytes(0),
        recovered: Vec::new(),
    }
}

/// Seconds since the epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A run under way.
struct Applying<'a> {
    plan: &'a Plan,
    options: ApplyOptions<'a>,
    /// `None` where no step needs one.
    store: Option<Store>,
    roots: Roots,
    /// Files that batches hold.
    open: Open,
    journal: Journal,
    directories: Directories,
    done: Applied,
    /// Roots whose entries cannot be changed, and why.
    dead: Vec<(RootId, String)>,
}

impl<'a> Applying<'a> {
    fn run(mut self, journal: &Path, progress: &dyn Progress) -> Result<Applied, ExecError> {
        self.done.run = Some(self.journal.run);
        let carried = self.carry_out(progress);
        let directories = std::mem::take(&mut self.directories).changed(&self.roots);
        let noted = match directories.is_empty() {
            true => Ok(()),
            false => self.journal.append(&Record::Directories(directories)),
        };
        let carried = carried.and(noted);
        if matches!(carried, Err(ExecError::Stopped { .. } | ExecError::JournalPoisoned { .. })) {
            return carried.map(|()| self.done);
        }
        let (state, _kept) =
            recover::close(journal, &mut self.journal, &self.roots, &mut |_, _| Ok(()))?;
        self.done.state = state;
        carried.map(|()| self.done)
    }

    fn carry_out(&mut self, progress: &dyn Progress) -> Result<(), ExecError> {
        self.note_directories()?;
        let lost = self.objects()?;
        if let Some(store) = &self.store
            && self.plan.settings.store_format == StoreFormat::Erofs
        {
            // Before anything is mounted, or leads to an object.
            generations::publish(&store.path)?;
        }
        self.mounts()?;
        let (steps, refused) = self.entries(&lost);
        if !refused.is_empty() {
            self.journal.append(&Record::Ended(batch::summary(&refused)))?;
            self.count(refused);
        }
        progress.start(Phase::Change, Some(steps.len() as u64));
        match self.plan.settings.method {
            Method::Reflink => self.share(&steps, progress),
            Method::Symlink | Method::Hardlink => {
                let (binds, steps): (Vec<_>, Vec<_>) =
                    steps.into_iter().partition(|step| bind::is_bind(step));
                self.change(steps, progress)?;
                self.bind(&binds, progress)
            }
        }
    }

    /// What the directories are that the run is going to change.
    fn note_directories(&mut self) -> Result<(), ExecError> {
        if self.plan.settings.method == Method::Reflink {
            return Ok(());
        }
        let now = self.journal.time()?;
        for step in &self.plan.steps {
            let mut see = |dir| self.directories.see(&self.roots, (step.root, dir), now);
            if let Action::Mount(mount) = &step.action {
                mount.binds.iter().for_each(|bind| see(inside(&bind.target.0).parent()));
            }
            // What is bound over keeps its directory as it is.
            let changes = entry_path(&step.action).filter(|_| !bind::is_bind(step));
            changes.map(RootPath::parent).into_iter().for_each(see);
        }
        let noted = self.directories.noted();
        match noted.is_empty() {
            true => Ok(()),
            false => self.journal.append(&Record::Directories(noted)),
        }
    }

    fn change(&mut self, steps: Vec<&Step>, progress: &dyn Progress) -> Result<(), ExecError> {
        let known = (
            &batch::names(steps.iter().copied()),
            &twin::links(steps.iter().copied(), &self.roots),
        );
        let (run, roots, stop) = (self.journal.run, &self.roots, self.options.stop);
        // What is in an image has none.
        let plain = self.plan.settings.store_format == StoreFormat::Dir;
        let label = self.store.as_ref().filter(|_| plain).and_then(|store| label(&store.dir));
        let log = Mutex::new(&mut self.journal);
        let batches = batch::batches(steps, batch::replaced, batch::takes_a_tree);
        let changed = batch::side_by_side(
            batches,
            (run, stop),
            (&self.open, |it: &Vec<_>| batch::held(it)),
            |steps| {
                let mut checker = Checker::new(run, roots, known).labelled(label.as_ref());
                let changed = batch::carry_out(&mut checker, &steps, &mut &log)?;
                progress.advance(steps.len() as u64);
                Ok(changed)
            },
        )?;
        self.count(changed);
        Ok(())
    }

    /// One container after the other.
    fn bind(&mut self, steps: &[&Step], progress: &dyn Progress) -> Result<(), ExecError> {
        for steps in steps.chunk_by(|a, b| a.root == b.root) {
            self.go_on()?;
            let Some(store) = &self.store else { return Ok(()) };
            let format = self.plan.settings.store_format;
            let bound = bind::carry_out(steps, (&self.roots, store, format), &mut self.journal);
            let bound = bound.map_err(|_| ExecError::Stopped { run: self.journal.run })?;
            progress.advance(steps.len() as u64);
            self.count(bound);
        }
        Ok(())
    }

    /// No entry is changed, and what was done is journaled afterwards.
    fn share(&mut self, steps: &[&Step], progress: &dyn Progress) -> Result<(), ExecError> {
        const BATCH: usize = 256;
        for steps in steps.chunks(BATCH) {
            self.go_on()?;
            let mut sharer = Sharer::new(&self.roots);
            let changed: Vec<Changed> = steps.iter().map(|step| sharer.change(step)).collect();
            let noted = self.journal.append(&Record::Ended(batch::summary(&changed)));
            noted.map_err(|_| ExecError::Stopped { run: self.journal.run })?;
            progress.advance(steps.len() as u64);
            self.count(changed);
        }
        Ok(())
    }

    fn go_on(&self) -> Result<(), ExecError> {
        match self.options.stop.load(Ordering::Relaxed) {
            true => Err(ExecError::Stopped { run: self.journal.run }),
            false => Ok(()),
        }
    }

    /// The steps that change entries; and those that cannot be begun.
    fn entries(&self, lost: &HashMap<ObjectName, String>) -> (Vec<&'a Step>, Vec<Changed>) {
        let (mut steps, mut refused) = (Vec::new(), Vec::new());
        let plan: &'a Plan = self.plan;
        for step in plan.steps.iter().filter(|step| !is_prelude(step)) {
            let dead = self.dead.iter().find(|(root, _)| *root == step.root);
            let lost = step.object.as_ref().and_then(|name| lost.get(name));
            match dead.map(|(_, why)| why).or(lost) {
                None => steps.push(step),
                Some(why) => refused.push(Changed {
                    step: step.seq,
                    outcome: Outcome::RolledBack,
                    cause: Some(why.clone()),
                    freed: Bytes(0),
                }),
            }
        }
        (steps, refused)
    }

    /// Steps are in the order of their numbers.
    fn step(&self, seq: u32) -> Option<&'a Step> {
        let at = self.plan.steps.binary_search_by_key(&seq, |step| step.seq).ok()?;
        self.plan.steps.get(at)
    }

    fn on_host(&self, step: &Step) -> HostPath {
        let root = self.plan.roots.iter().find(|root| root.id == step.root);
        let root = root.map_or_else(|| HostPath::from("/"), |root| root.path.clone());
        entry_path(&step.action).map_or(root.clone(), |path| path.on_host(&root))
    }

    fn count(&mut self, changed: Vec<Changed>) {
        for changed in changed {
            self.done.freed += changed.freed;
            if changed.outcome == Outcome::Done {
                self.done.changed += 1;
                continue;
            }
            let step = self.step(changed.step);
            self.done.left.extend(step.map(|step| Left {
                step: step.seq,
                root: step.root,
                on_host: self.on_host(step),
                path: entry_path(&step.action).cloned().unwrap_or_default(),
                cause: changed.cause.unwrap_or_default(),
            }));
        }
    }
}

/// What is done before any entry is changed.
fn is_prelude(step: &Step) -> bool {
    matches!(step.action, Action::Store { .. } | Action::Mount(_))
}

/// The entry that an action changes.
pub(crate) fn entry_path(action: &Action) -> Option<&RootPath> {
    match action {
        Action::Replace { path, .. }
        | Action::Relink { path, .. }
        | Action::Link { path, .. }
        | Action::Hardlink { path, .. }
        | Action::Reflink { path, .. }
        | Action::Bind { path, .. }
        | Action::RemoveTree { path, .. } => Some(path),
        Action::Store { .. } | Action::Mount(_) => None,
    }
}
