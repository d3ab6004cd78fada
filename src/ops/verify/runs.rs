//! What the journal says must stand.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use rayon::prelude::*;

use crate::analyze::drift::{Made, Named};
use crate::exec::ExecError;
use crate::exec::journal::{self, Config, Entry, Placed, Reading, Run};
use crate::model::{
    Before, Begin, Check, ContainerPath, ContentId, HostPath, Method, ObjectName, Outcome, RootId,
    RootPath, RunId, RunState,
};

use super::VerifyOptions;
use crate::ops::members::{self, Shown};

/// What runs made, and nobody took back.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// The stores.
    pub(super) stores: Vec<HostPath>,
    /// What the objects hold.
    pub(super) contents: HashMap<ObjectName, ContentId>,
    /// The objects that undo needs, each with a run that does.
    pub(super) needed: BTreeMap<ObjectName, (HostPath, u64)>,
    /// The roots.
    pub(super) roots: Vec<StandingRoot>,
    /// Those that run from a store which is a plain directory.
    pub(super) shown: Vec<Shown>,
}

/// One root, and what stands there.
#[derive(Debug)]
pub(super) struct StandingRoot {
    /// Where it lies.
    pub(super) path: HostPath,
    /// The store's path in it.
    pub(super) mount_point: ContainerPath,
    /// The links.
    pub(super) made: Vec<Made>,
    /// The names that objects are bound over, and the objects.
    pub(super) bound: Vec<(RootPath, HostPath, ObjectName)>,
    /// The names of files that other roots have names of.
    pub(super) named: Vec<Named>,
    /// Configuration files that mount the store in it.
    pub(super) configs: Vec<Config>,
    /// What it must see: where, and which directory of the host.
    pub(super) binds: Vec<(ContainerPath, HostPath)>,
}

impl StandingRoot {
    /// A root that no run changed.
    pub(super) fn untouched(path: HostPath, options: &VerifyOptions) -> Self {
        Self::new(path, options.mount_point.clone())
    }

    fn new(path: HostPath, mount_point: ContainerPath) -> Self {
        Self {
            path,
            mount_point,
            made: Vec::new(),
            bound: Vec::new(),
            named: Vec::new(),
            configs: Vec::new(),
            binds: Vec::new(),
        }
    }

    /// Its names are to be looked at: no link is made where objects are bound.
    pub(super) fn has_links(&self) -> bool {
        self.bound.is_empty() || !self.made.is_empty() || !self.named.is_empty()
    }

    /// How it sees the store of a run.
    fn show(&mut self, run: &Run) {
        let id = run.begin.roots.iter().find(|root| root.path == self.path).map(|root| root.id);
        let attached: Vec<_> = run.attaches.iter().filter(|it| Some(it.root) == id).collect();
        let steps: Vec<u32> = attached.iter().map(|attach| attach.step).collect();
        let configs = run.configs.iter().filter(|config| steps.contains(&config.step));
        self.mount_point = run.begin.mount_point.clone();
        self.configs = configs.cloned().collect();
        self.binds = attached.iter().map(|it| (inside(&it.path), it.source.clone())).collect();
        if self.binds.is_empty() {
            let source = run.begin.store_format.shown(&run.begin.store);
            self.binds.push((run.begin.mount_point.clone(), source));
        }
    }

    /// An entry of it stands.
    fn take(&mut self, run: &Run, entry: &Entry) {
        let intent = &entry.intent;
        let (id, path) = (run.begin.run, intent.path.clone());
        if let (Some(twin), Before::File { size, content, .. }) = (&intent.twin, &intent.before) {
            let (size, content) = (*size, *content);
            self.named.push(Named { run: id, path, twin: twin.clone(), size, content });
        } else if let (Before::Hidden { .. }, Some(object)) = (&intent.before, &intent.object) {
            self.bound.push((path, run.begin.store.clone(), object.clone()));
        } else if !intent.target.is_empty() {
            self.made.push(Made {
                run: id,
                path,
                target: intent.target.clone(),
                replaced_file: matches!(intent.before, Before::File { .. }),
            });
        }
    }
}

/// A run, as far as it is read.
enum Read {
    Stands(Box<Run>),
    /// Nothing of it does: its entries tell what older runs have no say in any more.
    Gone(Placed),
}

/// Reads the runs. One that is damaged, or was cut off, is a check.
pub(super) fn standing(journal: &Path, checks: &mut Vec<Check>) -> Result<Standing, ExecError> {
    let mut runs = Vec::new();
    let read: Vec<_> =
        journal::runs(journal)?.into_par_iter().map(|id| read(journal, id)).collect();
    for read in read {
        match read {
            Ok(run) => runs.extend(run),
            Err(error @ (ExecError::JournalDamaged { .. } | ExecError::JournalNewer { .. })) => {
                let file = HostPath::from(journal.join("runs"));
                checks.push(Check::damage("journal", error.to_string()).at(file.as_bytes()));
            }
            Err(error) => return Err(error),
        }
    }
    checks.extend(runs.iter().filter_map(state));
    let shown = members::newest(runs.iter().flat_map(shown).collect());
    Ok(Standing { shown, ..join(&runs) })
}

fn read(journal: &Path, id: RunId) -> Result<Option<Read>, ExecError> {
    if journal::is_gone(journal, id)? {
        return Ok(journal::placed(journal, id)?.map(Read::Gone));
    }
    Ok(match journal::read(journal, id)? {
        Reading::Run { run, .. } => Some(Read::Stands(run)),
        Reading::Empty => None,
    })
}

fn shown(run: &Read) -> Vec<Shown> {
    let Read::Stands(run) = run else { return Vec::new() };
    let entries = run.entries.values().map(|entry| (entry.intent.root, entry.outcome));
    members::shown(&run.begin, run.undo.is_some(), entries)
}

fn state(run: &Read) -> Option<Check> {
    let Read::Stands(run) = run else { return None };
    let id = run.begin.run.0;
    if run.state == RunState::Unfinished {
        let detail = format!("run {id} was cut off: cbin-audit recover");
        return Some(Check::bad("run", detail));
    }
    let stands = run.entries.values().filter(|entry| stands(entry)).count();
    (stands > 0).then(|| Check::good("run", format!("run {id}: {stands} entries stand")))
}

fn stands(entry: &Entry) -> bool {
    entry.outcome == Some(Outcome::Done)
}

/// The newest run decides about an entry: `None` where it took back what it had made.
type Latest<'a> = BTreeMap<(HostPath, RootPath), Option<(&'a Run, &'a Entry)>>;

fn join(runs: &[Read]) -> Standing {
    let mut all = Standing::default();
    let mut latest = Latest::new();
    for run in runs {
        let objects = match run {
            Read::Stands(run) => {
                all.take(run, &mut latest);
                &run.objects
            }
            Read::Gone(run) => {
                latest.extend(taken_back(run).map(|place| (place, None)));
                &run.objects
            }
        };
        all.contents.extend(objects.iter().map(|object| (object.name.clone(), object.content)));
    }
    let standing = latest.into_iter().filter_map(|((root, _), found)| Some((root, found?)));
    for (root, (run, entry)) in standing {
        let linked = run.begin.method == Method::Symlink;
        if linked && !all.stores.contains(&run.begin.store) {
            all.stores.push(run.begin.store.clone());
        }
        if all.roots.last().is_none_or(|last| last.path != root) {
            all.roots.push(StandingRoot::new(root, run.begin.mount_point.clone()));
        }
        let Some(last) = all.roots.last_mut() else { continue };
        if linked && last.binds.is_empty() {
            last.show(run);
        }
        last.take(run, entry);
    }
    all
}

impl Standing {
    fn take<'a>(&mut self, run: &'a Run, latest: &mut Latest<'a>) {
        for entry in run.entries.values() {
            let Some(root) = root_path(&run.begin, entry.intent.root) else { continue };
            let place = || (root.clone(), entry.intent.path.clone());
            match entry.outcome {
                Some(Outcome::Done) => drop(latest.insert(place(), Some((run, entry)))),
                Some(Outcome::Undone) => drop(latest.insert(place(), None)),
                _ => {}
            }
            if stands(entry)
                && let Some(object) = &entry.intent.object
            {
                let needed = (run.begin.store.clone(), run.begin.run.0);
                self.needed.insert(object.clone(), needed);
            }
        }
    }
}

fn taken_back(run: &Placed) -> impl Iterator<Item = (HostPath, RootPath)> {
    let undone = run.entries.values().filter(|entry| entry.outcome == Some(Outcome::Undone));
    undone
        .filter_map(|entry| Some((root_path(&run.begin, entry.root)?.clone(), entry.path.clone())))
}

fn root_path(begin: &Begin, id: RootId) -> Option<&HostPath> {
    begin.roots.iter().find(|root| root.id == id).map(|root| &root.path)
}

fn inside(path: &RootPath) -> ContainerPath {
    ContainerPath(Path::new("/").join(path.as_path()))
}
