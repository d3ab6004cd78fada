//! Calls that fail: each changing system call of an `apply` and an `undo` in turn, once and from
//! then on, with the errors that it may meet. The original is intact or put back; what is left
//! half way is ended by `recover`; and the command does not claim that all is well.

#![expect(clippy::print_stderr, reason = "how much was tried is a part of the answer")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use rustix::io::Errno;

use crate::rig::call::Kind;
use crate::rig::image::scratch;
use crate::rig::naive;
use crate::rig::scanner::Scanner;
use crate::rig::scene::{NEEDS, Scene, run};
use crate::rig::supervise::{Answer, succeed, supervise};
use crate::suite::Suite;

pub fn tests(suite: &mut Suite) {
    suite.test("privileged_fault_apply_once", NEEDS, || apply_fails(false));
    suite.test("privileged_fault_apply_for_good", NEEDS, || apply_fails(true));
    suite.test("privileged_fault_undo_once", NEEDS, undo_fails);
    suite.test("privileged_fault_no_exchange", NEEDS, no_exchange);
    suite.test("privileged_fault_second_instance", NEEDS, second_instance);
    suite.test("privileged_fault_write_descriptor", NEEDS, write_descriptor);
    suite.test("privileged_fault_write_descriptor_by_hand_is_red", NEEDS, by_hand_is_red);
    suite.test("privileged_fault_writer_held_up", NEEDS, writer_held_up);
}

/// What a call may answer: no space, no quota, a broken or read-only device, another file
/// system, an exchange that is not known, an immutable entry.
fn errors(kind: Kind) -> &'static [Errno] {
    match kind {
        Kind::Open | Kind::MakeDirectory => &[Errno::NOSPC, Errno::ROFS],
        Kind::Write => &[Errno::NOSPC, Errno::IO],
        Kind::Flush => &[Errno::IO],
        Kind::Link | Kind::Symlink => &[Errno::DQUOT, Errno::PERM],
        Kind::Exchange => &[Errno::XDEV, Errno::INVAL, Errno::PERM],
        Kind::Unlink | Kind::Rename => &[Errno::IO, Errno::PERM],
        Kind::Metadata => &[Errno::PERM],
        Kind::Clone => &[Errno::OPNOTSUPP],
        Kind::Mount => &[Errno::PERM],
    }
}

fn apply_fails(for_good: bool) {
    fails(Scene::apply, |_| {}, for_good);
}

fn undo_fails() {
    fails(Scene::undo, |scene| drop(run(&mut scene.apply()).unwrap()), false);
}

fn fails(command: fn(&Scene) -> Command, prepare: fn(&Scene), for_good: bool) {
    let laid = || {
        let dir = scratch();
        let scene = Scene::lay(&dir.path().join("scene"));
        let before = scene.snapshot();
        prepare(&scene);
        (dir, scene, before)
    };
    let (_dir, scene, _) = laid();
    let all = supervise(&command(&scene), |_| Answer::Happen).calls;
    let (mut cases, mut broken) = (0, Vec::new());
    for failing in &all {
        for errno in errors(failing.kind) {
            cases += 1;
            let (_dir, scene, before) = laid();
            let ended = supervise(&command(&scene), |call| {
                let again = for_good && call.index > failing.index && call.kind == failing.kind;
                let fails = call.index == failing.index || again;
                if fails { Answer::Fail(*errno) } else { Answer::Happen }
            });
            let told = |what| format!("{errno} at {failing}: {what}; {}", ended.stderr);
            if let Err(error) = scene.recovers(&before) {
                broken.push(told(error));
            }
            if ended.status != Some(0) && !ended.stderr.contains(' ') {
                broken.push(told("it does not say why".to_owned()));
            }
        }
    }
    eprintln!("{cases} faults, {} broken", broken.len());
    assert!(cases > 50 && broken.is_empty(), "{cases} faults:\n{}", broken.join("\n"));
}

/// A file system that knows no exchange of names, as some do that lie on another one.
fn no_exchange() {
    let dir = scratch();
    let scene = Scene::lay(&dir.path().join("scene"));
    let before = scene.snapshot();
    let ended = supervise(&scene.apply(), |call| match call.kind {
        Kind::Exchange => Answer::Fail(Errno::INVAL),
        _ => Answer::Happen,
    });
    let said = &ended.stderr;
    assert!(said.contains("has no exchange of names; --method reflink may do without"), "{said}");
    scene.recovers(&before).unwrap();
}

fn second_instance() {
    let dir = scratch();
    let scene = Scene::lay(&dir.path().join("scene"));
    let mut second = None;
    let first = supervise(&scene.apply(), |call| {
        if call.kind == Kind::Exchange && second.is_none() {
            second = Some(scene.apply().output().unwrap());
        }
        Answer::Happen
    });
    assert_eq!(first.status, Some(0), "{}", first.stderr);
    assert_eq!(second.unwrap().status.code(), Some(6));
}

/// What is written through the descriptor that a container kept does not reach the object.
fn write_descriptor() {
    let dir = scratch();
    let scene = Scene::lay(&dir.path().join("scene"));
    let [web, _] = scene.roots();
    let program = std::fs::read(web.join("bin/busybox")).unwrap();
    let kept = File::options().read(true).write(true).open(web.join("bin/busybox")).unwrap();
    let output = scene.apply().output().unwrap();
    kept.write_all_at(b"PWNED", 0).unwrap();
    assert!(output.status.code() == Some(3), "{output:?}");
    let objects: Vec<_> = std::fs::read_dir(scene.store()).unwrap().map(Result::unwrap).collect();
    for object in &objects {
        assert!(std::fs::read(object.path()).unwrap() == program, "{object:?} was changed");
    }
    assert!(!objects.is_empty(), "nothing was stored");
    assert_eq!(std::fs::read(web.join("bin/busybox")).unwrap()[..5], *b"PWNED", "nothing is lost");
}

/// Who looked the old file up before the exchange, and is held up on the way to opening it until
/// all is done, still writes to what the name leads to.
fn writer_held_up() {
    let dir = scratch();
    let scene = Scene::lay(&dir.path().join("scene"));
    let program = scene.roots()[0].join("bin/busybox");
    let mut writer = None;
    let ended = supervise(&scene.apply(), |call| {
        if call.kind == Kind::Exchange && writer.is_none() {
            assert!(call.other.as_ref() == Some(&program), "{call}");
            let (scanner, program) = (Scanner::watch(&program), program.clone());
            let writer_at = std::thread::spawn(move || {
                File::options()
                    .write(true)
                    .open(program)
                    .unwrap()
                    .write_all_at(b"LATE", 0)
                    .unwrap();
            });
            writer = Some((scanner.held(), writer_at));
        }
        Answer::Happen
    });
    let (held, writer) = writer.unwrap();
    drop(held);
    writer.join().unwrap();
    assert_eq!(ended.status, Some(3), "{}", ended.stderr);
    assert_eq!(std::fs::read(&program).unwrap()[..4], *b"LATE", "what it wrote is lost");
}

fn by_hand_is_red() {
    let dir = scratch();
    let scene = Scene::lay(&dir.path().join("scene"));
    let kept = File::options().write(true).open(scene.roots()[0].join("bin/busybox")).unwrap();
    let kept_too = File::options().write(true).open(scene.roots()[1].join("bin/busybox")).unwrap();
    succeed(&mut naive::by_hand(&scene));
    kept.write_all_at(b"PWNED", 0).unwrap();
    kept_too.write_all_at(b"PWNED", 0).unwrap();
    let object = std::fs::read(scene.store().join("busybox")).unwrap();
    assert_eq!(object[..5], *b"PWNED", "a container's own inode in the store, and nobody noticed");
}
