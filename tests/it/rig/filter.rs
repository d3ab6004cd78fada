//! seccomp(2) with a listener: which system calls stop, how they are asked for and answered.

#![expect(unsafe_code, reason = "seccomp(2) and its ioctls are wrapped by no library without C")]

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Result;
use rustix::ioctl::{self, Setter, Updater, opcode};

/// `struct seccomp_notif`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Notification {
    pub id: u64,
    pub pid: u32,
    flags: u32,
    pub number: i32,
    architecture: u32,
    instruction: u64,
    pub arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const RECEIVE: ioctl::Opcode = opcode::read_write::<Notification>(b'!', 0);
const SEND: ioctl::Opcode = opcode::read_write::<Response>(b'!', 1);

/// Waits for the next call. `NOENT`: the caller died meanwhile.
pub fn receive(listener: impl AsFd) -> Result<Notification> {
    let mut notification = Notification::default();
    // SAFETY: the opcode reads and writes one `struct seccomp_notif`, which is zeroed.
    unsafe { ioctl::ioctl(listener, Updater::<RECEIVE, _>::new(&mut notification)) }?;
    Ok(notification)
}

/// Lets the call happen.
pub fn let_happen(listener: impl AsFd, id: u64) {
    const CONTINUE: u32 = 1;
    send(listener, Response { id, value: 0, error: 0, flags: CONTINUE });
}

/// Answers in place of the kernel: with an error number, or with success where it is 0.
pub fn answer(listener: impl AsFd, id: u64, errno: i32) {
    send(listener, Response { id, value: 0, error: -errno, flags: 0 });
}

fn send(listener: impl AsFd, mut response: Response) {
    // SAFETY: the opcode reads and writes one `struct seccomp_notif_resp`.
    let sent = unsafe { ioctl::ioctl(listener, Updater::<SEND, _>::new(&mut response)) };
    assert!(matches!(sent, Ok(()) | Err(rustix::io::Errno::NOENT)), "{sent:?}");
}

/// Puts the calling thread, and all it starts, under a listener.
pub fn install() -> OwnedFd {
    listen(program())
}

/// The same for calls of these numbers, whatever their arguments.
pub fn install_for(numbers: &[i64]) -> OwnedFd {
    let stop = numbers.iter().flat_map(|number| [equal(*number as u32), NOTIFY]);
    listen([load(0)].into_iter().chain(stop).chain([ALLOW]).collect())
}

fn listen(mut program: Vec<libc::sock_filter>) -> OwnedFd {
    const SET_MODE_FILTER: libc::c_uint = 1;
    const NEW_LISTENER: libc::c_ulong = 1 << 3;
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: plain numbers; and a program that lives until the call returns.
    let listener = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, NEW_LISTENER, &raw const program)
    };
    assert!(listener >= 0, "seccomp: {}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made it, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(listener as i32) }
}

/// Gives this thread a root and a working directory of its own, as setns(2) asks for.
pub fn unshare_file_system() {
    // SAFETY: of this thread, which shares no memory the less for it.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_FS) }, 0);
}

/// Cuts the power of a file system: what is not on the device is lost. The same ioctl on ext4
/// (`EXT4_IOC_SHUTDOWN`) and xfs (`XFS_IOC_GOINGDOWN`), without flushing the log first.
pub fn shut_down(directory: BorrowedFd<'_>) -> Result<()> {
    const SHUTDOWN: ioctl::Opcode = opcode::read::<u32>(b'X', 125);
    const NO_LOG_FLUSH: u32 = 2;
    // SAFETY: the opcode takes a pointer to one 32-bit number, in spite of its direction.
    unsafe { ioctl::ioctl(directory, Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) }
}

/// Calls that change a file system, by number alone.
const CHANGING: &[i64] = &[
    libc::SYS_pwrite64,
    libc::SYS_writev,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_truncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_sync,
    libc::SYS_sync_file_range,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
];

/// Those that newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const CHANGING_BY_PATH: &[i64] = &[
    libc::SYS_creat,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_mknod,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(not(target_arch = "x86_64"))]
const CHANGING_BY_PATH: &[i64] = &[libc::SYS_renameat];

const FICLONE: u32 = 0x4004_9409;
const FICLONERANGE: u32 = 0x4020_940d;
const FIDEDUPERANGE: u32 = 0xc018_9436;
const FS_IOC_SETFLAGS: u32 = 0x4008_6602;

/// The filter: `write` to other files than the standard ones, opening with the intent to make or
/// to cut, the ioctls that share extents or set flags, and the calls above.
fn program() -> Vec<libc::sock_filter> {
    let creating = (libc::O_CREAT | libc::O_TRUNC | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as u32;
    let mut program = vec![load(0)];
    program.extend(when_number(libc::SYS_write, &[load(16), at_most(2), NOTIFY, ALLOW]));
    program.extend(when_number(libc::SYS_openat, &[load(32), any_bit(creating), NOTIFY, ALLOW]));
    #[cfg(target_arch = "x86_64")]
    program.extend(when_number(libc::SYS_open, &[load(24), any_bit(creating), NOTIFY, ALLOW]));
    let mut requests = vec![load(24)];
    for request in [FICLONE, FICLONERANGE, FIDEDUPERANGE, FS_IOC_SETFLAGS] {
        requests.extend([equal(request), NOTIFY]);
    }
    requests.push(ALLOW);
    program.extend(when_number(libc::SYS_ioctl, &requests));
    for number in CHANGING.iter().chain(CHANGING_BY_PATH) {
        program.extend([equal(*number as u32), NOTIFY]);
    }
    program.push(ALLOW);
    program
}

const NOTIFY: libc::sock_filter = returning(0x7fc0_0000);
const ALLOW: libc::sock_filter = returning(0x7fff_0000);

/// `BPF_RET | BPF_K`.
const fn returning(value: u32) -> libc::sock_filter {
    libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: value }
}

/// `BPF_LD | BPF_W | BPF_ABS` of `struct seccomp_data`; arguments are little endian here.
const fn load(offset: u32) -> libc::sock_filter {
    libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: offset }
}

/// `BPF_JMP | BPF_JEQ | BPF_K`: the next instruction where equal, else the one after.
const fn equal(value: u32) -> libc::sock_filter {
    libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: value }
}

/// `BPF_JMP | BPF_JGT | BPF_K`: the next instruction where greater, else the one after.
const fn at_most(value: u32) -> libc::sock_filter {
    libc::sock_filter { code: 0x25, jt: 0, jf: 1, k: value }
}

/// `BPF_JMP | BPF_JSET | BPF_K`: the next instruction where a bit is set, else the one after.
const fn any_bit(mask: u32) -> libc::sock_filter {
    libc::sock_filter { code: 0x45, jt: 0, jf: 1, k: mask }
}

/// `then` for one call alone: `then` returns on every way.
fn when_number(number: i64, then: &[libc::sock_filter]) -> Vec<libc::sock_filter> {
    let over = libc::sock_filter { code: 0x15, jt: 0, jf: then.len() as u8, k: number as u32 };
    [&[over], then].concat()
}
