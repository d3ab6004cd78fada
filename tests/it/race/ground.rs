//! A container in memory, what lies outside of it, and what its owner does to it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use cbin_audit::exec::journal::Entry;
use cbin_audit::exec::{self, ApplyOptions, NoLog, Roots};
use cbin_audit::model::{
    Action, Applets, Before, Bytes, ContainerPath, ContentId, FileState, HostPath, Intent,
    Metadata, Method, Notices, ObjectName, Outcome, Plan, PlanSettings, PlannedRoot, RootId,
    RootPath, RootState, RunId, Runtime, Saves, Select, Silent, Step, StoreFormat,
};
use rustix::fs::{CWD, RenameFlags, inotify};

use super::Ended;
use super::gate::Written;
use crate::loopfs::Mount;
use crate::rig::image::scratch;

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
}

impl Ground {
    pub fn new() -> Self {
        let dir = scratch();
        let fs = Mount::new("tmpfs", dir.path().join("memory"), "strictatime,mode=755");
        let at = fs.path();
        for dir in ["stage", "outside/bin", "root/x/bin"] {
            fs::create_dir_all(at.join(dir)).unwrap();
        }
        for canary in ["outside/tool", "outside/bin/tool"] {
            fs::write(at.join(canary), ORIGINAL).unwrap();
        }
        symlink("../outside", at.join("root/x.link")).unwrap();
        let mut roots = Roots::default();
        let root = at.join("root");
        let ino = fs::metadata(&root).unwrap().ino();
        roots.open(RootId(0), &HostPath::from(root), ino).unwrap();
        let content = ContentId(*blake3::hash(ORIGINAL.as_bytes()).as_bytes());
        let object = ObjectName::new("tool", "x86_64", content);
        let target = format!("/cbin/{}", object.as_str());
        let canaries = canaries(&at.join("outside"));
        let watch = watch(&at.join("outside"));
        Self { fs, _dir: dir, roots, target, object, watch, canaries, written: Written::default() }
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

    pub fn target(&self) -> &str {
        &self.target
    }

    /// Lays the container as it is before each step: nobody else is at work.
    /// Returns the step as it is planned then.
    pub fn lay(&self) -> Step {
        if self.at("root/x").is_symlink() {
            self.swap_parent(0);
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
        let Action::Replace { path, before, .. } = &step.action else { panic!("{step:?}") };
        let (content, size) = (before.content, before.size);
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
    pub fn lay_applied(&self) -> Entry {
        let step = self.lay();
        let meta = fs::symlink_metadata(self.entry()).unwrap();
        let nanoseconds = |seconds: i64, rest: i64| seconds * 1_000_000_000 + rest;
        let metadata = Metadata {
            uid: meta.uid(),
            gid: meta.gid(),
            mode: meta.mode(),
            atime: nanoseconds(meta.atime(), meta.atime_nsec()),
            mtime: nanoseconds(meta.mtime(), meta.mtime_nsec()),
            xattrs: Vec::new(),
        };
        let Action::Replace { path, before, .. } = step.action else { panic!("{step:?}") };
        let FileState { ino, size, content, .. } = before;
        let new = self.at("stage/new");
        symlink(&self.target, &new).unwrap();
        fs::rename(&new, self.entry()).unwrap();
        let intent = Intent {
            step: step.seq,
            root: step.root,
            path,
            temporary: self.temporary().file_name().unwrap().as_bytes().to_vec(),
            before: Before::File { ino, size, nlink: 1, content, metadata },
            target: self.target.clone().into_bytes(),
            object: step.object,
            twin: None,
        };
        Entry { intent, outcome: Some(Outcome::Done), cause: None, undoing: false }
    }

    /// What the library's undo does to that. How it ended for the entry.
    pub fn put_back(&self, entry: &Entry) -> Ended {
        let entries = std::slice::from_ref(entry);
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
    for dir in [outside.to_owned(), outside.join("bin")] {
        inotify::add_watch(&watch, dir, inotify::WatchFlags::ALL_EVENTS).unwrap();
    }
    watch
}
