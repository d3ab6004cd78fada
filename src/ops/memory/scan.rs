//! Reads processes in batches on several threads, and takes them in one by one,
//! in order of their ids: the answer does not depend on the number of threads.

use rayon::prelude::*;

use super::{MemoryError, MemoryOptions};
use crate::analyze::{Collector, Objects};
use crate::model::{Notice, Notices, Phase, Progress};
use crate::scan::containers::{Container, Containers};
use crate::scan::mapped::MappedFile;
use crate::scan::patience::Patience;
use crate::scan::{ProcReader, Process, Scratch, Seen, cause};

/// Processes that are read before they are taken in. Each holds a descriptor
/// until then; 1,024 is a common limit.
const BATCH: usize = 128;
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
    processes: Vec<(u32, String)>,
    refused: Vec<String>,
    refused_count: u64,
    ended: u64,
    inferred: bool,
}

/// What the processes came to.
pub(super) struct Scanned {
    pub(super) objects: Objects,
    pub(super) containers: Vec<Container>,
    /// By the number of the sighting.
    pub(super) files: Vec<MappedFile>,
    pub(super) patience: Patience,
    /// Ids and names of the processes taken in.
    pub(super) processes: Vec<(u32, String)>,
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
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build();
        let pool = pool.map_err(MemoryError::Threads)?;
        let reader = self.reader;
        for batch in pids.chunks(BATCH) {
            let read = |scratch: &mut Scratch, &pid: &u32| reader.read(pid, scratch);
            let seen: Vec<Seen> = pool.install(|| {
                batch.par_iter().with_min_len(8).map_init(Scratch::default, read).collect()
            });
            batch.iter().zip(seen).for_each(|(&pid, seen)| self.take(pid, seen));
            progress.advance(batch.len() as u64);
        }
        Ok(())
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
        self.inferred = self.inferred || process.pages.frames_hidden();
        let container = self.containers.place(process, &mut self.patience);
        for sighting in self.collector.add(&process.pages, container) {
            let mapping = &process.pages.mappings[sighting.mapping as usize];
            self.files.push(MappedFile::hold(process, mapping, &mut self.patience));
        }
        let comm = String::from_utf8_lossy(&process.comm).into_owned();
        self.processes.push((process.pages.pid, comm));
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
            patience: self.patience,
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
