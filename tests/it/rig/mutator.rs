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
    Action, Applets, Bytes, ContainerPath, ContentId, FileState, HostPath, Method, Notices,
    ObjectName, Plan, PlanSettings, PlannedRoot, RootId, RootPath, RootState, RunState, Runtime,
    Saves, Select, Silent, Step, StoreFormat,
};

use super::scene::{ROOTS, Scene};

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

/// Every busybox and every link to it leads to one object.
fn plan(scene: &Scene) -> Plan {
    let mut steps = Vec::new();
    let mut roots = Vec::new();
    for (number, (name, path)) in ROOTS.iter().zip(scene.roots()).enumerate() {
        let id = RootId(number as u32);
        root_steps(id, &path, &mut steps);
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
    // Objects come before what leads to them.
    steps.sort_by_key(|step| !matches!(step.action, Action::Store { .. }));
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

fn settings(scene: &Scene) -> PlanSettings {
    PlanSettings {
        select: Select::Multicall,
        method: Method::Symlink,
        store: HostPath::from(scene.store()),
        store_format: StoreFormat::Dir,
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

fn target(object: &ObjectName) -> ContainerPath {
    ContainerPath(Path::new("/cbin").join(object.as_str()))
}
