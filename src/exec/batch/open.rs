//! How many files may be open at once.

use std::sync::{Condvar, Mutex, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is open beside roots and what batches hold: the journal, the store, a file that is copied,
/// directories on the way to one.
const BESIDE: u64 = 128;

/// How many files batches may hold together, beside so many roots. What is displaced is held open
/// meanwhile: every file of a directory, hundreds of files by each worker. The limit is raised as
/// far as it may be; with `CAP_SYS_RESOURCE` that is what the kernel allows, proc_sys_fs(5).
pub fn most_held(roots: usize) -> u64 {
    let set = |most| setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
    let hard = getrlimit(Resource::Nofile).maximum;
    let kernel = std::fs::read_to_string("/proc/sys/fs/nr_open");
    let kernel = kernel.ok().and_then(|text| text.trim().parse().ok());
    let raised = kernel.filter(|most| hard.is_some_and(|hard| *most > hard));
    if raised.is_none_or(|most| set(Some(most)).is_err()) {
        let _few_enough = set(hard);
    }
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    now.saturating_sub(BESIDE + roots as u64)
}

/// Files that batches hold: those that together want more wait for one another.
#[derive(Debug)]
pub(crate) struct Open {
    most: u64,
    left: Mutex<u64>,
    more: Condvar,
}

impl Open {
    /// At most so many.
    pub(crate) fn new(most: u64) -> Self {
        Self { most, left: Mutex::new(most), more: Condvar::new() }
    }

    /// Waits until so many more may be held; one that wants more than there are, until it is alone.
    pub(crate) fn hold(&self, files: u64) -> Holding<'_> {
        let files = files.min(self.most);
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let left = self.more.wait_while(left, |left| *left < files);
        *left.unwrap_or_else(PoisonError::into_inner) -= files;
        Holding { of: self, files }
    }
}

/// Gives them back when it goes.
#[derive(Debug)]
pub(crate) struct Holding<'a> {
    of: &'a Open,
    files: u64,
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        *self.of.left.lock().unwrap_or_else(PoisonError::into_inner) += self.files;
        self.of.more.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn batches_hold_no_more_than_they_may_together() {
        let (open, now, most) = (Open::new(10), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for files in [3, 4, 7, 10, 25, 1, 6, 5] {
                let (open, now, most) = (&open, &now, &most);
                scope.spawn(move || {
                    for _ in 0..200 {
                        let _held = open.hold(files);
                        let files = files.min(10);
                        let all = now.fetch_add(files, Ordering::SeqCst) + files;
                        most.fetch_max(all, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(files, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!((most.into_inner(), now.into_inner()), (10, 0));
    }
}
