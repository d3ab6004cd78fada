//! The steps of one root: the mount first, then every entry that becomes a link to the store.

use std::collections::{BTreeSet, HashMap};

use super::applets::{self, LastLink};
use super::eligible::because;
use super::{Chosen, Ground, Holding, Multicall, Sharable, Unnumbered, World, skip};
use crate::analyze::resolve::{Resolver, Target};
use crate::model::{
    Action, Applets, ContainerPath, DirId, EntryKind, FileId, FileState, Inventory, RootPath, Skip,
    SkipReason,
};

/// Where programs are looked for: the names that `complete` adds are looked for in all of them.
const PROGRAM_DIRS: [&[u8]; 6] =
    [b"bin", b"sbin", b"usr/bin", b"usr/sbin", b"usr/local/bin", b"usr/local/sbin"];

/// What one root adds to the plan.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) actions: Vec<Unnumbered>,
    pub(super) skips: Vec<Skip>,
}

pub(super) fn make(
    world: World<'_>,
    at: usize,
    chosen: &Chosen<'_>,
    trees: Vec<Unnumbered>,
) -> Made {
    let mut maker = Maker { world, ground: &world.roots[at], made: Made::default() };
    if chosen.is_empty() && trees.is_empty() {
        return maker.made;
    }
    if maker.ground.stack {
        maker.bind(chosen);
        return maker.made;
    }
    if let Some(mount) = &maker.ground.mount {
        let action = Action::Mount(mount.clone());
        maker.made.actions.push((maker.ground.root.id, action, None));
    }
    maker.replace(chosen);
    maker.relink(chosen);
    maker.complete(chosen);
    maker.made.actions.extend(trees);
    maker.made
}

struct Maker<'a> {
    world: World<'a>,
    ground: &'a Ground<'a>,
    made: Made,
}

impl<'a> Maker<'a> {
    fn push(&mut self, action: Action, content: usize) {
        let object = self.world.contents[content].object.clone();
        self.made.actions.push((self.ground.root.id, action, Some(object)));
    }

    /// Where the object is, as the container sees it.
    fn target(&self, content: usize) -> ContainerPath {
        let object = self.world.contents[content].object.as_str();
        ContainerPath(self.world.settings.mount_point.0.join(object))
    }

    /// Every name of every chosen file.
    fn names(&self, chosen: &Chosen<'_>) -> Vec<(RootPath, FileId, usize)> {
        let mut entries: Vec<(RootPath, FileId, usize)> = Vec::new();
        for &(content, holding) in chosen {
            let named = |&file: &FileId| (self.ground.inventory.file_path(file), file, content);
            entries.extend(holding.files.iter().map(named));
        }
        entries.sort();
        entries
    }

    /// Names that stay what they are: links lead to what is bound over them.
    fn bind(&mut self, chosen: &Chosen<'_>) {
        for (path, file, content) in self.names(chosen) {
            let before = state(self.ground.inventory, file, &self.world.contents[content]);
            self.push(Action::Bind { path, before }, content);
        }
    }

    /// Hard links, too, become links.
    fn replace(&mut self, chosen: &Chosen<'_>) {
        for (path, file, content) in self.names(chosen) {
            let before = state(self.ground.inventory, file, &self.world.contents[content]);
            let target = self.target(content);
            self.push(Action::Replace { path, before, target }, content);
        }
    }

    /// The applet links, where they are to lead to the store themselves.
    fn relink(&mut self, chosen: &Chosen<'_>) {
        let wanted: HashMap<FileId, usize> = chosen
            .iter()
            .filter(|(content, holding)| self.follows(*content, holding) != Applets::Chain)
            .flat_map(|(content, holding)| holding.files.iter().map(|file| (*file, *content)))
            .collect();
        if wanted.is_empty() {
            return;
        }
        for link in applets::last_links(self.ground.inventory, &wanted) {
            self.relink_one(link);
        }
    }

    fn relink_one(&mut self, link: LastLink) {
        let Some(multicall) = &self.world.contents[link.to].multicall else { return };
        if !answers(multicall, link.path.file_name()) {
            let refusal = because(SkipReason::AppletMissing, APPLET_MISSING_WORDS);
            self.made.skips.push(skip(self.ground.root.id, link.path, refusal));
            return;
        }
        let target = self.target(link.to);
        self.push(Action::Relink { path: link.path, before: link.target, target }, link.to);
    }

    /// What becomes of a program's applet links; `Auto` is decided here.
    fn follows(&self, content: usize, holding: &Holding) -> Applets {
        if self.world.contents[content].multicall.is_none() {
            return Applets::Chain;
        }
        match self.world.settings.applets {
            Applets::Auto if holding.traits.owner.is_some() => Applets::Chain,
            Applets::Auto => Applets::Rewrite,
            given => given,
        }
    }

    /// The names that the programs provide and the root lacks.
    fn complete(&mut self, chosen: &Chosen<'_>) {
        let mut taken = BTreeSet::new();
        for (content, holding) in chosen {
            if self.follows(*content, holding) != Applets::Complete {
                continue;
            }
            for path in self.lacking(*content, holding) {
                if taken.insert(path.file_name().to_vec()) {
                    let target = self.target(*content);
                    self.push(Action::Link { path, target }, *content);
                }
            }
        }
    }

    /// The missing names, beside the program itself where programs are looked for.
    fn lacking(&self, content: usize, holding: &Holding) -> Vec<RootPath> {
        let inventory = self.ground.inventory;
        let dir = holding
            .files
            .iter()
            .map(|file| inventory.file_dir(*file))
            .find(|dir| PROGRAM_DIRS.contains(&inventory.dir_path(*dir).as_bytes()));
        let (Some(dir), Some(multicall)) = (dir, &self.world.contents[content].multicall) else {
            return Vec::new();
        };
        let dirs = program_dirs(inventory);
        let lacks = |name: &&String| {
            dirs.iter().all(|dir| inventory.lookup(*dir, name.as_bytes()).is_none())
        };
        let path = |name: &String| inventory.dir_path(dir).join(name.as_bytes());
        multicall.applets.iter().filter(lacks).map(path).collect()
    }
}

const APPLET_MISSING_WORDS: &str =
    "the program does not answer to this name: the link stays, and leads to it as before";

/// The program takes the applet from a name: an applet's own, or one by which it is called
/// with the applet as first argument. Where its names are not known its links tell them.
fn answers(multicall: &Multicall, name: &[u8]) -> bool {
    let is_applet =
        |name: &str| multicall.applets.binary_search_by(|known| known.as_str().cmp(name)).is_ok();
    multicall.applets.is_empty()
        || name.starts_with(multicall.prefix.as_bytes())
        || std::str::from_utf8(name).is_ok_and(is_applet)
}

/// The directories that programs are looked for in, each once (merged `/usr`).
fn program_dirs(inventory: &Inventory) -> BTreeSet<DirId> {
    let mut resolver = Resolver::new(inventory);
    let dirs = PROGRAM_DIRS.iter().filter_map(|path| match resolver.resolve(DirId(0), path) {
        Target::Dir(dir) => Some(dir),
        _ => None,
    });
    dirs.collect()
}

pub(super) fn state(inventory: &Inventory, file: FileId, sharable: &Sharable) -> FileState {
    let meta = inventory.file(file);
    FileState {
        ino: meta.inode.ino,
        size: meta.size,
        mtime: meta.mtime,
        mode: meta.mode,
        content: sharable.content,
    }
}

/// Whether the store can be mounted at this path of a root: nothing stands there, or an
/// empty directory, and no link on the way.
pub fn mount_point_is_free(inventory: &Inventory, mount_point: &ContainerPath) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let mut at = DirId(0);
    for part in mount_point.0.as_os_str().as_bytes().split(|&byte| byte == b'/') {
        if part.is_empty() {
            continue;
        }
        match inventory.lookup(at, part) {
            Some(EntryKind::Dir(dir)) => at = dir,
            Some(_) => return false,
            None => return inventory.dir(at).complete,
        }
    }
    inventory.entries(at).len() == 0
}
