//! Threads that wait for the disk.

use std::num::NonZero;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, getrlimit};
use rustix::stdio::stdin;

use crate::sys::limit_arenas;

/// Threads for each processor: a disk answers many questions in the time that one takes, and
/// who has asked one only waits.
const FOR_EACH: usize = 16;
/// More are of no use.
const MOST: usize = 64;

/// Descriptors for which there is room from the start, if as many are allowed.
const DESCRIPTORS: u64 = 4096;

/// Prepares this process for threads. Of use before there is a second one.
///
/// They share their memory, in as many parts as there are processors: no more threads work at once.
/// And there is room for their descriptors: to make more, a process with threads waits for a grace
/// period of RCU, each time their number doubles, which takes ten milliseconds and longer
/// (`expand_fdtable()` in the kernel's fs/file.c).
pub fn prepare_for_threads() {
    limit_arenas(std::thread::available_parallelism().map_or(1, NonZero::get));
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(DESCRIPTORS);
    let last = i32::try_from(allowed.min(DESCRIPTORS)).unwrap_or(1) - 1;
    // Without, all is the same, and slower.
    let _room = fcntl_dupfd_cloexec(stdin(), last);
}

/// Does work whose parallel parts ask the disk, on more threads than there are processors.
/// Where there can be no more threads, those that there are do it.
pub fn on_disk_threads<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let threads = (rayon::current_num_threads() * FOR_EACH).min(MOST);
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
        Ok(pool) => pool.install(work),
        Err(_) => work(),
    }
}
