//! Two containers as an engine makes them, without the engine: overlays that the host sees, each
//! the root of a process in a mount namespace of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::command::{Ran, cbin_audit};
use crate::memory_ground::{Ground, Running, start};
use crate::snapshot::Snapshot;
use crate::suite::Need;

pub const NEEDS: &[Need] = &[
    Need::Root,
    Need::Package("busybox-static"),
    Need::Program("unshare"),
    Need::Program("nsenter"),
];

/// What the containers are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// One image.
    One,
    /// An image each, with the same program.
    Two,
}

const NAMES: [&str; 2] = ["one", "two"];

pub struct Boxes {
    pub ground: Ground,
    /// As the host sees them.
    pub roots: [PathBuf; 2],
    running: [Option<Running>; 2],
    before: Vec<Snapshot>,
}

impl Boxes {
    pub fn new(layers: Layers) -> Self {
        Self::with_names(layers, 2)
    }

    /// The program has so many names, hard links of one file. What starts each container is another
    /// program.
    pub fn with_names(layers: Layers, names: usize) -> Self {
        let ground = Ground::new();
        fs::set_permissions(ground.at(""), fs::Permissions::from_mode(0o755)).unwrap();
        let images = match layers {
            Layers::One => ["one", "one"],
            Layers::Two => ["one", "two"],
        };
        for image in images {
            if !ground.at(&format!("image/{image}")).exists() {
                lay(&ground, image, names);
            }
        }
        let roots = [0, 1].map(|at| {
            let image = ground.at(&format!("image/{}", images[at]));
            ground.overlay_rw(NAMES[at], &image, "")
        });
        let before = layers_of(&ground);
        let mut boxes = Self { ground, roots, running: [None, None], before };
        boxes.restart(0);
        boxes.restart(1);
        boxes
    }

    pub fn journal(&self) -> PathBuf {
        self.ground.at("journal")
    }

    pub fn stop(&mut self, at: usize) {
        self.running[at] = None;
    }

    pub fn restart(&mut self, at: usize) {
        self.stop(at);
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation=private", "chroot"]).arg(&self.roots[at]);
        command.args(["/bin/busybox-pause", "sleep", "1000"]);
        self.running[at] = Some(start(&mut command));
    }

    /// Where a name is in a container.
    pub fn at(&self, name: &str) -> String {
        format!("/bin/{name}")
    }

    pub fn on_host(&self, at: usize, name: &str) -> String {
        self.roots[at].join("bin").join(name).display().to_string()
    }

    pub fn pid(&self, at: usize) -> u32 {
        self.running[at].as_ref().unwrap().pid()
    }

    /// A program of the container's, in it.
    pub fn inside(&self, at: usize, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-r", "-w", "-t", &self.pid(at).to_string(), "--"]);
        command.arg(self.at("busybox-pause")).args(words);
        command
    }

    /// A program of the host's, in the container's mount namespace.
    pub fn outside(&self, at: usize, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &self.pid(at).to_string(), "--"]).args(words);
        command
    }

    /// What the container starts by a name.
    pub fn sleeper(&self, at: usize, name: &str) -> Running {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-r", "-w", "-t", &self.pid(at).to_string(), "--"]);
        start(command.arg(self.at(name)).args(["sleep", "1000"]))
    }

    pub fn sleepers(&self) -> Vec<Running> {
        [0, 1].map(|at| self.sleeper(at, &self.ground.name)).into()
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = cbin_audit();
        command.args(words).arg("--journal").arg(self.journal());
        if ["dedupe", "verify", "gc"].contains(&words[0]) {
            command.arg("--store").arg(self.ground.at("store"));
        }
        if words[0] == "dedupe" {
            command.args(&self.roots);
        }
        command
    }

    /// Its programs run, under each of their names.
    pub fn programs_run(&self) -> Result<(), String> {
        for at in [0, 1] {
            for name in [self.ground.name.as_str(), "ls"] {
                let mut command = Command::new("nsenter");
                command.args(["-m", "-r", "-w", "-t", &self.pid(at).to_string(), "--"]);
                // As `ls` it lists what is named after it.
                let output = command.arg(self.at(name)).args(["true"]).output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                if !output.status.success() && !said.contains("No such file") {
                    return Err(format!("{name} of {}: {said}", NAMES[at]));
                }
            }
        }
        Ok(())
    }

    /// As before any run.
    pub fn forget(&self) {
        for dir in ["store", "journal"] {
            let _missing = fs::remove_dir_all(self.ground.at(dir));
        }
    }

    pub fn run(&self, words: &[&str]) -> Ran {
        Ran::from(self.command(words).output().unwrap())
    }

    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Value {
        let ran = self.run(&[words, &["--json"]].concat());
        assert_eq!(ran.status, 0, "{}{}", ran.stdout, ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap()
    }

    /// How many objects each container has among its mounts.
    pub fn bound(&self) -> [usize; 2] {
        [0, 1].map(|at| self.bound_in(at))
    }

    pub fn bound_in(&self, at: usize) -> usize {
        self.bound_of(self.pid(at))
    }

    pub fn bound_of(&self, pid: u32) -> usize {
        let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        let object = |line: &&str| {
            // Behind the name of one that has lost it stands that.
            line.split(' ').nth(3).is_some_and(|root| root.contains("/busybox-x86_64-"))
        };
        table.lines().filter(object).count()
    }

    /// Not a name, a byte or a time.
    #[track_caller]
    pub fn layers_are_as_before(&self) {
        assert_eq!(self.layers_changed(), [""; 0]);
    }

    pub fn layers_changed(&self) -> Vec<String> {
        let now = layers_of(&self.ground);
        self.before.iter().zip(now).flat_map(|(before, now)| before.differences(&now)).collect()
    }
}

/// The images, and the upper directories.
fn layers_of(ground: &Ground) -> Vec<Snapshot> {
    let all = ["image", "one.upper", "two.upper"];
    all.map(|dir| Snapshot::of(&ground.at(dir)).without_access_times()).into()
}

fn lay(ground: &Ground, image: &str, names: usize) {
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp", "usr", "var"] {
        ground.dir(&format!("image/{image}/{dir}"));
    }
    let bin = ground.at(&format!("image/{image}/bin"));
    let program = ground.program_in(&bin);
    if names == 2 {
        fs::hard_link(&program, bin.join("ls")).unwrap();
    }
    for name in (1..names).filter(|_| names > 2) {
        fs::hard_link(&program, bin.join(format!("busybox-name-{name}"))).unwrap();
    }
    // What starts the container is in each image another.
    let pause = bin.join("busybox-pause");
    let mut bytes = fs::read(crate::packages::busybox().unwrap()).unwrap();
    bytes.extend_from_slice(format!("{} {image}", ground.name).as_bytes());
    fs::write(&pause, bytes).unwrap();
    fs::set_permissions(&pause, fs::Permissions::from_mode(0o755)).unwrap();
}
