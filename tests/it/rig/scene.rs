//! Two containers, a store and a journal below one directory, and the questions that are asked of
//! them after whatever happened.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use cbin_audit::model::{HostPath, StoreFormat};

use super::dice::Dice;
use super::mutator;
use crate::packages;
use crate::snapshot::Snapshot;
use crate::suite::Need;
use crate::world::{dir, file, hardlink, link};

/// What a scene takes.
pub const NEEDS: &[Need] = &[
    Need::Root,
    Need::Package("busybox-static"),
    Need::Program("unshare"),
    Need::Program("chroot"),
];

/// Where everything lies. It may be looked at, unmounted and mounted again at the same place.
#[derive(Debug, Clone)]
pub struct Scene {
    base: PathBuf,
}

/// When all was made, since the epoch.
const LONG_AGO: Duration = Duration::new(1_000_000_000, 123_456_789);

/// A directory that both containers have, where they have one to share.
pub const TREE: &str = "usr/share/zone";

/// The containers.
pub const ROOTS: [&str; 2] = ["web", "db"];

impl Scene {
    pub fn at(base: &Path) -> Self {
        Self { base: base.to_owned() }
    }

    /// Lays the containers: real programs, links to them, old times, an owner who is not root.
    pub fn lay(base: &Path) -> Self {
        let scene = Self::at(base);
        let busybox = std::fs::read(packages::busybox().unwrap()).unwrap();
        for root in scene.roots() {
            crate::world! { root,
                "bin/busybox" => crate::world::Entry::File(busybox.clone(), 0o755),
                "bin/sh" => link("busybox"),
                "bin/ls" => link("busybox"),
                "sbin/init" => link("../bin/busybox"),
                "etc/os-release" => file("ID=nifty\n"),
                "cbin" => dir(),
            }
            age(&root);
        }
        std::fs::create_dir(scene.journal()).unwrap();
        std::os::unix::fs::lchown(scene.roots()[1].join("bin/ls"), Some(1000), Some(1000)).unwrap();
        scene
    }

    /// The same with two names in each container: each step costs hundreds of states.
    pub fn lay_small(base: &Path) -> Self {
        let scene = Self::lay(base);
        for root in scene.roots() {
            std::fs::remove_file(root.join("bin/ls")).unwrap();
            std::fs::remove_file(root.join("sbin/init")).unwrap();
            age(&root);
        }
        scene
    }

    /// Two containers whose directory is to become one: what it holds lies beside them, too.
    pub fn lay_tree(base: &Path) -> Self {
        let scene = Self::lay_small(base);
        let zone = b"UTC0\n".repeat(4000);
        for root in scene.roots() {
            let tree = root.join(TREE);
            crate::world! { tree,
                "UTC" => file(zone.clone()),
                "Etc/Zulu" => hardlink("UTC"),
                "Etc/here" => link("../UTC"),
            }
            age(&root);
        }
        std::fs::write(scene.zone(), zone).unwrap();
        scene
    }

    fn zone(&self) -> PathBuf {
        self.base.join("zone")
    }

    /// What somebody else does meanwhile: flushes a file of his own, or a directory of a
    /// container, one that is about to go among them.
    pub fn flush_unrelated(&self, dice: &mut Dice) {
        let own = self.base.join("unrelated");
        let mut dirs = self.roots().map(|root| root.join("bin")).to_vec();
        let shared =
            self.roots().into_iter().flat_map(|root| walkdir::WalkDir::new(root.join("usr")));
        let shared = shared.flatten().filter(|entry| entry.file_type().is_dir());
        dirs.extend(shared.map(walkdir::DirEntry::into_path));
        let flushed = if dice.once_in(2) {
            File::create(own).and_then(|mut file| file.write_all(b"noise").map(|()| file))
        } else {
            File::open(dice.pick(&dirs))
        };
        flushed.unwrap().sync_all().unwrap();
    }

    pub fn base(&self) -> &Path {
        &self.base
    }

    pub fn roots(&self) -> [PathBuf; 2] {
        ROOTS.map(|root| self.base.join(root))
    }

    pub fn store(&self) -> PathBuf {
        self.base.join("store")
    }

    /// Its store is to be an image.
    pub fn with_an_image(self) -> Self {
        std::fs::write(self.base.join("image"), "").unwrap();
        self
    }

    pub fn format(&self) -> StoreFormat {
        if self.base.join("image").exists() { StoreFormat::Erofs } else { StoreFormat::Dir }
    }

    /// What the containers are shown of the store.
    pub fn shown(&self) -> PathBuf {
        self.format().shown(&HostPath::from(self.store())).0
    }

    pub fn journal(&self) -> PathBuf {
        self.base.join("journal")
    }

    /// Both containers are changed: their programs and the links to them.
    pub fn apply(&self) -> Command {
        mutator::command("apply", self)
    }

    pub fn undo(&self) -> Command {
        mutator::command("undo", self)
    }

    pub fn recover(&self) -> Command {
        mutator::command("recover", self)
    }

    pub fn gc(&self) -> Command {
        mutator::command("gc", self)
    }

    /// What each container holds, below one name for each.
    pub fn snapshot(&self) -> Vec<Snapshot> {
        let of =
            |root: &PathBuf| Snapshot::of(root).without_directory_times().without_access_times();
        self.roots().iter().map(of).collect()
    }

    /// Runs the shell of each container, in it, with the store where its links lead to, and has it
    /// read the tree, where there is one.
    ///
    /// # Errors
    /// What did not run, or was not read.
    pub fn programs_run(&self) -> Result<(), String> {
        self.programs_run_with(|_| self.shown())
    }

    /// The same with what is mounted already.
    ///
    /// # Errors
    /// What did not run.
    pub fn programs_run_as_they_are(&self) -> Result<(), String> {
        self.programs_run_with(|_| PathBuf::new())
    }

    /// The same where each container, by its name, is shown what it is told to be.
    ///
    /// # Errors
    /// What did not run, or was not read.
    pub fn programs_run_with(&self, shown: impl Fn(&str) -> PathBuf) -> Result<(), String> {
        const SCRIPT: &str = r#"
            zone=$1; shift
            while [ $# -gt 0 ]; do
                root=$1 store=$2; shift 2
                if [ -d "$store" ]; then mount --bind "$store" "$root/cbin" || exit 9; fi
                [ "$(chroot "$root" /bin/sh -c 'echo ok')" = ok ] || { echo "$root"; exit 1; }
                if [ -e "$zone" ]; then
                    chroot "$root" /bin/busybox cat /usr/share/zone/Etc/here | cmp -s - "$zone" ||
                        { echo "$root: no zone"; exit 1; }
                    [ "$(chroot "$root" /bin/busybox find /usr/share/zone/ | wc -l)" = 5 ] ||
                        { echo "$root: other names"; exit 1; }
                fi
                [ -L "$root/bin/ls" ] || continue
                [ "$(chroot "$root" /bin/ls -d /etc)" = /etc ] || { echo "$root: ls"; exit 1; }
            done"#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", SCRIPT, "sh"]).arg(self.zone());
        for (name, root) in ROOTS.iter().zip(self.roots()) {
            command.arg(root).arg(shown(name));
        }
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        match output.status.code() {
            Some(0) => Ok(()),
            _ => Err(format!("no program runs in {}", String::from_utf8_lossy(&said).trim())),
        }
    }

    /// After a kill or a power cut: the containers work; `recover` succeeds and leaves no name of
    /// its own; they work still; what was changed can be undone; and then all is as `before`.
    ///
    /// # Errors
    /// The first of these that does not hold.
    pub fn recovers(&self, before: &[Snapshot]) -> Result<(), String> {
        self.recovers_where(before, Self::programs_run)
    }

    /// The same where `works` says whether the containers do.
    ///
    /// # Errors
    /// The first of these that does not hold.
    pub fn recovers_where(
        &self,
        before: &[Snapshot],
        works: fn(&Self) -> Result<(), String>,
    ) -> Result<(), String> {
        works(self).map_err(|error| format!("at once: {error}"))?;
        run(&mut self.recover())?;
        self.has_only_names_of(before)?;
        works(self).map_err(|error| format!("after recover: {error}"))?;
        self.undoes(before)
    }

    /// The tree may be a link.
    ///
    /// # Errors
    /// Names that are too many or too few.
    pub fn has_only_names_of(&self, before: &[Snapshot]) -> Result<(), String> {
        for (now, then) in self.snapshot().iter().zip(before) {
            let ours = |names: &Snapshot| -> Vec<PathBuf> {
                let names = names.names().into_iter().map(Path::to_owned);
                names.filter(|name| !name.starts_with(TREE) || name == Path::new(TREE)).collect()
            };
            let (now, then) = (ours(now), ours(then));
            if now != then {
                return Err(format!("the names are {now:?}, and were {then:?}"));
            }
        }
        Ok(())
    }

    /// Every directory has the time that it was laid with.
    ///
    /// # Errors
    /// The first that has another.
    pub fn directories_are_old(&self) -> Result<(), String> {
        let all = self.roots().into_iter().flat_map(walkdir::WalkDir::new).map(Result::unwrap);
        for dir in all.filter(|entry| entry.file_type().is_dir()) {
            let modified = dir.metadata().unwrap().modified().unwrap();
            if modified != UNIX_EPOCH + LONG_AGO {
                return Err(format!("{:?} has another time: {modified:?}", dir.path()));
            }
        }
        Ok(())
    }

    /// # Errors
    /// That `undo` failed, or what is not as it was.
    pub fn undoes(&self, before: &[Snapshot]) -> Result<(), String> {
        if self.snapshot() != before {
            run(&mut self.undo())?;
        }
        for (now, then) in self.snapshot().iter().zip(before) {
            let differences = then.differences(now);
            if !differences.is_empty() {
                return Err(format!("after undo:\n{}", differences.join("\n")));
            }
        }
        self.programs_run().map_err(|error| format!("after undo: {error}"))
    }
}

/// Runs it to its end.
///
/// # Errors
/// What it said, where it did not end with 0.
pub fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}: {said}", output.status))
}

/// All that is below gets a time long ago.
pub fn age(root: &Path) {
    let (tv_sec, tv_nsec) = (LONG_AGO.as_secs() as i64, LONG_AGO.subsec_nanos().into());
    let long_ago = rustix::fs::Timespec { tv_sec, tv_nsec };
    let times = rustix::fs::Timestamps { last_access: long_ago, last_modification: long_ago };
    for entry in walkdir::WalkDir::new(root).contents_first(true) {
        let path = entry.unwrap().into_path();
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, &path, &times, flags).unwrap();
    }
}
