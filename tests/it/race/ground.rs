//! Containers in memory, what lies outside of them, and the steps that are made there.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use cbin_audit::exec::journal::Entry;
use cbin_audit::exec::{self, ApplyOptions, NoLog, Roots};
use cbin_audit::model::{
    Action, Applets, Before, Bytes, ContainerPath, ContentId, FileState, HostPath, Intent,
    Metadata, Method, Notices, ObjectName, Outcome, Plan, PlanSettings, PlannedRoot, RootId,
    RootPath, RootState, RunId, Runtime, Saves, Select, Silent, Step, StoreFormat, TreeEntry, Twin,
};
use rustix::fs::{AtFlags, CWD, StatxFlags, inotify, statx};

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
    /// The file of the other container, of which the entry becomes a name.
    Shared(String),
}

impl Thing {
    /// A file that holds this.
    pub fn says(&self, text: &str) -> bool {
        matches!(self, Self::File(found) | Self::Shared(found) if found == text)
    }
}

/// What the entry is, and becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A file, a link into the store.
    File,
    /// A directory, a link into the store.
    Tree,
    /// A file, another name of the other container's.
    Twin,
}

/// The container whose entry is changed.
pub const ROOT: &str = "root";
/// The one that has the file which the entry becomes a name of.
pub const OTHER: &str = "other";

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
    what: What,
    /// The container whose owner is at it.
    attacked: &'static str,
    /// The other container's file.
    twin: AtomicU64,
    /// A directory that is the entry, held open by the container.
    pub(super) inside: Mutex<Option<File>>,
}

impl Ground {
    /// The owner of `attacked` is at it.
    pub fn new(what: What, attacked: &'static str) -> Self {
        let dir = scratch();
        let fs = Mount::new("tmpfs", dir.path().join("memory"), "strictatime,mode=755");
        let at = fs.path();
        for dir in ["stage", "store", "outside/bin", "root/x/bin", "other/x/bin"] {
            fs::create_dir_all(at.join(dir)).unwrap();
        }
        for canary in ["outside/tool", "outside/bin/tool"] {
            match what {
                What::Tree => lay_tree(&at.join(canary)),
                What::File | What::Twin => fs::write(at.join(canary), ORIGINAL).unwrap(),
            }
        }
        let mut roots = Roots::default();
        for (id, side) in (0..).map(RootId).zip([ROOT, OTHER]) {
            let root = at.join(side);
            symlink("../outside", root.join("x.link")).unwrap();
            let ino = fs::metadata(&root).unwrap().ino();
            roots.open(id, &HostPath::from(root), ino).unwrap();
        }
        let content = ContentId(*blake3::hash(ORIGINAL.as_bytes()).as_bytes());
        let object = match what {
            What::Tree => ObjectName::tree(mutator::digest(&at.join("outside/tool"))),
            What::File | What::Twin => ObjectName::new("tool", "x86_64", content),
        };
        let target = match what {
            What::Twin => String::new(),
            What::File | What::Tree => format!("/cbin/{}", object.as_str()),
        };
        let canaries = canaries(&at.join("outside"));
        let watch = watch(&at.join("outside"));
        let (written, inside) = (Written::default(), Mutex::default());
        let (twin, _dir) = (AtomicU64::default(), dir);
        Self {
            fs,
            _dir,
            roots,
            target,
            object,
            watch,
            canaries,
            written,
            what,
            attacked,
            twin,
            inside,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.fs.path().join(name)
    }

    fn bin(&self, side: &str, name: &str) -> PathBuf {
        self.at(side).join("x/bin").join(name)
    }

    /// A name of the container whose owner is at it, below its own root.
    pub(super) fn own(&self, name: &str) -> PathBuf {
        self.at(self.attacked).join(name)
    }

    /// A name beside the program of that container.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.bin(self.attacked, name)
    }

    pub fn entry(&self) -> PathBuf {
        self.bin(ROOT, "tool")
    }

    pub fn temporary(&self) -> PathBuf {
        self.bin(ROOT, &format!("{}1-0", exec::TEMPORARY))
    }

    /// What a directory has as its name while it is taken away, or made.
    pub(super) fn scrap(&self) -> PathBuf {
        self.bin(ROOT, &format!("{}1-0-scrap", exec::TEMPORARY))
    }

    /// What the entry becomes: where its link leads to, or the file that it is a name of.
    pub fn becomes(&self) -> String {
        match self.what {
            What::Twin => self.bin(OTHER, "tool").to_str().unwrap().to_owned(),
            What::File | What::Tree => self.target.clone(),
        }
    }

    /// Lays the containers as they are before each step: nobody else is at work.
    /// Returns the step as it is planned then.
    pub fn lay(&self) -> Step {
        if self.own("x").is_symlink() {
            self.swap_parent(0);
        }
        match self.what {
            What::Tree => return self.lay_step_of_tree(),
            What::File => self.lay_file(ROOT),
            What::Twin => [ROOT, OTHER].into_iter().for_each(|side| self.lay_file(side)),
        }
        self.planned()
    }

    fn lay_file(&self, side: &str) {
        let _not_there = fs::remove_file(self.temporary());
        let _not_there = fs::remove_file(self.bin(side, ".package"));
        let new = self.at("stage/new");
        fs::write(&new, ORIGINAL).unwrap();
        fs::set_permissions(&new, Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::lchown(&new, Some(100_000), Some(100_000)).unwrap();
        fs::rename(&new, self.bin(side, "tool")).unwrap();
        symlink(EVIL, &new).unwrap();
        fs::rename(&new, self.bin(side, "evil")).unwrap();
    }

    fn lay_step_of_tree(&self) -> Step {
        for entry in fs::read_dir(self.at("root/x/bin")).unwrap() {
            remove(&entry.unwrap().path());
        }
        symlink(EVIL, self.bin(ROOT, "evil")).unwrap();
        lay_tree(&self.entry());
        *self.inside.lock().unwrap() = Some(File::open(self.entry()).unwrap());
        let (path, digest) = (RootPath::new("x/bin/tool"), mutator::digest(&self.entry()));
        let target = ContainerPath(PathBuf::from(&self.target));
        let action = Action::RemoveTree { path, digest, files: 1, target };
        Step { seq: 0, root: RootId(0), action, object: Some(self.object.clone()) }
    }

    fn planned(&self) -> Step {
        let (path, before) = (RootPath::new("x/bin/tool"), state(&self.entry()));
        let (action, object) = match self.what {
            What::Twin => {
                let of_state = state(&self.bin(OTHER, "tool"));
                self.twin.store(of_state.ino, SeqCst);
                let (of_root, of, of_names) = (RootId(1), path.clone(), 1);
                (Action::Hardlink { path, before, of_root, of, of_state, of_names }, None)
            }
            What::File | What::Tree => {
                let target = ContainerPath(PathBuf::from(&self.target));
                (Action::Replace { path, before, target }, Some(self.object.clone()))
            }
        };
        Step { seq: 0, root: RootId(0), action, object }
    }

    /// The library's own step. How it ended, in the journal's words.
    pub fn carry_out(&self, step: &Step) -> Ended {
        let steps = std::slice::from_ref(step);
        let mut changed = exec::change(RunId(1), &self.roots, steps, &mut NoLog).unwrap();
        (changed[0].outcome.name(), changed[0].cause.take())
    }

    /// The object comes into the store as always; hard links have none.
    pub fn store(&self) {
        let step = self.lay();
        if self.what != What::Twin {
            self.apply(&step);
        }
    }

    /// The step with all that a run has beside it, while nobody else is at work.
    fn apply(&self, step: &Step) {
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
        let below = match self.what {
            What::Tree => BTreeMap::from([(step.seq, entries(&self.entry()))]),
            What::File | What::Twin => BTreeMap::new(),
        };
        let (path, twin) = match step.action {
            Action::Replace { path, .. } | Action::RemoveTree { path, .. } => (path, None),
            Action::Hardlink { path, .. } => (path, Some(self.journaled_twin())),
            other => panic!("{other:?}"),
        };
        remove(&self.entry());
        match self.what {
            What::Twin => fs::hard_link(self.bin(OTHER, "tool"), self.entry()).unwrap(),
            What::File | What::Tree => symlink(&self.target, self.entry()).unwrap(),
        }
        let intent = Intent {
            step: step.seq,
            root: step.root,
            path,
            temporary: self.temporary().file_name().unwrap().as_bytes().to_vec(),
            before,
            target: self.target.clone().into_bytes(),
            object: step.object,
            twin,
        };
        (below, Entry { intent, outcome: Some(Outcome::Done), cause: None, undoing: false })
    }

    fn journaled_twin(&self) -> Twin {
        let (file, flags) = (self.bin(OTHER, "tool"), AtFlags::SYMLINK_NOFOLLOW);
        let stat = statx(CWD, &file, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME).unwrap();
        let known = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        let time = stat.stx_btime.tv_sec * 1_000_000_000 + i64::from(stat.stx_btime.tv_nsec);
        let born = if known { time } else { 0 };
        Twin { root: RootId(1), path: RootPath::new("x/bin/tool"), ino: stat.stx_ino, born }
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

    /// What is there now, in the container whose owner is at it.
    pub fn now(&self) -> Now {
        self.now_of(self.attacked)
    }

    /// What is in a container now. The directory may be under its other name.
    pub fn now_of(&self, side: &str) -> Now {
        let at = self.at(side);
        let bin = at.join(if at.join("x").is_symlink() { "x.link/bin" } else { "x/bin" });
        let names = fs::read_dir(bin).unwrap().map(|entry| entry.unwrap());
        names
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, self.thing(side, &entry.path()))
            })
            .collect()
    }

    fn thing(&self, side: &str, path: &Path) -> Thing {
        match fs::read_link(path) {
            Ok(target) if target == Path::new(&self.target) => Thing::Ours,
            Ok(target) => Thing::Link(target.to_str().unwrap().to_owned()),
            Err(_) if path.is_dir() => Thing::File(text_below(path)),
            Err(_) => {
                let text = fs::read_to_string(path).unwrap();
                let twin = fs::metadata(path).unwrap().ino() == self.twin.load(SeqCst);
                if twin && side == ROOT { Thing::Shared(text) } else { Thing::File(text) }
            }
        }
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
}

/// As a plan has it.
fn state(file: &Path) -> FileState {
    let meta = fs::symlink_metadata(file).unwrap();
    FileState {
        ino: meta.ino(),
        size: Bytes(meta.len()),
        mtime: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
        mode: meta.mode(),
        content: ContentId(*blake3::hash(ORIGINAL.as_bytes()).as_bytes()),
    }
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
        flags: 0,
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
