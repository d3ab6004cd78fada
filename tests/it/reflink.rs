//! `--method reflink`: files share their blocks, on real btrfs and xfs; nothing else changes.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::Value;

use crate::command::{Ran, cbin_audit};
use crate::loopfs::LoopFs;
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    for kind in ["btrfs", "xfs"] {
        let mkfs = if kind == "btrfs" { "mkfs.btrfs" } else { "mkfs.xfs" };
        let needs = &[Need::Root, Need::Program(mkfs), Need::Program("filefrag")];
        suite.test(&format!("privileged_reflink_shares_{kind}"), needs, move || shares(kind));
        suite.test(&format!("privileged_reflink_differs_{kind}"), needs, move || differs(kind));
    }
    let xfs = &[Need::Root, Need::Program("mkfs.xfs")];
    suite.test("privileged_reflink_is_refused_where_it_cannot_be", xfs, refused);
}

/// Three roots that hold the same, and a journal.
struct Ground {
    fs: LoopFs,
    home: tempfile::TempDir,
}

/// Longer than one call takes, and no multiple of a block.
const LARGE: usize = (17 << 20) + 123;

const FILES: [&str; 2] = ["bin/sleep", "lib/large"];

impl Ground {
    fn new(fs: LoopFs) -> Self {
        let sleep = fs::read("/bin/sleep").unwrap();
        let large: Vec<u8> = (0..LARGE as u64).map(|at| (at * at / 4099) as u8).collect();
        for root in ["a", "b", "c"] {
            for (name, content) in FILES.into_iter().zip([&sleep, &large]) {
                let path = fs.path().join(root).join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, content).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        rustix::fs::syncfs(fs::File::open(fs.path()).unwrap()).unwrap();
        Self { fs, home: tempfile::tempdir().unwrap() }
    }

    fn path(&self, root: &str, file: &str) -> PathBuf {
        self.fs.path().join(root).join(file)
    }

    fn files(&self) -> Vec<PathBuf> {
        let of = |root| FILES.map(|file| self.path(root, file));
        ["a", "b", "c"].into_iter().flat_map(of).collect()
    }

    fn cbin(&self, command: &str, options: &[&str]) -> Ran {
        let journal = self.home.path().join("journal");
        let mut cbin = cbin_audit();
        cbin.arg(command).args(options).arg("--journal").arg(journal);
        Ran::from(cbin.output().unwrap())
    }

    fn dedupe(&self, options: &[&str]) -> Ran {
        let roots = ["a", "b", "c"].map(|root| self.fs.path().join(root).display().to_string());
        let roots: Vec<&str> = roots.iter().map(String::as_str).collect();
        let store = self.home.path().join("store").display().to_string();
        let method = ["--json", "--method", "reflink", "--select", "all", "--store", &store];
        let ran = self.cbin("dedupe", &[&method, options, &roots].concat());
        assert!(!Path::new(&store).exists(), "shared blocks need no store");
        ran
    }
}

/// Everything of a file that `stat` tells, but where its blocks are; and its bytes.
fn state(path: &Path) -> (Vec<i64>, Vec<u8>) {
    let found = fs::symlink_metadata(path).unwrap();
    let numbers = vec![
        found.ino() as i64,
        i64::from(found.mode()),
        found.nlink() as i64,
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ];
    (numbers, fs::read(path).unwrap())
}

/// Where the blocks lie: `physical_offset` of each extent, and whether all are shared.
fn blocks(path: &Path) -> (Vec<String>, bool) {
    let ran = Command::new("filefrag").arg("-vs").arg(path).output().unwrap();
    let text = String::from_utf8(ran.stdout).unwrap();
    let lines = || text.lines().filter(|line| line.matches("..").count() == 2);
    let place = |line: &str| line.split(':').nth(2).unwrap().trim().to_owned();
    (lines().map(place).collect(), lines().all(|line| line.contains("shared")))
}

struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn shares(kind: &str) {
    let ground = Ground::new(LoopFs::make(kind, 400));
    // Nobody could open it for writing now.
    let mut sleeper =
        Sleeper(Command::new(ground.path("b", "bin/sleep")).arg("600").spawn().unwrap());
    let before: Vec<_> = ground.files().iter().map(|path| state(path)).collect();
    assert!(!blocks(&ground.path("b", "lib/large")).1, "nothing is shared before");
    let applied = ground.dedupe(&["--apply"]);
    assert_eq!(applied.status, 0, "{applied:?}");
    let applied: Value = serde_json::from_str(&applied.stdout).unwrap();
    assert_eq!(
        (applied["applied"].as_u64(), applied["state"].as_str()),
        (Some(4), Some("applied"))
    );
    let freed = applied["freed_bytes"].as_u64().unwrap();
    assert!(freed >= 2 * LARGE as u64, "{freed}");
    for file in FILES {
        let of = |root| blocks(&ground.path(root, file));
        assert!(of("a").1 && !of("a").0.is_empty(), "{:?}", of("a"));
        assert_eq!((of("a"), of("a")), (of("b"), of("c")));
    }
    let after: Vec<_> = ground.files().iter().map(|path| state(path)).collect();
    assert!(before == after, "neither bytes nor metadata change");
    assert!(sleeper.0.try_wait().unwrap().is_none(), "the program runs on");
    let second = ground.dedupe(&["--apply"]);
    assert_eq!(second.status, 0, "{second:?}");
    assert_eq!(serde_json::from_str::<Value>(&second.stdout).unwrap()["run"], Value::Null);
    let undone = ground.cbin("undo", &["1"]);
    assert!(undone.status != 0 && undone.stderr.contains("nothing is put back"), "{undone:?}");
    let listed: Value = serde_json::from_str(&ground.cbin("history", &["--json"]).stdout).unwrap();
    assert_eq!(
        (&listed["runs"][0]["standing"], &listed["runs"][0]["state"]),
        (&4.into(), &"applied".into())
    );
}

/// A file that changes after planning is compared by the kernel, and keeps its bytes.
fn differs(kind: &str) {
    let ground = Ground::new(LoopFs::make(kind, 400));
    let plan = ground.home.path().join("plan");
    fs::write(&plan, ground.dedupe(&[]).stdout).unwrap();
    let changed = ground.path("c", "lib/large");
    let mut bytes = fs::read(&changed).unwrap();
    bytes[LARGE - 1] ^= 1;
    fs::write(&changed, &bytes).unwrap();
    let options = ["--json", "--apply", "--plan", plan.to_str().unwrap()];
    let applied = ground.cbin("dedupe", &options);
    assert_eq!(applied.status, 3, "{applied:?}");
    let applied: Value = serde_json::from_str(&applied.stdout).unwrap();
    assert_eq!(
        (applied["applied"].as_u64(), applied["state"].as_str()),
        (Some(3), Some("partial"))
    );
    let left = &applied["left"][0];
    assert_eq!(left["path"], "lib/large");
    assert!(left["cause"].as_str().unwrap().contains("compared its bytes"), "{left}");
    assert!(fs::read(&changed).unwrap() == bytes, "what was written stays");
}

/// An xfs that was made without shared blocks says so.
fn refused() {
    let ground = Ground::new(LoopFs::laid("xfs", 400, &["-m", "reflink=0"], "loop"));
    let before: Vec<_> = ground.files().iter().map(|path| state(path)).collect();
    let applied = ground.dedupe(&["--apply"]);
    let applied: Value = serde_json::from_str(&applied.stdout).unwrap();
    assert_eq!(
        (applied["applied"].as_u64(), applied["state"].as_str()),
        (Some(0), Some("rolled_back"))
    );
    let left = applied["left"].as_array().unwrap();
    assert_eq!(left.len(), 4);
    let told = |left: &Value| left["cause"].as_str().unwrap().contains("cannot share blocks");
    assert!(left.iter().all(told), "{left:?}");
    let after: Vec<_> = ground.files().iter().map(|path| state(path)).collect();
    assert!(before == after);
}
