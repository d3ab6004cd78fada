//! Runs a command so that each of its changing system calls waits for an answer.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Output, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::call::Call;
use super::filter;

/// Set in a copy of this program that is to become the supervised one.
pub const SUPERVISED: &str = "CBIN_AUDIT_TEST_SUPERVISED";

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It happens.
    Happen,
    /// It fails, without having happened.
    Fail(Errno),
    /// It does nothing and tells that all is well.
    Pretend,
    /// `SIGKILL`, before it happens.
    Kill,
}

/// How a supervised run ended.
#[must_use = "look at the output or at the status"]
#[derive(Debug)]
pub struct Ended {
    /// `None` where a signal ended it.
    pub status: Option<i32>,
    pub stderr: String,
    pub calls: Vec<Call>,
}

impl Ended {
    pub fn is_killed(&self) -> bool {
        self.status.is_none()
    }
}

/// Runs `command` and asks `decide` at every call that changes a file system.
pub fn supervise(command: &Command, mut decide: impl FnMut(&Call) -> Answer) -> Ended {
    let (mut child, listener) = start(command);
    let stdout = drain(child.stdout.take().unwrap());
    let stderr = drain(child.stderr.take().unwrap());
    let mut calls = Vec::new();
    while let Some(seen) = next(&listener) {
        let call = Call::new(calls.len(), &seen);
        if call.is_in_memory() {
            filter::let_happen(&listener, seen.id);
            continue;
        }
        match decide(&call) {
            Answer::Happen => filter::let_happen(&listener, seen.id),
            Answer::Fail(errno) => filter::answer(&listener, seen.id, errno.raw_os_error()),
            Answer::Pretend => filter::answer(&listener, seen.id, 0),
            Answer::Kill => kill(&child),
        }
        calls.push(call);
    }
    let status = child.wait().unwrap();
    let [_, stderr] = [stdout, stderr].map(|reader| reader.join().unwrap());
    assert!(status.code().is_some() || status.signal() == Some(9), "{status}: {stderr}");
    Ended { status: status.code(), stderr, calls }
}

/// In the copy: goes under the listener, hands it over, becomes the command.
pub fn become_supervised() -> ! {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let listener = filter::install();
    send(&socket, &listener);
    let mut arguments = std::env::args_os().skip(1);
    let mut command = Command::new(arguments.next().expect("a program"));
    let error = command.args(arguments).env_remove(SUPERVISED).stdin(Stdio::null()).exec();
    panic!("exec: {error}");
}

/// The command and all that it started.
fn kill(child: &Child) {
    let group = rustix::process::Pid::from_child(child);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
}

fn start(command: &Command) -> (Child, OwnedFd) {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let mut copy = Command::new(std::env::current_exe().unwrap());
    copy.arg(command.get_program()).args(command.get_args()).env_clear().env(SUPERVISED, "1");
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            copy.env(name, value);
        }
    }
    if let Some(directory) = command.get_current_dir() {
        copy.current_dir(directory);
    }
    copy.process_group(0).stdin(theirs).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = copy.spawn().unwrap();
    // The command holds the other end: it has to go, or a child that dies is waited for.
    drop(copy);
    (child, receive(&ours))
}

/// The next call; `None` when nobody is left under the listener.
fn next(listener: &OwnedFd) -> Option<filter::Notification> {
    loop {
        let mut ready = [PollFd::new(listener, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => panic!("poll: {error}"),
        }
        if !ready[0].revents().contains(PollFlags::IN) {
            return None;
        }
        match filter::receive(listener) {
            Ok(seen) => return Some(seen),
            Err(Errno::NOENT | Errno::INTR) => {}
            Err(error) => panic!("a listener failed: {error}"),
        }
    }
}

fn drain(mut from: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn send(socket: &OwnedFd, listener: &OwnedFd) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [listener.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let byte = [std::io::IoSlice::new(b"l")];
    sendmsg(socket, &byte, &mut control, SendFlags::empty()).unwrap();
}

fn receive(socket: &OwnedFd) -> OwnedFd {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    recvmsg(socket, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let rights = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    rights.expect("the supervised copy did not start")
}

/// Gives the output of a command that must succeed.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
