//! What a dynamic program loads in each root: its interpreter and the libraries it needs.

use std::collections::{BTreeSet, HashMap};

use crate::analyze::inodes::Name;
use crate::analyze::plan::{Libraries, Loads, Sharable};
use crate::analyze::resolve::{Resolver, Target};
use crate::model::{ContentId, DirId, EntryKind, FileId, Inventory, Notices, Silent};
use crate::ops::survey::Survey;
use crate::scan::read::{self, Job, Want};

const ROOT: DirId = DirId(0);

/// Where ld.so(8) and musl look, and the directories below them that a multiarch system has.
const LIBRARY_DIRS: [&[u8]; 7] =
    [b"lib", b"usr/lib", b"lib64", b"usr/lib64", b"lib32", b"usr/lib32", b"usr/local/lib"];

/// Says of every copy of a dynamic program what it loads.
pub(super) fn fill(survey: &Survey, contents: &mut [Sharable], notices: &mut Notices) {
    let found: Vec<Vec<Found>> = contents.iter().map(|content| of(survey, content)).collect();
    let held = read_all(survey, &found, notices);
    for (content, found) in contents.iter_mut().zip(found) {
        for (holding, found) in content.holdings.iter_mut().zip(found) {
            holding.libraries = libraries(&found, &held);
        }
    }
}

/// What one copy loads: files of its root, by their inodes, or the name of what is not there.
type Found = Vec<Result<usize, Vec<u8>>>;

fn of(survey: &Survey, content: &Sharable) -> Vec<Found> {
    let in_root = |root: usize| -> Found {
        let inventory = &survey.inventories[root];
        let inode = |file| survey.inodes.inode(Name { root: root as u32, file });
        let loaded = loaded(inventory, &content.loads);
        loaded.into_iter().map(|(name, file)| file.map(inode).ok_or(name)).collect()
    };
    content.holdings.iter().map(|holding| in_root(holding.root)).collect()
}

/// The files that a program loads, and the names of all of them.
pub(super) fn loaded(inventory: &Inventory, loads: &Loads) -> Vec<(Vec<u8>, Option<FileId>)> {
    let mut resolver = Resolver::new(inventory);
    let mut found = Vec::new();
    if let Some(interpreter) = &loads.interpreter {
        let file = match resolver.resolve(ROOT, interpreter) {
            Target::File(file) => Some(file),
            _ => None,
        };
        found.push((interpreter.clone(), file));
    }
    let dirs = library_dirs(inventory, &loads.runpath);
    for name in &loads.needed {
        let file = dirs.iter().find_map(|dir| match inventory.lookup(*dir, name)? {
            EntryKind::File(file) => Some(file),
            EntryKind::Symlink(target) => match resolver.follow(*dir, name, target) {
                Target::File(file) => Some(file),
                _ => None,
            },
            _ => None,
        });
        found.push((name.clone(), file));
    }
    found
}

/// The directories that libraries are looked for in, in order.
pub(super) fn library_dirs(inventory: &Inventory, runpath: &[Vec<u8>]) -> Vec<DirId> {
    let mut resolver = Resolver::new(inventory);
    let mut dirs = Vec::new();
    let own = runpath.iter().flat_map(|path| path.split(|&byte| byte == b':'));
    for path in own.filter(|path| path.starts_with(b"/")).chain(LIBRARY_DIRS) {
        let Target::Dir(dir) = resolver.resolve(ROOT, path) else { continue };
        let below = inventory.entries(dir).filter_map(|(name, kind)| match kind {
            EntryKind::Dir(below) if memchr::memmem::find(name, b"-linux-").is_some() => {
                Some(below)
            }
            _ => None,
        });
        dirs.extend(below.chain([dir]));
    }
    dirs
}

/// The contents of all the files that are loaded, each read once.
fn read_all(
    survey: &Survey,
    found: &[Vec<Found>],
    notices: &mut Notices,
) -> HashMap<usize, ContentId> {
    let inodes: BTreeSet<usize> = found.iter().flatten().flatten().flatten().copied().collect();
    let known = |inode: &usize| Some((*inode, survey.contents.content.get(*inode)?));
    let mut held: HashMap<usize, ContentId> = inodes.iter().filter_map(known).collect();
    let unread: Vec<usize> = inodes.into_iter().filter(|inode| !held.contains_key(inode)).collect();
    let job = |inode: &usize| {
        let name = survey.inodes.names(*inode)[0];
        Job { root: name.root, file: name.file, want: Want::WholeContent }
    };
    let jobs: Vec<Job> = unread.iter().map(job).collect();
    for (inode, (seen, notice)) in unread.iter().zip(read::read(survey.library(), &jobs, &Silent)) {
        held.extend(seen.content.map(|content| (*inode, content)));
        notices.extend(notice);
    }
    held
}

fn libraries(found: &Found, held: &HashMap<usize, ContentId>) -> Libraries {
    let mut hasher = blake3::Hasher::new();
    for file in found {
        match file {
            Err(name) => return Libraries::Missing(name.clone()),
            Ok(inode) => match held.get(inode) {
                Some(content) => hasher.update(&content.0),
                None => return Libraries::Missing(b"a library that could not be read".to_vec()),
            },
        };
    }
    Libraries::Found(ContentId(hasher.finalize().into()))
}
