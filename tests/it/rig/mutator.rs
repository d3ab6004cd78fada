//! The library at work on a scene, as a program of its own that can be supervised and killed:
//! `apply`, `undo` and `recover`, by a plan that is made here.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use cbin_audit::exec::{self, ApplyOptions, ExecError, UndoOptions};
use cbin_audit::model::{
    Action, Applets, Bind, Bytes, ConfigChange, ContainerPath, ContentId, FileState, HostPath,
    Method, MountMeans, MountPlan, Notices, ObjectName, Plan, PlanSettings, PlannedRoot, RootId,
    RootPath, RootState, RunState, Runtime, Saves, Select, Silent, Step, TreeHasher,
};

use super::scene::{ROOTS, Scene, TREE};

/// Set in a copy of this program that is to be the mutator.
pub const MUTATE: &str = "CBIN_AUDIT_TEST_MUTATE";

/// This program as the mutator.
pub fn command(what: &str, scene: &Scene) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env_clear().env(MUTATE, "1").arg(what).arg(scene.base());
    command
}

/// The exit status: as the command's.
#[expect(clippy::print_stderr, reason = "this is a program")]
pub fn main() -> i32 {
    let mut arguments = std::env::args_os().skip(1);
    let what = arguments.next().unwrap();
    let scene = Scene::at(Path::new(&arguments.next().unwrap()));
    let done = match what.to_str().unwrap() {
        "apply" => apply(&scene),
        "undo" => undo(&scene),
        "recover" => recover(&scene),
        "gc" => exec::gc(&scene.journal(), &scene.store()).map(|_| Vec::new()),
        other => panic!("{other}"),
    };
    match done {
        Ok(said) => {
            eprintln!("{said:?}");
            if said.is_empty() { 0 } else { 3 }
        }
        Err(error) => {
            eprintln!("{error}: {error:?}");
            match error {
                ExecError::Locked(_) => 6,
                ExecError::Stopped { .. } => 5,
                ExecError::JournalDamaged { .. } | ExecError::ObjectDamaged { .. } => 4,
                _ => 1,
            }
        }
    }
}

/// Why entries were left.
fn apply(scene: &Scene) -> Result<Vec<String>, ExecError> {
    let stop = AtomicBool::new(false);
    let journal = scene.journal();
    let options = ApplyOptions { journal: &journal, host: scene.base(), stop: &stop };
    let applied = exec::apply(&plan(scene), options, &Silent, &|| Ok(()))?;
    Ok(applied.left.into_iter().map(|left| left.cause).collect())
}

fn undo(scene: &Scene) -> Result<Vec<String>, ExecError> {
    let stop = AtomicBool::new(false);
    let journal = scene.journal();
    let options = UndoOptions { journal: &journal, run: None, root: None, stop: &stop };
    let undone = exec::undo(options, &Silent)?;
    Ok(undone.kept.into_iter().map(|left| left.cause).collect())
}

fn recover(scene: &Scene) -> Result<Vec<String>, ExecError> {
    let recovered = exec::recover(&scene.journal())?;
    let left = recovered.into_iter().filter(|run| run.state == RunState::Unfinished);
    Ok(left.map(|run| format!("{run:?}")).collect())
}

/// Every busybox and every link to it leads to one object; where there is a tree, that does alone.
fn plan(scene: &Scene) -> Plan {
    let mut steps = Vec::new();
    let mut roots = Vec::new();
    for (number, (name, path)) in ROOTS.iter().zip(scene.roots()).enumerate() {
        let id = RootId(number as u32);
        match path.join(TREE).symlink_metadata() {
            Ok(tree) if tree.is_dir() => tree_steps(id, &path, &mut steps),
            _ => root_steps(id, &path, &mut steps),
        }
        steps.extend(mount_step(scene, id, name));
        roots.push(PlannedRoot {
            id,
            ino: fs::metadata(&path).unwrap().ino(),
            path: HostPath::from(path),
            name: (*name).to_owned(),
            runtime: Runtime::Directory,
            state: RootState::Stopped,
        });
    }
    let mut steps: Vec<Step> = steps;
    // Objects, and what makes them visible, come before what leads to them.
    steps.sort_by_key(|step| match step.action {
        Action::Store { .. } => 0,
        Action::Mount(_) => 1,
        _ => 2,
    });
    for (seq, step) in steps.iter_mut().enumerate() {
        step.seq = seq as u32;
    }
    Plan {
        settings: settings(scene),
        roots,
        steps,
        skips: Vec::new(),
        saves: Saves::default(),
        notices: Notices::default(),
    }
}

/// A scene with a directory of this name gets its store by what a file of it says: `host`,
/// `config`, or `live`.
pub const MOUNTS: &str = "mounts";

/// What makes the store visible in a root of such a scene.
fn mount_step(scene: &Scene, root: RootId, name: &str) -> Option<Step> {
    let said = fs::read_to_string(scene.base().join(MOUNTS).join("by")).ok()?;
    let (means, config) = match said.as_str() {
        "host" => (MountMeans::Host, Vec::new()),
        "live" => (MountMeans::None, Vec::new()),
        "config" => (MountMeans::Nspawn, configs(scene, name)),
        other => panic!("{other}"),
    };
    let target = ContainerPath(PathBuf::from("/cbin"));
    let bind = Bind { source: HostPath::from(scene.shown()), target };
    let (why, restart, advice) = (String::new(), None, Vec::new());
    let live = said == "live";
    let mount = MountPlan { means, why, binds: vec![bind], config, live, restart, advice };
    Some(Step { seq: 0, root, action: Action::Mount(mount), object: None })
}

/// Files that make a root's store visible: a new one, one in a directory of its own that is new,
/// and one that is there and gets a line more.
pub fn configs(scene: &Scene, name: &str) -> Vec<ConfigChange> {
    let files = [
        format!("nspawn/{name}.nspawn"),
        format!("system/{name}.service.d/50-cbin-audit.conf"),
        format!("lxc/{name}/config"),
    ];
    let changes = files.iter().map(|file| {
        let file = scene.base().join(MOUNTS).join(file);
        let before = fs::read(&file).ok();
        let line = format!("BindReadOnly={}:/cbin\n", scene.store().display());
        let after = [before.as_deref().unwrap_or_default(), line.as_bytes()].concat();
        ConfigChange { file: HostPath::from(file), before, after: Some(after) }
    });
    changes.collect()
}

fn settings(scene: &Scene) -> PlanSettings {
    PlanSettings {
        select: Select::Multicall,
        method: Method::Symlink,
        store: HostPath::from(scene.store()),
        store_format: scene.format(),
        mount_point: ContainerPath(PathBuf::from("/cbin")),
        applets: Applets::Rewrite,
        live: false,
        include_setid: false,
        trust_domain: None,
    }
}

fn root_steps(root: RootId, at: &Path, steps: &mut Vec<Step>) {
    let mut objects = BTreeMap::new();
    for entry in walkdir::WalkDir::new(at).sort_by_file_name() {
        let entry = entry.unwrap();
        let path = RootPath::new(entry.path().strip_prefix(at).unwrap().as_os_str().as_bytes());
        let metadata = entry.path().symlink_metadata().unwrap();
        let is_program = metadata.is_file() && metadata.mode() & 0o111 != 0;
        if is_program {
            let bytes = fs::read(entry.path()).unwrap();
            let content = ContentId(*blake3::hash(&bytes).as_bytes());
            let object = ObjectName::new("busybox", std::env::consts::ARCH, content);
            let size = Bytes(metadata.len());
            objects.entry(object.clone()).or_insert_with(|| {
                let action = Action::Store { source: path.clone(), content, size };
                steps.push(Step { seq: 0, root, action, object: Some(object.clone()) });
            });
            let mtime = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
            let before =
                FileState { ino: metadata.ino(), size, mtime, mode: metadata.mode(), content };
            let action = Action::Replace { path, before, target: target(&object) };
            steps.push(Step { seq: 0, root, action, object: Some(object) });
        } else if metadata.is_symlink()
            && let Some(object) = objects.keys().next()
        {
            let before = fs::read_link(entry.path()).unwrap().as_os_str().as_bytes().to_vec();
            let action = Action::Relink { path, before, target: target(object) };
            steps.push(Step { seq: 0, root, action, object: Some(object.clone()) });
        }
    }
}

/// The tree comes into the store from the first root.
fn tree_steps(root: RootId, at: &Path, steps: &mut Vec<Step>) {
    let (path, digest) = (RootPath::new(TREE), digest(&at.join(TREE)));
    let object = ObjectName::tree(digest);
    if root == RootId(0) {
        let (source, size) = (path.clone(), Bytes(0));
        let action = Action::Store { source, content: digest, size };
        steps.push(Step { seq: 0, root, action, object: Some(object.clone()) });
    }
    let action = Action::RemoveTree { path, digest, files: 2, target: target(&object) };
    steps.push(Step { seq: 0, root, action, object: Some(object) });
}

/// The name of a directory's content.
pub fn digest(dir: &Path) -> ContentId {
    let mut hasher = TreeHasher::new(fs::metadata(dir).unwrap().mode());
    for entry in walkdir::WalkDir::new(dir).min_depth(1).max_depth(1).sort_by_file_name() {
        let entry = entry.unwrap();
        let (name, kind) = (entry.file_name().as_bytes(), entry.file_type());
        if kind.is_dir() {
            hasher.dir(name, digest(entry.path()));
        } else if kind.is_symlink() {
            hasher.link(name, fs::read_link(entry.path()).unwrap().as_os_str().as_bytes());
        } else {
            let content = blake3::hash(&fs::read(entry.path()).unwrap());
            hasher.file(name, entry.metadata().unwrap().mode(), content.as_bytes());
        }
    }
    hasher.finish()
}

fn target(object: &ObjectName) -> ContainerPath {
    ContainerPath(Path::new("/cbin").join(object.as_str()))
}
