//! What reading found.

use std::collections::HashMap;

use crate::analyze::held::Held;
use crate::model::ContentId;
use crate::scan::read::Seen;

/// What was found by reading, by inode.
pub(super) struct Found {
    pub(super) content: Held,
    pub(super) elf: Vec<bool>,
    /// The first blocks of large files.
    pub(super) blocks: HashMap<usize, ContentId>,
    pub(super) scripts: HashMap<usize, Box<[u8]>>,
}

impl Found {
    pub(super) fn none(inodes: usize) -> Self {
        let (content, elf) = (Held::none(inodes), vec![false; inodes]);
        Self { content, elf, blocks: HashMap::new(), scripts: HashMap::new() }
    }

    pub(super) fn take(&mut self, inode: usize, seen: Seen) {
        self.content.set(inode, seen.content);
        self.elf[inode] = seen.elf;
        self.blocks.extend(seen.block.map(|block| (inode, block)));
        self.scripts.extend(seen.script.map(|script| (inode, script)));
    }
}
