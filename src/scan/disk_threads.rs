//! Threads that wait for the disk.

use std::cell::OnceCell;
use std::num::NonZero;
use std::sync::{Arc, OnceLock};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::stdio::stdin;

use crate::sys::{Waits, limit_arenas};

/// Threads for each processor: a disk answers many questions in the time that one takes, and
/// who has asked one only waits.
const FOR_EACH: usize = 16;
/// The same while nobody has waited for the disk: some wait for others.
const WARM: usize = 2;
/// Who waits so often in one piece of work waits for another host, or a disk whose blocks are not
/// counted. For other threads one waits a few times.
const OFTEN: std::ffi::c_long = 32;
/// More are of no use.
const MOST: usize = 64;

/// Descriptors for which there is room from the start, if as many are allowed.
const DESCRIPTORS: u64 = 4096;

/// Prepares this process for threads. Of use before there is a second one.
///
/// They share their memory, in as many parts as there are processors: no more threads work at once.
/// They may have as many descriptors as this process can be allowed: every root is held open, and every
/// mapped file while it is looked at. And there is room for those: to make more, a process with
/// threads waits for a grace period of RCU, each time their number doubles, which takes ten
/// milliseconds and longer (`expand_fdtable()` in the kernel's fs/file.c).
pub fn prepare_for_threads() {
    limit_arenas(std::thread::available_parallelism().map_or(1, NonZero::get));
    let limit = getrlimit(Resource::Nofile);
    // With the lower limit files are read less, and that is told.
    let _lower = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(DESCRIPTORS);
    let last = i32::try_from(allowed.min(DESCRIPTORS)).unwrap_or(1) - 1;
    // Without, all is the same, and slower.
    let _room = fcntl_dupfd_cloexec(stdin(), last);
}

/// Set once a thread has waited for the disk. Most of the threads wait for that.
type Cold = OnceLock<()>;

thread_local! {
    static COLD: OnceCell<Arc<Cold>> = const { OnceCell::new() };
}

/// Does work whose parallel parts ask the disk, on more threads than there are processors: on all of
/// them once one has waited for it, as they see. What is cached needs few, and more of them only
/// look for work that there is not. Where there can be no more threads, those that there are do it.
pub fn on_disk_threads<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let processors = rayon::current_num_threads();
    let cold = Ended(Arc::default());
    let theirs = Arc::clone(&cold.0);
    let begin = move |thread| {
        COLD.with(|cold| cold.set(Arc::clone(&theirs)).ok());
        if thread >= WARM * processors {
            theirs.wait();
        }
    };
    let threads = (processors * FOR_EACH).min(MOST);
    match rayon::ThreadPoolBuilder::new().num_threads(threads).start_handler(begin).build() {
        Ok(pool) => pool.install(work),
        Err(_) => {
            // Those that there are wait for nothing more.
            drop(cold);
            work()
        }
    }
}

/// Lets all threads go, however the work ended.
struct Ended(Arc<Cold>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.get_or_init(|| ());
    }
}

/// Does what one thread asks the disk in a row, and sees whether it waits.
pub(super) fn piece<T>(work: impl FnOnce() -> T) -> T {
    COLD.with(|cold| match cold.get().filter(|cold| cold.get().is_none()) {
        None => work(),
        Some(cold) => {
            let before = Waits::now();
            let answer = work();
            let now = Waits::now();
            if now.blocks > before.blocks || now.times - before.times >= OFTEN {
                cold.get_or_init(|| ());
            }
            answer
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::thread;
    use std::time::{Duration, Instant};

    use rayon::prelude::*;

    use super::*;

    fn warm() -> usize {
        WARM * rayon::current_num_threads()
    }

    /// Of several times, for one of them may have waited for a page of this program.
    #[test]
    fn few_threads_work_while_nobody_waits() {
        let counts: Vec<usize> = (0..5).map(|_| threads_at_work()).collect();
        assert!(counts.iter().any(|count| (1..=warm()).contains(count)), "{counts:?} threads");
    }

    fn threads_at_work() -> usize {
        let seen = Mutex::new(HashSet::new());
        let see = |_| {
            thread::sleep(Duration::from_millis(1));
            if let Ok(mut seen) = seen.lock() {
                seen.insert(thread::current().id());
            }
        };
        on_disk_threads(|| (0..400).into_par_iter().for_each(|at| piece(|| see(at))));
        seen.into_inner().map_or(0, |seen| seen.len())
    }

    /// Each waits until there are more than at first.
    #[test]
    fn once_one_has_waited_all_work() {
        let all = (warm() + 1).min(MOST);
        let (here, until) = (AtomicUsize::new(0), Instant::now() + Duration::from_secs(20));
        let meet = |_| {
            here.fetch_add(1, SeqCst);
            while here.load(SeqCst) < all && Instant::now() < until {
                thread::sleep(Duration::from_millis(1));
            }
        };
        on_disk_threads(|| {
            piece(|| (0..OFTEN).for_each(|_| thread::sleep(Duration::from_millis(1))));
            (0..all).into_par_iter().with_max_len(1).for_each(meet);
        });
        assert!(Instant::now() < until, "some never began");
    }
}
