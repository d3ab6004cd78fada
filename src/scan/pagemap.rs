//! Which pages of its mappings a process has, and where they are in memory:
//! `/proc/PID/pagemap`, as Documentation/admin-guide/mm/pagemap.rst has it.

use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, pread};

use crate::model::{Mapping, ProcessPages, Run};

use super::vma::Vma;

/// The page is in memory.
const PRESENT: u64 = 1 << 63;
/// It belongs to a file or to shared memory. A page that was copied on write does not.
const FILE: u64 = 1 << 61;
/// The page frame number; reads 0 without CAP_SYS_ADMIN.
const FRAME: u64 = (1 << 55) - 1;

/// Entries that one read asks for.
const BATCH: u64 = 16 * 1024;
/// Pages between two mappings that are cheaper read over than asked for apart.
const GAP: u64 = 16;
/// Mapped pages of programs beyond which a process is refused: 64 GiB of 4 KiB
/// pages. No program is that large, but a mapping of a sparse file can be.
const LIMIT: u64 = 16 << 20;

/// Reads the pages of the mappings: those of programs, see [`super::vma::keep_programs`].
///
/// # Errors
///
/// `ESRCH` when the process's memory went away meanwhile, `EFBIG` beyond the limit.
pub(super) fn read(
    pagemap: BorrowedFd<'_>,
    page_size: u64,
    vmas: &[Vma],
    buffer: &mut Vec<u8>,
    pages: &mut ProcessPages,
) -> Result<(), Errno> {
    let total: u64 = vmas.iter().map(|vma| vma.address.end - vma.address.start).sum();
    if total / page_size > LIMIT {
        return Err(Errno::FBIG);
    }
    let mut rest = vmas;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(close_together(rest, page_size));
        read_together(pagemap, page_size, now, buffer, pages)?;
        rest = later;
    }
    Ok(())
}

/// How many of the first mappings one read covers; at least one.
fn close_together(vmas: &[Vma], page_size: u64) -> usize {
    let start = vmas[0].address.start;
    let fits = |pair: &&[Vma]| {
        pair[1].address.start - pair[0].address.end <= GAP * page_size
            && pair[1].address.end - start <= BATCH * page_size
    };
    1 + vmas.windows(2).take_while(fits).count()
}

/// Reads mappings that fit one window, or a single one in several.
fn read_together(
    pagemap: BorrowedFd<'_>,
    page_size: u64,
    vmas: &[Vma],
    buffer: &mut Vec<u8>,
    pages: &mut ProcessPages,
) -> Result<(), Errno> {
    let begin = vmas[0].address.start;
    let end = vmas[vmas.len() - 1].address.end;
    for start in (begin..end).step_by((BATCH * page_size) as usize) {
        let window = start..end.min(start + BATCH * page_size);
        read_window(pagemap, page_size, &window, buffer)?;
        for vma in vmas {
            take(vma, page_size, &window, buffer, pages);
        }
    }
    Ok(())
}

/// Reads the entries of a window. A short read means that the memory is gone:
/// the kernel reports no error then.
fn read_window(
    pagemap: BorrowedFd<'_>,
    page_size: u64,
    window: &Range<u64>,
    buffer: &mut Vec<u8>,
) -> Result<(), Errno> {
    let want = ((window.end - window.start) / page_size * 8) as usize;
    buffer.resize(want, 0);
    let mut have = 0;
    while have < want {
        match pread(pagemap, &mut buffer[have..], window.start / page_size * 8 + have as u64)? {
            0 => return Err(Errno::SRCH),
            count => have += count,
        }
    }
    Ok(())
}

/// Keeps the runs of one mapping out of a window's entries.
fn take(vma: &Vma, page_size: u64, window: &Range<u64>, entries: &[u8], pages: &mut ProcessPages) {
    let start = vma.address.start.max(window.start);
    let end = vma.address.end.min(window.end);
    let at = |address: u64| ((address - window.start) / page_size * 8) as usize;
    let first_page = (vma.offset + (start - vma.address.start)) / page_size;
    let begin = pages.runs.len();
    let entries = &entries[at(start)..at(end)];
    pages.anonymous += push_runs(entries, first_page, &mut pages.runs, begin);
    let ends = pages.runs.len() as u32;
    match pages.mappings.last_mut() {
        Some(last) if last.address == vma.address => last.runs.end = ends,
        _ => pages.mappings.push(Mapping {
            key: vma.key,
            address: vma.address.clone(),
            executable: vma.executable,
            runs: begin as u32..ends,
        }),
    }
}

/// Appends the present file pages among `entries`, joined to runs; those before
/// `begin` are another mapping's. Says how many others are present: the process's own copies.
fn push_runs(entries: &[u8], first_page: u64, runs: &mut Vec<Run>, begin: usize) -> u64 {
    let mut anonymous = 0;
    for (index, entry) in entries.as_chunks::<8>().0.iter().enumerate() {
        let entry = u64::from_ne_bytes(*entry);
        if entry & (PRESENT | FILE) != PRESENT | FILE {
            anonymous += u64::from(entry & PRESENT != 0);
            continue;
        }
        let (page, pfn) = (first_page + index as u64, entry & FRAME);
        match runs[begin..].last_mut() {
            Some(run) if follows(run, page, pfn) => run.len += 1,
            _ => runs.push(Run { page, pfn, len: 1 }),
        }
    }
    anonymous
}

/// The page comes next after the run, in the file and in memory.
fn follows(run: &Run, page: u64, pfn: u64) -> bool {
    let next = if run.pfn == 0 { 0 } else { run.pfn + u64::from(run.len) };
    run.page + u64::from(run.len) == page && next == pfn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FileKey;

    fn vma(address: Range<u64>, ino: u64, executable: bool) -> Vma {
        let key = FileKey { dev: 1, ino };
        Vma { address: address.start << 12..address.end << 12, offset: 0, key, executable }
    }

    fn runs(entries: &[u64]) -> Vec<Run> {
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_ne_bytes()).collect();
        let mut runs = Vec::new();
        push_runs(&bytes, 10, &mut runs, 0);
        runs
    }

    #[test]
    fn only_present_file_pages_count() {
        let file = PRESENT | FILE;
        let entries = [file | 7, file | 8, PRESENT | 9, FILE | 10, 0, file | 11, file | 20];
        let expected = [
            Run { page: 10, pfn: 7, len: 2 },
            Run { page: 15, pfn: 11, len: 1 },
            Run { page: 16, pfn: 20, len: 1 },
        ];
        assert_eq!(runs(&entries), expected);
    }

    #[test]
    fn hidden_frames_stay_zero() {
        let file = PRESENT | FILE;
        assert_eq!(runs(&[file, file, 0, file]).len(), 2);
        assert_eq!(runs(&[file, file])[0], Run { page: 10, pfn: 0, len: 2 });
    }

    #[test]
    fn near_mappings_are_read_together() {
        let far = 2 + GAP + 1;
        let vmas = [vma(0..1, 1, true), vma(2..3, 1, true), vma(far + 1..far + 2, 1, true)];
        assert_eq!(close_together(&vmas, 4096), 2);
        assert_eq!(close_together(&vmas[2..], 4096), 1);
        let (small, large) = (vma(0..1, 1, true), vma(1..BATCH + 1, 1, true));
        assert_eq!(close_together(&[small, large], 4096), 1);
    }
}
