//! Files that are no files, or too much of one.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;

use cbin_audit::model::{HostPath, RootPath};
use cbin_audit::scan::dir::RootDir;
use rustix::fs::{CWD, FileType, Mode};

use super::{Roots, elf, finish, tool_for_everyone, with_mounts};
use crate::command::cbin_audit;
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    suite.test("hostile_fifo_socket_and_links_that_loop", &[], fifo_socket_loop);
    suite.test("privileged_hostile_devices_and_whiteouts", &[Need::Root], devices);
    suite.test("privileged_hostile_what_is_opened_at_once", &[Need::Root], at_once);
    suite.test("hostile_sparse_terabytes", &[], sparse);
    suite.test("hostile_insane_elf_headers", &[], insane_elf);
    suite.test("hostile_what_may_not_be_read", &[Need::Root, Need::Program("setpriv")], unreadable);
    suite.test("privileged_hostile_unanswering_fuse", &[Need::Root, Need::File("/dev/fuse")], fuse);
}

/// Where files are opened without a look at them before, a name may lead to anything by then.
fn at_once() {
    let roots = Roots::new();
    fs::write(roots.at("a/file"), "text").unwrap();
    fs::write(roots.at("outside"), "not yours").unwrap();
    symlink(roots.at("outside"), roots.at("a/link")).unwrap();
    let make = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, roots.at("a").join(name), kind, Mode::RWXU, device).unwrap();
    };
    make("zero", FileType::CharacterDevice, rustix::fs::makedev(1, 5));
    make("disk", FileType::BlockDevice, rustix::fs::makedev(7, 0));
    make("fifo", FileType::Fifo, 0);
    let _socket = UnixListener::bind(roots.at("a/socket")).unwrap();
    symlink(roots.at("."), roots.at("a/way")).unwrap();
    let open = |root: &RootDir, path: &str| root.open_at_once(&RootPath::new(path));

    let plain = RootDir::open(&HostPath::from(roots.at("a"))).unwrap();
    assert!(open(&plain, "file").is_none(), "a device could be opened in the same way");
    let sealed = RootDir::open(&HostPath::from(roots.at("a"))).unwrap();
    sealed.seal();
    let read = |name: &str| std::io::read_to_string(open(&sealed, name).unwrap()?);
    assert_eq!(read("file").unwrap(), "text");
    let refused = |name: &str| open(&sealed, name).unwrap().unwrap_err().raw_os_error().unwrap();
    for name in ["zero", "disk"] {
        assert_eq!(refused(name), rustix::io::Errno::ACCESS.raw_os_error(), "{name}");
    }
    for name in ["link", "../outside", "way/outside"] {
        let outside =
            [rustix::io::Errno::LOOP, rustix::io::Errno::XDEV].map(|it| it.raw_os_error());
        assert!(outside.contains(&refused(name)), "{name}");
    }
    assert_eq!(refused("socket"), rustix::io::Errno::NXIO.raw_os_error());
    // Opened without waiting for somebody who writes, and as good as empty.
    let fifo = open(&sealed, "fifo").unwrap().unwrap();
    let nothing = std::os::unix::fs::FileExt::read_at(&fifo, &mut [0; 8], 0).unwrap_err();
    assert_eq!(nothing.raw_os_error(), Some(rustix::io::Errno::SPIPE.raw_os_error()));
    // The root itself is as it was.
    fs::write(roots.at("a/file"), "new").unwrap();
    assert_eq!(read("file").unwrap(), "new");
}

fn fifo_socket_loop() {
    let roots = Roots::new();
    roots.both("bin/tool", elf(b"the same in both"));
    rustix::fs::mknodat(CWD, roots.at("a/fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    // The name of a program: a reader that opens it never comes back.
    rustix::fs::mknodat(CWD, roots.at("b/bin/busybox"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _socket = UnixListener::bind(roots.at("a/socket")).unwrap();
    symlink("loop", roots.at("a/loop")).unwrap();
    symlink("../../../../../../../etc/passwd", roots.at("a/up")).unwrap();
    symlink("/dev/zero", roots.at("a/bin/cat")).unwrap();
    for select in ["multicall", "elf", "all"] {
        let answer = roots.report(&["--select", select]).complete();
        let answer = answer.notice("a/fifo", "FIFO").notice("a/socket", "socket");
        let answer = answer.notice("b/bin/busybox", "FIFO");
        assert_eq!(answer.files(), 2);
        if select != "multicall" {
            answer.finds("bin/tool");
        }
    }
}

fn devices() {
    let roots = Roots::new();
    roots.both("bin/tool", elf(b"the same in both"));
    // No driver has these numbers: opening one fails, and would make the answer partial.
    let node = |path: &str, kind, device| {
        rustix::fs::mknodat(CWD, roots.at(path), kind, Mode::RWXU, device).unwrap();
    };
    node("a/char", FileType::CharacterDevice, rustix::fs::makedev(4000, 1));
    node("a/block", FileType::BlockDevice, rustix::fs::makedev(4000, 2));
    node("b/busybox", FileType::CharacterDevice, rustix::fs::makedev(4000, 3));
    node("b/gone", FileType::CharacterDevice, 0);
    let answer = roots.report(&["--select", "all"]).complete().finds("bin/tool");
    let answer = answer.notice("a/char", "device").notice("a/block", "device");
    answer.notice("b/busybox", "device").notice("b/gone", "whiteout");
}

fn sparse() {
    const FIFTEEN_TIB: u64 = 15 << 40;
    let roots = Roots::new();
    roots.both("bin/tool", elf(b"the same in both"));
    for root in ["a", "b"] {
        File::create(roots.at(root).join("zeros")).unwrap().set_len(FIFTEEN_TIB).unwrap();
    }
    // Not a program, as its first bytes tell.
    roots.report(&[]).complete().finds("bin/tool");
    roots.report(&["--select", "multicall"]).complete();
    // Equal in size: only reading it all would tell.
    let answer = roots.report(&["--select", "all"]).partial().finds("bin/tool");
    let answer = answer.notice("a/zeros", "--max-file-size").notice("b/zeros", "--max-file-size");
    assert!(answer.group("zeros").is_none());
    // One that claims to be a program.
    for root in ["a", "b"] {
        let mut file = File::create(roots.at(root).join("bin/huge")).unwrap();
        file.write_all(&elf(&[0; 48])).unwrap();
        file.set_len(FIFTEEN_TIB).unwrap();
    }
    roots.report(&[]).partial().finds("bin/tool").notice("a/bin/huge", "--max-file-size");
    roots.report(&["--select", "multicall"]).consistent();
}

/// A 64-bit header whose fields are set by `(offset, bytes)`.
fn header(fields: &[(usize, &[u8])], tail: &[u8]) -> Vec<u8> {
    let mut bytes = elf(&[0; 48]);
    let mut set = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    set(16, &2u16.to_le_bytes());
    set(18, &62u16.to_le_bytes());
    set(20, &1u32.to_le_bytes());
    set(52, &64u16.to_le_bytes());
    set(54, &56u16.to_le_bytes());
    set(58, &64u16.to_le_bytes());
    for (at, value) in fields {
        set(*at, value);
    }
    bytes.extend_from_slice(tail);
    bytes
}

/// A program header: type, offset and size in the file, size in memory.
fn segment(kind: u32, offset: u64, in_file: u64, in_memory: u64) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend(5u32.to_le_bytes());
    for field in [offset, 0, 0, in_file, in_memory, 0x1000] {
        bytes.extend(field.to_le_bytes());
    }
    bytes
}

fn insane_elf() {
    const PHOFF: usize = 32;
    const SHOFF: usize = 40;
    const PHNUM: usize = 56;
    const SHNUM: usize = 60;
    let max = u64::MAX.to_le_bytes();
    let after = 64u64.to_le_bytes();
    let one = 1u16.to_le_bytes();
    let table = [(PHOFF, &after[..]), (PHNUM, &one[..])];
    let mut first_section = vec![0; 64];
    first_section[32..40].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("cut-after-magic", b"\x7fELF".to_vec()),
        ("cut-in-header", header(&[], b"")[..40].to_vec()),
        ("no-class", b"\x7fELF\x09\x09\x09".to_vec()),
        ("nothing", header(&[], b"")),
        ("segments-beyond-the-end", header(&[(PHOFF, &max), (PHNUM, &[0xff, 0xff])], b"")),
        ("sections-beyond-the-end", header(&[(SHOFF, &max), (SHNUM, &[0xff, 0xfe])], b"")),
        ("sections-without-number", header(&[(SHOFF, &after), (SHNUM, &[0, 0])], &first_section)),
        (
            "section-entries-of-no-size",
            header(&[(SHOFF, &after), (58, &[0, 0]), (SHNUM, &[9, 0])], &[1; 64]),
        ),
        (
            "segment-entries-of-no-size",
            header(&[(PHOFF, &after), (54, &[0, 0]), (PHNUM, &[9, 0])], &[1; 64]),
        ),
        ("load-of-everything", header(&table, &segment(1, u64::MAX - 1, u64::MAX, u64::MAX))),
        ("interpreter-without-end", header(&table, &segment(3, 64, u64::MAX / 2, 1))),
        ("dynamic-without-end", header(&table, &segment(2, 0, u64::MAX / 4, u64::MAX))),
        ("note-without-end", header(&table, &segment(4, 64, 1 << 60, 1 << 60))),
    ];
    let roots = Roots::new();
    for (name, bytes) in &cases {
        roots.both(name, bytes);
        // With the mark of a multi-call binary, so that applets are looked for.
        roots.both(&format!("busybox-{name}"), [&bytes[..], b"\0BusyBox v1.36.1\0[\0"].concat());
    }
    roots.report(&["--select", "multicall"]).consistent();
    roots.report(&[]).consistent();
    let mut answer = roots.report(&["--select", "all"]).consistent();
    for (name, _) in &cases {
        answer = answer.finds(name).finds(&format!("busybox-{name}"));
    }
}

fn unreadable() {
    let roots = Roots::new();
    roots.both("bin/tool", elf(b"the same in both"));
    roots.both("secret/inside", "x");
    roots.both("closed", "twenty bytes of text");
    for root in ["a", "b"] {
        for closed in ["secret", "closed"] {
            let path = roots.at(root).join(closed);
            fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
        }
        fs::set_permissions(roots.at(root), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let tool = tool_for_everyone(roots.0.path());
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(tool);
    command.args(["report", "--json", "--no-memory", "--select", "all"]);
    command.args([roots.at("a"), roots.at("b")]);
    let answer = finish(command).partial().finds("bin/tool");
    for root in ["a", "b"] {
        let (dir, file) = (format!("{root}/secret"), format!("{root}/closed"));
        assert!(answer.notices().len() >= 4, "{}", answer.stdout);
        for path in [dir, file] {
            let ends =
                |notice: &serde_json::Value| notice["path"].as_str().unwrap().ends_with(&path);
            let notice = answer.notices().iter().find(|notice| ends(notice));
            let cause =
                notice.unwrap_or_else(|| panic!("{path}: {}", answer.stdout))["cause"].as_str();
            assert!(cause.unwrap().contains("ermission denied"), "{cause:?}");
        }
    }
    // A root may look everywhere.
    roots.report(&["--select", "all"]).complete().finds("bin/tool").finds("closed");
}

/// A file system whose server never answers lies in a root, and is a home directory.
fn fuse() {
    let roots = Roots::new();
    roots.both("bin/tool", elf(b"the same in both"));
    fs::create_dir(roots.at("a/mnt")).unwrap();
    let setup = "exec 3<>/dev/fuse
        mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none \"$1/a/mnt\"";
    let mut command = cbin_audit();
    command.args(["report", "--json", "--no-memory"]).args([roots.at("a"), roots.at("b")]);
    let answer = finish(with_mounts(setup, roots.0.path(), &command));
    answer.complete().finds("bin/tool").notice("a/mnt", "file system is mounted");
    // As one of the directories that might be roots.
    roots.both("bin/sh", elf(b"a shell"));
    fs::create_dir(roots.at("home")).unwrap();
    let setup = setup.replace("/a/mnt", "/home");
    let mut command = cbin_audit();
    command.args(["report", "--json", "--no-memory"]).arg(roots.0.path());
    let answer = finish(with_mounts(&setup, roots.0.path(), &command));
    answer.complete().finds("bin/tool").notice("/home", "may never answer");
}
