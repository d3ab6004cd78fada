//! Reads processes in batches on several threads, and takes them in one by one,
//! in order of their ids: the answer does not depend on the number of threads.

use std::sync::mpsc;
use std::thread;

use super::{MemoryError, MemoryOptions};
use crate::analyze::{Collector, Objects};
use crate::model::{Notice, Notices, Pages, Phase, Progress};
use crate::scan::containers::{Container, Containers};
use crate::scan::mapped::MappedFile;
use crate::scan::patience::Patience;
use crate::scan::{ProcReader, Process, Scratch, Seen, cause};

/// Processes that all threads together read ahead of being taken in. Each holds two
/// descriptors until then; 1,024 is a common limit.
const AHEAD: usize = 256;
/// Processes that a thread hands over at a time, at most.
const BATCH: usize = 32;
/// Refused processes that are named; the others are counted.
const NAMED: usize = 64;

/// The processes taken in so far.
pub(super) struct Scan<'a> {
    reader: &'a ProcReader,
    threads: usize,
    collector: Collector,
    containers: Containers<'a>,
    files: Vec<MappedFile>,
    patience: Patience,
    processes: Vec<Taken>,
    refused: Vec<String>,
    refused_count: u64,
    ended: u64,
    inferred: bool,
}

/// Reads batches and hands them over, until nobody asks for them any more.
fn read_batches<'b>(
    reader: &ProcReader,
    batches: impl Iterator<Item = &'b [u32]>,
    sender: &mpsc::SyncSender<Vec<Seen>>,
) {
    let mut scratch = Scratch::default();
    for batch in batches {
        let seen = batch.iter().map(|&pid| reader.read(pid, &mut scratch)).collect();
        if sender.send(seen).is_err() {
            return;
        }
    }
}

/// A process that was taken in.
pub(super) struct Taken {
    pub(super) pid: u32,
    pub(super) comm: String,
    /// Its own copies of its programs' pages.
    pub(super) anonymous: Pages,
}

/// What the processes came to.
pub(super) struct Scanned {
    pub(super) objects: Objects,
    pub(super) containers: Vec<Container>,
    /// By the number of the sighting.
    pub(super) files: Vec<MappedFile>,
    /// The processes taken in.
    pub(super) processes: Vec<Taken>,
    pub(super) refused: u64,
    pub(super) ended: u64,
    /// Page frame numbers were hidden.
    pub(super) inferred: bool,
    pub(super) notices: Notices,
}

impl<'a> Scan<'a> {
    pub(super) fn new(reader: &'a ProcReader, options: &'a MemoryOptions) -> Self {
        Self {
            reader,
            threads: options.threads,
            collector: Collector::default(),
            containers: Containers::new(reader, &options.roots),
            files: Vec::new(),
            patience: Patience::new(options.deadline),
            processes: Vec::new(),
            refused: Vec::new(),
            refused_count: 0,
            ended: 0,
            inferred: false,
        }
    }

    pub(super) fn read(
        &mut self,
        pids: &[u32],
        progress: &dyn Progress,
    ) -> Result<(), MemoryError> {
        progress.start(Phase::Memory, Some(pids.len() as u64));
        if self.threads > 1 {
            return self.read_on_threads(pids, progress);
        }
        let mut scratch = Scratch::default();
        for batch in pids.chunks(BATCH) {
            batch.iter().for_each(|&pid| self.take(pid, self.reader.read(pid, &mut scratch)));
            progress.advance(batch.len() as u64);
        }
        Ok(())
    }

    /// Each thread reads every so many-th batch, and waits when it is two ahead.
    fn read_on_threads(
        &mut self,
        pids: &[u32],
        progress: &dyn Progress,
    ) -> Result<(), MemoryError> {
        let threads = self.threads.min(AHEAD / 4);
        let batches = pids.chunks(BATCH.min(AHEAD / 2 / threads));
        let reader = self.reader;
        thread::scope(|scope| {
            let start = |first| {
                let (sender, queue) = mpsc::sync_channel(1);
                let batches = batches.clone().skip(first).step_by(threads);
                let work = move || read_batches(reader, batches, &sender);
                let thread = thread::Builder::new().name("processes".to_owned());
                thread.spawn_scoped(scope, work).map(|_| queue)
            };
            let queues: Result<Vec<_>, _> = (0..threads).map(start).collect();
            let queues = queues.map_err(MemoryError::Threads)?;
            for (batch, queue) in batches.clone().zip(queues.iter().cycle()) {
                // A thread that hands over nothing has panicked; the scope passes that on.
                let Ok(seen) = queue.recv() else { break };
                batch.iter().zip(seen).for_each(|(&pid, seen)| self.take(pid, seen));
                progress.advance(batch.len() as u64);
            }
            Ok(())
        })
    }

    fn take(&mut self, pid: u32, seen: Seen) {
        match seen {
            Seen::Whole(process) => self.take_process(&process),
            Seen::NoMemory => {}
            Seen::Ended => self.ended += 1,
            Seen::Refused { comm, cause: why } => {
                self.refused_count += 1;
                let (comm, why) = (String::from_utf8_lossy(&comm), cause(&why.into()));
                self.refused.push(format!("{pid} ({comm}): {why}"));
                self.refused.truncate(NAMED);
            }
        }
    }

    fn take_process(&mut self, process: &Process) {
        let Some(container) = self.containers.place(process, &mut self.patience) else {
            self.ended += 1;
            return;
        };
        self.inferred = self.inferred || process.pages.frames_hidden();
        let Self { collector, files, patience, reader, .. } = self;
        collector.add(&process.pages, container, |sighting| {
            let mut hold = || {
                let mapping = &process.pages.mappings[sighting.mapping as usize];
                MappedFile::hold(reader, process, mapping, patience)
            };
            match files.get_mut(sighting.number as usize) {
                Some(file) if file.lost => *file = hold(),
                Some(_) => {}
                None => files.push(hold()),
            }
        });
        let comm = String::from_utf8_lossy(&process.comm).into_owned();
        let anonymous = Pages(process.pages.anonymous);
        self.processes.push(Taken { pid: process.pages.pid, comm, anonymous });
    }

    pub(super) fn finish(self) -> Scanned {
        let mut notices = Notices::default();
        if self.refused_count > 0 {
            notices.push(self.refusal());
        }
        Scanned {
            objects: self.collector.finish(),
            containers: self.containers.into_list(),
            files: self.files,
            processes: self.processes,
            refused: self.refused_count,
            ended: self.ended,
            inferred: self.inferred,
            notices,
        }
    }

    /// Tells who was refused. The answer is not complete, but nothing below a root is missing.
    fn refusal(&self) -> Notice {
        let mut named = self.refused.join(", ");
        let unnamed = self.refused_count.saturating_sub(self.refused.len() as u64);
        if unnamed > 0 {
            named.push_str(&format!(", and {unnamed} more"));
        }
        let count = self.refused_count;
        let cause = format!("{count} may not be looked at and are not counted: {named}");
        Notice::info(self.reader.path(), "look at processes", cause)
    }
}
