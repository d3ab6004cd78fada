//! The least that a plan's changes cost: the same links made, exchanged and removed, the same
//! files written, the same flushes, by a program that looks at nothing, remembers nothing, and
//! would lose whatever anybody else did meanwhile.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cbin_audit::model::{Action, Plan, RootId, RootPath, Step};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};

/// As many as the engine takes.
const BATCH: usize = 2048;

/// What the engine writes to its journal for an entry, before and after.
const RECORDS: [usize; 2] = [400, 8];

/// A plan, and where its roots are.
pub struct Floor<'a> {
    roots: HashMap<RootId, &'a Path>,
    steps: Vec<&'a Step>,
    /// What the files held, by their size.
    programs: HashMap<u64, Vec<u8>>,
    journal: PathBuf,
}

impl<'a> Floor<'a> {
    pub fn new(plan: &'a Plan, journal: &Path) -> Self {
        let roots: HashMap<_, _> =
            plan.roots.iter().map(|root| (root.id, root.path.0.as_path())).collect();
        let is_entry = |step: &&Step| entry(step).is_some();
        let steps = plan.steps.iter().filter(is_entry).collect();
        let mut programs = HashMap::new();
        for step in &plan.steps {
            if let Action::Replace { path, before, .. } = &step.action {
                let read = || std::fs::read(roots[&step.root].join(path.as_path())).expect("read");
                programs.entry(before.size.0).or_insert_with(read);
            }
        }
        Self { roots, steps, programs, journal: journal.to_owned() }
    }

    /// Every entry becomes a link.
    pub fn there(&self) {
        self.batches(|batch| {
            for at in batch {
                let (_, target) = entry(at.step).expect("an entry");
                at.link(target.as_os_str().as_bytes());
            }
        });
    }

    /// Every entry becomes what it was.
    pub fn back(&self) {
        self.batches(|batch| {
            let mut written = Vec::new();
            for at in batch {
                match &at.step.action {
                    Action::Relink { before, .. } => at.link(before),
                    Action::Replace { before, .. } => {
                        written.push((at, at.file(&self.programs[&before.size.0])));
                    }
                    _ => {}
                }
            }
            for (at, file) in written {
                file.sync_all().expect("flush");
                let from = format!("/proc/self/fd/{}", file.as_raw_fd());
                let flags = AtFlags::SYMLINK_FOLLOW;
                rustix::fs::linkat(CWD, from, at.dir, &at.temporary, flags).expect("link");
            }
        });
    }

    /// On as many threads as the engine has.
    fn batches(&self, make: impl Fn(&[At<'_>]) + Sync) {
        let journal = OpenOptions::new().create(true).append(true).open(&self.journal);
        let journal = Mutex::new(journal.expect("a journal"));
        let batches = Mutex::new(self.steps.chunks(BATCH));
        let work = || loop {
            let Some(steps) = batches.lock().expect("alone").next() else { break };
            self.batch(steps, &journal, &make);
        };
        std::thread::scope(|scope| {
            (0..rayon::current_num_threads()).for_each(|_| drop(scope.spawn(work)));
        });
    }

    fn batch(&self, steps: &[&Step], journal: &Mutex<File>, make: &dyn Fn(&[At<'_>])) {
        let mut dirs: HashMap<PathBuf, File> = HashMap::new();
        for step in steps {
            let path = self.dir(step);
            dirs.entry(path).or_insert_with_key(|path| File::open(path).expect("open"));
        }
        let at = |step: &&'_ Step| {
            let (path, _) = entry(step).expect("an entry");
            (self.dir(step), path.file_name().to_vec())
        };
        let places: Vec<_> = steps.iter().map(at).collect();
        let works: Vec<At<'_>> = steps
            .iter()
            .zip(&places)
            .map(|(step, (dir, name))| At {
                step,
                dir: &dirs[dir],
                name,
                temporary: format!(".floor-{}", step.seq),
            })
            .collect();
        let flush = || dirs.values().for_each(|dir| dir.sync_all().expect("flush"));
        note(journal, RECORDS[0] * steps.len());
        make(&works);
        flush();
        works.iter().for_each(At::exchange);
        flush();
        works.iter().for_each(At::remove);
        flush();
        note(journal, RECORDS[1] * steps.len());
    }

    fn dir(&self, step: &Step) -> PathBuf {
        let (path, _) = entry(step).expect("an entry");
        self.roots[&step.root].join(path.parent().as_path())
    }
}

/// An entry in its directory.
struct At<'a> {
    step: &'a Step,
    dir: &'a File,
    name: &'a [u8],
    temporary: String,
}

impl At<'_> {
    fn link(&self, target: &[u8]) {
        rustix::fs::symlinkat(target, self.dir, &self.temporary).expect("link");
    }

    fn file(&self, bytes: &[u8]) -> File {
        let (flags, mode) = (OFlags::TMPFILE | OFlags::RDWR, Mode::from_raw_mode(0o755));
        let mut file = File::from(rustix::fs::openat(self.dir, ".", flags, mode).expect("make"));
        file.write_all(bytes).expect("write");
        file
    }

    fn exchange(&self) {
        let (dir, flags) = (self.dir.as_fd(), RenameFlags::EXCHANGE);
        rustix::fs::renameat_with(dir, &self.temporary, dir, self.name, flags).expect("exchange");
    }

    fn remove(&self) {
        rustix::fs::unlinkat(self.dir, &self.temporary, AtFlags::empty()).expect("remove");
    }
}

fn entry(step: &Step) -> Option<(&RootPath, &Path)> {
    match &step.action {
        Action::Replace { path, target, .. } | Action::Relink { path, target, .. } => {
            Some((path, &target.0))
        }
        _ => None,
    }
}

fn note(journal: &Mutex<File>, bytes: usize) {
    let mut journal = journal.lock().expect("alone");
    journal.write_all(&vec![b'x'; bytes]).expect("write");
    journal.sync_data().expect("flush");
}
