//! What statx(2) said of each file of a root: most of what an inventory takes.

use std::collections::HashMap;

use super::{FileId, FileMeta};
use crate::model::{Bytes, InodeId};

/// The files, in as little room as they fit.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    files: Vec<File>,
    /// The file systems that they lie on: one, but for subvolumes and layers.
    devices: Vec<u64>,
    /// Their places.
    places: HashMap<u64, u32>,
}

/// A file: 56 bytes.
#[derive(Debug, Clone, Copy)]
struct File {
    ino: u64,
    size: Bytes,
    allocated: Bytes,
    mtime: i64,
    ctime: i64,
    nlink: u32,
    /// Its place among the devices.
    device: u32,
    /// Its place among the inventory's entries.
    entry: u32,
    /// Of `st_mode` there are no more bits (`stx_mode` of statx(2)).
    mode: u16,
}

impl Files {
    pub(super) fn push(&mut self, entry: u32, meta: FileMeta) -> FileId {
        let device = self.device(meta.inode.dev);
        self.files.push(File {
            ino: meta.inode.ino,
            size: meta.size,
            allocated: meta.allocated,
            mtime: meta.mtime,
            ctime: meta.ctime,
            nlink: meta.nlink,
            device,
            entry,
            mode: meta.mode as u16,
        });
        FileId(self.files.len() as u32 - 1)
    }

    /// The device's place; mostly that of the file before.
    fn device(&mut self, device: u64) -> u32 {
        match self.files.last() {
            Some(before) if self.devices[before.device as usize] == device => before.device,
            _ => *self.places.entry(device).or_insert_with(|| {
                self.devices.push(device);
                self.devices.len() as u32 - 1
            }),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    pub(super) fn entry(&self, file: FileId) -> u32 {
        self.files[file.0 as usize].entry
    }

    pub(super) fn meta(&self, file: FileId) -> FileMeta {
        let file = &self.files[file.0 as usize];
        FileMeta {
            inode: InodeId { dev: self.devices[file.device as usize], ino: file.ino },
            size: file.size,
            allocated: file.allocated,
            mtime: file.mtime,
            ctime: file.ctime,
            mode: file.mode.into(),
            nlink: file.nlink,
        }
    }

    pub(super) fn shrink(&mut self) {
        self.files.shrink_to_fit();
    }
}
