//! `undo(apply(tree)) == tree`, and `plan(apply(tree))` is empty: over trees that are made by
//! chance, and on roots of Debian packages. Names, types, content, mode, owner, times of files,
//! links and directories, extended attributes, link targets, and which names are one file.

#![expect(clippy::print_stderr, reason = "how much was tried is a part of the answer")]

mod generate;
mod trees;

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use cbin_audit::model::{
    Action, Applets, ContainerPath, HostPath, Method, MountMeans, Plan, PlanSettings, RunState,
    Select, Silent, Step, StoreFormat,
};
use cbin_audit::ops::{self, ApplyOptions, Limits, PlanOptions, UndoOptions};
use rustix::fs::{IFlags, XattrFlags};

use crate::loopfs::LoopFs;
use crate::packages::package;
use crate::rig::dice::Dice;
use crate::rig::image::scratch;
use crate::rig::supervise::succeed;
use crate::snapshot::Snapshot;
use crate::suite::{Need, Suite};

/// Each is two or three roots.
const TREES: u64 = 300;

/// The same on each file system that is real, of directories that are shared as wholes.
const ON_EACH: u64 = 10;

/// The same on file systems that share blocks; each is made anew.
const REFLINKED: u64 = 6;

/// What a small Debian is made of: programs with libraries, set-id programs, hard links, links.
const PACKAGES: [&str; 9] =
    ["bash", "busybox-static", "coreutils", "dash", "libc6", "login", "perl-base", "sed", "tar"];

pub fn tests(suite: &mut Suite) {
    suite.test("privileged_inverse_of_generated_trees", &[Need::Root], generated);
    let needs = &[Need::Root, Need::Program("mkfs.xfs")];
    suite.test("privileged_inverse_of_generated_trees_reflinked", needs, reflinked);
    for (kind, program) in [("ext4", "mkfs.ext4"), ("xfs", "mkfs.xfs"), ("btrfs", "mkfs.btrfs")] {
        let name = format!("privileged_inverse_of_shared_directories_on_{kind}");
        suite.test(&name, &[Need::Root, Need::Program(program)], move || shared_on(kind));
    }
    let packages = PACKAGES.map(Need::Package);
    let needs = [&[Need::Root], &packages[..]].concat();
    suite.test("privileged_inverse_of_debian", &needs, debian);
}

fn generated() {
    let mut tally = Tally::default();
    for seed in 0..TREES {
        let ground = Ground::new();
        let mut dice = Dice::new(seed);
        ground.fill(&mut dice);
        let there_and_back = ground.there_and_back(&mut dice);
        tally.add(&there_and_back.unwrap_or_else(|error| panic!("seed {seed}: {error}")));
    }
    tally.told("in memory");
    assert!(tally.changed > TREES * 4, "{tally:?}");
    // A third of the runs take them at all.
    assert!(tally.directories > TREES / 6 && tally.mixed > TREES / 12, "{tally:?}");
}

/// Directories and programs in one run, on a real file system.
fn shared_on(kind: &str) {
    let disk = LoopFs::make(kind, 320);
    let mut tally = Tally::default();
    for seed in 0..ON_EACH {
        let ground = Ground::laid(tempfile::tempdir_in(disk.path()).unwrap());
        let mut dice = Dice::new(1000 + seed);
        ground.fill(&mut dice);
        let settings = ground.settings(Select::All, Applets::Auto);
        let there_and_back = ground.with(&settings, &mut dice);
        tally.add(&there_and_back.unwrap_or_else(|error| panic!("seed {seed}: {error}")));
    }
    tally.told(kind);
    assert!(tally.directories > ON_EACH && tally.mixed > ON_EACH / 2, "{tally:?}");
}

/// How much was tried.
#[derive(Debug, Default)]
struct Tally {
    changed: u64,
    restored: u64,
    /// Directories that became links as wholes.
    directories: u64,
    /// Runs that changed such and programs.
    mixed: u64,
}

impl Tally {
    fn of(plan: &Plan, changed: u64, restored: u64) -> Self {
        let whole = |step: &&Step| matches!(step.action, Action::RemoveTree { .. });
        let directories = plan.steps.iter().filter(whole).count() as u64;
        let mixed = u64::from(directories > 0 && changed > directories);
        Self { changed, restored, directories, mixed }
    }

    fn add(&mut self, other: &Self) {
        assert_eq!(other.changed, other.restored);
        self.changed += other.changed;
        self.restored += other.restored;
        self.directories += other.directories;
        self.mixed += other.mixed;
    }

    fn told(&self, place: &str) {
        eprintln!("{place}: {self:?}");
    }
}

/// Shared blocks: nothing is another than before, and nothing is put back.
fn reflinked() {
    let mut shared = 0;
    for seed in 0..REFLINKED {
        let xfs = LoopFs::make("xfs", 320);
        let ground = Ground::laid(tempfile::tempdir_in(xfs.path()).unwrap());
        let mut dice = Dice::new(seed);
        ground.roots.iter().for_each(|root| generate::tree(root, &mut dice));
        rustix::fs::syncfs(std::fs::File::open(xfs.path()).unwrap()).unwrap();
        let settings = ground.settings(*dice.pick(&[Select::Elf, Select::All]), Applets::Auto);
        let settings = PlanSettings { method: Method::Reflink, ..settings };
        let plan = ground.plan(&settings);
        let before = Snapshot::of(&ground.at("roots")).without_access_times();
        let stop = AtomicBool::new(false);
        let (journal, host) = (ground.at("journal"), ground.at("host"));
        let options = ApplyOptions { journal: &journal, host: &host, stop: &stop };
        let applied = ops::apply(&plan, options, &Silent).unwrap();
        assert!(applied.left.is_empty(), "seed {seed}: {:?}", applied.left);
        shared += applied.changed;
        let now = Snapshot::of(&ground.at("roots")).without_access_times();
        assert_eq!(before.differences(&now), [""; 0], "seed {seed}");
        assert_eq!(ground.plan(&settings).steps, [], "seed {seed}");
    }
    eprintln!("{REFLINKED} trees: {shared} files share blocks");
    assert!(shared > REFLINKED, "{shared}");
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
    let tried = [
        (Select::Multicall, Method::Symlink),
        (Select::Elf, Method::Symlink),
        (Select::All, Method::Symlink),
        (Select::Elf, Method::Hardlink),
    ];
    for (select, method) in tried {
        let trust_domain = Some("mine".to_owned());
        let settings = ground.settings(select, Applets::Rewrite);
        let settings = PlanSettings { method, trust_domain, ..settings };
        let tally = ground.with(&settings, &mut dice).unwrap();
        tally.told(&format!("Debian, {select:?}, {method:?}"));
        assert!(tally.changed >= 3 && tally.changed == tally.restored, "{tally:?}");
    }
}

/// Roots, a store and a journal.
struct Ground {
    dir: tempfile::TempDir,
    roots: Vec<PathBuf>,
}

impl Ground {
    fn new() -> Self {
        Self::laid(scratch())
    }

    fn laid(dir: tempfile::TempDir) -> Self {
        let roots = ["a", "b", "c"].map(|name| dir.path().join("roots").join(name));
        roots.iter().for_each(|root| std::fs::create_dir_all(root).unwrap());
        Self { roots: roots.to_vec(), dir }
    }

    fn fill(&self, dice: &mut Dice) {
        self.roots.iter().for_each(|root| generate::tree(root, dice));
        trees::lay(&self.roots, dice);
        generate::share(&self.roots, dice);
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

    fn there_and_back(&self, dice: &mut Dice) -> Result<Tally, String> {
        let applets = [Applets::Auto, Applets::Rewrite, Applets::Chain, Applets::Complete];
        let select = [Select::Multicall, Select::Elf, Select::All];
        let mut settings = self.settings(*dice.pick(&select), *dice.pick(&applets));
        settings.include_setid = dice.once_in(2);
        if dice.once_in(3) {
            settings.method = Method::Hardlink;
            settings.trust_domain = Some("mine".to_owned());
        }
        self.with(&settings, dice)
    }

    /// Applies and undoes.
    fn with(&self, settings: &PlanSettings, dice: &mut Dice) -> Result<Tally, String> {
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
        let restored = self.undo(applied.run.is_some(), settings, dice)?;
        let differences = before.differences(&self.snapshot());
        match differences.is_empty() {
            true => Ok(Tally::of(&plan, applied.changed, restored)),
            false => Err(format!("{settings:?}\n{}", differences.join("\n"))),
        }
    }

    /// All at once, or one root after the other.
    fn undo(&self, was_run: bool, settings: &PlanSettings, dice: &mut Dice) -> Result<u64, String> {
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
            // What other roots have names of is told, and stays until they are put back.
            let told = root.is_some() && settings.method == Method::Hardlink;
            if !(undone.kept.is_empty() && (told || undone.surroundings.is_empty()))
                || (root.is_none() && undone.state != RunState::Undone)
            {
                return Err(format!("{undone:?}"));
            }
        }
        Ok(restored)
    }

    /// All roots in one: they may have names of one inode.
    fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.at("roots"))
    }
}

/// One of the flags that are given back, or none.
pub fn flag(path: &Path, dice: &mut Dice) {
    let flags = [IFlags::empty(), IFlags::NODUMP, IFlags::NOATIME];
    let file = std::fs::File::open(path).unwrap();
    let now = rustix::fs::ioctl_getflags(&file).unwrap();
    rustix::fs::ioctl_setflags(&file, now | *dice.pick(&flags)).unwrap();
}

/// Extended attributes that come after the plan: it leaves alone what has some, but a step takes
/// them with it.
fn note(plan: &Plan, dice: &mut Dice) {
    for step in &plan.steps {
        if !dice.once_in(3) {
            continue;
        }
        let root = plan.roots.iter().find(|root| root.id == step.root).unwrap();
        let set = |path: &Path, name: &CStr| {
            rustix::fs::lsetxattr(path, name, b"note", XattrFlags::empty()).unwrap();
        };
        match &step.action {
            Action::Replace { path, .. } => {
                let at = path.on_host(&root.path).0;
                set(&at, c"user.note");
                flag(&at, dice);
            }
            Action::Relink { path, .. } => set(&path.on_host(&root.path).0, c"trusted.note"),
            _ => {}
        }
    }
}
