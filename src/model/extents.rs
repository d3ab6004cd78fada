//! Where a file's bytes lie on its device.

/// What is special about an extent (`FIEMAP_EXTENT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ExtentFlags {
    /// Another file refers to it too.
    pub shared: bool,
    /// Compressed or encrypted: its place does not tell which of the bytes are meant.
    pub encoded: bool,
    /// Allocated, but reads as zeros.
    pub unwritten: bool,
    /// It has no block of its own: not yet written, inline, or packed with others.
    pub unplaced: bool,
}

/// A run of a file's bytes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Where it lies in the file.
    pub logical: u64,
    /// Where it lies on the device.
    pub physical: u64,
    /// How long it is in the file.
    pub length: u64,
    /// What is special about it.
    pub flags: ExtentFlags,
}

/// The extents of a file of which at least one is shared with another file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Extents {
    /// The file system: device numbers of its superblock. `st_dev` will not do,
    /// for btrfs gives each subvolume one of its own.
    pub fs: u64,
    /// The runs, by place in the file; neighbours that continue one another are one.
    pub runs: Vec<Extent>,
    /// The file's size.
    pub size: u64,
}

impl Extents {
    /// Joins what continues; `None` where nothing is shared.
    pub fn new(fs: u64, size: u64, found: &[Extent]) -> Option<Self> {
        if !found.iter().any(|extent| extent.flags.shared) {
            return None;
        }
        let mut runs: Vec<Extent> = Vec::new();
        for extent in found {
            let mut next = *extent;
            // Whether one part of a run is shared with a third file says nothing of its bytes.
            next.flags.shared = false;
            match runs.last_mut() {
                Some(run) if continues(run, &next) => run.length += next.length,
                _ => runs.push(next),
            }
        }
        Some(Self { fs, runs, size })
    }

    /// Files whose extents are equal, and prove it, hold the same bytes.
    pub fn prove_content(&self) -> bool {
        !self.runs.iter().any(|run| run.flags.encoded || run.flags.unplaced)
    }
}

fn continues(run: &Extent, next: &Extent) -> bool {
    run.flags == next.flags
        && !run.flags.encoded
        && !run.flags.unplaced
        && run.logical + run.length == next.logical
        && run.physical + run.length == next.physical
}
