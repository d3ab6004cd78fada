//! What the journal says must stand.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::analyze::drift::{Made, Named};
use crate::exec::ExecError;
use crate::exec::journal::{self, Config, Entry, Reading, Run};
use crate::model::{
    Before, Check, ContainerPath, ContentId, HostPath, Method, ObjectName, Outcome, RootPath,
    RunState,
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
            named: Vec::new(),
            configs: Vec::new(),
            binds: Vec::new(),
        }
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

/// Reads every run. One that is damaged, or was cut off, is a check.
pub(super) fn standing(journal: &Path, checks: &mut Vec<Check>) -> Result<Standing, ExecError> {
    let mut runs = Vec::new();
    for id in journal::runs(journal)? {
        match journal::read(journal, id) {
            Ok(Reading::Run { run, .. }) => {
                checks.extend(state(&run));
                runs.push(run);
            }
            Ok(Reading::Empty) => {}
            Err(error @ (ExecError::JournalDamaged { .. } | ExecError::JournalNewer { .. })) => {
                let file = HostPath::from(journal.join("runs"));
                checks.push(Check::damage("journal", error.to_string()).at(file.as_bytes()));
            }
            Err(error) => return Err(error),
        }
    }
    let shown = members::newest(runs.iter().flat_map(|run| members::shown(run)).collect());
    Ok(Standing { shown, ..join(&runs) })
}

fn state(run: &Run) -> Option<Check> {
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

/// The newest run decides about an entry.
fn join(runs: &[Box<Run>]) -> Standing {
    let mut all = Standing::default();
    let mut latest: BTreeMap<(HostPath, RootPath), (&Run, &Entry)> = BTreeMap::new();
    for run in runs {
        for object in &run.objects {
            all.contents.insert(object.name.clone(), object.content);
        }
        for entry in run.entries.values() {
            let Some(root) = root_path(run, entry) else { continue };
            if entry.outcome.is_some_and(|it| it == Outcome::Done || it == Outcome::Undone) {
                latest.insert((root.clone(), entry.intent.path.clone()), (run, entry));
            }
            if stands(entry)
                && let Some(object) = &entry.intent.object
            {
                let run_id = run.begin.run.0;
                all.needed.insert(object.clone(), (run.begin.store.clone(), run_id));
            }
        }
    }
    for ((root, _), (run, entry)) in latest.into_iter().filter(|(_, (_, entry))| stands(entry)) {
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

fn root_path<'a>(run: &'a Run, entry: &Entry) -> Option<&'a HostPath> {
    let root = run.begin.roots.iter().find(|root| root.id == entry.intent.root);
    root.map(|root| &root.path)
}

fn inside(path: &RootPath) -> ContainerPath {
    ContainerPath(Path::new("/").join(path.as_path()))
}
