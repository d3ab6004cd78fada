//! A process that ends, becomes another program, or gives its number to another one, at
//! every single call of the view that looks at it: it is counted whole, as one program, or
//! not at all.
//!
//! The view runs on a thread whose calls stop before they happen. What it looks at is a pid
//! namespace of its own, where a number can be given out again.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use cbin_audit::model::{BinaryMemory, MemoryReport, Pages, UserNamespace};
use cbin_audit::scan::VmaSource;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Signal, pidfd_send_signal};

use crate::memory_ground::{
    Ground, Running, frames_in, is_asleep, is_asleep_in, look_with, named, wait_for,
};
use crate::rig::filter;
use crate::suite::{Need, Suite};

/// The number of the process that is looked at.
const VICTIM: u32 = 300;
const A: &str = "busybox-a";
const B: &str = "busybox-b";

pub fn tests(suite: &mut Suite) {
    let mut test = |name: &str, event: Event, source: VmaSource| {
        let needs = [
            Need::Root,
            Need::Package("busybox-static"),
            Need::Program("unshare"),
            Need::Program("nsenter"),
            Need::File("/proc/sys/kernel/ns_last_pid"),
        ];
        suite.test(&format!("privileged_memory_race_{name}"), &needs, move || {
            at_every_call(event, source);
        });
    };
    test("exit", Event::Exit, VmaSource::Auto);
    test("exec", Event::Exec, VmaSource::Auto);
    test("exec_by_text", Event::Exec, VmaSource::Text);
    test("pid_reuse", Event::Reuse, VmaSource::Auto);
}

/// What happens to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Exit,
    Exec,
    Reuse,
}

fn at_every_call(event: Event, source: VmaSource) {
    let ground = Ground::new();
    for name in [A, B] {
        fs::rename(ground.program_in(&ground.at("")), ground.at(name)).unwrap();
    }
    let enclosure = Enclosure::new(ground.at(""));
    let (mut calls, mut seen_whole) = (0, 0);
    loop {
        let mut victim = enclosure.start(A, &["sh"], reads);
        let a = enclosure.frames(A);
        let mut next = None;
        let (report, happened) = enclosure.look(source, calls, || match event {
            Event::Exit => enclosure.end(),
            Event::Exec => {
                let line = format!("exec /{B} sleep 1000\n");
                victim.0.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
                wait_for("the other program", || is_asleep_in(&enclosure.proc, VICTIM));
            }
            Event::Reuse => {
                enclosure.end();
                let asleep = |proc: &Path| is_asleep_in(proc, VICTIM);
                next = Some(enclosure.start(B, &["sleep", "1000"], asleep));
            }
        });
        let b = enclosure.frames(B);
        assert!(a > 100 && a != b, "the programs cannot be told apart: {a} and {b} pages");
        let whole = is_whole(&report, a, b);
        assert!(whole.is_some(), "{event:?} at call {calls}: {a} or {b} pages; {report:#?}");
        seen_whole += usize::from(whole == Some(true));
        if !happened {
            assert_eq!(whole, Some(true), "undisturbed: {report:#?}");
            break;
        }
        enclosure.end();
        drop((victim, next));
        calls += 1;
    }
    assert!(calls > 20 && seen_whole > 2, "{calls} calls, counted {seen_whole} times");
}

/// Whether the process was counted: `None` when it was, but not as what it was.
fn is_whole(report: &MemoryReport, a: u64, b: u64) -> Option<bool> {
    let row = report.processes.iter().find(|row| row.pid == VICTIM);
    let mut binaries: Vec<&BinaryMemory> =
        [A, B].into_iter().flat_map(|name| named(report, name)).collect();
    if row.is_some() && binaries.is_empty() {
        // Whoever ends after it was counted leaves pages without a name. So does its parent.
        let ours = |binary: &&BinaryMemory| [a, b].map(Pages).contains(&binary.file.resident);
        binaries = named(report, "").into_iter().filter(ours).collect();
    }
    // Nobody here has a user namespace of its own, ended or not.
    if report.containers.iter().any(|one| one.user_namespace != UserNamespace::Host) {
        return None;
    }
    match (row, binaries.as_slice()) {
        (None, []) => Some(false),
        (Some(row), [binary]) => {
            let is = |name: &str, pages: u64| {
                row.comm == name
                    && binary.file.resident == Pages(pages)
                    && [name, ""].contains(&binary.name.as_str())
            };
            let adds_up = row.text == row.private + row.container_shared + row.shared;
            (adds_up && binary.processes == 1 && (is(A, a) || is(B, b))).then_some(true)
        }
        _ => None,
    }
}

/// Reads its commands.
fn reads(proc: &Path) -> bool {
    let call = fs::read_to_string(proc.join(format!("{VICTIM}/syscall"))).unwrap_or_default();
    ["0 0x0 ", "63 0x0 "].iter().any(|read| call.starts_with(read))
}

/// A pid namespace, and its `/proc` as the host sees it. The victims are a container: their
/// root is a directory.
struct Enclosure {
    root: PathBuf,
    init: u32,
    proc: PathBuf,
    _unshare: Running,
}

impl Enclosure {
    fn new(root: PathBuf) -> Self {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sleep", "1000"]);
        let unshare = Running(unshare.spawn().unwrap());
        let children = format!("/proc/{0}/task/{0}/children", unshare.pid());
        let mut init = 0;
        wait_for("a pid namespace", || {
            init = fs::read_to_string(&children).unwrap().trim().parse().unwrap_or(0);
            init != 0 && is_asleep(init)
        });
        Self { root, init, proc: format!("/proc/{init}/root/proc").into(), _unshare: unshare }
    }

    /// Starts a program under the victim's number, and waits until it is ready.
    fn start(&self, program: &str, arguments: &[&str], ready: impl Fn(&Path) -> bool) -> Running {
        // A number may still be taken when nothing of its process is seen any more.
        let line = format!(
            "exec 3<&0; while echo {} > /proc/sys/kernel/ns_last_pid; \"$@\" <&3 3<&- & [ $! != {VICTIM} ]; \
             do kill -9 $!; wait $!; done; wait",
            VICTIM - 1
        );
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init.to_string(), "-p", "-m", "sh", "-c", &line, "sh"]);
        command.arg("chroot").arg(&self.root).arg(format!("/{program}")).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let running = Running(command.spawn().unwrap());
        wait_for("the process", || ready(&self.proc));
        running
    }

    /// Ends the victim, and waits until its number is free.
    fn end(&self) {
        let dir = self.proc.join(VICTIM.to_string());
        if let Ok(process) = openat(CWD, &dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
            let _gone = pidfd_send_signal(process, Signal::KILL);
        }
        wait_for("the end of the process", || !dir.exists());
    }

    /// How many pages of a program the victim has.
    fn frames(&self, name: &str) -> u64 {
        match self.proc.join(VICTIM.to_string()).exists() {
            true => frames_in(&self.proc, VICTIM, name).len() as u64,
            false => 0,
        }
    }

    /// Looks, and lets `event` happen before a call. Whether there were so many calls.
    fn look(&self, source: VmaSource, call: usize, event: impl FnOnce()) -> (MemoryReport, bool) {
        let proc_root = self.proc.clone();
        let (sender, listener) = mpsc::channel();
        let view = std::thread::spawn(move || {
            sender.send(filter::install_for(LOOKING)).unwrap();
            look_with(|options| {
                (options.proc_root, options.source, options.threads) = (proc_root, source, 1);
            })
        });
        let listener: OwnedFd = listener.recv().unwrap();
        let (mut event, mut calls) = (Some(event), 0);
        while !view.is_finished() {
            let mut ready = [PollFd::new(&listener, PollFlags::IN)];
            let soon = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
            poll(&mut ready, Some(&soon)).unwrap();
            if !ready[0].revents().contains(PollFlags::IN) {
                continue;
            }
            let Ok(seen) = filter::receive(&listener) else { continue };
            if calls == call {
                event.take().into_iter().for_each(|event| event());
            }
            filter::let_happen(&listener, seen.id);
            calls += 1;
        }
        (view.join().unwrap(), event.is_none())
    }
}

/// The calls that look at processes.
const LOOKING: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_ioctl,
    libc::SYS_statx,
    libc::SYS_readlinkat,
];
