//! Questions that a file system may never answer: a FUSE server that hangs, an
//! NFS server that is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

type Job = Box<dyn FnOnce(&Beat) + Send>;

/// Tells that long work is getting on.
#[derive(Debug, Clone, Default)]
pub struct Beat(Arc<AtomicU64>);

impl Beat {
    /// A step is done.
    pub fn tick(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Asks on a thread of its own, and turns away when nothing comes back.
#[derive(Debug)]
pub struct Patience {
    limit: Duration,
    worker: Option<Worker>,
}

#[derive(Debug)]
struct Worker {
    jobs: Sender<Job>,
    beat: Beat,
}

impl Patience {
    /// Waits so long for a sign of life.
    pub fn new(limit: Duration) -> Self {
        Self { limit, worker: None }
    }

    /// What `work` answers; `None` when it neither answered nor ticked in time.
    /// Its thread is left behind then, and ends with the process at the latest:
    /// waiting for a FUSE or NFS server gives way to a fatal signal.
    pub fn ask<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Beat) -> T + Send + 'static,
    ) -> Option<T> {
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None => Worker::start()?,
        };
        let (sender, answer) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |beat| {
            // Nobody listens any more to an answer that came too late.
            let _late = sender.send(work(beat));
        });
        worker.jobs.send(job).ok()?;
        let mut seen = worker.beat.count();
        loop {
            match answer.recv_timeout(self.limit) {
                Ok(answer) => {
                    self.worker = Some(worker);
                    return Some(answer);
                }
                Err(RecvTimeoutError::Timeout) if worker.beat.count() != seen => {
                    seen = worker.beat.count();
                }
                Err(_) => return None,
            }
        }
    }
}

impl Worker {
    fn start() -> Option<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let beat = Beat::default();
        let ticking = beat.clone();
        let run = move || queue.iter().for_each(|job| job(&ticking));
        thread::Builder::new().name("patience".to_owned()).spawn(run).ok()?;
        Some(Self { jobs, beat })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_away_from_silence_and_asks_again() {
        let mut patience = Patience::new(Duration::from_millis(20));
        assert_eq!(patience.ask(|_| 1), Some(1));
        assert_eq!(patience.ask(|_| thread::sleep(Duration::from_secs(5))), None);
        assert_eq!(patience.ask(|_| 2), Some(2));
    }

    #[test]
    fn waits_for_what_gets_on() {
        let mut patience = Patience::new(Duration::from_millis(50));
        let slow = |beat: &Beat| {
            for _ in 0..15 {
                thread::sleep(Duration::from_millis(10));
                beat.tick();
            }
            3
        };
        assert_eq!(patience.ask(slow), Some(3));
    }
}
