//! What it costs to make hundreds of roots one, and to put them back: the plan, apply, undo.
//!
//! Each root has a static busybox, a multi-call dropbear and 270 links to them, copied for
//! real. They are made once, below `target/`; `CBIN_AUDIT_ROOTS` says how many (100),
//! `CBIN_AUDIT_ROOTS_DIR` where else: the file system matters more than all the rest.
//! Needs root, for the store belongs to it.

#![expect(clippy::disallowed_methods, reason = "roots are made")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use cbin_audit::model::{
    Applets, ContainerPath, HostPath, Method, MountMeans, Plan, PlanSettings, Select, Silent,
    StoreFormat,
};
use cbin_audit::ops::{self, ApplyOptions, Limits, PlanOptions, UndoOptions};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn benches(criterion: &mut Criterion) {
    let ground = Ground::make();
    let entries = ground.plan().steps.len() as u64;
    let mut group = criterion.benchmark_group(format!("{} roots", ground.roots.len()));
    group.sample_size(10).throughput(Throughput::Elements(entries));
    group.bench_function("plan", |bench| bench.iter(|| ground.plan()));
    group.bench_function("apply", |bench| {
        bench.iter_custom(|times| (0..times).map(|_| ground.there_and_back().0).sum());
    });
    group.bench_function("undo", |bench| {
        bench.iter_custom(|times| (0..times).map(|_| ground.there_and_back().1).sum());
    });
    group.finish();
}

/// Roots, a store and a journal on one file system.
struct Ground {
    home: PathBuf,
    roots: Vec<PathBuf>,
}

const LINKS: usize = 270;

impl Ground {
    fn make() -> Self {
        let home = std::env::var_os("CBIN_AUDIT_ROOTS_DIR").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/dedupe-roots"),
            PathBuf::from,
        );
        let count = std::env::var("CBIN_AUDIT_ROOTS").map_or(100, |n| n.parse().expect("a number"));
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/packages");
        let package =
            PathBuf::from(script("fetch-deb", &[cache.as_os_str(), "busybox-static".as_ref()]));
        let busybox = [package.join("bin/busybox"), package.join("usr/bin/busybox")]
            .into_iter()
            .find(|path| path.exists())
            .expect("busybox");
        let dropbear = PathBuf::from(script("build-dropbear", &[cache.as_os_str()]));
        let roots: Vec<_> = (1..=count).map(|at| home.join(format!("roots/{at}"))).collect();
        for root in roots.iter().filter(|root| !root.exists()) {
            lay(root, &busybox, &dropbear);
        }
        Self { home, roots }
    }

    fn plan(&self) -> Plan {
        let settings = PlanSettings {
            select: Select::Multicall,
            method: Method::Symlink,
            store: HostPath(self.home.join("store")),
            store_format: StoreFormat::Dir,
            mount_point: ContainerPath("/cbin".into()),
            applets: Applets::Auto,
            live: false,
            include_setid: false,
            trust_domain: None,
        };
        let (mounts, limits) = (Some(MountMeans::None), Limits::default());
        let options = PlanOptions { roots: self.roots.clone(), settings, mounts, limits };
        ops::plan(&options, &Silent).expect("plan")
    }

    /// How long a plan took to be carried out, and to be put back.
    fn there_and_back(&self) -> (Duration, Duration) {
        let (plan, stop) = (self.plan(), AtomicBool::new(false));
        let journal = self.home.join("journal");
        // Undo looks at all the runs that there ever were.
        let _gone = fs::remove_dir_all(&journal);
        let began = Instant::now();
        let options = ApplyOptions { journal: &journal, host: &self.home, stop: &stop };
        let applied = ops::apply(&plan, options, &Silent).expect("apply");
        let apply = began.elapsed();
        assert!(applied.left.is_empty(), "{:?}", applied.left.first());
        let began = Instant::now();
        let options = UndoOptions { journal: &journal, run: None, root: None, stop: &stop };
        let undone = ops::undo(options, &Silent).expect("undo");
        assert!(undone.kept.is_empty(), "{:?}", undone.kept.first());
        (apply, began.elapsed())
    }
}

/// One root, whole or not at all.
fn lay(root: &Path, busybox: &Path, dropbear: &Path) {
    let part = root.with_extension("part");
    let _gone = fs::remove_dir_all(&part);
    for dir in ["bin", "sbin", "dev", "etc", "proc", "sys", "tmp", "usr"] {
        fs::create_dir_all(part.join(dir)).expect("make a directory");
    }
    for (program, name) in [(busybox, "busybox"), (dropbear, "dropbearmulti")] {
        let at = part.join("bin").join(name);
        fs::write(&at, fs::read(program).expect("read a program")).expect("write a program");
        fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    let listed = Command::new(busybox).arg("--list").output().expect("list the applets").stdout;
    let listed = String::from_utf8(listed).expect("applets");
    let dropbears = ["dropbear", "ssh", "scp", "dropbearkey", "dropbearconvert"];
    for name in dropbears {
        symlink("dropbearmulti", part.join("bin").join(name)).expect("link");
    }
    let applets = listed.lines().filter(|name| *name != "busybox" && !dropbears.contains(name));
    for name in applets.take(LINKS - dropbears.len()) {
        symlink("busybox", part.join("bin").join(name)).expect("link");
    }
    fs::rename(&part, root).expect("rename");
}

fn script(name: &str, arguments: &[&std::ffi::OsStr]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    let ran = Command::new(script).args(arguments).output().expect("start a script");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).expect("a path").trim().to_owned()
}

criterion_group!(dedupe, benches);
criterion_main!(dedupe);
