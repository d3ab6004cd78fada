//! Reads everything from disk that the audit needs: names, kinds, contents.

mod found;
mod reading;

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::Path;

use rayon::prelude::*;

use self::found::Found;
use super::audit::AuditOptions;
use crate::analyze::groups::{Contents, Description};
use crate::analyze::held::Held;
use crate::analyze::inodes::Inodes;
use crate::analyze::paths::PathIds;
use crate::analyze::trees::Alike;
use crate::analyze::wanted::{self, Need};
use crate::model::{
    Bytes, ContentId, Extents, FileStamp, HostPath, Inventory, Notice, Notices, Phase, Progress,
    Select,
};
use crate::scan::dir::{RootDir, open_regular};
use crate::scan::read::Library;
use crate::scan::walk::{self, WalkLimits};
use crate::scan::{self, Cache, Source, cause, extents, objfile};

/// Everything that was read from disk.
pub(super) struct Survey {
    /// The roots; the host's own last, if it was walked.
    pub(super) dirs: Vec<RootDir>,
    /// What they hold, in the same order.
    pub(super) inventories: Vec<Inventory>,
    /// The host's place among them.
    pub(super) host: Option<u32>,
    /// The paths of their directories.
    pub(super) paths: PathIds,
    /// The inodes of all of them.
    pub(super) inodes: Inodes,
    /// What the inodes hold.
    pub(super) contents: Contents,
    /// The text of short `#!` files, by inode.
    pub(super) scripts: HashMap<usize, Box<[u8]>>,
    /// Which inodes are proven to lie in the very same blocks.
    pub(super) same_blocks: Readers,
    largest: Bytes,
}

/// Inodes that need not be read, and for each of them the one that is read in its place.
#[derive(Default)]
pub(super) struct Readers(HashMap<usize, usize>);

impl Readers {
    /// The inode that is read for this one: itself, mostly.
    pub(super) fn of(&self, inode: usize) -> usize {
        self.0.get(&inode).copied().unwrap_or(inode)
    }
}

impl Survey {
    /// Walks the roots and reads what has to be read.
    pub(super) fn make(
        dirs: Vec<RootDir>,
        options: &AuditOptions,
        cache: &mut Cache,
        progress: &dyn Progress,
        notices: &mut Notices,
    ) -> Self {
        scan::on_disk_threads(|| Self::make_here(dirs, options, cache, progress, notices))
    }

    fn make_here(
        dirs: Vec<RootDir>,
        options: &AuditOptions,
        cache: &mut Cache,
        progress: &dyn Progress,
        notices: &mut Notices,
    ) -> Self {
        let (mut survey, in_tree) = Self::walk(dirs, options, cache, progress, notices);
        let roots = survey.host.map_or(survey.dirs.len(), |host| host as usize);
        let needs =
            wanted::needs(&survey.inodes, &survey.inventories, roots, options.select, &in_tree);
        survey.contents.extents = survey.shared_extents(&needs);
        let readers = survey.readers();
        let mut found = survey.read(&needs, &readers, cache, progress, notices);
        survey.read_large(&mut found, &readers, cache, progress, notices);
        survey.forget_others(&needs, &mut found.content);
        survey.keep(found, &readers);
        survey.same_blocks = readers;
        survey
    }

    /// Walks the roots; for each inode, whether a tree depends on what it holds.
    fn walk(
        mut dirs: Vec<RootDir>,
        options: &AuditOptions,
        cache: &mut Cache,
        progress: &dyn Progress,
        notices: &mut Notices,
    ) -> (Self, Vec<bool>) {
        progress.start(Phase::Walk, None);
        let limits = WalkLimits { entries: options.limits.max_entries };
        let (mut inventories, found) = walk::walk(&dirs, limits, cache.listings(), progress);
        notices.extend(found);
        let mut host = None;
        if options.trees
            && options.select != Select::Multicall
            && let Ok(dir) = RootDir::open(&HostPath::from("/"))
        {
            host = Some(dirs.len() as u32);
            let known = cache.listings();
            inventories.push(walk::walk_alike(&dir, &inventories, limits, known, progress));
            dirs.push(dir);
        }
        cache.learn_listings(&dirs, &inventories);
        let alike = || {
            let paths = PathIds::of(&inventories);
            (host.map(|_| Alike::of(&inventories, &paths)), paths)
        };
        let (inodes, (alike, paths)) = rayon::join(|| Inodes::of(&inventories), alike);
        let in_tree = match alike {
            Some(alike) => alike.files(&inodes, &inventories),
            None => vec![false; inodes.len()],
        };
        let (contents, scripts) = (Contents::default(), HashMap::new());
        let largest = options.limits.max_file_size;
        let same_blocks = Readers::default();
        let survey = Self {
            dirs,
            inventories,
            host,
            paths,
            inodes,
            contents,
            scripts,
            same_blocks,
            largest,
        };
        (survey, in_tree)
    }

    /// The contents that were read, by what `stat` says of the files that hold them.
    pub(super) fn known(&self) -> HashMap<FileStamp, ContentId> {
        let stamp = |inode: usize| {
            let meta = self.inodes.meta(inode, &self.inventories);
            FileStamp { inode: meta.inode, size: meta.size, mtime: meta.mtime }
        };
        let content = &self.contents.content;
        (0..content.len()).filter_map(|inode| Some((stamp(inode), content.get(inode)?))).collect()
    }

    pub(super) fn library(&self) -> Library<'_> {
        Library { roots: &self.dirs, inventories: &self.inventories, largest: self.largest }
    }

    /// Where the blocks lie of files whose content matters, on file systems that can share them.
    fn shared_extents(&self, needs: &[Need]) -> HashMap<usize, Extents> {
        let file_systems = extents::sharing_file_systems(&self.dirs, Path::new("/proc"));
        if file_systems.iter().all(Option::is_none) {
            return HashMap::new();
        }
        let library = self.library();
        let asked: Vec<usize> = (0..needs.len())
            .filter(|&at| !matches!(needs[at], Need::Nothing | Need::Kind))
            .collect();
        let found = asked.par_iter().filter_map(|&inode| {
            let name = self.inodes.names(inode)[0];
            let fs = file_systems[name.root as usize]?;
            let inventory = &self.inventories[name.root as usize];
            let dir = library.open_dir(name.root, name.file).ok()?;
            let (file_name, meta) = (inventory.file_name(name.file), inventory.file(name.file));
            let extents = extents::shared_extents(dir.as_fd(), file_name, &meta, fs)?;
            Some((inode, extents))
        });
        found.collect()
    }

    /// The inodes whose blocks prove that they hold what another one holds, and that one, which
    /// is read for them.
    fn readers(&self) -> Readers {
        let (mut readers, mut first) = (Readers::default(), HashMap::new());
        for inode in 0..self.inodes.len() {
            if let Some(extents) = self.contents.extents.get(&inode)
                && extents.prove_content()
            {
                let reader = *first.entry(extents).or_insert(inode);
                if reader != inode {
                    readers.0.insert(inode, reader);
                }
            }
        }
        readers
    }

    /// Of what could be multi-call binaries by its headers, what is none is forgotten: each
    /// content is looked into once, not each copy of it.
    fn forget_others(&self, needs: &[Need], content: &mut Held) {
        let copies = content.by_content(|inode| needs[inode] == Need::ProgramContent, |_, _| true);
        let library = self.library();
        let is_program = |content: ContentId, inode: usize| {
            let name = self.inodes.names(inode)[0];
            library.is_program(name.root, name.file, content)
        };
        let others: Vec<Vec<usize>> = copies
            .into_par_iter()
            .filter(|(content, inodes)| {
                // A copy that was changed meanwhile does not speak for the others.
                let told = inodes.iter().find_map(|&inode| is_program(*content, inode));
                told != Some(true)
            })
            .map(|(_, inodes)| inodes)
            .collect();
        others.into_iter().flatten().for_each(|inode| content.set(inode, None));
    }

    fn keep(&mut self, mut found: Found, readers: &Readers) {
        for (&inode, &reader) in &readers.0 {
            found.content.copy(reader, inode);
            found.elf[inode] = found.elf[reader];
        }
        (self.contents.content, self.contents.elf) = (found.content, found.elf);
        self.scripts = found.scripts;
    }

    /// What the bytes of an inode are, from its headers and marks.
    pub(super) fn describe(&self, inode: usize) -> (Description, Option<Notice>) {
        let name = self.inodes.names(inode)[0];
        let library = self.library();
        let described = library.open_dir(name.root, name.file).and_then(|dir| {
            let file_name = self.inventories[name.root as usize].file_name(name.file);
            let (file, meta) = open_regular(dir.as_fd(), file_name)?;
            let source = Source::file(file.as_fd(), meta.size.0);
            let Some(mut elf) = scan::elf_facts(&source, scan::host().page_size)? else {
                return Ok(Description::default());
            };
            elf.sections = objfile::section_sums(&source);
            let program = scan::program(&source, &elf)?;
            Ok(Description { elf: Some(Box::new(elf)), program })
        });
        described.map_or_else(
            |error| {
                let path = library.path(name.root, name.file);
                (Description::default(), Some(Notice::partial(path, "read", cause(&error))))
            },
            |description| (description, None),
        )
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    #![expect(clippy::print_stderr, reason = "what is skipped is said")]

    use super::*;
    use crate::model::Silent;
    use crate::ops::audit::Limits;

    /// Of each root so many that it is worth the trouble, and of all of them more than are asked for at
    /// a time: each time there are few of a root.
    #[test]
    fn every_root_is_made_ready_by_all_that_is_read_of_it() {
        const ROOTS: usize = 40;
        const FILES: usize = 300;
        let top = tempfile::tempdir().unwrap();
        let open = |at: usize| {
            let root = top.path().join(at.to_string());
            std::fs::create_dir(&root).unwrap();
            (0..FILES).for_each(|at| std::fs::write(root.join(at.to_string()), "same").unwrap());
            RootDir::open(&HostPath::from(root)).unwrap()
        };
        let options = AuditOptions {
            roots: Vec::new(),
            select: Select::All,
            trees: false,
            memory: false,
            limits: Limits::default(),
        };
        let dirs = (0..ROOTS).map(open).collect();
        let (mut cache, mut notices) = (Cache::none(), Notices::default());
        let survey = Survey::make(dirs, &options, &mut cache, &Silent, &mut notices);
        assert!(survey.contents.content.get(ROOTS * FILES - 1).is_some());
        let probe = RootDir::open(&HostPath::from(top.path())).unwrap();
        probe.seal();
        if probe.is_sealed() {
            assert!(survey.dirs.iter().all(RootDir::is_sealed));
        } else {
            eprintln!("skipped: no root can be made ready without CAP_SYS_ADMIN");
        }
    }
}
