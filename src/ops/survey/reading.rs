//! Reading files: what the cache knows of them, and the rest from the disk.

use std::collections::BTreeMap;

use super::found::Found;
use super::{Readers, Survey};
use crate::analyze::paths::ByPath;
use crate::analyze::wanted::Need;
use crate::model::{Bytes, ContentId, Notices, Phase, Progress};
use crate::scan::Cache;
use crate::scan::read::{self, Answer, Job, Seen, WHOLE, Want};

impl Survey {
    /// Reads what is needed of each inode, in an order that has twins one after another where there
    /// are many.
    pub(super) fn read(
        &self,
        needs: &[Need],
        readers: &Readers,
        cache: &mut Cache,
        progress: &dyn Progress,
        notices: &mut Notices,
    ) -> Found {
        let want = |inode: usize| match needs[inode] {
            Need::Nothing => None,
            Need::Kind => Some(Want::Kind),
            Need::ElfContent => Some(Want::ElfContent),
            Need::ProgramContent => Some(Want::ProgramContent),
            Need::Content => Some(Want::Content),
        };
        let asked =
            |inode: usize| Some((inode, want(inode).filter(|_| readers.of(inode) == inode)?));
        let asked = || (0..needs.len()).filter_map(asked);
        progress.start(Phase::Read, Some(asked().count() as u64));
        let (mut found, mut left) = (Found::none(needs.len()), vec![false; needs.len()]);
        let mut keep = |inode, seen| found.take(inode, seen);
        self.recall(asked(), cache, progress, &mut keep, |(inode, _)| left[inode] = true);
        let unread = || (0..left.len()).filter(|&inode| left[inode]);
        self.library().make_ready(unread().map(|inode| self.inodes.names(inode)[0].root));
        let asked = |inode| Some((inode, want(inode)?));
        // What is compared is what others hold, too; programs are only looked into.
        let compared = |inode: &usize| matches!(needs[*inode], Need::ElfContent | Need::Content);
        if unread().filter(compared).count() <= AT_ONCE {
            self.learn(unread().filter_map(asked), cache, progress, notices, &mut keep);
        } else {
            let by_path = ByPath::of(&self.inventories, &self.paths, &self.inodes);
            let unread = by_path.inodes(|inode| left[inode]);
            self.learn(unread.filter_map(asked), cache, progress, notices, &mut keep);
        }
        found
    }

    /// Reads large files whose first block stands in another file of their size.
    pub(super) fn read_large(
        &self,
        found: &mut Found,
        readers: &Readers,
        cache: &mut Cache,
        progress: &dyn Progress,
        notices: &mut Notices,
    ) {
        let (blocks, content) = (&found.blocks, &mut found.content);
        let size = |inode: usize| self.inodes.meta(inode, &self.inventories).size;
        // What is smaller was read whole, and most files are.
        let is_large = |inode: &usize| size(*inode).0 > WHOLE;
        let block = |inode: usize| blocks.get(&inode).map(|block| (size(inode), *block));
        let key = |inode: usize| Some(inode).filter(is_large).and_then(block);
        let mut twins: BTreeMap<(Bytes, ContentId), Vec<usize>> = BTreeMap::new();
        for inode in 0..self.inodes.len() {
            if let Some(key) = key(readers.of(inode)) {
                twins.entry(key).or_default().push(inode);
            }
        }
        // The largest first: at the end all threads have something to read.
        let twins = twins.iter().rev().filter(|(_, inodes)| inodes.len() > 1);
        let asked = twins.flat_map(|(&(_, block), inodes)| {
            let read = inodes.iter().filter(|inode| key(**inode).is_some());
            read.map(move |&inode| (inode, Want::Rest(block)))
        });
        progress.start(Phase::Read, Some(asked.clone().count() as u64));
        let mut keep = |inode, seen: Seen| content.set(inode, seen.content);
        let mut left = Vec::new();
        self.recall(asked, cache, progress, &mut keep, |asked| left.push(asked));
        self.learn(left.into_iter(), cache, progress, notices, &mut keep);
    }

    /// Keeps what the cache knows of inodes, and tells what is left to be read.
    fn recall(
        &self,
        asked: impl Iterator<Item = (usize, Want)>,
        cache: &mut Cache,
        progress: &dyn Progress,
        keep: &mut impl FnMut(usize, Seen),
        mut left: impl FnMut((usize, Want)),
    ) {
        if cache.is_empty() {
            return asked.for_each(left);
        }
        let (mut near, mut recalled) = (0, 0);
        for (inode, want) in asked {
            let meta = self.inodes.meta(inode, &self.inventories);
            // What is larger than the limit is left out, however it is known.
            let known = meta.size <= self.largest;
            match known.then(|| cache.recall(&meta, want, &mut near)).flatten() {
                Some(known) => {
                    cache.keep(&known);
                    keep(inode, known.seen);
                    recalled += 1;
                }
                None => left((inode, want)),
            }
        }
        progress.advance(recalled);
    }

    /// Reads inodes by their first names, keeps what they are, and has the cache learn. What
    /// cannot be read of the host itself is no notice: its directory is not compared then.
    fn learn(
        &self,
        asked: impl Iterator<Item = (usize, Want)> + Send,
        cache: &mut Cache,
        progress: &dyn Progress,
        notices: &mut Notices,
        keep: &mut (impl FnMut(usize, Seen) + Send),
    ) {
        let library = self.library();
        let job = |&(inode, want): &(usize, Want)| {
            let name = self.inodes.names(inode)[0];
            Job { root: name.root, file: name.file, want }
        };
        let mut take = |some: Vec<(usize, Want)>, answers: Vec<Answer>| {
            for ((inode, want), (seen, notice)) in some.into_iter().zip(answers) {
                if notice.is_none() {
                    cache.learn(&self.inodes.meta(inode, &self.inventories), want, &seen);
                }
                keep(inode, seen);
                let root = self.inodes.names(inode)[0].root;
                notices.extend(notice.filter(|_| Some(root) != self.host));
            }
        };
        let (mut batches, mut before) = (at_once(asked), None);
        let mut next = batches.next();
        while let Some(some) = next {
            let jobs: Vec<Job> = some.iter().map(job).collect();
            let meanwhile = || {
                before.take().into_iter().for_each(|(some, answers)| take(some, answers));
                batches.next()
            };
            let (answers, after) = rayon::join(|| read::read(library, &jobs, progress), meanwhile);
            before = Some((some, answers));
            next = after;
        }
        before.into_iter().for_each(|(some, answers)| take(some, answers));
    }
}

/// Files that are asked for at a time: their answers take some megabytes.
const AT_ONCE: usize = 8 * 1024;

fn at_once<T>(mut asked: impl Iterator<Item = T>) -> impl Iterator<Item = Vec<T>> {
    let some = move || Some(asked.by_ref().take(AT_ONCE).collect());
    std::iter::from_fn(some).take_while(|some: &Vec<T>| !some.is_empty())
}
