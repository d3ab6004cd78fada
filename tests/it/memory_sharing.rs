//! What identifies a shared page: every way in which two processes can come to run
//! the same bytes, and what page frames say of it. No device and inode number is
//! right in all of them; the tool must be.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, MemfdFlags, memfd_create};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use cbin_audit::model::Pages;
use cbin_audit::scan::VmaSource;

use crate::loopfs::LoopFs;
use crate::memory_ground::{
    Ground, Running, distinct, done, frames, look_with, named, sleeper, sleeper_from, start,
};
use crate::suite::{Need, Suite};

use Verdict::{Separate, Shared};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Shared,
    Separate,
}

/// The paths of the two programs; the ground keeps what leads there.
type Lay = fn(&Ground) -> [PathBuf; 2];

const BTRFS: &[Need] = &[Need::Program("mkfs.btrfs"), Need::Program("btrfs")];
const XFS: &[Need] = &[Need::Program("mkfs.xfs")];
const SQUASHFS: &[Need] = &[Need::Program("mksquashfs")];
const EROFS: &[Need] = &[Need::Program("mkfs.erofs")];
const EXT4: &[Need] = &[Need::Program("mkfs.ext4")];
const NONE: &[Need] = &[];

const ROWS: &[(&str, &[Need], Verdict, Lay)] = &[
    ("one_inode", NONE, Shared, one_inode),
    ("two_copies", NONE, Separate, two_copies),
    ("hard_link", NONE, Shared, hard_link),
    ("read_only_bind", NONE, Shared, read_only_bind),
    ("idmapped_bind", NONE, Shared, idmapped_bind),
    ("overlays_of_one_lower", NONE, Shared, overlays_of_one_lower),
    ("overlay_and_its_lower", NONE, Shared, overlay_and_its_lower),
    ("overlays_of_a_lower_on_squashfs", SQUASHFS, Shared, overlays_on_squashfs),
    ("overlays_of_a_lower_on_erofs", EROFS, Shared, overlays_on_erofs),
    ("overlays_of_hard_linked_lowers", NONE, Shared, overlays_of_hard_links),
    ("overlays_of_copies", NONE, Separate, overlays_of_copies),
    ("metacopy_of_one_object", NONE, Shared, metacopy),
    ("squashfs_on_one_loop", SQUASHFS, Shared, squashfs_one_loop),
    ("squashfs_on_two_loops", SQUASHFS, Separate, squashfs_two_loops),
    ("erofs_on_one_loop", EROFS, Shared, erofs_one_loop),
    ("compressed_erofs_on_one_loop", EROFS, Shared, erofs_lz4_one_loop),
    ("erofs_on_two_loops", EROFS, Separate, erofs_two_loops),
    ("erofs_without_a_loop", EROFS, Separate, erofs_file_backed),
    ("ext4_on_two_loops", EXT4, Separate, ext4_two_loops),
    ("tmpfs", NONE, Shared, tmpfs),
    ("two_tmpfs", NONE, Separate, two_tmpfs),
];

pub fn tests(suite: &mut Suite) {
    for (name, needs, verdict, lay) in ROWS {
        let needs: Vec<Need> =
            [Need::Root, Need::Package("busybox-static")].iter().chain(*needs).copied().collect();
        suite.test(&format!("privileged_memory_sharing_{name}"), &needs, move || {
            let ground = Ground::new();
            let [a, b] = lay(&ground);
            agree(&ground.name, &[sleeper(&a), sleeper(&b)], *verdict);
        });
    }
    let mut test = |name: &str, needs: &[Need], run: fn()| {
        let needs: Vec<Need> =
            [Need::Root, Need::Package("busybox-static")].iter().chain(needs).copied().collect();
        suite.test(&format!("privileged_memory_sharing_{name}"), &needs, run);
    };
    test("copy_up", NONE, copy_up);
    test("btrfs_reflink_and_snapshots", BTRFS, btrfs);
    test("xfs_reflink", XFS, xfs_reflink);
    test("overlays_of_a_lower_on_btrfs", BTRFS, || overlays_on("btrfs", 256));
    test("overlays_of_a_lower_on_xfs", XFS, || overlays_on("xfs", 320));
    test("memfd", NONE, memfd);
    test("tmpfs_with_huge_pages", &[Need::Program("gcc")], huge_pages);
    test("counts_the_cache_as_fincore_does", &[Need::Program("fincore")], cached);
    test("deleted_and_replaced", NONE, replaced);
    test("fuse_overlayfs", &[Need::Program("fuse-overlayfs")], fuse_overlayfs);
}

/// The tool and the independent reader say the same, and what was expected.
fn agree(name: &str, running: &[Running; 2], verdict: Verdict) {
    let seen = running.each_ref().map(|process| frames(process.pid(), name));
    let common: Vec<bool> =
        seen[0].iter().filter_map(|(page, frame)| Some(seen[1].get(page)? == frame)).collect();
    assert!(common.len() > 50, "only {} pages are common: {seen:?}", common.len());
    let same = common.iter().filter(|same| **same).count();
    let expected = if verdict == Shared { common.len() } else { 0 };
    assert_eq!(same, expected, "the kernel does otherwise: the row is wrong");

    let (resident, ideal) = distinct(&seen);
    for source in [VmaSource::Auto, VmaSource::Text] {
        let report = look_with(|options| options.source = source);
        let binaries = named(&report, name);
        let [binary] = binaries.as_slice() else { panic!("{binaries:#?}") };
        assert_eq!(binary.objects, if verdict == Shared { 1 } else { 2 }, "{binary:#?}");
        assert_eq!(binary.file.resident, Pages(resident), "{binary:#?}");
        assert_eq!(binary.file.ideal, Pages(ideal), "{binary:#?}");
        assert_eq!(binary.processes, 2);
        assert!(binary.content.is_some() || verdict == Shared, "{binary:#?}");
        for process in running {
            let row = report.processes.iter().find(|row| row.pid == process.pid()).unwrap();
            assert_eq!(row.text, row.private + row.container_shared + row.shared, "{row:?}");
            assert_eq!(row.private == row.text, verdict == Separate, "{row:?}");
        }
    }
}

fn one_inode(ground: &Ground) -> [PathBuf; 2] {
    let program = ground.program_in(&ground.dir("a"));
    [program.clone(), program]
}

fn two_copies(ground: &Ground) -> [PathBuf; 2] {
    ["a", "b"].map(|dir| ground.program_in(&ground.dir(dir)))
}

fn hard_link(ground: &Ground) -> [PathBuf; 2] {
    let program = ground.program_in(&ground.dir("a"));
    let link = ground.dir("b").join(&ground.name);
    fs::hard_link(&program, &link).unwrap();
    [program, link]
}

fn read_only_bind(ground: &Ground) -> [PathBuf; 2] {
    let dir = ground.dir("a");
    let program = ground.program_in(&dir);
    let bound = ground.mount("b", &["--bind", "-o", "ro", dir.to_str().unwrap()]);
    [program, bound.join(&ground.name)]
}

fn idmapped_bind(ground: &Ground) -> [PathBuf; 2] {
    let dir = ground.dir("a");
    let program = ground.program_in(&dir);
    let tree =
        open_tree(CWD, &dir, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC);
    let tree = tree.unwrap();
    let users = user_namespace();
    map_ids(tree.as_fd(), users.as_fd());
    let point = ground.dir("b");
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&tree, "", CWD, &point, flags).unwrap();
    ground.mounted(&point);
    [program, point.join(&ground.name)]
}

/// A user namespace that shifts ids by 100000.
fn user_namespace() -> OwnedFd {
    let mut command = Command::new("unshare");
    let child = Running(command.args(["-U", "sleep", "1000"]).spawn().unwrap());
    let proc = PathBuf::from(format!("/proc/{}", child.pid()));
    crate::memory_ground::wait_for("a user namespace", || {
        fs::read_link(proc.join("ns/user")).unwrap() != fs::read_link("/proc/self/ns/user").unwrap()
    });
    for map in ["uid_map", "gid_map"] {
        fs::write(proc.join(map), "0 100000 65536").unwrap();
    }
    File::open(proc.join("ns/user")).unwrap().into()
}

/// mount_setattr(2) with `MOUNT_ATTR_IDMAP`.
#[expect(unsafe_code, reason = "mount_setattr(2) is wrapped by no library")]
fn map_ids(tree: BorrowedFd<'_>, users: BorrowedFd<'_>) {
    /// `struct mount_attr`: set, clear, propagation, namespace.
    #[repr(C)]
    struct MountAttr([u64; 4]);
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    let attributes = MountAttr([MOUNT_ATTR_IDMAP, 0, 0, users.as_raw_fd() as u64]);
    // SAFETY: the path is a C string, the struct has the size that is told, and lives on.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
}

fn overlays_of_one_lower(ground: &Ground) -> [PathBuf; 2] {
    let lower = ground.dir("lower");
    ground.program_in(&lower);
    ["m1", "m2"].map(|point| ground.overlay_rw(point, &lower, "").join(&ground.name))
}

fn overlay_and_its_lower(ground: &Ground) -> [PathBuf; 2] {
    let lower = ground.dir("lower");
    let program = ground.program_in(&lower);
    [program, ground.overlay_rw("m1", &lower, "").join(&ground.name)]
}

fn overlays_on_squashfs(ground: &Ground) -> [PathBuf; 2] {
    overlays_of_image(ground, &squashfs_image(ground))
}

fn overlays_on_erofs(ground: &Ground) -> [PathBuf; 2] {
    overlays_of_image(ground, &erofs_image(ground))
}

fn overlays_of_image(ground: &Ground, image: &Path) -> [PathBuf; 2] {
    let lower = ground.mount("lower", &["-o", "loop,ro", image.to_str().unwrap()]);
    ["m1", "m2"].map(|point| ground.overlay_rw(point, &lower, "").join(&ground.name))
}

/// Another file system below than the one above: the device that maps shows is not stat's.
fn overlays_on(kind: &str, mebibytes: u64) {
    let (fs, ground) = (LoopFs::make(kind, mebibytes), Ground::new());
    ground.program_in(fs.path());
    let running = ["m1", "m2"].map(|point| {
        let above = ground.overlay_rw(point, fs.path(), "");
        sleeper(&above.join(&ground.name))
    });
    agree(&ground.name, &running, Shared);
}

/// A file that is in the cache in part, seen through an overlay: cachestat(2) would say 0.
fn cached() {
    let ground = Ground::new();
    let lower = ground.dir("lower");
    let below = ground.program_in(&lower);
    // What the program maps stays in the cache, a tail does not have to.
    let mut file = File::options().read(true).append(true).open(&below).unwrap();
    file.write_all(&[1; 8 << 20]).unwrap();
    file.sync_all().unwrap();
    let file = File::open(&below).unwrap();
    let program = ground.overlay_rw("m1", &lower, "").join(&ground.name);
    let running = sleeper(&program);
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    file.read_at(&mut [0; 4096], 6 << 20).unwrap();
    let whole = file.metadata().unwrap().len().div_ceil(4096);
    // Another process may read ahead, and memory may run short, in between.
    let agreed = (0..20).any(|_| {
        let report = look_with(|_| ());
        let binary = named(&report, &ground.name)[0].clone();
        let fincore = Command::new("fincore").args(["-n", "-o", "PAGES"]).arg(&below).output();
        let expected = String::from_utf8(fincore.unwrap().stdout).unwrap();
        let expected: u64 = expected.trim().parse().unwrap();
        assert!(expected < whole, "nothing left the cache: {expected} of {whole} pages");
        assert!(binary.cached >= binary.file.resident, "{binary:#?}");
        binary.cached == Pages(expected)
    });
    assert!(agreed, "fincore counts otherwise");
    drop(running);
}

fn overlays_of_hard_links(ground: &Ground) -> [PathBuf; 2] {
    let store = ground.program_in(&ground.dir("store"));
    ["m1", "m2"].map(|point| {
        let lower = ground.dir(&format!("{point}.lower"));
        fs::hard_link(&store, lower.join(&ground.name)).unwrap();
        ground.overlay_rw(point, &lower, "").join(&ground.name)
    })
}

fn overlays_of_copies(ground: &Ground) -> [PathBuf; 2] {
    ["m1", "m2"].map(|point| {
        let lower = ground.dir(&format!("{point}.lower"));
        ground.program_in(&lower);
        ground.overlay_rw(point, &lower, "").join(&ground.name)
    })
}

/// As composefs lays it: two layers of metadata, one data object below both.
fn metacopy(ground: &Ground) -> [PathBuf; 2] {
    let data = ground.dir("data");
    fs::rename(ground.program_in(&data), data.join("object")).unwrap();
    ["m1", "m2"].map(|point| {
        let options = ",metacopy=on,redirect_dir=on";
        let making = ground.overlay_rw(&format!("{point}.making"), &data, options);
        fs::rename(making.join("object"), making.join(&ground.name)).unwrap();
        done(Command::new("chmod").arg("0555").arg(making.join(&ground.name)));
        ground.unmount(&making);
        let meta = ground.at(&format!("{point}.making.upper"));
        ground.overlay(point, &[&meta, &data], options).join(&ground.name)
    })
}

fn copy_up() {
    let ground = Ground::new();
    let lower = ground.dir("lower");
    ground.program_in(&lower);
    let program = ground.overlay_rw("m1", &lower, "").join(&ground.name);
    let before = sleeper(&program);
    done(Command::new("chmod").arg("0700").arg(&program));
    agree(&ground.name, &[before, sleeper(&program)], Separate);
}

fn squashfs_image(ground: &Ground) -> PathBuf {
    let (dir, image) = (ground.dir("image"), ground.at("image.squashfs"));
    ground.program_in(&dir);
    done(Command::new("mksquashfs").args([&dir, &image]).args(["-quiet", "-no-progress"]));
    image
}

fn erofs_image(ground: &Ground) -> PathBuf {
    make_erofs(ground, &[])
}

fn make_erofs(ground: &Ground, options: &[&str]) -> PathBuf {
    let (dir, image) = (ground.dir("image"), ground.at("image.erofs"));
    ground.program_in(&dir);
    done(Command::new("mkfs.erofs").args(options).args([&image, &dir]));
    image
}

fn erofs_lz4_one_loop(ground: &Ground) -> [PathBuf; 2] {
    one_loop(ground, &make_erofs(ground, &["-zlz4"]))
}

/// The image through one loop device, mounted twice.
fn one_loop(ground: &Ground, image: &Path) -> [PathBuf; 2] {
    let device = ground.loop_device(image);
    ["m1", "m2"].map(|point| ground.mount(point, &["-o", "ro", &device]).join(&ground.name))
}

/// The image through a loop device for each mount.
fn two_loops(ground: &Ground, image: &Path, options: &str) -> [PathBuf; 2] {
    ["m1", "m2"].map(|point| {
        let device = ground.loop_device(image);
        ground.mount(point, &["-o", options, &device]).join(&ground.name)
    })
}

fn squashfs_one_loop(ground: &Ground) -> [PathBuf; 2] {
    one_loop(ground, &squashfs_image(ground))
}

fn squashfs_two_loops(ground: &Ground) -> [PathBuf; 2] {
    two_loops(ground, &squashfs_image(ground), "ro")
}

fn erofs_one_loop(ground: &Ground) -> [PathBuf; 2] {
    one_loop(ground, &erofs_image(ground))
}

fn erofs_two_loops(ground: &Ground) -> [PathBuf; 2] {
    two_loops(ground, &erofs_image(ground), "ro")
}

fn erofs_file_backed(ground: &Ground) -> [PathBuf; 2] {
    let image = erofs_image(ground);
    ["m1", "m2"].map(|point| {
        let dir = ground.dir(point);
        rustix::mount::mount(&image, &dir, "erofs", rustix::mount::MountFlags::RDONLY, None)
            .unwrap();
        ground.mounted(&dir);
        dir.join(&ground.name)
    })
}

fn ext4_two_loops(ground: &Ground) -> [PathBuf; 2] {
    let (dir, image) = (ground.dir("image"), ground.at("image.ext4"));
    ground.program_in(&dir);
    File::create(&image).unwrap().set_len(16 << 20).unwrap();
    done(Command::new("mkfs.ext4").args(["-q", "-d"]).args([&dir, &image]));
    two_loops(ground, &image, "ro,noload")
}

fn tmpfs(ground: &Ground) -> [PathBuf; 2] {
    let program = ground.program_in(&ground.mount("a", &["-t", "tmpfs", "tmpfs"]));
    [program.clone(), program]
}

fn two_tmpfs(ground: &Ground) -> [PathBuf; 2] {
    ["a", "b"].map(|point| ground.program_in(&ground.mount(point, &["-t", "tmpfs", "tmpfs"])))
}

/// Text that one entry of the page table maps, two megabytes at a time, is told page by page.
fn huge_pages() {
    let ground = Ground::new();
    let programs = ["a", "b"].map(|point| {
        let options = ["-t", "tmpfs", "-o", "huge=always", "tmpfs"];
        ground.mount(point, &options).join(&ground.name)
    });
    let bytes = aligned_program(&ground);
    for program in &programs {
        // In one go: what is written piece by piece gets small pages.
        fs::write(program, &bytes).unwrap();
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for (other, verdict) in [(&programs[0], Shared), (&programs[1], Separate)] {
        let running = [sleeper(&programs[0]), sleeper(other)];
        for process in &running {
            let smaps = fs::read_to_string(format!("/proc/{}/smaps", process.pid())).unwrap();
            let huge: u64 = smaps.lines().filter_map(huge_kilobytes).sum();
            assert!(huge >= 4096, "nothing is mapped by huge pages: {huge} kB");
        }
        agree(&ground.name, &running, verdict);
    }
}

/// What smaps says of huge pages of shared memory.
fn huge_kilobytes(line: &str) -> Option<u64> {
    line.strip_prefix("ShmemPmdMapped:")?.trim().strip_suffix(" kB")?.parse().ok()
}

/// A program that sleeps, with megabytes of text that begin at a multiple of two megabytes,
/// in the file and in memory. It runs through all of it once.
fn aligned_program(ground: &Ground) -> Vec<u8> {
    const SOURCE: &str = "
        #include <unistd.h>
        __asm__(\".text; .balign 2097152; many: .fill 6291456, 1, 0x90; ret\");
        void many(void);
        int main(void) { many(); sleep(1000); return 0; }";
    let place = ground.at("program");
    let mut gcc = Command::new("gcc");
    gcc.args(["-static", "-no-pie", "-O1", "-Wl,-z,max-page-size=2097152", "-x", "c", "-", "-o"]);
    let mut gcc = gcc.arg(&place).stdin(Stdio::piped()).spawn().unwrap();
    gcc.stdin.take().unwrap().write_all(SOURCE.as_bytes()).unwrap();
    assert!(gcc.wait().unwrap().success());
    fs::read(place).unwrap()
}

/// maps shows one device and inode for a subvolume and its snapshots.
fn btrfs() {
    let (fs, ground) = (LoopFs::make("btrfs", 256), Ground::new());
    let volume = fs.path().join("volume");
    done(Command::new("btrfs").args(["subvolume", "create"]).arg(&volume));
    let program = ground.program_in(&volume);
    let copy = fs.path().join(&ground.name);
    done(Command::new("cp").arg("--reflink=always").args([&program, &copy]));
    let snapshots = [("writable", &[][..]), ("readonly", &["-r"][..])].map(|(name, flags)| {
        let snapshot = fs.path().join(name);
        done(
            Command::new("btrfs")
                .args(["subvolume", "snapshot"])
                .args(flags)
                .args([&volume, &snapshot]),
        );
        snapshot.join(&ground.name)
    });
    agree(&ground.name, &[sleeper(&program), sleeper(&program)], Shared);
    for other in [&copy, &snapshots[0], &snapshots[1]] {
        agree(&ground.name, &[sleeper(&program), sleeper(other)], Separate);
    }
}

fn xfs_reflink() {
    let (fs, ground) = (LoopFs::make("xfs", 320), Ground::new());
    let program = ground.program_in(fs.path());
    let copy = fs.path().join("copy");
    fs::create_dir(&copy).unwrap();
    let copy = copy.join(&ground.name);
    done(Command::new("cp").arg("--reflink=always").args([&program, &copy]));
    agree(&ground.name, &[sleeper(&program), sleeper(&copy)], Separate);
}

/// Two files without a path, as runc makes them of itself.
fn memfd() {
    let ground = Ground::new();
    let program = ground.program_in(&ground.dir("a"));
    let files = [(); 2].map(|()| {
        let mut file = File::from(memfd_create(ground.name.as_str(), MemfdFlags::empty()).unwrap());
        file.write_all(&fs::read(&program).unwrap()).unwrap();
        // A file that is open for writing cannot be run.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let readable = File::open(&path).unwrap();
        drop(file);
        readable
    });
    let running = files.each_ref().map(|file| {
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        sleeper_from(Path::new(&path))
    });
    agree_on_memfd(&format!("memfd:{}", ground.name), &running);
}

fn agree_on_memfd(name: &str, running: &[Running; 2]) {
    agree(name, running, Separate);
    let report = look_with(|_| ());
    assert_eq!(named(&report, name)[0].pending_restart, 0, "it never had a name to lose");
}

/// A package upgrade that changes nothing: the old inode lives on in its process.
fn replaced() {
    let ground = Ground::new();
    let dir = ground.dir("a");
    let program = ground.program_in(&dir);
    let old = sleeper(&program);
    fs::rename(ground.program_in(&ground.dir("new")), &program).unwrap();
    let running = [old, sleeper(&program)];
    agree(&ground.name, &running, Separate);
    let report = look_with(|_| ());
    assert_eq!(named(&report, &ground.name)[0].pending_restart, 1);
    drop(running);
}

fn fuse_overlayfs() {
    let ground = Ground::new();
    let lower = ground.dir("lower");
    ground.program_in(&lower);
    let programs = ["m1", "m2"].map(|point| {
        let dir = ground.dir(point);
        let (upper, work) =
            (ground.dir(&format!("{point}.upper")), ground.dir(&format!("{point}.work")));
        let options = [("lowerdir", &lower), ("upperdir", &upper), ("workdir", &work)]
            .map(|(name, path)| format!("{name}={}", path.display()))
            .join(",");
        done(Command::new("fuse-overlayfs").args(["-o", &options]).arg(&dir));
        ground.mounted(&dir);
        dir.join(&ground.name)
    });
    let running = programs.each_ref().map(|path| start(Command::new(path).args(["sleep", "1000"])));
    agree(&ground.name, &running, Separate);
}
