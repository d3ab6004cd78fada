//! Reads processes in batches on several threads, and takes them in one by one,
//! in order of their ids: the answer does not depend on the number of threads.

use std::thread;

use super::MemoryOptions;
use super::turns::Turns;
use crate::analyze::{Collector, Objects};
use crate::model::{Notice, Notices, Pages, Phase, Progress};
use crate::scan::containers::{Container, Containers};
use crate::scan::fuse_devices::FuseDevices;
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
    devices: FuseDevices,
    processes: Vec<Taken>,
    refused: Vec<String>,
    refused_count: u64,
    ended: u64,
    inferred: bool,
}

fn read_batch(reader: &ProcReader, batch: &[u32], scratch: &mut Scratch) -> Vec<Seen> {
    batch.iter().map(|&pid| reader.read(pid, scratch)).collect()
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
            devices: FuseDevices::new(),
            processes: Vec::new(),
            refused: Vec::new(),
            refused_count: 0,
            ended: 0,
            inferred: false,
        }
    }

    /// Reads and takes in on this thread, and reads on others.
    pub(super) fn read(&mut self, pids: &[u32], progress: &dyn Progress) {
        progress.start(Phase::Memory, Some(pids.len() as u64));
        let threads = self.threads.clamp(1, AHEAD / 4);
        let batches: Vec<&[u32]> = pids.chunks(BATCH.min(AHEAD / 4 / threads)).collect();
        let turns = Turns::new(batches.len(), 4 * threads);
        let reader = self.reader;
        let read = || {
            let batches = &batches;
            let mut scratch = Scratch::default();
            move |at: usize| read_batch(reader, batches[at], &mut scratch)
        };
        thread::scope(|scope| {
            for _ in 1..threads {
                let (turns, read) = (&turns, read());
                let thread = thread::Builder::new().name("processes".to_owned());
                // Where there can be no more threads, those that there are do it.
                if thread.spawn_scoped(scope, move || turns.help(read)).is_err() {
                    break;
                }
            }
            turns.take_in(read(), |at, seen| {
                batches[at].iter().zip(seen).for_each(|(&pid, seen)| self.take(pid, seen));
                progress.advance(batches[at].len() as u64);
            });
        });
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
        let Self { collector, files, patience, devices, reader, .. } = self;
        collector.add(&process.pages, container, |sighting| {
            let mut hold = || {
                let mapping = &process.pages.mappings[sighting.mapping as usize];
                MappedFile::hold(reader, process, mapping, (patience, devices))
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
