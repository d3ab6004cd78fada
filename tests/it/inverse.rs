//! `undo(apply(tree)) == tree`, and `plan(apply(tree))` is empty: over trees that are made by
//! chance, and on roots of Debian packages. Names, types, content, mode, owner, times of files,
//! links and directories, extended attributes, link targets, and which names are one file.

#![expect(clippy::print_stderr, reason = "how much was tried is a part of the answer")]

mod generate;

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use cbin_audit::model::{
    Action, Applets, ContainerPath, HostPath, Method, MountMeans, Plan, PlanSettings, RunState,
    Select, Silent, StoreFormat,
};
use cbin_audit::ops::{self, ApplyOptions, Limits, PlanOptions, UndoOptions};
use rustix::fs::XattrFlags;

use crate::packages::package;
use crate::rig::dice::Dice;
use crate::rig::image::scratch;
use crate::rig::supervise::succeed;
use crate::snapshot::Snapshot;
use crate::suite::{Need, Suite};

/// Each is two or three roots.
const TREES: u64 = 300;

/// What a small Debian is made of: programs with libraries, set-id programs, hard links, links.
const PACKAGES: [&str; 9] =
    ["bash", "busybox-static", "coreutils", "dash", "libc6", "login", "perl-base", "sed", "tar"];

pub fn tests(suite: &mut Suite) {
    suite.test("privileged_inverse_of_generated_trees", &[Need::Root], generated);
    let packages = PACKAGES.map(Need::Package);
    let needs = [&[Need::Root], &packages[..]].concat();
    suite.test("privileged_inverse_of_debian", &needs, debian);
}

fn generated() {
    let (mut changed, mut restored) = (0, 0);
    for seed in 0..TREES {
        let ground = Ground::new();
        let mut dice = Dice::new(seed);
        for root in &ground.roots {
            generate::tree(root, &mut dice);
        }
        let there_and_back = ground.there_and_back(&mut dice);
        let (there, back) = there_and_back.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        changed += there;
        restored += back;
    }
    eprintln!("{TREES} trees: {changed} entries changed, {restored} put back");
    assert!(changed > TREES * 4 && changed == restored, "{changed} changed, {restored} restored");
}

fn debian() {
    let ground = Ground::new();
    for name in PACKAGES {
        succeed(Command::new("cp").arg("-aT").arg(package(name).unwrap()).arg(&ground.roots[0]));
    }
    for other in &ground.roots[1..] {
        succeed(Command::new("cp").arg("-aT").args([&ground.roots[0], other]));
    }
    let mut dice = Dice::new(0);
    for select in [Select::Multicall, Select::Elf] {
        let settings = ground.settings(select, Applets::Rewrite);
        let (changed, restored) = ground.with(&settings, &mut dice).unwrap();
        eprintln!("Debian, {select:?}: {changed} entries changed, {restored} put back");
        assert!(changed >= 3 && changed == restored, "{changed} changed, {restored} restored");
    }
}

/// Roots, a store and a journal.
struct Ground {
    dir: tempfile::TempDir,
    roots: Vec<PathBuf>,
}

impl Ground {
    fn new() -> Self {
        let dir = scratch();
        let roots = ["a", "b", "c"].map(|name| dir.path().join("roots").join(name));
        roots.iter().for_each(|root| std::fs::create_dir_all(root).unwrap());
        Self { roots: roots.to_vec(), dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn settings(&self, select: Select, applets: Applets) -> PlanSettings {
        PlanSettings {
            select,
            method: Method::Symlink,
            store: HostPath(self.at("store")),
            store_format: StoreFormat::Dir,
            mount_point: ContainerPath("/cbin".into()),
            applets,
            live: false,
            include_setid: false,
            trust_domain: None,
        }
    }

    fn plan(&self, settings: &PlanSettings) -> Plan {
        let options = PlanOptions {
            roots: self.roots.clone(),
            settings: settings.clone(),
            mounts: Some(MountMeans::None),
            limits: Limits::default(),
            journal: self.at("journal"),
        };
        ops::plan(&options, &Silent).unwrap()
    }

    fn there_and_back(&self, dice: &mut Dice) -> Result<(u64, u64), String> {
        let applets = [Applets::Auto, Applets::Rewrite, Applets::Chain, Applets::Complete];
        let select = [Select::Multicall, Select::Elf];
        let mut settings = self.settings(*dice.pick(&select), *dice.pick(&applets));
        settings.include_setid = dice.once_in(2);
        self.with(&settings, dice)
    }

    /// Applies and undoes; how many entries were changed, and put back.
    fn with(&self, settings: &PlanSettings, dice: &mut Dice) -> Result<(u64, u64), String> {
        let plan = self.plan(settings);
        note(&plan, dice);
        let before = self.snapshot();
        let stop = AtomicBool::new(false);
        let (journal, host) = (self.at("journal"), self.at("host"));
        let options = ApplyOptions { journal: &journal, host: &host, stop: &stop };
        let applied = ops::apply(&plan, options, &Silent).map_err(|error| error.to_string())?;
        if !applied.left.is_empty() {
            return Err(format!("left: {:?}", applied.left));
        }
        let again = self.plan(settings);
        if !again.steps.is_empty() {
            return Err(format!("planned once more: {:?}", again.steps));
        }
        let restored = self.undo(applied.run.is_some(), dice)?;
        let after = self.snapshot();
        let differences = before.iter().zip(&after).flat_map(|(was, is)| was.differences(is));
        let differences: Vec<String> = differences.collect();
        match differences.is_empty() {
            true => Ok((applied.changed, restored)),
            false => Err(format!("{settings:?}\n{}", differences.join("\n"))),
        }
    }

    /// All at once, or one root after the other.
    fn undo(&self, was_run: bool, dice: &mut Dice) -> Result<u64, String> {
        let stop = AtomicBool::new(false);
        let journal = self.at("journal");
        let one = dice.once_in(2).then(|| dice.pick(&self.roots).as_path());
        let mut restored = 0;
        for root in one.map(Some).into_iter().chain([None]).filter(|_| was_run) {
            let options = UndoOptions { journal: &journal, run: None, root, stop: &stop };
            let undone = match ops::undo(options, &Silent) {
                Err(ops::ExecError::NoSuchRoot { .. } | ops::ExecError::NothingToUndo(_)) => {
                    continue;
                }
                undone => undone.map_err(|error| error.to_string())?,
            };
            restored += undone.restored;
            if !(undone.kept.is_empty() && undone.surroundings.is_empty())
                || (root.is_none() && undone.state != RunState::Undone)
            {
                return Err(format!("{undone:?}"));
            }
        }
        Ok(restored)
    }

    fn snapshot(&self) -> Vec<Snapshot> {
        self.roots.iter().map(|root| Snapshot::of(root)).collect()
    }
}

/// Extended attributes that come after the plan: it leaves alone what has some, but a step takes
/// them with it.
fn note(plan: &Plan, dice: &mut Dice) {
    for step in plan.steps.iter().filter(|_| dice.once_in(3)) {
        let root = plan.roots.iter().find(|root| root.id == step.root).unwrap();
        let set = |path: &Path, name: &CStr| {
            rustix::fs::lsetxattr(path, name, b"note", XattrFlags::empty()).unwrap();
        };
        match &step.action {
            Action::Replace { path, .. } => set(&path.on_host(&root.path).0, c"user.note"),
            Action::Relink { path, .. } => set(&path.on_host(&root.path).0, c"trusted.note"),
            _ => {}
        }
    }
}
