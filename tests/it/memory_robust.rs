//! Processes that end, change, hide, refuse or hang while they are looked at.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cbin_audit::model::{InodeId, MappedObject, Pages, Runtime};
use serde_json::Value;

use crate::memory_fuse::Server;
use crate::memory_ground::{Ground, Running, look, look_with, named, sleeper, start};
use crate::packages;
use crate::suite::{Need, Suite};

const NOBODY: u32 = 65534;

pub fn tests(suite: &mut Suite) {
    let mut test = |name: &str, needs: &[Need], run: fn()| {
        let needs: Vec<Need> =
            [Need::Root, Need::Package("busybox-static")].iter().chain(needs).copied().collect();
        suite.test(&format!("privileged_memory_{name}"), &needs, run);
    };
    test("counts_a_process_whole_or_not_at_all", &[], whole_or_not_at_all);
    test("survives_programs_that_become_others", &[], exec_storm);
    test("leaves_out_what_has_no_memory", &[], no_memory);
    test("reads_32_bit_programs", &[Need::Package("busybox-static:i386")], bits_32);
    test("reads_setuid_programs_and_other_user_namespaces", &[], other_users);
    test("is_an_estimate_without_privilege", &[Need::Program("setpriv")], unprivileged);
    test("tells_that_processes_are_hidden", &[Need::Program("setpriv")], hidden);
    test("does_not_wait_for_a_file_system", &[Need::File("/dev/fuse")], silent_server);
    test("tells_who_still_maps_a_replaced_file", &[], pending_restart);
    test("makes_a_group_of_what_is_once_on_disk", &[], once_on_disk);
    test("prints_a_document_that_adds_up", &[], document);
    test("shows_two_roots_in_words_and_beside_the_disk", &[], two_roots);
}

/// A replaced program: who runs the old inode, and who the new one.
fn pending_restart() {
    let ground = Ground::new();
    let program = ground.program_in(&ground.dir("a"));
    let old = sleeper(&program);
    let old_inode = inode(&program);
    fs::rename(ground.program_in(&ground.dir("b")), &program).unwrap();
    let new = sleeper(&program);
    let new_inode = inode(&program);
    let report = look_with(|options| options.interest.inodes.extend([old_inode, new_inode]));
    let told: Vec<_> = report.mapped.iter().map(|object| (object.deleted, pids(object))).collect();
    assert_eq!(report.mapped.len(), 2, "{:#?}", report.mapped);
    assert!(told.contains(&(true, vec![old.pid()])), "{told:?}");
    assert!(told.contains(&(false, vec![new.pid()])), "{told:?}");
    let content = report.mapped[0].content.unwrap();
    assert_eq!(report.mapped[1].content, Some(content), "the same bytes in two objects");
    let report = look_with(|options| options.interest.contents.extend([content]));
    assert_eq!(report.mapped.len(), 2, "{:#?}", report.mapped);
    let user = &report.mapped[0].users[0];
    let container = &report.containers[user.container.unwrap() as usize];
    assert_eq!((container.name.as_str(), &user.comm[..7]), ("host", "busybox"));
    assert!(look().mapped.is_empty(), "nothing is told that was not asked for");
}

/// One inode in the root, another of the same bytes outside of it: both run.
fn once_on_disk() {
    let ground = Ground::new();
    for dir in ["dev", "etc", "proc", "usr"] {
        ground.dir(&format!("root/{dir}"));
    }
    ground.program_in(&ground.dir("root/bin"));
    let outside = ground.program_in(&ground.dir("elsewhere"));
    let mut chroot = Command::new("chroot");
    let place = format!("/bin/{}", ground.name);
    let inside = start(chroot.arg(ground.at("root")).args([&place, "sleep", "1000"]));
    let outside = sleeper(&outside);
    let mut command = crate::command::cbin_audit();
    command.args(["report", "--json", "--no-trees", "--select", "elf"]).arg(ground.at("root"));
    let ran = crate::command::Ran::from(command.output().unwrap());
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let groups = document["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 1, "{ran:#?}");
    assert_eq!(groups[0]["inodes"], 1, "{ran:#?}");
    assert_eq!(groups[0]["memory"]["objects"], 2, "{ran:#?}");
    drop((inside, outside));
}

fn pids(object: &MappedObject) -> Vec<u32> {
    object.users.iter().map(|user| user.pid).collect()
}

fn inode(path: &Path) -> InodeId {
    let stat = rustix::fs::stat(path).unwrap();
    InodeId { dev: stat.st_dev, ino: stat.st_ino }
}

/// Fifty processes that are killed while they are counted: each that was counted has
/// all the pages that any of them has.
fn whole_or_not_at_all() {
    let ground = Ground::new();
    let program = ground.program_in(&ground.dir("a"));
    let keeper = sleeper(&program);
    let whole = text_of(keeper.pid()).unwrap();
    for _ in 0..4 {
        let victims: Vec<Running> = (0..25).map(|_| sleeper(&program)).collect();
        let pids: BTreeSet<u32> = victims.iter().map(Running::pid).collect();
        let killer = std::thread::spawn(move || drop(victims));
        let report = look_with(|options| options.threads = 1);
        killer.join().unwrap();
        for row in report.processes.iter().filter(|row| pids.contains(&row.pid)) {
            assert_eq!(row.text, whole, "{row:?}");
            assert_eq!(row.text, row.private + row.container_shared + row.shared, "{row:?}");
        }
    }
}

fn text_of(pid: u32) -> Option<Pages> {
    look().processes.into_iter().find(|row| row.pid == pid).map(|row| row.text)
}

/// A process that becomes one of two programs, over and over. It is the one or the
/// other when it is counted, never both.
fn exec_storm() {
    let ground = Ground::new();
    let programs = ["a", "b"].map(|dir| ground.program_in(&ground.dir(dir)));
    let script = ground.at("storm");
    let text = format!(
        "[ $1 -gt 3000 ] && exit; i=$(($1 + 1)); exec {0} sh {2} $i; exec {1}",
        programs[0].display(),
        programs[1].display(),
        script.display()
    );
    fs::write(&script, text).unwrap();
    let storm = Command::new(&programs[0]).arg("sh").arg(&script).arg("0").spawn().unwrap();
    let storm = Running(storm);
    let mut counted = 0;
    for _ in 0..20 {
        let report = look_with(|options| options.threads = 1);
        for row in report.processes.iter().filter(|row| row.pid == storm.pid()) {
            counted += 1;
            assert_eq!(row.text, row.private + row.container_shared + row.shared, "{row:?}");
        }
        for binary in named(&report, &ground.name) {
            assert_eq!(binary.processes, 1, "{binary:#?}");
        }
    }
    assert!(counted > 0, "it was never counted");
}

/// Kernel threads and zombies are neither counted nor missed.
fn no_memory() {
    let mut zombie = Command::new("true").spawn().unwrap();
    let stat = format!("/proc/{}/stat", zombie.id());
    crate::memory_ground::wait_for("a zombie", || {
        fs::read_to_string(&stat).unwrap().contains(") Z ")
    });
    let report = look();
    assert!(report.processes.iter().all(|row| ![2, zombie.id()].contains(&row.pid)));
    let named = |pid: u32| {
        let mut causes = report.notices.iter().map(|notice| notice.cause.as_str());
        causes.any(|cause| cause.contains(&format!(" {pid} (")))
    };
    assert!(!named(2) && !named(zombie.id()), "{:#?}", report.notices);
    zombie.wait().unwrap();
}

fn bits_32() {
    let ground = Ground::new();
    let package = packages::package("busybox-static:i386").unwrap();
    let program = ["bin/busybox", "usr/bin/busybox"].map(|path| package.join(path));
    let program = program.into_iter().find(|path| path.exists()).unwrap();
    let place = ground.dir("a").join(&ground.name);
    fs::copy(program, &place).unwrap();
    let running = [(); 2].map(|()| sleeper(&place));
    let report = look();
    let binaries = named(&report, &ground.name);
    let [binary] = binaries.as_slice() else { panic!("{binaries:#?}") };
    assert_eq!((binary.objects, binary.processes), (1, 2), "{binary:#?}");
    assert!(binary.text.resident.0 > 50, "{binary:#?}");
    drop(running);
}

fn other_users() {
    let ground = Ground::new();
    open_up(&ground);
    let program = ground.program_in(&ground.dir("a"));
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let setuid = start(Command::new(&program).args(["sleep", "1000"]).uid(NOBODY).gid(NOBODY));
    let mut command = Command::new("unshare");
    let apart = start(command.args(["-U", "-r"]).arg(&program).args(["sleep", "1000"]));
    let report = look();
    assert_eq!(named(&report, &ground.name)[0].processes, 2);
    for process in [&setuid, &apart] {
        assert!(report.processes.iter().any(|row| row.pid == process.pid()));
    }
}

/// The ground and the tool, where everybody can go.
fn open_up(ground: &Ground) -> PathBuf {
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(ground.at(""), open.clone()).unwrap();
    let tool = ground.at("cbin-audit");
    fs::copy(env!("CARGO_BIN_EXE_cbin-audit"), &tool).unwrap();
    fs::set_permissions(&tool, open).unwrap();
    tool
}

/// Runs the tool as nobody, after a shell line as root.
fn as_nobody(tool: &Path, prepare: &str) -> Value {
    let line = format!(
        "{prepare} exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups {} memory --json",
        tool.display()
    );
    let mut command = Command::new("unshare");
    let output =
        command.args(["-m", "--propagation", "private", "sh", "-c", &line]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn causes(document: &Value) -> String {
    let notices = document["notices"].as_array().unwrap();
    notices.iter().map(|notice| notice["cause"].as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

fn unprivileged() {
    let ground = Ground::new();
    let tool = open_up(&ground);
    let program = ground.program_in(&ground.dir("a"));
    let copy = ground.program_in(&ground.dir("b"));
    let own = [&program, &program, &copy]
        .map(|path| start(Command::new(path).args(["sleep", "1000"]).uid(NOBODY).gid(NOBODY)));
    let document = as_nobody(&tool, "");
    assert_eq!(document["method"], "inferred");
    assert_eq!(document["complete"], false);
    assert!(document["processes_skipped"].as_u64().unwrap() > 0);
    assert!(causes(&document).contains("CAP_SYS_ADMIN"), "{}", causes(&document));
    assert!(causes(&document).contains("Permission denied"), "{}", causes(&document));
    let binaries = document["binaries"].as_array().unwrap();
    let mine: Vec<&Value> =
        binaries.iter().filter(|one| one["name"] == ground.name.as_str()).collect();
    let [binary] = mine.as_slice() else { panic!("{mine:#?}") };
    assert_eq!((&binary["objects"], &binary["processes"]), (&2.into(), &3.into()), "{binary:#}");
    assert!(binary["wasted_pages"].as_u64().unwrap() > 100, "{binary:#}");
    drop(own);
}

fn hidden() {
    let ground = Ground::new();
    let tool = open_up(&ground);
    let document = as_nobody(&tool, "mount -t proc -o hidepid=2 proc /proc;");
    assert_eq!(document["complete"], false);
    assert!(causes(&document).contains("hidepid"), "{}", causes(&document));
}

/// Two programs with the same bytes on a FUSE file system whose server falls silent:
/// their pages are counted, their contents are not compared, and that is said. One of the
/// processes has its root there, too.
fn silent_server() {
    let ground = Ground::new();
    let program = ground.program_in(&ground.dir("a"));
    let point = ground.dir("fuse");
    let names = ["busybox-silent-a", "busybox-silent-b"];
    let server = Server::mount(&point, fs::read(&program).unwrap(), names);
    let running = names.map(|name| sleeper(&point.join(name)));
    let mut chroot = Command::new("chroot");
    let inside = start(chroot.arg(&point).args([&format!("/{}", names[0]), "sleep", "1000"]));
    server.fall_silent();
    let begin = Instant::now();
    let report = look_with(|options| options.deadline = Duration::from_millis(300));
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(!report.complete);
    let told = report
        .notices
        .iter()
        .any(|notice| notice.partial && notice.cause.contains("does not answer"));
    assert!(told, "{:#?}", report.notices);
    for (name, process) in names.iter().zip(&running) {
        assert_eq!(named(&report, name)[0].content, None);
        let row = report.processes.iter().find(|row| row.pid == process.pid()).unwrap();
        assert!(row.text.0 > 100, "{row:?}");
    }
    let row = report.processes.iter().find(|row| row.pid == inside.pid()).unwrap();
    let container = &report.containers[row.container as usize];
    assert_eq!((container.processes, container.runtime), (1, Runtime::Directory), "{container:?}");
    assert_eq!(container.text, row.text, "{container:?}");
    drop(server);
    drop((running, inside));
}

/// The command's own document: each process's pages are one of three kinds, and every
/// count fits the others.
fn document() {
    let ground = Ground::new();
    let running = ["a", "b"].map(|dir| sleeper(&ground.program_in(&ground.dir(dir))));
    let ran = crate::command::run(&["memory", "--json"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let schema: Value = serde_json::from_str(cbin_audit::render::json::MEMORY_SCHEMA).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(&document).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let number = |value: &Value, key: &str| value[key].as_u64().unwrap();
    for row in document["processes"].as_array().unwrap() {
        let parts: u64 = ["private_pages", "container_pages", "shared_pages"]
            .map(|key| number(row, key))
            .iter()
            .sum();
        assert_eq!(parts, number(row, "text_pages"), "{row:#}");
    }
    let wasted: u64 = document["binaries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| number(one, "wasted_pages"))
        .sum();
    assert_eq!(wasted, number(&document["totals"], "wasted_pages"));
    let rows = document["processes"].as_array().unwrap();
    let anonymous: u64 = rows.iter().map(|row| number(row, "anonymous_pages")).sum();
    assert_eq!(anonymous, number(&document["totals"], "anonymous_pages"));
    for process in &running {
        let row = rows.iter().find(|row| number(row, "pid") == u64::from(process.pid())).unwrap();
        let copies = copied_pages(process.pid());
        assert!(copies > 0, "a program without relocations shows nothing");
        assert_eq!(number(row, "anonymous_pages"), copies, "{row:#}");
    }
    drop(running);
}

/// The private copies among the pages of a static program, as proc_pid_smaps(5) has them.
fn copied_pages(pid: u32) -> u64 {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let (mut of_a_file, mut kilobytes) = (false, 0);
    for fields in smaps.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>()) {
        match fields.as_slice() {
            [_, _, _, _, _, name, ..] if fields[0].contains('-') => {
                of_a_file = name.starts_with('/');
            }
            [range, ..] if range.contains('-') => {
                of_a_file = false;
            }
            ["Anonymous:", number, _] if of_a_file => kilobytes += number.parse::<u64>().unwrap(),
            _ => {}
        }
    }
    kilobytes * 1024 / rustix::param::page_size() as u64
}

/// Two roots with a copy each, from which a process runs: the sentence in words comes
/// first, then the program, the containers, the processes; and `report` shows the numbers
/// that `memory` shows, beside the disk's.
fn two_roots() {
    let ground = Ground::new();
    let roots = ["one", "two"].map(|name| {
        for dir in ["dev", "etc", "proc", "usr"] {
            ground.dir(&format!("{name}/{dir}"));
        }
        ground.program_in(&ground.dir(&format!("{name}/bin")));
        ground.at(name)
    });
    let place = format!("/bin/{}", ground.name);
    let running = roots
        .each_ref()
        .map(|root| start(Command::new("chroot").arg(root).args([&place, "sleep", "1000"])));
    let ran = |arguments: &[&str]| {
        let mut command = crate::command::cbin_audit();
        let ran = crate::command::Ran::from(command.args(arguments).args(&roots).output().unwrap());
        assert_eq!(ran.status, 0, "{ran:#?}");
        ran.stdout
    };
    let json = |text: String| -> Value { serde_json::from_str(&text).unwrap() };

    let shown = ran(&["memory", "--processes"]);
    let sentence = shown.lines().next().unwrap();
    assert!(sentence.starts_with(&format!("{} 1.35.0 is in memory 2 times: ", ground.name)));
    assert!(sentence.ends_with(" would do."), "{sentence}");
    let parts = ["Programs: 1", "Containers: 2", "Processes: 2", "In all"];
    let parts = parts.map(|part| shown.find(part).unwrap_or_else(|| panic!("{part}: {shown}")));
    assert!(parts.is_sorted(), "{shown}");

    let memory = json(ran(&["memory", "--json"]));
    let report = json(ran(&["report", "--json", "--no-trees", "--select", "elf"]));
    let group = &report["groups"][0];
    assert_eq!(
        (&group["inodes"], &group["memory"]["objects"]),
        (&2.into(), &2.into()),
        "{group:#}"
    );
    assert!(group["memory"]["wasted_pages"].as_u64().unwrap() > 100, "{group:#}");
    for key in ["blake3", "mapped_pages", "resident_pages", "ideal_pages", "wasted_pages", "text"] {
        assert_eq!(group["memory"][key], memory["binaries"][0][key], "{key}: {group:#} {memory:#}");
    }
    assert_eq!(report["memory"]["containers"], memory["containers"]);
    let wasted = memory["totals"]["wasted_bytes"].as_u64().unwrap();
    assert_eq!(report["totals"]["wasted_memory_bytes"], wasted);

    let table = ran(&["report", "--no-trees", "--select", "elf"]);
    let row = table.lines().find(|line| line.starts_with(&ground.name[..12])).unwrap();
    let mebibytes = format!("{:.2}", wasted as f64 / f64::from(1 << 20));
    assert!(row.contains(&mebibytes[..4]), "{mebibytes} MiB: {row}");
    drop(running);
}
