//! Threads that wait for the disk.

use std::num::NonZero;

use crate::sys::limit_arenas;

/// Threads for each processor: a disk answers many questions in the time that one takes, and
/// who has asked one only waits.
const FOR_EACH: usize = 16;
/// More are of no use.
const MOST: usize = 64;

/// Has all threads share their memory, in as many parts as there are processors: no more
/// threads work at once. Of use before there is a second thread.
pub fn share_memory() {
    limit_arenas(std::thread::available_parallelism().map_or(1, NonZero::get));
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
