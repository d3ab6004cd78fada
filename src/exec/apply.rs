//! A plan is carried out.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::batch;
use super::config;
use super::directories::Directories;
use super::error::ExecError;
use super::generations;
use super::journal::{self, Journal};
use super::lock::Lock;
use super::mount;
use super::recover;
use super::roots::Roots;
use super::space::Space;
use super::store::{Put, Store};
use super::surroundings::{self, inside};
use super::work::Checker;
use crate::model::{
    Action, Applied, Begin, Bytes, Changed, ConfigChange, Ended, HostPath, JOURNAL_VERSION,
    JournalObject, JournalRoot, Left, MountMeans, MountPlan, ObjectName, Outcome, Phase, Plan,
    Progress, Record, RootId, RootPath, RunId, RunState, Step, StoreFormat,
};

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

/// Carries a plan out.
///
/// # Errors
///
/// When another command is at work, the store or the journal cannot be used, or there is
/// no room: then nothing was changed. [`ExecError::Stopped`] when it was stopped half way.
pub fn apply(
    plan: &Plan,
    options: ApplyOptions<'_>,
    progress: &dyn Progress,
) -> Result<Applied, ExecError> {
    let mut lock = Lock::take(options.journal)?;
    let recovered = recover::recover_all(&lock)?;
    if plan.steps.is_empty() {
        return Ok(Applied { recovered, ..nothing() });
    }
    let store = Store::make(&plan.settings.store.0)?;
    lock.also(&store.path, &store.dir)?;
    let mut left = Vec::new();
    let roots = open_roots(plan, &mut left);
    check_space(plan, &store, &roots, &lock)?;
    let journal = begin(plan, &lock)?;
    let directories = Directories::default();
    let run =
        Applying { plan, options, store, roots, journal, directories, done: nothing(), dead: left };
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

/// Opens the roots; one that is not there any more is left as it is.
fn open_roots(plan: &Plan, left: &mut Vec<(RootId, String)>) -> Roots {
    let mut roots = Roots::default();
    for root in &plan.roots {
        if let Err(error) = roots.open(root.id, &root.path, root.ino) {
            left.push((root.id, super::cause::explain("open the root", &error)));
        }
    }
    roots
}

/// Objects, and a record for each entry: the names themselves take the place of others.
fn check_space(plan: &Plan, store: &Store, roots: &Roots, lock: &Lock) -> Result<(), ExecError> {
    const RECORD: u64 = 1024;
    let mut space = Space::default();
    let mut counted = HashSet::new();
    for step in &plan.steps {
        if let (Action::Store { size, .. }, Some(name)) = (&step.action, &step.object)
            && counted.insert(name)
            && !store.has(name)?
        {
            space.need(store.dir.as_fd(), &store.path, size.0)?;
        }
    }
    let (path, dir) = super::prefix::open(&lock.journal)?;
    space.need(dir.as_fd(), &path, RECORD.saturating_mul(plan.steps.len() as u64))?;
    for root in &plan.roots {
        if let Some(open) = roots.get(root.id)
            && let Ok(dir) = open.open_dir(&RootPath::default())
        {
            space.need(dir.as_fd(), &root.path.0, 0)?;
        }
    }
    space.check()
}

fn begin(plan: &Plan, lock: &Lock) -> Result<Journal, ExecError> {
    let last = journal::runs(&lock.journal)?.last().map_or(0, |run| run.0);
    let run = RunId(last + 1);
    let mut journal = Journal::create(&lock.journal, run)?;
    let root = |root: &crate::model::PlannedRoot| JournalRoot {
        id: root.id,
        path: root.path.clone(),
        ino: root.ino,
        name: root.name.clone(),
    };
    journal.append(&Record::Begin(Begin {
        version: JOURNAL_VERSION,
        run,
        time_seconds: now(),
        tool: env!("CARGO_PKG_VERSION").to_owned(),
        method: plan.settings.method,
        store: plan.settings.store.clone(),
        store_format: plan.settings.store_format,
        mount_point: plan.settings.mount_point.clone(),
        roots: plan.roots.iter().map(root).collect(),
        steps: plan.steps.iter().filter(|step| is_entry(step)).count() as u32,
    }))?;
    Ok(journal)
}

/// Seconds since the epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A step that changes one entry.
fn is_entry(step: &Step) -> bool {
    matches!(step.action, Action::Replace { .. } | Action::Relink { .. } | Action::Link { .. })
}

/// A run under way.
struct Applying<'a> {
    plan: &'a Plan,
    options: ApplyOptions<'a>,
    store: Store,
    roots: Roots,
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
        let (state, _kept) = recover::close(journal, &mut self.journal, &self.roots)?;
        self.done.state = state;
        carried.map(|()| self.done)
    }

    fn carry_out(&mut self, progress: &dyn Progress) -> Result<(), ExecError> {
        let lost = self.objects()?;
        if self.plan.settings.store_format == StoreFormat::Erofs {
            // Before anything is mounted, or leads to an object.
            generations::publish(&self.store.path)?;
        }
        self.mounts()?;
        let (steps, refused) = self.entries(&lost);
        if !refused.is_empty() {
            self.journal.append(&Record::Ended(batch::summary(&refused)))?;
            self.count(refused);
        }
        progress.start(Phase::Change, Some(steps.len() as u64));
        let names = batch::names(steps.iter().copied());
        for steps in batch::batches(steps) {
            if self.options.stop.load(Ordering::Relaxed) {
                return Err(ExecError::Stopped { run: self.journal.run });
            }
            for step in &steps {
                let path = entry_path(&step.action).map(RootPath::parent);
                path.into_iter().for_each(|dir| self.directories.see(&self.roots, step.root, dir));
            }
            let mut checker = Checker::new(self.journal.run, &self.roots, &names);
            let changed = batch::carry_out(&mut checker, &steps, &mut self.journal);
            let changed = changed.map_err(|_| ExecError::Stopped { run: self.journal.run })?;
            progress.advance(steps.len() as u64);
            self.count(changed);
        }
        Ok(())
    }

    /// Puts the objects into the store; those whose source is no longer what it was.
    fn objects(&mut self) -> Result<HashMap<ObjectName, String>, ExecError> {
        let sources = self.sources();
        let objects: Vec<JournalObject> =
            sources.iter().map(|(object, _)| object.clone()).collect();
        if !objects.is_empty() {
            self.journal.append(&Record::Objects(objects))?;
        }
        let mut lost = HashMap::new();
        for (object, places) in sources {
            if let Err(why) = self.put(&object, &places)? {
                lost.insert(object.name, why);
            }
        }
        Ok(lost)
    }

    /// Every object once, with the files that it may be copied from.
    fn sources(&self) -> Vec<(JournalObject, Vec<(RootId, RootPath)>)> {
        let mut sources: Vec<(JournalObject, Vec<(RootId, RootPath)>)> = Vec::new();
        for step in &self.plan.steps {
            let (Action::Store { source, content, size }, Some(name)) =
                (&step.action, &step.object)
            else {
                continue;
            };
            let place = (step.root, source.clone());
            match sources.iter_mut().find(|(object, _)| object.name == *name) {
                Some((_, places)) => places.push(place),
                None => {
                    let object =
                        JournalObject { name: name.clone(), content: *content, size: *size };
                    sources.push((object, vec![place]));
                }
            }
        }
        sources
    }

    fn put(
        &mut self,
        object: &JournalObject,
        places: &[(RootId, RootPath)],
    ) -> Result<Result<(), String>, ExecError> {
        if !object.name.fits(object.content) {
            return Ok(Err("its name does not fit its content".to_owned()));
        }
        let mut why = "its object's source changed after planning".to_owned();
        for (root, path) in places {
            let source = match self.source(*root, path) {
                Ok(source) => source,
                Err(error) => {
                    why = super::cause::explain("open the object's source", &error);
                    continue;
                }
            };
            match self.store.put(object, &source)? {
                Put::New(blocks) => {
                    self.done.stored += blocks;
                    return Ok(Ok(()));
                }
                Put::Kept => return Ok(Ok(())),
                Put::Changed => {}
            }
        }
        Ok(Err(why))
    }

    fn source(&self, root: RootId, path: &RootPath) -> std::io::Result<std::fs::File> {
        let dir = self.roots.get(root).ok_or(rustix::io::Errno::STALE)?;
        let place = super::place::Parents::default().pin(root, dir, path)?;
        Ok(crate::scan::dir::open_regular(place.dir(), &place.name)?.0)
    }

    /// Makes the store visible in each root, before anything leads to it.
    fn mounts(&mut self) -> Result<(), ExecError> {
        let mut host = false;
        let mut changes = Vec::new();
        for step in &self.plan.steps {
            let Action::Mount(mount) = &step.action else { continue };
            host |= mount.means != MountMeans::None;
            changes.push(&mount.config);
            if let Err(cause) = self.mount(step, mount)? {
                let left = Ended {
                    steps: vec![step.seq],
                    outcome: Outcome::RolledBack,
                    cause: Some(cause.clone()),
                };
                self.journal.append(&Record::Ended(vec![left]))?;
                self.dead.push((step.root, cause));
            }
        }
        if host {
            self.host_link()?;
        }
        let changes: Vec<ConfigChange> = changes.into_iter().flatten().cloned().collect();
        if let Err(error) = config::reload(&changes) {
            // The files are in place: the next start of systemd reads them.
            self.done.advice.push(error.to_string());
        }
        Ok(())
    }

    fn mount(&mut self, step: &Step, mount: &MountPlan) -> Result<Result<(), String>, ExecError> {
        let Some(root) = self.roots.get(step.root) else {
            return Ok(Err("its root could not be opened".to_owned()));
        };
        for bind in &mount.binds {
            self.directories.see(&self.roots, step.root, inside(&bind.target.0).parent());
        }
        mount::carry_out(step, mount, root, &mut self.journal)
    }

    /// `/cbin -> home/cbin`, as on the host of the containers.
    fn host_link(&mut self) -> Result<(), ExecError> {
        use std::os::unix::ffi::OsStrExt as _;
        let settings = &self.plan.settings;
        let link = self.options.host.join(inside(&settings.mount_point.0).as_path());
        let store = settings.store_format.shown(&settings.store).0;
        let target = match link.parent() == Some(Path::new("/")) {
            true => store.strip_prefix("/").unwrap_or(&store).to_owned(),
            false => store.clone(),
        };
        let target: PathBuf = target;
        surroundings::host_link(
            &HostPath::from(link),
            target.as_os_str().as_bytes(),
            &mut self.journal,
        )?;
        Ok(())
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
        | Action::RemoveTree { path, .. } => Some(path),
        Action::Store { .. } | Action::Mount(_) => None,
    }
}
