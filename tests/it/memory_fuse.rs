//! A FUSE server in as few lines as the kernel allows (fuse(4), `<linux/fuse.h>`): a
//! directory with files of the same content, until it falls silent.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Serves for as long as it lives. Whoever waits for it is let go in the end.
pub struct Server {
    point: PathBuf,
    /// In whose mount namespace, if not the test's own.
    of: Option<u32>,
    silent: Arc<AtomicBool>,
    connection: PathBuf,
}

use crate::rig::filter;
use crate::rig::logged::next_request;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const INTERRUPT: u32 = 36;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const BATCH_FORGET: u32 = 42;
const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;

impl Server {
    pub fn mount(point: &Path, content: Vec<u8>, names: [&'static str; 2]) -> Self {
        Self::mounted(None, point, content, names)
    }

    /// Mounts in the namespace of a process, at a path below its root, and says nothing ever.
    pub fn silent_in(pid: u32, point: &str) -> Self {
        let server = Self::mounted(Some(pid), Path::new(point), Vec::new(), ["a", "b"]);
        server.fall_silent();
        server
    }

    fn mounted(of: Option<u32>, point: &Path, content: Vec<u8>, names: [&'static str; 2]) -> Self {
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = CString::new(options).unwrap();
        let place = point.to_owned();
        let device_number = in_namespace(of, move || {
            mount("silent", &place, "fuse", MountFlags::NOSUID, Some(options.as_c_str())).unwrap();
            let flags = AtFlags::STATX_DONT_SYNC;
            let stat = statx(CWD, &place, flags, StatxFlags::empty()).unwrap();
            stat.stx_dev_minor
        });
        let device_number = device_number.expect("the process runs");
        let silent = Arc::new(AtomicBool::new(false));
        let serving = Serving { device, content, names, silent: silent.clone() };
        std::thread::spawn(move || serving.serve());
        let connection = format!("/sys/fs/fuse/connections/{device_number}");
        Self { point: point.to_owned(), of, silent, connection: connection.into() }
    }

    /// From here on nothing is answered.
    pub fn fall_silent(&self) {
        self.silent.store(true, Ordering::SeqCst);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let point = self.point.clone();
        in_namespace(self.of, move || {
            let _unmounted = unmount(&point, UnmountFlags::DETACH | UnmountFlags::FORCE);
        });
        let _aborted = std::fs::write(self.connection.join("abort"), "1");
    }
}

/// Does it where a process sees its own mounts, below its root.
fn in_namespace<T: Send + 'static>(
    of: Option<u32>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let Some(pid) = of else { return Some(work()) };
    let entered = std::thread::spawn(move || {
        let open = |name: &str| File::open(format!("/proc/{pid}/{name}"));
        // It may have ended: then its mounts are gone, too.
        let (Ok(namespace), Ok(root)) = (open("ns/mnt"), open("root")) else { return None };
        filter::unshare_file_system();
        let kind = Some(rustix::thread::LinkNameSpaceType::Mount);
        rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).unwrap();
        rustix::process::fchdir(&root).unwrap();
        rustix::process::chroot(".").unwrap();
        Some(work())
    });
    entered.join().unwrap()
}

struct Serving {
    device: File,
    content: Vec<u8>,
    names: [&'static str; 2],
    silent: Arc<AtomicBool>,
}

impl Serving {
    fn serve(mut self) {
        let mut request = vec![0; 1 << 20];
        while let Some(length) = next_request(&self.device, &mut request) {
            let field = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
            let wide = |at: usize| u64::from_ne_bytes(request[at..at + 8].try_into().unwrap());
            let (opcode, unique, node) = (field(4), wide(8), wide(16));
            // Before this is answered, a signal would still end who asks.
            let begins = opcode == INIT;
            if !begins && self.silent.load(Ordering::SeqCst)
                || [FORGET, BATCH_FORGET, INTERRUPT].contains(&opcode)
            {
                continue;
            }
            let body = &request[40..length];
            let answer = match opcode {
                INIT => Ok(init()),
                LOOKUP => self.lookup(body),
                GETATTR => Ok([vec![0xff; 8], vec![0; 8], self.attributes(node)].concat()),
                // FOPEN_KEEP_CACHE: what others have mapped stays.
                OPEN | OPENDIR => Ok([[0; 8], [2, 0, 0, 0, 0, 0, 0, 0]].concat()),
                READ => Ok(self.read(wide(40 + 8), field(40 + 16))),
                _ => Err(ENOSYS),
            };
            let (error, bytes) = match answer {
                Ok(bytes) => (0, bytes),
                Err(error) => (-error, Vec::new()),
            };
            let mut reply = ((16 + bytes.len()) as u32).to_ne_bytes().to_vec();
            reply.extend(error.to_ne_bytes());
            reply.extend(unique.to_ne_bytes());
            reply.extend(bytes);
            let _gone = self.device.write(&reply);
        }
    }

    /// `struct fuse_entry_out`: node, generation, long validities, attributes.
    fn lookup(&self, name: &[u8]) -> Result<Vec<u8>, i32> {
        let name = name.strip_suffix(b"\0").unwrap_or(name);
        let place = self.names.iter().position(|known| known.as_bytes() == name).ok_or(ENOENT)?;
        let node = place as u64 + 2;
        let long = 3600_u64.to_ne_bytes();
        Ok([&node.to_ne_bytes(), &[0; 8][..], &long, &long, &[0; 8], &self.attributes(node)]
            .concat())
    }

    /// `struct fuse_attr`.
    fn attributes(&self, node: u64) -> Vec<u8> {
        let (size, mode) =
            if node == 1 { (0, 0o040_755) } else { (self.content.len() as u64, 0o100_755_u32) };
        let mut bytes = Vec::new();
        for wide in [node, size, size.div_ceil(512), 0, 0, 0] {
            bytes.extend(wide.to_ne_bytes());
        }
        // Nanoseconds, mode, links, owner, group, device, block size, flags.
        for field in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
            bytes.extend(u32::to_ne_bytes(field));
        }
        bytes
    }

    fn read(&self, offset: u64, size: u32) -> Vec<u8> {
        let start = (offset as usize).min(self.content.len());
        let end = (start + size as usize).min(self.content.len());
        self.content[start..end].to_vec()
    }
}

/// `struct fuse_init_out`, version 7.31.
fn init() -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [7_u32, 31, 128 * 1024, 0] {
        bytes.extend(field.to_ne_bytes());
    }
    bytes.extend([16_u16, 12].iter().flat_map(|field| field.to_ne_bytes()));
    bytes.extend([128 * 1024_u32, 1].iter().flat_map(|field| field.to_ne_bytes()));
    bytes.resize(64, 0);
    bytes
}
