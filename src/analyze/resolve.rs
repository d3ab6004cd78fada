//! Follows paths inside a root as a process with that `/` would: absolute links
//! count from the root, and `..` of the root is the root.

use std::collections::HashMap;

use crate::model::{DirId, EntryKind, FileId, Inventory, SpecialKind};

const ROOT: DirId = DirId(0);

/// Links that Linux follows in one path: `MAXSYMLINKS`, path_resolution(7).
pub(super) const LINKS_MAX: u32 = 40;

/// Directories that are filled when the container runs: what lies in them then is not known.
const FILLED_LATER: [&[u8]; 4] = [b"dev", b"proc", b"run", b"sys"];

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A directory.
    Dir(DirId),
    /// A regular file.
    File(FileId),
    /// A device, a FIFO, a socket.
    Special,
    /// Nothing.
    Missing,
    /// Into a loop of links, or through more than 40.
    Loop,
    /// Where nobody has looked: a directory that was not read to its end, or one
    /// that the running container fills (`/proc`).
    Unknown,
}

/// A target, and the links on the way to it.
#[derive(Debug, Clone, Copy)]
struct Step {
    target: Target,
    links: u32,
    /// Given up under too many links that lead here: another start may get further.
    cut: bool,
}

impl Step {
    fn to(target: Target, links: u32) -> Self {
        let target = if links > LINKS_MAX { Target::Loop } else { target };
        Self { target, links, cut: false }
    }
}

/// Resolves the paths of one root. What a link leads to does not depend on who
/// asks, so that each is followed once: all links of a root cost time linear in
/// the length of their targets.
#[derive(Debug)]
pub struct Resolver<'a> {
    inventory: &'a Inventory,
    known: HashMap<(DirId, &'a [u8]), Step>,
}

impl<'a> Resolver<'a> {
    /// A resolver for the root.
    pub fn new(inventory: &'a Inventory) -> Self {
        Self { inventory, known: HashMap::new() }
    }

    /// What a path leads to; a relative one counts from `from`.
    pub fn resolve(&mut self, from: DirId, path: &'a [u8]) -> Target {
        self.walk(from, path, 0).target
    }

    /// What the symbolic link `name` in `dir`, whose target's bytes are `target`, leads to.
    pub fn follow(&mut self, dir: DirId, name: &'a [u8], target: &'a [u8]) -> Target {
        self.link(dir, name, target, 0).target
    }

    fn link(&mut self, dir: DirId, name: &'a [u8], target: &'a [u8], depth: u32) -> Step {
        if let Some(&known) = self.known.get(&(dir, name)) {
            return known;
        }
        if depth == LINKS_MAX {
            return Step { target: Target::Loop, links: 0, cut: true };
        }
        let beyond = self.walk(dir, target, depth + 1);
        let step = Step::to(beyond.target, beyond.links + 1);
        if beyond.cut && depth > 0 {
            return beyond;
        }
        self.known.insert((dir, name), step);
        step
    }

    fn walk(&mut self, from: DirId, path: &'a [u8], depth: u32) -> Step {
        let mut at = if path.starts_with(b"/") { ROOT } else { from };
        let mut links = 0;
        let mut rest = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).peekable();
        while let Some(part) = rest.next() {
            let step = self.enter(at, part, depth);
            links += step.links;
            if step.cut {
                return step;
            }
            let target = Step::to(step.target, links).target;
            match target {
                Target::Dir(dir) => at = dir,
                // What is no directory has nothing below it.
                Target::File(_) | Target::Special
                    if rest.peek().is_some() || path.ends_with(b"/") =>
                {
                    return Step::to(Target::Missing, links);
                }
                end => return Step::to(end, links),
            }
        }
        Step::to(Target::Dir(at), links)
    }

    /// One component of a path.
    fn enter(&mut self, at: DirId, part: &'a [u8], depth: u32) -> Step {
        let target = match part {
            b"." => Target::Dir(at),
            b".." => Target::Dir(self.inventory.dir(at).parent),
            _ => match self.inventory.lookup(at, part) {
                Some(EntryKind::Dir(dir)) => Target::Dir(dir),
                Some(EntryKind::File(file)) => Target::File(file),
                Some(EntryKind::Symlink(target)) => return self.link(at, part, target, depth),
                Some(EntryKind::Special(SpecialKind::Unreadable)) => Target::Unknown,
                Some(EntryKind::Special(SpecialKind::Whiteout)) => Target::Missing,
                Some(EntryKind::Special(_)) => Target::Special,
                None => self.absent(at, part),
            },
        };
        Step::to(target, 0)
    }

    fn absent(&self, dir: DirId, name: &[u8]) -> Target {
        let mut top = name;
        let mut at = dir;
        while at != ROOT {
            top = self.inventory.dir_name(at);
            at = self.inventory.dir(at).parent;
        }
        let seen = self.inventory.dir(dir).complete && !FILLED_LATER.contains(&top);
        if seen { Target::Missing } else { Target::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::{Resolver, Target};
    use crate::analyze::world::World;
    use crate::model::{DirId, SpecialKind};

    fn target(world: &World, path: &str) -> Target {
        let inventory = world.inventory();
        Resolver::new(&inventory).resolve(DirId(0), path.as_bytes())
    }

    fn file(world: &World, path: &str) -> String {
        let inventory = world.inventory();
        match Resolver::new(&inventory).resolve(DirId(0), path.as_bytes()) {
            Target::File(file) => {
                String::from_utf8_lossy(inventory.file_path(file).as_bytes()).into_owned()
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn links_stay_in_the_root() {
        let world = World::default()
            .file("usr/bin/busybox", 1)
            .link("bin", "usr/bin")
            .link("sbin", "/usr/bin")
            .link("usr/bin/ls", "busybox")
            .link("usr/bin/cat", "/bin/busybox")
            .link("usr/bin/up", "../../../../../bin/./busybox")
            .link("usr/bin/view", "vi")
            .link("usr/bin/vi", "/etc/alternatives/vi")
            .link("etc/alternatives/vi", "/sbin/busybox");
        for path in ["bin/ls", "/sbin/cat", "bin/up", "//bin//view", "../bin/vi", "bin/../bin/ls"] {
            assert_eq!(file(&world, path), "usr/bin/busybox", "{path}");
        }
        assert_eq!(target(&world, "/"), Target::Dir(DirId(0)));
        assert_eq!(target(&world, "../.."), Target::Dir(DirId(0)));
        for path in ["bin/ls/", "bin/ls/.", "bin/busybox/..", "bin/nothing", "nothing/ls"] {
            assert_eq!(target(&world, path), Target::Missing, "{path}");
        }
    }

    #[test]
    fn forty_links_are_followed_and_no_more() {
        let mut world = World::default().file("d/0", 1);
        for at in 1..=90 {
            world = world.link(&format!("d/{at}"), &format!("{}", at - 1));
        }
        for (at, expected) in [(1, "d/0"), (40, "d/0"), (41, "Loop"), (90, "Loop")] {
            assert_eq!(file(&world, &format!("d/{at}")), expected);
        }
        // Asked in either order, by one resolver.
        let inventory = world.inventory();
        for order in [[90, 41, 40, 1], [1, 40, 41, 90]] {
            let paths = order.map(|at| format!("d/{at}"));
            let mut resolver = Resolver::new(&inventory);
            for (at, path) in order.iter().zip(&paths) {
                let reached =
                    matches!(resolver.resolve(DirId(0), path.as_bytes()), Target::File(_));
                assert_eq!(reached, *at <= 40, "{path}");
            }
        }
    }

    #[test]
    fn loops_end() {
        let world = World::default().link("a", "b/b/b").link("b", "a/a/a").link("c", "c");
        for path in ["a", "b", "c", "a/x"] {
            assert_eq!(target(&world, path), Target::Loop, "{path}");
        }
    }

    #[test]
    fn many_links_on_one_way_are_counted_together() {
        let mut world = World::default().dir("d").link("x0", "d");
        for at in 1..30 {
            let before = format!("x{}/../x{}", at - 1, at - 1);
            world = world.link(&format!("x{at}"), &before);
        }
        assert!(matches!(target(&world, "x3"), Target::Dir(_)));
        assert_eq!(target(&world, "x5"), Target::Loop);
        assert_eq!(target(&world, "x29"), Target::Loop);
    }

    #[test]
    fn what_was_not_seen_is_not_called_missing() {
        let world = World::default()
            .dir("proc")
            .unread("mnt")
            .special("gone", SpecialKind::Whiteout)
            .special("pipe", SpecialKind::Fifo)
            .link("mtab", "/proc/self/mounts");
        assert_eq!(target(&world, "mtab"), Target::Unknown);
        assert_eq!(target(&world, "/sys/kernel"), Target::Unknown);
        assert_eq!(target(&world, "mnt/x"), Target::Unknown);
        assert_eq!(target(&world, "gone"), Target::Missing);
        assert_eq!(target(&world, "pipe"), Target::Special);
    }
}
