//! The file that a cache is kept in: a line that says what it is, the BLAKE3 of the rest, the devices
//! and the digests, each once, directories and their names, and records of files, which have one size
//! and are in order of their inodes.

use std::collections::HashMap;

use rayon::prelude::*;

use super::listings::{self, DIRECTORY, Listings};
use super::{Entry, Stamp};
use crate::model::InodeId;

/// What every version begins with.
pub(super) const KIND: &[u8] = b"cbin-audit cache ";
const VERSION: &[u8] = b"3\n";
const HEAD: usize = KIND.len() + VERSION.len() + DIGEST;
pub(super) const DIGEST: usize = 32;
const DEVICE: usize = 8;
const RECORD: usize = 40;
/// How many devices, digests, directories and bytes of names there are.
const COUNTS: usize = 4 * 4;

/// The longest file that is read: as many records as are kept, each with a digest of its own.
pub(super) const LONGEST: usize =
    HEAD + COUNTS + u16::MAX as usize * DEVICE + super::MOST * (RECORD + DIGEST) + listings::MOST;

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// In order.
    devices: Vec<u64>,
    digests: Vec<[u8; DIGEST]>,
    /// In order of inodes.
    pub(super) records: Vec<Record>,
    pub(super) listings: Listings,
}

/// What is known of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    ino: u64,
    stamp: Stamp,
    /// The digest's place, where the flags say that there is one.
    digest: u32,
    /// The device's place.
    device: u16,
    flags: u8,
    pub(super) age: u8,
}

impl Stored {
    /// What the bytes of a file say; `None` where they do not read as one.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(KIND)?.strip_prefix(VERSION)?;
        let (digest, rest) = rest.split_first_chunk::<DIGEST>()?;
        let is_whole = || blake3::hash(rest).as_bytes() == digest;
        let (is_whole, stored) = rayon::join(is_whole, || Self::parse_rest(rest));
        stored.filter(|_| is_whole)
    }

    fn parse_rest(bytes: &[u8]) -> Option<Self> {
        let (counts, rest) = bytes.split_first_chunk::<COUNTS>()?;
        let count = |at: usize| u32::from_le_bytes(counts.as_chunks().0[at]) as usize;
        let (devices, rest) = rest.split_at_checked(count(0).checked_mul(DEVICE)?)?;
        let (digests, rest) = rest.split_at_checked(count(1).checked_mul(DIGEST)?)?;
        let (dirs, rest) = rest.split_at_checked(count(2).checked_mul(DIRECTORY)?)?;
        let (names, rest) = rest.split_at_checked(count(3))?;
        let (records, left) = rest.as_chunks::<RECORD>();
        let devices = devices.as_chunks::<DEVICE>().0.iter();
        let records = || records.par_iter().map(Record::parse).collect();
        let (records, listings) = rayon::join(records, || Listings::parse(dirs, names));
        let listings = listings.filter(|_| left.is_empty())?;
        Some(Self {
            devices: devices.map(|device| u64::from_le_bytes(*device)).collect(),
            digests: digests.as_chunks::<DIGEST>().0.to_vec(),
            records,
            listings,
        })
    }

    /// The file that holds these, which are in order of their inodes, and these listings.
    pub(super) fn write(entries: &[Entry], listings: &Listings) -> Vec<u8> {
        let mut devices: Vec<u64> = entries.iter().map(|entry| entry.inode.dev).collect();
        devices.dedup();
        // No host has as many.
        devices.truncate(u16::MAX.into());
        let mut digests = Vec::new();
        let mut places = HashMap::new();
        for digest in entries.iter().filter_map(|entry| entry.digest) {
            places.entry(digest).or_insert_with(|| {
                digests.push(digest);
                digests.len() as u32 - 1
            });
        }
        let [dirs, bytes_of_names] = listings.counts();
        let most = devices.len() * DEVICE
            + digests.len() * DIGEST
            + dirs as usize * DIRECTORY
            + bytes_of_names as usize
            + entries.len() * RECORD;
        let mut bytes = Vec::with_capacity(HEAD + COUNTS + most);
        bytes.extend([KIND, VERSION, &[0; DIGEST]].concat());
        let counts = [devices.len() as u32, digests.len() as u32, dirs, bytes_of_names];
        bytes.extend(counts.map(u32::to_le_bytes).as_flattened());
        bytes.extend(devices.iter().flat_map(|device| device.to_le_bytes()));
        bytes.extend(digests.as_flattened());
        drop(digests);
        listings.write(&mut bytes);
        for entry in entries {
            let Ok(device) = devices.binary_search(&entry.inode.dev) else { continue };
            let digest = entry.digest.map_or(0, |digest| places[&digest]);
            let Entry { inode, stamp, flags, age, .. } = *entry;
            let device = device as u16;
            Record { ino: inode.ino, stamp, digest, device, flags, age }.write(&mut bytes);
        }
        let digest = blake3::hash(&bytes[HEAD..]);
        bytes[HEAD - DIGEST..HEAD].copy_from_slice(digest.as_bytes());
        bytes
    }

    /// The place of an inode's first record, or where it would be. The search begins near a place, that
    /// of the file before, say: files of one directory have inodes that are close to each other.
    pub(super) fn place(&self, inode: InodeId, near: usize) -> Option<usize> {
        let key = (self.devices.binary_search(&inode.dev).ok()?, inode.ino);
        let is_before = |record: &Record| (usize::from(record.device), record.ino) < key;
        let before = |at: usize| is_before(&self.records[at]);
        let (mut low, mut high, mut step) = (near.min(self.records.len()), self.records.len(), 1);
        if low < high && before(low) {
            while low + step < high && before(low + step) {
                low += step;
                step *= 2;
            }
            high = high.min(low + step);
        } else {
            high = low;
            while step <= high && !before(high - step) {
                high -= step;
                step *= 2;
            }
            low = high.saturating_sub(step);
        }
        Some(low + self.records[low..high].partition_point(is_before))
    }

    /// What a record says.
    pub(super) fn entry(&self, record: &Record) -> Option<Entry> {
        let Record { ino, stamp, flags, age, .. } = *record;
        let dev = *self.devices.get(usize::from(record.device))?;
        let digest = match super::has_digest(flags) {
            true => Some(*self.digests.get(record.digest as usize)?),
            false => None,
        };
        Some(Entry { inode: InodeId { dev, ino }, stamp, flags, age, digest })
    }

    /// What all records say, in order of inodes.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.records.iter().filter_map(|record| self.entry(record))
    }
}

impl Record {
    fn parse(bytes: &[u8; RECORD]) -> Self {
        let (numbers, rest) = bytes.split_at(32);
        let number = |at: usize| u64::from_le_bytes(numbers.as_chunks::<8>().0[at]);
        Self {
            ino: number(0),
            stamp: Stamp {
                size: number(1),
                mtime: number(2).cast_signed(),
                ctime: number(3).cast_signed(),
            },
            digest: u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]),
            device: u16::from_le_bytes([rest[4], rest[5]]),
            flags: rest[6],
            age: rest[7],
        }
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        let Stamp { size, mtime, ctime } = self.stamp;
        for number in [self.ino, size, mtime.cast_unsigned(), ctime.cast_unsigned()] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.digest.to_le_bytes());
        bytes.extend_from_slice(&self.device.to_le_bytes());
        bytes.extend_from_slice(&[self.flags, self.age]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn entry(dev: u64, ino: u64) -> Entry {
        let stamp = Stamp { size: 1, mtime: -5, ctime: 1000 };
        let digest = Some([(ino / 3) as u8; DIGEST]);
        Entry { inode: InodeId { dev, ino }, stamp, flags: super::super::CONTENT, age: 3, digest }
    }

    #[test]
    fn every_inode_is_found_from_everywhere() {
        let inodes = (0..40).map(|at| (5, at * 3)).chain((0..5).map(|at| (9, at * 7)));
        let entries: Vec<Entry> = inodes.map(|(dev, ino)| entry(dev, ino)).collect();
        let stored = Stored::parse(&Stored::write(&entries, &Listings::default())).unwrap();
        assert_eq!(stored.entries().collect::<Vec<_>>(), entries);
        for near in 0..=entries.len() + 1 {
            for (dev, ino) in (0..130).map(|ino| (5, ino)).chain((0..40).map(|ino| (9, ino))) {
                let inode = InodeId { dev, ino };
                let expected = entries.partition_point(|entry| entry.inode < inode);
                assert_eq!(stored.place(inode, near), Some(expected), "{inode:?} from {near}");
            }
            assert_eq!(stored.place(InodeId { dev: 6, ino: 3 }, near), None);
        }
    }

    #[test]
    fn a_digest_is_kept_once() {
        let entries: Vec<Entry> = (0..300).map(|ino| entry(5, ino)).collect();
        let most = HEAD + COUNTS + DEVICE + 300 * RECORD + 100 * DIGEST;
        assert_eq!(Stored::write(&entries, &Listings::default()).len(), most);
    }
}
