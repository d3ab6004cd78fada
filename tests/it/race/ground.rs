//! A container in memory, what lies outside of it, and what its owner does to it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use cbin_audit::exec::journal::Entry;
use cbin_audit::exec::{self, ApplyOptions, NoLog, Roots};
use cbin_audit::model::{
    Action, Applets, Before, Bytes, ContainerPath, ContentId, FileState, HostPath, Intent,
    Metadata, Method, Notices, ObjectName, Outcome, Plan, PlanSettings, PlannedRoot, RootId,
    RootPath, RootState, RunId, Runtime, Saves, Select, Silent, Step, StoreFormat, TreeEntry,
};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, inotify, openat};

use super::Ended;
use super::gate::Written;
use crate::loopfs::Mount;
use crate::rig::image::scratch;
use crate::rig::mutator;

/// What the program of the container holds, and the one outside.
pub const ORIGINAL: &str = "the program";
/// Where the container's own link leads to.
pub const EVIL: &str = "../../../outside/tool";

/// What is at the names of the program's directory.
pub type Now = BTreeMap<String, Thing>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    /// The link that the step makes.
    Ours,
    Link(String),
    File(String),
}

/// All of it is in memory: a flush costs nothing there, and each reading is seen by its time.
pub struct Ground {
    fs: Mount,
    _dir: tempfile::TempDir,
    roots: Roots,
    target: String,
    object: ObjectName,
    watch: OwnedFd,
    canaries: Vec<String>,
    pub written: Written,
    /// The entry is a directory.
    tree: bool,
    /// That directory, held open by the container.
    inside: Mutex<Option<File>>,
}

impl Ground {
    pub fn new() -> Self {
        Self::of(false)
    }

    pub fn of_a_tree() -> Self {
        Self::of(true)
    }

    fn of(tree: bool) -> Self {
        let dir = scratch();
        let fs = Mount::new("tmpfs", dir.path().join("memory"), "strictatime,mode=755");
        let at = fs.path();
        for dir in ["stage", "outside/bin", "root/x/bin"] {
            fs::create_dir_all(at.join(dir)).unwrap();
        }
        for canary in ["outside/tool", "outside/bin/tool"] {
            match tree {
                true => lay_tree(&at.join(canary)),
                false => fs::write(at.join(canary), ORIGINAL).unwrap(),
            }
        }
        symlink("../outside", at.join("root/x.link")).unwrap();
        let mut roots = Roots::default();
        let root = at.join("root");
        let ino = fs::metadata(&root).unwrap().ino();
        roots.open(RootId(0), &HostPath::from(root), ino).unwrap();
        let content = ContentId(*blake3::hash(ORIGINAL.as_bytes()).as_bytes());
        let object = match tree {
            true => ObjectName::tree(mutator::digest(&at.join("outside/tool"))),
            false => ObjectName::new("tool", "x86_64", content),
        };
        let target = format!("/cbin/{}", object.as_str());
        let canaries = canaries(&at.join("outside"));
        let watch = watch(&at.join("outside"));
        let (written, inside) = (Written::default(), Mutex::default());
        Self { fs, _dir: dir, roots, target, object, watch, canaries, written, tree, inside }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.fs.path().join(name)
    }

    fn bin(&self, name: &str) -> PathBuf {
        self.at("root/x/bin").join(name)
    }

    pub fn entry(&self) -> PathBuf {
        self.bin("tool")
    }

    pub fn temporary(&self) -> PathBuf {
        self.bin(&format!("{}1-0", exec::TEMPORARY))
    }

    /// What a directory has as its name while it is taken away, or made.
    fn scrap(&self) -> PathBuf {
        self.bin(&format!("{}1-0-scrap", exec::TEMPORARY))
    }

    pub fn target(&self) -> &str {
        &self.target
    }

    /// Lays the container as it is before each step: nobody else is at work.
    /// Returns the step as it is planned then.
    pub fn lay(&self) -> Step {
        if self.at("root/x").is_symlink() {
            self.swap_parent(0);
        }
        if self.tree {
            return self.lay_step_of_tree();
        }
        let _not_there = fs::remove_file(self.temporary());
        let _not_there = fs::remove_file(self.bin(".package"));
        let new = self.at("stage/new");
        fs::write(&new, ORIGINAL).unwrap();
        fs::set_permissions(&new, Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::lchown(&new, Some(100_000), Some(100_000)).unwrap();
        fs::rename(&new, self.entry()).unwrap();
        symlink(EVIL, &new).unwrap();
        fs::rename(&new, self.bin("evil")).unwrap();
        self.planned()
    }

    fn lay_step_of_tree(&self) -> Step {
        for entry in fs::read_dir(self.at("root/x/bin")).unwrap() {
            remove(&entry.unwrap().path());
        }
        symlink(EVIL, self.bin("evil")).unwrap();
        lay_tree(&self.entry());
        *self.inside.lock().unwrap() = Some(File::open(self.entry()).unwrap());
        let (path, digest) = (RootPath::new("x/bin/tool"), mutator::digest(&self.entry()));
        let target = ContainerPath(PathBuf::from(&self.target));
        let action = Action::RemoveTree { path, digest, files: 1, target };
        Step { seq: 0, root: RootId(0), action, object: Some(self.object.clone()) }
    }

    fn planned(&self) -> Step {
        let meta = fs::symlink_metadata(self.entry()).unwrap();
        let before = FileState {
            ino: meta.ino(),
            size: Bytes(meta.len()),
            mtime: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
            mode: meta.mode(),
            content: ContentId(*blake3::hash(ORIGINAL.as_bytes()).as_bytes()),
        };
        let target = ContainerPath(PathBuf::from(&self.target));
        let action = Action::Replace { path: RootPath::new("x/bin/tool"), before, target };
        Step { seq: 0, root: RootId(0), action, object: Some(self.object.clone()) }
    }

    /// The library's own step. How it ended, in the journal's words.
    pub fn carry_out(&self, step: &Step) -> Ended {
        let steps = std::slice::from_ref(step);
        let mut changed = exec::change(RunId(1), &self.roots, steps, &mut NoLog).unwrap();
        (changed[0].outcome.name(), changed[0].cause.take())
    }

    /// The step with all that a run has beside it, while nobody else is at work.
    pub fn apply(&self, step: &Step) {
        let _none_yet = fs::remove_dir_all(self.at("journal"));
        let stop = AtomicBool::new(false);
        let (journal, host) = (self.at("journal"), self.at("stage"));
        let options = ApplyOptions { journal: &journal, host: &host, stop: &stop };
        let applied = exec::apply(&self.plan(step), options, &Silent, &|| Ok(())).unwrap();
        assert_eq!(applied.changed, 1, "{applied:?}");
    }

    fn plan(&self, step: &Step) -> Plan {
        let (path, content, size) = match &step.action {
            Action::Replace { path, before, .. } => (path, before.content, before.size),
            Action::RemoveTree { path, digest, .. } => (path, *digest, Bytes(0)),
            other => panic!("{other:?}"),
        };
        let action = Action::Store { source: path.clone(), content, size };
        let root = self.at("root");
        Plan {
            settings: PlanSettings {
                select: Select::Elf,
                method: Method::Symlink,
                store: HostPath(self.at("store")),
                store_format: StoreFormat::Dir,
                mount_point: ContainerPath("/cbin".into()),
                applets: Applets::Auto,
                live: false,
                include_setid: false,
                trust_domain: None,
            },
            roots: vec![PlannedRoot {
                id: RootId(0),
                ino: fs::metadata(&root).unwrap().ino(),
                path: HostPath(root),
                name: "root".to_owned(),
                runtime: Runtime::Directory,
                state: RootState::Stopped,
            }],
            steps: vec![step.clone(), Step { seq: 1, action, ..step.clone() }],
            skips: Vec::new(),
            saves: Saves::default(),
            notices: Notices::default(),
        }
    }

    /// Lays the container as a run leaves it, and returns what the journal says of its entry.
    pub fn lay_applied(&self) -> (BTreeMap<u32, Vec<TreeEntry>>, Entry) {
        let step = self.lay();
        let before = before(&self.entry());
        let below = match self.tree {
            true => BTreeMap::from([(step.seq, entries(&self.entry()))]),
            false => BTreeMap::new(),
        };
        let path = match step.action {
            Action::Replace { path, .. } | Action::RemoveTree { path, .. } => path,
            other => panic!("{other:?}"),
        };
        remove(&self.entry());
        symlink(&self.target, self.entry()).unwrap();
        let intent = Intent {
            step: step.seq,
            root: step.root,
            path,
            temporary: self.temporary().file_name().unwrap().as_bytes().to_vec(),
            before,
            target: self.target.clone().into_bytes(),
            object: step.object,
            twin: None,
        };
        (below, Entry { intent, outcome: Some(Outcome::Done), cause: None, undoing: false })
    }

    /// What the library's undo does to that. How it ended for the entry.
    pub fn put_back(&self, (below, entry): &(BTreeMap<u32, Vec<TreeEntry>>, Entry)) -> Ended {
        let entries = (below, std::slice::from_ref(entry));
        let store = self.at("store");
        let mut changed = exec::put_back(&self.roots, &store, entries, &mut NoLog).unwrap();
        match changed[0].outcome {
            Outcome::Undone => ("undone", None),
            _ => ("kept", changed[0].cause.take()),
        }
    }

    /// What is there now. The directory may be under its other name.
    pub fn now(&self) -> Now {
        let swapped = self.at("root/x").is_symlink();
        let bin = if swapped { self.at("root/x.link/bin") } else { self.at("root/x/bin") };
        let names = fs::read_dir(bin).unwrap().map(|entry| entry.unwrap());
        names
            .map(|entry| {
                let path = entry.path();
                let thing = match fs::read_link(&path) {
                    Ok(target) if target == Path::new(&self.target) => Thing::Ours,
                    Ok(target) => Thing::Link(target.to_str().unwrap().to_owned()),
                    Err(_) if path.is_dir() => Thing::File(text_below(&path)),
                    Err(_) => Thing::File(fs::read_to_string(&path).unwrap()),
                };
                (entry.file_name().into_string().unwrap(), thing)
            })
            .collect()
    }

    /// # Errors
    /// What was opened, read or changed outside of the root.
    pub fn nothing_outside_was_touched(&self) -> Result<(), String> {
        let mut space = [std::mem::MaybeUninit::uninit(); 4096];
        let mut seen = inotify::Reader::new(&self.watch, &mut space);
        if let Ok(event) = seen.next() {
            return Err(format!("{:?} of {:?} outside", event.events(), event.file_name()));
        }
        let now = canaries(&self.at("outside"));
        // Looking at the directories is an event of its own.
        while seen.next().is_ok() {}
        if now == self.canaries {
            return Ok(());
        }
        Err(format!("outside was {:?}, is {now:?}", self.canaries))
    }

    /// The entry and a link out of the root change places.
    pub fn swap_entry(&self, _turn: u64) {
        exchange(&self.entry(), &self.bin("evil"));
    }

    /// A directory on the way and a link to one outside change places.
    pub fn swap_parent(&self, _turn: u64) {
        exchange(&self.at("root/x"), &self.at("root/x.link"));
    }

    /// The temporary name is taken before, or swapped for a link out of the root.
    pub fn swap_temporary(&self, turn: u64) {
        if turn.is_multiple_of(8) {
            let _taken = symlink(EVIL, self.temporary());
        }
        exchange(&self.temporary(), &self.bin("evil"));
    }

    /// The program is written to where it is: told to be done once the file is closed.
    pub fn write_in_place(&self, turn: u64) {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_NOFOLLOW);
        let Ok(mut file) = options.open(self.entry()) else { return };
        let text = format!("{turn:0width$}", width = ORIGINAL.len());
        file.write_all(text.as_bytes()).unwrap();
        *self.written.lock().unwrap() = Some(text);
    }

    /// The same with the name that a directory has while it is taken away, or made.
    pub fn swap_scrap(&self, turn: u64) {
        if turn.is_multiple_of(8) {
            let _taken = symlink(EVIL, self.scrap());
        }
        exchange(&self.scrap(), &self.bin("evil"));
    }

    /// A file in the directory is written: by its path, or by who works in the directory.
    pub fn write_inside(&self, turn: u64) {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW;
        let opened = match self.inside.lock().unwrap().as_ref().filter(|_| turn.is_multiple_of(2)) {
            Some(inside) => openat(inside, "zone", flags, Mode::empty()),
            None => openat(CWD, self.entry().join("zone"), flags, Mode::empty()),
        };
        let Ok(file) = opened else { return };
        let text = format!("{turn:0width$}", width = ORIGINAL.len());
        File::from(file).write_all(text.as_bytes()).unwrap();
        *self.written.lock().unwrap() = Some(text);
    }

    /// A new file is put in the place of one in the directory.
    pub fn put_package_inside(&self, turn: u64) {
        let (new, text) = (self.bin(".package"), format!("package {turn}"));
        let Ok(mut file) = File::create(&new) else { return };
        file.write_all(text.as_bytes()).unwrap();
        let put = match self.inside.lock().unwrap().as_ref().filter(|_| turn.is_multiple_of(2)) {
            Some(inside) => rustix::fs::renameat(CWD, &new, inside, "zone"),
            None => rustix::fs::renameat(CWD, &new, CWD, self.entry().join("zone")),
        };
        match put {
            Ok(()) => *self.written.lock().unwrap() = Some(text),
            Err(_) => fs::remove_file(&new).unwrap(),
        }
    }

    /// A new program is put in place of the old, as package managers do.
    pub fn put_package(&self, turn: u64) {
        let (new, text) = (self.bin(".package"), format!("package {turn}"));
        let mut file = File::create(&new).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        fs::rename(&new, self.entry()).unwrap();
        *self.written.lock().unwrap() = Some(text);
    }
}

/// Where one of the names is missing, nothing happens.
fn exchange(one: &Path, other: &Path) {
    let _missing = rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
}

/// A file, and a link to it in a directory.
fn lay_tree(at: &Path) {
    fs::create_dir_all(at.join("sub")).unwrap();
    fs::write(at.join("zone"), ORIGINAL).unwrap();
    symlink("../zone", at.join("sub/link")).unwrap();
}

/// Whatever it is.
fn remove(path: &Path) {
    match path.symlink_metadata().unwrap().is_dir() {
        true => fs::remove_dir_all(path).unwrap(),
        false => fs::remove_file(path).unwrap(),
    }
}

/// What the file in a directory says, wherever it is; of the original, where that is all there.
fn text_below(dir: &Path) -> String {
    let names: Vec<_> = walkdir::WalkDir::new(dir).min_depth(1).into_iter().flatten().collect();
    let file = names.iter().find(|entry| entry.file_type().is_file());
    let text = file.map(|file| fs::read_to_string(file.path()).unwrap()).unwrap_or_default();
    let whole = ["zone", "sub", "sub/link"]
        .iter()
        .all(|name| dir.join(name).is_symlink() || dir.join(name).exists());
    if text == ORIGINAL && !(whole && names.len() == 3) { format!("{names:?}") } else { text }
}

/// As the journal has it.
fn before(path: &Path) -> Before {
    let meta = fs::symlink_metadata(path).unwrap();
    let nanoseconds = |seconds: i64, rest: i64| seconds * 1_000_000_000 + rest;
    let metadata = Metadata {
        uid: meta.uid(),
        gid: meta.gid(),
        mode: meta.mode(),
        atime: nanoseconds(meta.atime(), meta.atime_nsec()),
        mtime: nanoseconds(meta.mtime(), meta.mtime_nsec()),
        xattrs: Vec::new(),
    };
    if meta.is_dir() {
        Before::Tree { metadata }
    } else if meta.is_symlink() {
        let target = fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec();
        Before::Link { target, metadata }
    } else {
        let content = ContentId(*blake3::hash(&fs::read(path).unwrap()).as_bytes());
        Before::File { ino: meta.ino(), size: Bytes(meta.len()), nlink: 1, content, metadata }
    }
}

fn entries(dir: &Path) -> Vec<TreeEntry> {
    let all = walkdir::WalkDir::new(dir).min_depth(1).sort_by_file_name().into_iter();
    all.map(|entry| {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(dir).unwrap().as_os_str().as_bytes();
        TreeEntry { path: RootPath::new(path), before: before(entry.path()) }
    })
    .collect()
}

/// Everything of everything that is there, times included.
fn canaries(outside: &Path) -> Vec<String> {
    let entries = walkdir::WalkDir::new(outside).sort_by_file_name().into_iter();
    let files = entries.map(|entry| entry.unwrap().into_path());
    files
        .map(|path| {
            let meta = fs::symlink_metadata(&path).unwrap();
            let times = [meta.mtime_nsec(), meta.ctime_nsec(), meta.ctime()];
            // Reading a directory for this list moves its own.
            let read = if meta.is_dir() { (0, 0) } else { (meta.atime(), meta.atime_nsec()) };
            let who = (meta.uid(), meta.gid(), meta.mode(), meta.nlink(), meta.len());
            format!("{path:?} {} {who:?} {times:?} {read:?}", meta.ino())
        })
        .collect()
}

/// Says of every file and directory there what is done to it.
fn watch(outside: &Path) -> OwnedFd {
    let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
    let watch = inotify::init(flags).unwrap();
    let dirs = walkdir::WalkDir::new(outside).into_iter().flatten();
    let dirs: Vec<_> = dirs.filter(|entry| entry.file_type().is_dir()).collect();
    // Looked at before: that would be seen, too.
    for dir in dirs.into_iter().map(walkdir::DirEntry::into_path) {
        inotify::add_watch(&watch, dir, inotify::WatchFlags::ALL_EVENTS).unwrap();
    }
    watch
}
