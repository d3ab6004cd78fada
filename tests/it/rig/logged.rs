//! A disk that remembers: a file served by FUSE, under a loop device, that records what is
//! written to it and when it was told to flush. What a power cut may leave is any subset of the
//! writes since the last flush, on top of all that came before it.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// What reaches the disk.
#[derive(Debug, Clone)]
pub enum Event {
    Write(u64, Vec<u8>),
    Flush,
}

/// The bytes of a disk, without the blocks that are zero.
#[derive(Clone, Default)]
pub struct Disk {
    blocks: BTreeMap<u64, Arc<Vec<u8>>>,
}

const BLOCK: u64 = 4096;
const ZERO: [u8; BLOCK as usize] = [0; BLOCK as usize];

impl Disk {
    /// What is in a file.
    pub fn read(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let mut disk = Self::default();
        let mut at = 0;
        // Data and holes in turn: an image is sparse.
        while let Ok(start) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
            let end = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(start)).unwrap();
            let mut bytes = vec![0; (end - start) as usize];
            file.read_exact_at(&mut bytes, start).unwrap();
            disk.write(start, &bytes);
            at = end;
        }
        disk
    }

    pub fn write(&mut self, offset: u64, mut bytes: &[u8]) {
        let mut at = offset;
        while !bytes.is_empty() {
            let within = (at % BLOCK) as usize;
            let length = bytes.len().min(BLOCK as usize - within);
            let block =
                self.blocks.entry(at / BLOCK).or_insert_with(|| vec![0; BLOCK as usize].into());
            Arc::make_mut(block)[within..within + length].copy_from_slice(&bytes[..length]);
            bytes = &bytes[length..];
            at += length as u64;
        }
    }

    fn bytes(&self, offset: u64, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        let end = offset + size as u64;
        for (number, block) in self.blocks.range(offset / BLOCK..end.div_ceil(BLOCK)) {
            let start = (number * BLOCK).max(offset);
            let stop = ((number + 1) * BLOCK).min(end);
            let from = (start - number * BLOCK) as usize..(stop - number * BLOCK) as usize;
            bytes[(start - offset) as usize..(stop - offset) as usize]
                .copy_from_slice(&block[from]);
        }
        bytes
    }

    /// Of what differs from another disk, of which this one was made: equal disks have equal ones.
    pub fn digest(&self, from: &Self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for (number, block) in &self.blocks {
            let same = |old: &Arc<Vec<u8>>| Arc::ptr_eq(old, block) || old == block;
            if !from.blocks.get(number).map_or(block.as_slice() == ZERO, same) {
                hasher.update(&number.to_ne_bytes()).update(block);
            }
        }
        hasher.finalize()
    }

    /// Lays it into a new file.
    pub fn lay(&self, path: &Path, size: u64) {
        let file = File::create(path).unwrap();
        file.set_len(size).unwrap();
        for (number, block) in &self.blocks {
            if block.as_slice() != ZERO {
                file.write_all_at(block, number * BLOCK).unwrap();
            }
        }
    }
}

/// Serves the disk as the file `disk` in a directory, for as long as it lives.
pub struct LoggedDisk {
    point: PathBuf,
    state: Arc<Mutex<State>>,
    serving: Option<JoinHandle<()>>,
}

struct State {
    disk: Disk,
    /// Nothing is written or flushed any more.
    failing: bool,
    size: u64,
    log: Vec<Event>,
}

impl LoggedDisk {
    pub fn mount(point: &Path, disk: Disk, size: u64) -> Self {
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = CString::new(options).unwrap();
        mount("logged", point, "fuse", MountFlags::NOSUID, Some(options.as_c_str())).unwrap();
        let state = Arc::new(Mutex::new(State { disk, failing: false, size, log: Vec::new() }));
        let shared = Arc::clone(&state);
        let serving = std::thread::spawn(move || serve(device, &shared));
        Self { point: point.to_owned(), state, serving: Some(serving) }
    }

    /// The file that a loop device takes.
    pub fn file(&self) -> PathBuf {
        self.point.join("disk")
    }

    /// From now on the disk cannot be written to; or it can again.
    pub fn fail(&self, failing: bool) {
        self.state.lock().unwrap().failing = failing;
    }

    /// What was recorded.
    pub fn log(&self) -> Vec<Event> {
        self.state.lock().unwrap().log.clone()
    }
}

impl Drop for LoggedDisk {
    fn drop(&mut self) {
        // Lazily: a loop device may hold the file for a moment after its file system has gone.
        let _unmounted = unmount(&self.point, UnmountFlags::DETACH);
        if let Some(serving) = self.serving.take() {
            let _ended = serving.join();
        }
    }
}

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const ENOENT: i32 = 2;
const EIO: i32 = 5;
const ENOSYS: i32 = 38;
/// The most that one request writes.
const LARGEST: u32 = 128 * 1024;

fn serve(mut device: File, state: &Mutex<State>) {
    let mut request = vec![0; LARGEST as usize + 4096];
    while let Some(length) = next_request(&device, &mut request) {
        let request = Request(&request[..length]);
        let opcode = request.field(4);
        if [FORGET, BATCH_FORGET, INTERRUPT].contains(&opcode) {
            continue;
        }
        let (error, bytes) = match answer(&request, opcode, &mut state.lock().unwrap()) {
            Ok(bytes) => (0, bytes),
            Err(error) => (-error, Vec::new()),
        };
        let mut reply = ((16 + bytes.len()) as u32).to_ne_bytes().to_vec();
        reply.extend(error.to_ne_bytes());
        reply.extend(request.wide(8).to_ne_bytes());
        reply.extend(bytes);
        let _gone = device.write(&reply);
    }
}

/// Waits for the next request, however often a signal interrupts; `None` once nothing is mounted.
pub fn next_request(mut device: &File, request: &mut [u8]) -> Option<usize> {
    loop {
        match device.read(request) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            answer => return answer.ok(),
        }
    }
}

/// `struct fuse_in_header` and what follows it.
struct Request<'a>(&'a [u8]);

impl Request<'_> {
    fn field(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().unwrap())
    }

    fn wide(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.0[at..at + 8].try_into().unwrap())
    }
}

/// The header is 40 bytes; then `struct fuse_read_in` or `fuse_write_in`: handle, offset, size.
fn answer(request: &Request<'_>, opcode: u32, state: &mut State) -> Result<Vec<u8>, i32> {
    match opcode {
        INIT => Ok(init()),
        LOOKUP if request.0.get(40..) == Some(b"disk\0") => Ok(lookup(state.size)),
        LOOKUP => Err(ENOENT),
        GETATTR | SETATTR => {
            Ok([vec![0xff; 8], vec![0; 8], attributes(request.wide(16), state.size)].concat())
        }
        // No page cache in between: what is written to the loop device arrives here.
        OPEN => Ok([0_u64.to_ne_bytes(), 1_u64.to_ne_bytes()].concat()),
        READ => Ok(state.disk.bytes(request.wide(48), request.field(56) as usize)),
        WRITE | FSYNC if state.failing => Err(EIO),
        WRITE => {
            let (offset, size) = (request.wide(48), request.field(56));
            let bytes = &request.0[80..80 + size as usize];
            state.disk.write(offset, bytes);
            state.log.push(Event::Write(offset, bytes.to_vec()));
            Ok([size.to_ne_bytes(), [0; 4]].concat())
        }
        FSYNC => {
            state.log.push(Event::Flush);
            Ok(Vec::new())
        }
        STATFS => Ok(vec![0; 80]),
        FLUSH | RELEASE => Ok(Vec::new()),
        _ => Err(ENOSYS),
    }
}

/// `struct fuse_entry_out`: node, generation, long validities, attributes.
fn lookup(size: u64) -> Vec<u8> {
    let long = 3600_u64.to_ne_bytes();
    [&2_u64.to_ne_bytes(), &[0; 8][..], &long, &long, &[0; 8], &attributes(2, size)].concat()
}

/// `struct fuse_attr`.
fn attributes(node: u64, size: u64) -> Vec<u8> {
    let (size, mode) = if node == 1 { (0, 0o040_755) } else { (size, 0o100_600_u32) };
    let wide = [node, size, size.div_ceil(512), 0, 0, 0].map(u64::to_ne_bytes);
    // Nanoseconds, mode, links, owner, group, device, block size, flags.
    let narrow = [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0].map(u32::to_ne_bytes);
    [wide.concat(), narrow.concat()].concat()
}

/// `struct fuse_init_out`, version 7.31.
fn init() -> Vec<u8> {
    const BIG_WRITES: u32 = 1 << 5;
    let mut bytes = [7, 31, LARGEST, BIG_WRITES].map(u32::to_ne_bytes).concat();
    bytes.extend([16_u16, 12].iter().flat_map(|field| field.to_ne_bytes()));
    bytes.extend([LARGEST, 1].map(u32::to_ne_bytes).concat());
    bytes.resize(64, 0);
    bytes
}
