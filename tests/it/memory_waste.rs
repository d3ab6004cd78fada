//! What sharing would save, predicted and then measured: the kernel's own count of
//! mapped file pages drops by exactly as much.
//!
//! Everything runs in a memory control group of its own, and from fresh copies that
//! nothing outside has in its cache: no other process on the machine disturbs the count.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cbin_audit::model::{BinaryMemory, Pages};

use crate::memory_ground::{Ground, Running, done, look, named, wait_for};
use crate::suite::{Need, Suite};

const GROUPS: &str = "/sys/fs/cgroup/memory/memory.stat";

pub fn tests(suite: &mut Suite) {
    let needs = &[Need::Root, Need::Package("busybox-static"), Need::File(GROUPS)];
    suite.test("privileged_memory_waste_of_8_containers_with_3_processes", needs, || {
        saves_what_was_predicted(8, &[&["sleep", "1000"], &["sh"], &["awk", "{print}"]]);
    });
    suite.test("privileged_memory_waste_of_20_containers_with_10_processes", needs, || {
        saves_what_was_predicted(20, &[&["sleep", "1000"][..]; 10]);
    });
}

fn saves_what_was_predicted(containers: usize, programs: &[&[&str]]) {
    let ground = Ground::new();
    let group = Group::new(&ground.name);
    let apart = run_apart(&ground, &group, containers, programs);
    let predicted = measured(&ground, &group, containers as u64);
    drop(apart);
    wait_for("the processes to end", || group.processes() == 0);

    let together = run_together(&ground, &group, containers, programs);
    let after = measured(&ground, &group, 1);
    drop(together);

    assert!(predicted.file.wasted().0 > 100 * (containers as u64 - 1), "{predicted:#?}");
    assert_eq!(after.file.wasted(), Pages(0));
    let drop = predicted.file.resident.saturating_sub(after.file.resident);
    assert_eq!(drop, predicted.file.wasted(), "{predicted:#?}\n{after:#?}");
}

/// The tool's entry, once the group's own count of mapped pages says the same.
fn measured(ground: &Ground, group: &Group, objects: u64) -> BinaryMemory {
    let begin = Instant::now();
    loop {
        let report = look();
        let binary = named(&report, &ground.name).first().copied().cloned().unwrap();
        assert_eq!(binary.objects, objects, "{binary:#?}");
        // The kernel adds up per processor, and folds the sums every two seconds.
        if group.mapped_pages() == binary.file.resident {
            return binary;
        }
        let late = begin.elapsed() > Duration::from_secs(15);
        assert!(!late, "the kernel counts {:?}, the tool {binary:#?}", group.mapped_pages());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A copy in each container.
fn run_apart(
    ground: &Ground,
    group: &Group,
    containers: usize,
    programs: &[&[&str]],
) -> Vec<Running> {
    let roots: Vec<PathBuf> =
        (0..containers).map(|at| ground.dir(&format!("root{at}/bin"))).collect();
    for root in &roots {
        group.charge(&ground.program_in(root));
    }
    let place = format!("/bin/{}", ground.name);
    start_all(&roots, group, &place, programs)
}

/// One copy, in all containers by a read-only bind mount.
fn run_together(
    ground: &Ground,
    group: &Group,
    containers: usize,
    programs: &[&[&str]],
) -> Vec<Running> {
    let store = ground.dir("store");
    group.charge(&ground.program_in(&store));
    let store = store.to_str().unwrap();
    let points = (0..containers).map(|at| format!("root{at}/cbin"));
    let roots: Vec<PathBuf> =
        points.map(|point| ground.mount(&point, &["--bind", "-o", "ro", store])).collect();
    start_all(&roots, group, &format!("/cbin/{}", ground.name), programs)
}

/// Starts the programs in each container and waits until all are idle.
fn start_all(roots: &[PathBuf], group: &Group, place: &str, programs: &[&[&str]]) -> Vec<Running> {
    let roots = roots.iter().map(|dir| dir.parent().unwrap());
    let running: Vec<Running> = roots
        .flat_map(|root| programs.iter().map(move |arguments| group.start(root, place, arguments)))
        .collect();
    for process in &running {
        wait_for("an idle process", || is_idle(process.pid()));
    }
    running
}

/// Asleep, or reading from the pipe that nobody writes to: read(2) of descriptor 0.
fn is_idle(pid: u32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let reads = ["0 0x0 ", "63 0x0 "].iter().any(|read| call.starts_with(read));
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let busybox =
        exe.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"busybox"));
    busybox && (reads || crate::memory_ground::is_asleep(pid))
}

/// A memory control group.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Self {
        let path = Path::new(GROUPS).with_file_name(format!("cbin-audit-{name}"));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// A shell line that runs in the group.
    fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("echo $$ > {}/cgroup.procs; {line}", self.0.display()));
        command
    }

    /// Makes the group pay for the whole file: written back, dropped, and read again.
    fn charge(&self, file: &Path) {
        let opened = fs::File::open(file).unwrap();
        opened.sync_all().unwrap();
        rustix::fs::fadvise(&opened, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        done(&mut self.shell(&format!("cat {} > /dev/null", file.display())));
    }

    fn start(&self, root: &Path, place: &str, arguments: &[&str]) -> Running {
        let arguments: Vec<String> = arguments.iter().map(|one| format!("'{one}'")).collect();
        let line =
            format!("exec unshare -m chroot {} {place} {}", root.display(), arguments.join(" "));
        Running(self.shell(&line).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn mapped_pages(&self) -> Pages {
        let stat = fs::read_to_string(self.0.join("memory.stat")).unwrap();
        let line = stat.lines().find_map(|line| line.strip_prefix("mapped_file ")).unwrap();
        Pages(line.parse::<u64>().unwrap() / 4096)
    }

    fn processes(&self) -> usize {
        fs::read_to_string(self.0.join("cgroup.procs")).unwrap().lines().count()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        wait_for("the group to be empty", || self.processes() == 0);
        wait_for("the group to go", || fs::remove_dir(&self.0).is_ok());
    }
}
