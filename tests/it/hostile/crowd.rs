//! Containers that make a crowd of what the host looks at: mounts by the hundred thousand, control
//! groups of other containers' names.

#![expect(clippy::print_stderr, reason = "how much it took is a part of the answer")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use rustix::fs::{CWD, FileType, Mode};

use super::{DEADLINE, Roots, finish};
use crate::command::cbin_audit;
use crate::memory_ground::{Ground, Running, is_asleep, start};
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    let needs = [Need::Root, Need::Package("busybox-static"), Need::Program("unshare")];
    let mut test = |name: &str, more: &[Need], run: fn()| {
        let needs = [&needs[..], more].concat();
        suite.test(&format!("privileged_hostile_{name}"), &needs, run);
    };
    test("a_hundred_thousand_mounts", &[], mounts);
    test("control_groups_of_other_names", &[Need::File("/sys/fs/cgroup")], groups);
    suite.test("hostile_a_notice_for_each_of_many_names", &[], notices);
    suite.test("hostile_links_with_long_targets", &[], long_targets);
}

/// A root that passes for one.
fn lay(ground: &Ground, name: &str) -> PathBuf {
    for dir in ["bin", "cbin", "dev", "etc", "mnt", "proc", "usr"] {
        ground.dir(&format!("roots/{name}/{dir}"));
    }
    let root = ground.at(&format!("roots/{name}"));
    ground.program_in(&root.join("bin"));
    root
}

/// A FIFO with a hundred thousand names at paths of four thousand bytes: each would be a notice, and all
/// of them half a gigabyte.
fn notices() {
    let roots = Roots::in_memory();
    roots.both("bin/tool", "the same in both");
    let long = format!("{:0150}/", 0).repeat(24);
    let deep = roots.at("a").join(long);
    fs::create_dir_all(&deep).unwrap();
    let fifo = deep.join("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
    for dir in 0..64 {
        let dir = deep.join(dir.to_string());
        fs::create_dir(&dir).unwrap();
        (0..2000).for_each(|at| fs::hard_link(&fifo, dir.join(at.to_string())).unwrap());
    }
    let mut command = cbin_audit();
    command.args(["report", "--json", "--no-memory", "--select", "all"]);
    command.args([roots.at("a"), roots.at("b")]);
    let (answer, most) = watched(command);
    assert!(answer["notices"].to_string().contains("127001 more notices"), "{answer}");
    assert!(most < 200 << 10, "it took {most} kB");
}

/// Directories of links of which each takes a page: what stands among them is found, and the last.
fn long_targets() {
    let roots = Roots::in_memory();
    let target = "x".repeat(4000);
    for root in ["a", "b"] {
        let link = roots.at(root).join("link");
        symlink(&target, &link).unwrap();
        for dir in 0..64 {
            let dir = roots.at(root).join(dir.to_string());
            fs::create_dir(&dir).unwrap();
            (0..300).for_each(|at| fs::hard_link(&link, dir.join(at.to_string())).unwrap());
            fs::write(dir.join("0 first"), "first").unwrap();
            fs::write(dir.join("x last"), "last").unwrap();
        }
    }
    let answer = roots.report(&["--select", "all"]).complete();
    assert_eq!(answer.json["totals"]["files"], 256, "{}", answer.stdout);
    let group = |at: usize| answer.json["groups"][at]["inodes"].as_u64();
    assert_eq!((group(0), group(1)), (Some(128), Some(128)));
}

/// Sixteen times everything is mounted once more below itself, at names that make each line of
/// the table long. What comes after all that is the store's directory, for writing.
const CROWD: &str = r#"
    root=$1 store=$2 program=$3
    long=$(printf '%0150d' 0)
    mount -t tmpfs crowd "$root/mnt"
    for n in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do mkdir "$root/mnt/$n$long"; done
    for n in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do mount --rbind "$root/mnt" "$root/mnt/$n$long"; done
    mkdir "$root/mnt/last"
    mount --bind "$store" "$root/mnt/last"
    exec chroot "$root" "$program" sleep 1000"#;

fn mounts() {
    let ground = Ground::new();
    let (eve, web) = (lay(&ground, "eve"), lay(&ground, "web"));
    let store = ground.dir("store");
    let program = format!("/bin/{}", ground.name);
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-ec", CROWD, "sh"]);
    command.arg(&eve).arg(&store).arg(&program).stdin(Stdio::null());
    let crowd = Running(command.spawn().unwrap());
    let begin = Instant::now();
    while !is_asleep(crowd.pid()) {
        assert!(begin.elapsed() < 2 * DEADLINE, "the mounts are not made");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let table = fs::read(format!("/proc/{}/mountinfo", crowd.pid())).unwrap();
    let lines = table.split(|byte| *byte == b'\n').count();
    assert!(lines > 65_000 && table.len() > 64 << 20, "{lines} mounts, {} bytes", table.len());
    drop(table);
    let other = start(
        Command::new("unshare").args(["-m", "chroot"]).arg(&web).args([&program, "sleep", "1000"]),
    );

    for words in
        [&["dedupe", "--live", "--mounts", "none"][..], &["verify"], &["doctor"], &["memory"]]
    {
        let (answer, most) = with_its_size(words, &ground, &[&eve, &web]);
        assert!(answer.is_object(), "{words:?}");
        // In kilobytes: the table alone would be more than that.
        assert!(most < 64 << 10, "{words:?} took {most} kB");
        if words[0] == "doctor" {
            let containers = answer["containers"].as_array().unwrap().iter();
            let eve = containers.filter(|it| it["root"].as_str() == eve.to_str());
            let text = eve.map(Value::to_string).collect::<String>();
            assert!(
                text.contains("/mnt/last"),
                "what it writes is not seen behind the crowd: {text}"
            );
        }
    }
    let (answer, _) = with_its_size(
        &["dedupe", "--apply", "--live", "--mounts", "none", "--trust-domain", "mine"],
        &ground,
        &[&eve, &web],
    );
    assert_eq!(answer["state"], "applied", "{answer}");
    let (undone, _) = with_its_size(&["undo"], &ground, &[]);
    assert_eq!(undone["state"], "undone", "{undone}");
    drop((crowd, other));
}

/// What a command answers, and the most memory that it had at any time, in kilobytes.
fn with_its_size(words: &[&str], ground: &Ground, roots: &[&Path]) -> (Value, u64) {
    let mut command = cbin_audit();
    command.args(words).arg("--json").args(roots);
    if !["doctor", "memory"].contains(&words[0]) {
        command.arg("--journal").arg(ground.at("journal"));
    }
    if !["undo", "memory"].contains(&words[0]) {
        command.arg("--store").arg(ground.at("store"));
    }
    watched(command)
}

/// What a command says, and the most memory that it took, in kB.
fn watched(mut command: Command) -> (Value, u64) {
    let out = tempfile::NamedTempFile::new().unwrap();
    let mut child = command.stdout(out.reopen().unwrap()).spawn().unwrap();
    let (begin, mut most) = (Instant::now(), 0);
    while child.try_wait().unwrap().is_none() {
        most = most.max(high_water(child.id()).unwrap_or(0));
        assert!(begin.elapsed() < DEADLINE, "hangs: {command:?}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    eprintln!("{:?}: {:?}, {most} kB", command.get_args().next(), begin.elapsed());
    (serde_json::from_slice(&fs::read(out.path()).unwrap()).unwrap_or(Value::Null), most)
}

/// `VmHWM` of proc_pid_status(5).
fn high_water(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Control groups that go with the value.
struct Groups(Vec<PathBuf>);

impl Groups {
    /// One of this name, with a process in it.
    fn make(&mut self, name: &OsStr, pid: u32) {
        let hierarchies = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup"];
        let has = |it: &&&str| Path::new(it).join("cgroup.procs").exists();
        let top = hierarchies.iter().find(has).expect("a hierarchy of control groups");
        let group = Path::new(top).join(name);
        fs::create_dir_all(&group).unwrap();
        self.0.push(group.clone());
        fs::write(group.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for group in &self.0 {
            // Its processes have been ended, and may not be gone yet.
            for _ in 0..200 {
                if fs::remove_dir(group).is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

/// A container that names its own control group as another container's is, or with what a terminal
/// obeys, is still the one whose root it has, and no other is taken for it.
fn groups() {
    let ground = Ground::new();
    let id = "0123456789abcdef".repeat(4);
    let names: [(&str, Vec<u8>); 5] = [
        ("web", format!("docker-{id}.scope").into_bytes()),
        ("twin", format!("docker-{id}").into_bytes()),
        ("lxc", b"lxc.payload.web".to_vec()),
        ("esc", b"lxc.payload.\x1b[2J\xe2\x80\xaegnp \xff".to_vec()),
        ("host", b"lxc.payload.host".to_vec()),
    ];
    let mut groups = Groups(Vec::new());
    let mut running = Vec::new();
    for (name, group) in &names {
        let root = lay(&ground, name);
        let mut command = Command::new("unshare");
        command.args(["-m", "chroot"]).arg(&root);
        let container = start(command.args([&format!("/bin/{}", ground.name), "sleep", "1000"]));
        groups.make(OsStr::from_bytes(group), container.pid());
        running.push(container);
    }
    let roots: Vec<PathBuf> =
        names.iter().map(|(name, _)| ground.at(&format!("roots/{name}"))).collect();
    let roots: Vec<&Path> = roots.iter().map(PathBuf::as_path).collect();

    // Each root is one container of its own, whatever it is called.
    let (memory, _) = with_its_size(&["memory"], &ground, &roots);
    for (root, container) in roots.iter().zip(&running) {
        let rows = memory["containers"].as_array().unwrap().iter();
        let mine: Vec<&Value> = rows.filter(|it| it["root"].as_str() == root.to_str()).collect();
        assert_eq!(mine.len(), 1, "{mine:#?}");
        assert_eq!(mine[0]["processes"], 1, "{mine:#?}");
        assert_ne!(mine[0]["runtime"], "host", "{mine:#?}");
        assert!(is_asleep(container.pid()));
    }
    for words in
        [&["memory"][..], &["doctor"], &["dedupe", "--live", "--mounts", "none"], &["verify"]]
    {
        let mut command = cbin_audit();
        command.args(words).args(&roots);
        if words[0] == "dedupe" || words[0] == "verify" {
            command
                .arg("--journal")
                .arg(ground.at("journal"))
                .arg("--store")
                .arg(ground.at("store"));
        }
        let answer = finish(command);
        for text in [&answer.stdout, &answer.stderr] {
            let bad: Vec<char> =
                text.chars().filter(|&c| c != '\n' && super::names::speaks(c)).collect();
            assert!(bad.is_empty(), "{words:?}: {bad:?} in {text:?}");
        }
    }
    let apply = ["dedupe", "--apply", "--live", "--mounts", "none"];
    let (applied, _) = with_its_size(&apply, &ground, &roots);
    assert_eq!(applied["state"], "applied", "{applied:#}");
    for (root, container) in roots.iter().zip(&running) {
        let program = root.join("bin").join(&ground.name);
        let object = fs::read_link(&program).unwrap();
        let seen = format!("/proc/{}/root{}", container.pid(), object.display());
        assert!(Path::new(&seen).exists(), "{root:?} has links to a store that it does not see");
    }
    let (undone, _) = with_its_size(&["undo"], &ground, &[]);
    assert_eq!(undone["state"], "undone", "{undone}");
    drop(running);
}
