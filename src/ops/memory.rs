//! The live view: which pages of programs are in memory, and how often.

mod files;
mod mapped;
mod scan;
mod turns;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use crate::analyze::{Account, account};
use crate::model::{
    Bytes, ContainerMemory, ContentId, FileStamp, HostPath, InodeId, MemoryMethod, MemoryReport,
    MemoryTotals, Notice, Notices, ProcessMemory, Progress, Runtime,
};
use crate::scan::containers::Container;
use crate::scan::{ProcReader, VmaSource};

use scan::{Scan, Scanned};

/// What is asked of the live view.
#[derive(Debug, Clone)]
pub struct MemoryOptions {
    /// Where proc(5) is mounted.
    pub proc_root: PathBuf,
    /// The base page size.
    pub page_size: Bytes,
    /// How mappings are read.
    pub source: VmaSource,
    /// How many threads read.
    pub threads: usize,
    /// Processes are listed, with their names; without, they are only counted.
    pub processes: bool,
    /// Contents that are known from disk. What processes map is compared with these, too.
    pub known: HashMap<FileStamp, ContentId>,
    /// Container roots that are known on disk.
    pub roots: Vec<(InodeId, HostPath)>,
    /// Only containers with one of these roots are shown; everything is looked at.
    pub only_roots: bool,
    /// Whose users are told one by one.
    pub interest: Interest,
    /// How long a file system may keep silent.
    pub deadline: Duration,
    /// A larger file is not compared, and said.
    pub max_file_size: Bytes,
}

impl MemoryOptions {
    /// This host, with nothing known from disk.
    pub fn new(page_size: Bytes) -> Self {
        Self {
            proc_root: "/proc".into(),
            page_size,
            source: VmaSource::Auto,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            processes: true,
            known: HashMap::new(),
            roots: Vec::new(),
            only_roots: false,
            interest: Interest::default(),
            deadline: Duration::from_secs(2),
            max_file_size: Bytes(512 * 1024 * 1024),
        }
    }
}

/// Objects in memory that are asked for by name: `MemoryReport::mapped` tells who maps
/// them, the pending restarts of a replaced inode, say.
#[derive(Debug, Clone, Default)]
pub struct Interest {
    /// By the inode that processes see.
    pub inodes: HashSet<InodeId>,
    /// By content: that of an object that no other is like is known only if
    /// [`MemoryOptions::known`] has a file of its size.
    pub contents: HashSet<ContentId>,
    /// Every content that two or more objects hold.
    pub twice: bool,
}

/// Why there is no live view.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// There are no processes to be seen.
    #[error("cannot list the processes in {}", path.display())]
    Processes {
        /// Where proc(5) should be.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No thread could be started.
    #[error("cannot start threads")]
    Threads(#[source] std::io::Error),
}

/// Looks at every process, once.
///
/// # Errors
///
/// When processes cannot be listed at all. What cannot be looked at is counted
/// and named in the report.
pub fn memory(
    options: &MemoryOptions,
    progress: &dyn Progress,
) -> Result<MemoryReport, MemoryError> {
    let unreadable = |error: rustix::io::Errno| MemoryError::Processes {
        path: options.proc_root.clone(),
        source: error.into(),
    };
    let (root, page_size) = (&options.proc_root, options.page_size.0);
    let reader =
        ProcReader::open(root, page_size, options.source, options.processes).map_err(unreadable)?;
    let pids = reader.pids().map_err(unreadable)?;
    let mut scan = Scan::new(&reader, options);
    scan.read(&pids, progress);
    let mut scanned = scan.finish();
    let facts = files::facts(&mut scanned, &reader, options)?;
    let shown: Vec<bool> = scanned.containers.iter().map(|one| is_shown(one, options)).collect();
    let places = places(&scanned.containers, &shown);
    let mapped = mapped::mapped(&scanned, &facts, &places, &options.interest);
    let account = account(&scanned.objects, &facts, &shown, options.page_size);
    let report = report(scanned, account, &places, reader.hides_processes(), options);
    Ok(MemoryReport { mapped, ..report })
}

fn is_shown(container: &Container, options: &MemoryOptions) -> bool {
    !options.only_roots || options.roots.iter().any(|(root, _)| *root == container.key.root)
}

fn report(
    scanned: Scanned,
    account: Account,
    places: &[Option<u32>],
    hidden: bool,
    options: &MemoryOptions,
) -> MemoryReport {
    let mut notices = scanned.notices;
    notices.extend(view_notices(scanned.inferred, hidden, options));
    let processes = scanned.processes.into_iter().zip(&account.processes);
    let processes = processes.zip(&scanned.objects.containers);
    let processes = processes.filter_map(|((process, text), container)| {
        Some(ProcessMemory {
            pid: process.pid,
            comm: process.comm,
            container: places[*container as usize]?,
            text: text.text,
            private: text.private,
            container_shared: text.container,
            shared: text.shared,
            anonymous: process.anonymous,
        })
    });
    let mut processes: Vec<ProcessMemory> = processes.collect();
    let anonymous = processes.iter().map(|process| process.anonymous).sum();
    processes.truncate(if options.processes { usize::MAX } else { 0 });
    let seen = scanned.objects.containers.len() as u64;
    MemoryReport {
        method: if scanned.inferred { MemoryMethod::Inferred } else { MemoryMethod::Pfn },
        processes,
        containers: containers(scanned.containers, &scanned.objects.containers, &account, places),
        mapped: Vec::new(),
        binaries: account.binaries,
        processes_seen: seen,
        processes_skipped: scanned.refused + scanned.ended,
        totals: MemoryTotals { anonymous, ..account.totals },
        complete: scanned.refused == 0 && !hidden && notices.complete(),
        notices: notices.sorted(),
    }
}

/// The place of each container in the report, if it is shown: the host first, then by name.
fn places(containers: &[Container], shown: &[bool]) -> Vec<Option<u32>> {
    let mut sorted: Vec<usize> = (0..containers.len()).filter(|&at| shown[at]).collect();
    sorted.sort_by_key(|&at| {
        let container = &containers[at];
        let host = container.runtime == Runtime::Host;
        (!host, container.name.clone(), container.root.clone(), container.key)
    });
    let mut places = vec![None; containers.len()];
    sorted.into_iter().enumerate().for_each(|(place, at)| places[at] = Some(place as u32));
    places
}

fn containers(
    containers: Vec<Container>,
    of_processes: &[u32],
    account: &Account,
    places: &[Option<u32>],
) -> Vec<ContainerMemory> {
    let mut processes = vec![0; containers.len()];
    of_processes.iter().for_each(|&container| processes[container as usize] += 1);
    let rows = containers.into_iter().zip(&account.containers).zip(processes);
    let rows = rows.map(|((container, text), processes)| ContainerMemory {
        name: container.name,
        runtime: container.runtime,
        root: container.root,
        processes,
        user_namespace: container.user_namespace,
        privileged: container.privileged,
        text: text.text,
        shared: text.shared,
        private: text.private,
        duplicated: text.duplicated,
    });
    let placed = places.iter().copied().zip(rows);
    let mut placed: Vec<(u32, ContainerMemory)> =
        placed.filter_map(|(place, row)| Some((place?, row))).collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, row)| row).collect()
}

/// What this reader is not shown.
fn view_notices(inferred: bool, hidden: bool, options: &MemoryOptions) -> Notices {
    let mut notices = Notices::default();
    if inferred {
        notices.push(Notice::info(
            &options.proc_root,
            "read page frame numbers",
            "CAP_SYS_ADMIN is missing: pages are told apart by device and inode, which is an \
             estimate (overlays and snapshots are misjudged); run as root for the exact answer",
        ));
    }
    if hidden {
        notices.push(Notice::info(
            &options.proc_root,
            "list processes",
            "mounted with hidepid=: processes of other users are not shown, the view is partial; \
             run as root to see them all",
        ));
    }
    notices
}
