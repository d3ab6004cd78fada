//! Large files that may well be alike, read side by side.

use std::fs::File;
use std::io;

use super::file::Reader;
use super::scratch::Scratch;
use super::{Answer, Job, Library, Seen};
use crate::scan::side_by_side::hash_and_compare;

impl Library<'_> {
    /// Reads files of one size. Whichever is not what the first one is, is read again by itself, and
    /// so is what cannot be opened or read at once, or changes meanwhile.
    pub(super) fn read_together(&self, jobs: &[Job], scratch: &mut Scratch) -> Vec<Answer> {
        let mut alike = match jobs.len() > 1 && self.size(&jobs[0]) <= self.largest {
            true => self.alike(jobs, scratch).unwrap_or_default(),
            false => Vec::new(),
        };
        alike.resize(jobs.len(), None);
        let answer = |(job, seen): (&Job, Option<Seen>)| match seen {
            Some(seen) => (seen, None),
            None => self.read_one(job, scratch),
        };
        jobs.iter().zip(alike).map(answer).collect()
    }

    /// What the first of the files is, for it and for each that is byte for byte the same.
    fn alike(&self, jobs: &[Job], scratch: &mut Scratch) -> io::Result<Vec<Option<Seen>>> {
        let readers: Vec<Reader<'_>> = jobs.iter().map(|job| self.reader(job)).collect();
        let mut files: Vec<Option<File>> = readers.iter().map(Reader::open).collect();
        let Some((Some(first), others)) = files.split_first_mut() else { return Ok(Vec::new()) };
        let (size, mut elf) = (self.size(&jobs[0]).0, None);
        let mut head = |bytes: &[u8]| elf = elf.or_else(|| Some(super::file::is_elf(bytes)));
        let content = hash_and_compare(first, others, size, scratch.both(), &mut head)?;
        let (elf, content) = (elf.unwrap_or_default(), Some(content));
        let seen = Seen { elf, content, ..Seen::default() };
        let unchanged = |(reader, file): (&Reader<'_>, &Option<File>)| {
            file.as_ref().is_some_and(|file| reader.is_as_listed(file).unwrap_or(false))
        };
        let all = readers.iter().zip(&files).map(|pair| unchanged(pair).then(|| seen.clone()));
        Ok(all.collect())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    #![expect(clippy::disallowed_methods, reason = "tests build their own trees")]

    use std::fs;
    use std::path::Path;

    use super::super::scratch::hash;
    use super::super::{WHOLE, Want, read};
    use super::*;
    use crate::model::{Bytes, ContentId, HostPath, Silent};
    use crate::scan::Listings;
    use crate::scan::dir::RootDir;
    use crate::scan::side_by_side::TOGETHER;
    use crate::scan::walk::{WalkLimits, walk};

    const SIZE: usize = 3 * WHOLE as usize + 5;

    /// A file in each of as many roots, as `change` leaves them.
    fn roots(top: &Path, count: usize, change: impl Fn(usize, &mut Vec<u8>)) -> Vec<RootDir> {
        let root = |at: usize| {
            let dir = top.join(at.to_string());
            let mut bytes: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
            change(at, &mut bytes);
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("file"), bytes).unwrap();
            RootDir::open(&HostPath::from(dir)).unwrap()
        };
        (0..count).map(root).collect()
    }

    /// What is read of each, after `meanwhile` has changed what was listed.
    fn contents(top: &Path, roots: &[RootDir], meanwhile: impl Fn(&Path)) -> Vec<Answer> {
        let (inventories, _) =
            walk(roots, WalkLimits { entries: 100 }, &Listings::default(), &Silent);
        let jobs: Vec<Job> = (0..)
            .zip(&inventories)
            .map(|(root, inventory)| {
                let (file, _) = inventory.files().next().unwrap();
                let want = Want::Rest(hash(b"the same"));
                Job { root, file, want }
            })
            .collect();
        meanwhile(top);
        let library = Library { roots, inventories: &inventories, largest: Bytes(u64::MAX) };
        roots.iter().for_each(RootDir::seal);
        read(library, &jobs, &Silent)
    }

    fn written(top: &Path, root: usize) -> ContentId {
        hash(&fs::read(top.join(root.to_string()).join("file")).unwrap())
    }

    #[test]
    fn each_has_its_own_content_wherever_it_differs() {
        let top = tempfile::tempdir().unwrap();
        let changes = [None, Some(0), Some(WHOLE as usize), Some(SIZE - 1), None];
        let count = TOGETHER + 3;
        let roots = roots(top.path(), count, |at, bytes| {
            if let Some(&Some(byte)) = changes.get(at) {
                bytes[byte] ^= 1;
            }
        });
        for (root, (seen, notice)) in contents(top.path(), &roots, |_| {}).into_iter().enumerate() {
            assert_eq!(seen.content, Some(written(top.path(), root)), "root {root}");
            assert!(notice.is_none());
        }
    }

    #[test]
    fn what_changes_after_it_was_listed_spoils_no_other() {
        let top = tempfile::tempdir().unwrap();
        let shorter = |file: &Path| {
            fs::File::options().write(true).open(file).unwrap().set_len(WHOLE + 1).unwrap();
        };
        let replaced = |file: &Path| {
            fs::copy(file, file.with_extension("new")).unwrap();
            fs::rename(file.with_extension("new"), file).unwrap();
        };
        let changes: [&dyn Fn(&Path); 2] = [&shorter, &replaced];
        for (case, (change, victim)) in
            changes.into_iter().flat_map(|change| [(change, 0), (change, 2)]).enumerate()
        {
            let top = top.path().join(case.to_string());
            fs::create_dir(&top).unwrap();
            let roots = roots(&top, 4, |_, _| {});
            let answers =
                contents(&top, &roots, |top| change(&top.join(victim.to_string()).join("file")));
            for (root, (seen, notice)) in answers.into_iter().enumerate() {
                let expected = (root != victim).then(|| written(&top, root));
                assert_eq!((seen.content, notice.is_some()), (expected, root == victim));
            }
        }
    }
}
