//! Which pages of a program are shared, and which are each process's own.

use std::ops::Range;

use super::ranges::{merged, total};
use crate::model::{Bytes, LoadSegment, Pages, SegmentPages};

const PF_X: u32 = 1;
const PF_W: u32 = 2;

/// Counts the pages of the `PT_LOAD` segments as `mmap(2)` would lay them out:
/// from the page of the first byte to that of the last, each file page once.
///
/// Pages beyond `file_len` do not exist, whatever the headers say.
pub(super) fn segment_pages(
    loads: &[LoadSegment],
    file_len: u64,
    page_size: Bytes,
) -> SegmentPages {
    let page = page_size.0.max(1);
    let file_pages = |wanted: fn(u32) -> bool| {
        let chosen = loads.iter().filter(|load| wanted(load.flags));
        Pages(total(&merged(chosen.map(|load| pages_of(&file_range(load, file_len), page)))))
    };
    SegmentPages {
        ro: file_pages(|flags| flags & PF_W == 0),
        rx: file_pages(|flags| flags & PF_W == 0 && flags & PF_X != 0),
        cow: file_pages(|flags| flags & PF_W != 0),
        anon: Pages(total(&merged(loads.iter().map(|load| anonymous(load, page))))),
    }
}

fn file_range(load: &LoadSegment, file_len: u64) -> Range<u64> {
    load.offset..load.offset.saturating_add(load.file_size).min(file_len)
}

fn pages_of(bytes: &Range<u64>, page: u64) -> Range<u64> {
    if bytes.is_empty() { 0..0 } else { bytes.start / page..bytes.end.div_ceil(page) }
}

/// The pages of `p_memsz` that lie wholly beyond those of `p_filesz`.
fn anonymous(load: &LoadSegment, page: u64) -> Range<u64> {
    let end = load.vaddr.saturating_add(load.mem_size).div_ceil(page);
    let start = match load.file_size {
        0 => load.vaddr / page,
        file_size => load.vaddr.saturating_add(file_size).div_ceil(page),
    };
    start..end
}

#[cfg(test)]
mod tests {
    use super::segment_pages;
    use crate::model::{Bytes, LoadSegment, Pages, SegmentPages};

    fn load(flags: u32, offset: u64, vaddr: u64, file_size: u64, mem_size: u64) -> LoadSegment {
        LoadSegment { flags, offset, vaddr, file_size, mem_size, align: 0x1000 }
    }

    fn pages(ro: u64, rx: u64, cow: u64, anon: u64) -> SegmentPages {
        SegmentPages { ro: Pages(ro), rx: Pages(rx), cow: Pages(cow), anon: Pages(anon) }
    }

    /// The program headers of Debian's busybox-static 1.35.0 for amd64.
    #[test]
    fn a_static_program() {
        let loads = [
            load(4, 0, 0x40_0000, 0x6e0, 0x6e0),
            load(5, 0x1000, 0x40_1000, 0x18_3989, 0x18_3989),
            load(4, 0x18_5000, 0x58_5000, 0x5_5017, 0x5_5017),
            load(6, 0x1d_a708, 0x5d_b708, 0x9008, 0x1_0450),
        ];
        assert_eq!(segment_pages(&loads, 1_982_256, Bytes(4096)), pages(475, 388, 10, 7));
        assert_eq!(segment_pages(&loads, 1_982_256, Bytes(65536)).ro, Pages(30));
    }

    #[test]
    fn a_page_named_twice_counts_once() {
        let twice = [load(4, 0, 0, 4096, 4096), load(5, 100, 100, 4096, 4096)];
        assert_eq!(segment_pages(&twice, 1 << 20, Bytes(4096)), pages(2, 2, 0, 0));
    }

    #[test]
    fn memory_beyond_the_file_is_anonymous() {
        let bss = [load(6, 0, 0x1000, 0x10, 0x2010), load(6, 0, 0x9800, 0, 0x1000)];
        assert_eq!(segment_pages(&bss, 1 << 20, Bytes(4096)), pages(0, 0, 1, 2 + 2));
    }

    #[test]
    fn headers_that_lie_count_no_more_than_the_file_has() {
        let wild = [load(4, u64::MAX - 1, 0, u64::MAX, 0), load(5, 10, u64::MAX, u64::MAX, 7)];
        assert_eq!(segment_pages(&wild, 5000, Bytes(4096)), pages(2, 2, 0, 0));
        assert_eq!(segment_pages(&wild, 5000, Bytes(0)).ro, Pages(4990));
    }
}
