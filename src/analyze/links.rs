//! The names that lead to a program, and the names that lead nowhere.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::resolve::{LINKS_MAX, Resolver, Target};
use crate::model::{DirId, EntryKind, FileId, InodeId, Inventory, RootPath};

/// How the file name of a multi-call binary begins; its own dispatch goes by it, too.
const FAMILY_PREFIXES: [&[u8]; 5] = [b"busybox", b"dropbear", b"toybox", b"uutils", b"coreutils"];

/// The families that take the applet's name from the path of a script they interpret.
const INTERPRETERS: [&[u8]; 3] = [b"busybox", b"dropbear", b"toybox"];

/// The names of one inode in one root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The file's own name, of hard links the first in byte order.
    pub path: RootPath,
    /// Every other name that leads to it, sorted: hard links, symbolic links (also by
    /// way of others), `#!` wrappers.
    pub links: Vec<RootPath>,
}

/// What the links of one root lead to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RootLinks {
    /// The names of the inodes that were asked for.
    pub names: BTreeMap<InodeId, Names>,
    /// Symbolic links that lead to nothing, in byte order, where the link has an
    /// applet's name or its target that of a multi-call binary.
    pub dangling: Vec<RootPath>,
}

/// Finds the names of the `wanted` files' inodes, and the dangling links.
///
/// `wrappers` are the root's scripts as [`parse_wrapper`] read them, and
/// `applets` the names that a multi-call binary is known to have. In one layer of
/// a stacked root a link may lead to another layer: its `dangling` says nothing.
///
/// Time is linear in the names of the root and in the length of its link targets.
pub fn links_of(
    inventory: &Inventory,
    wanted: &HashSet<FileId>,
    wrappers: &[(FileId, Vec<u8>)],
    applets: &HashSet<&[u8]>,
) -> RootLinks {
    let mut resolver = Resolver::new(inventory);
    let ends = Ends::new(inventory, wanted, wrappers, &mut resolver);
    let mut found = RootLinks::default();
    let mut own: HashMap<InodeId, Vec<RootPath>> = HashMap::new();
    let mut led: HashMap<InodeId, Vec<RootPath>> = HashMap::new();
    let mut names_of_files = HashSet::new();
    for (file, meta) in inventory.files() {
        let Some(end) = ends.0.get(&meta.inode) else { continue };
        let of = if *end == meta.inode { &mut own } else { &mut led };
        of.entry(*end).or_default().push(inventory.file_path(file));
        names_of_files.insert(inventory.file_name(file));
    }
    let leading = leading(inventory, names_of_files);
    for (dir, name, target) in symlinks(inventory) {
        if !leading.contains(last(target)) && !is_applet_link(name, target, applets) {
            continue;
        }
        let path = || inventory.dir_path(dir).join(name);
        match resolver.follow(dir, name, target) {
            Target::File(file) => {
                if let Some(end) = ends.0.get(&inventory.file(file).inode) {
                    led.entry(*end).or_default().push(path());
                }
            }
            Target::Missing | Target::Loop if is_applet_link(name, target, applets) => {
                found.dangling.push(path());
            }
            _ => {}
        }
    }
    found.dangling.sort();
    found.names = own
        .into_iter()
        .map(|(inode, paths)| (inode, names(paths, led.remove(&inode).unwrap_or_default())))
        .collect();
    found
}

/// `#!/bin/busybox`, and nothing else: the interpreter's path, where `script` is the
/// whole of a wrapper that stands for the applet of its own name.
///
/// A script with an argument or a second line is a script.
pub fn parse_wrapper(script: &[u8]) -> Option<&[u8]> {
    let line = script.strip_prefix(b"#!")?;
    let path = line.strip_suffix(b"\n").unwrap_or(line).trim_ascii();
    let plain = path.starts_with(b"/") && !path.iter().any(|byte| b" \t\r\n\0".contains(byte));
    let name = path.rsplit(|&byte| byte == b'/').next()?;
    (plain && INTERPRETERS.iter().any(|family| name.starts_with(family))).then_some(path)
}

/// Which wanted inode each inode stands for: itself, or a wrapper for its interpreter. They are
/// few, and looked for among all files of a root.
struct Ends(BTreeMap<InodeId, InodeId>);

impl Ends {
    fn new<'a>(
        inventory: &'a Inventory,
        wanted: &HashSet<FileId>,
        wrappers: &'a [(FileId, Vec<u8>)],
        resolver: &mut Resolver<'a>,
    ) -> Self {
        let inode = |file| inventory.file(file).inode;
        let mut ends: BTreeMap<_, _> =
            wanted.iter().map(|&file| (inode(file), inode(file))).collect();
        for (script, interpreter) in wrappers {
            if let Target::File(file) = resolver.resolve(DirId(0), interpreter)
                && wanted_inode(&ends, inode(file))
            {
                ends.entry(inode(*script)).or_insert(inode(file));
            }
        }
        Self(ends)
    }
}

fn wanted_inode(ends: &BTreeMap<InodeId, InodeId>, inode: InodeId) -> bool {
    ends.get(&inode) == Some(&inode)
}

fn symlinks(inventory: &Inventory) -> impl Iterator<Item = (DirId, &[u8], &[u8])> {
    inventory.dir_ids().flat_map(|dir| {
        inventory.entries(dir).filter_map(move |(name, kind)| match kind {
            EntryKind::Symlink(target) => Some((dir, name, target)),
            _ => None,
        })
    })
}

/// The names that a path to one of these files can end in: theirs, and those of links to such names, by
/// as many links as Linux follows. Most links of a root lead elsewhere, which is told without
/// following them.
fn leading<'a>(inventory: &'a Inventory, files: HashSet<&'a [u8]>) -> HashSet<&'a [u8]> {
    let mut names = files;
    for _ in 0..LINKS_MAX {
        let before = names.len();
        for (_, name, target) in symlinks(inventory) {
            if names.contains(last(target)) {
                names.insert(name);
            }
        }
        if names.len() == before {
            break;
        }
    }
    names
}

/// The last component of a path; empty where it can only be that of a directory.
fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

fn names(mut own: Vec<RootPath>, led: Vec<RootPath>) -> Names {
    own.sort();
    let path = own.remove(0);
    let mut links = own;
    links.extend(led);
    links.sort();
    Names { path, links }
}

fn is_applet_link(name: &[u8], target: &[u8], applets: &HashSet<&[u8]>) -> bool {
    applets.contains(name) || FAMILY_PREFIXES.iter().any(|family| last(target).starts_with(family))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashSet;

    use super::{RootLinks, links_of, parse_wrapper};
    use crate::analyze::world::World;
    use crate::model::{FileId, InodeId, Inventory, RootPath};

    /// The links of the files with these inode numbers.
    fn links(world: &World, inodes: &[u64], wrappers: &[(&str, &str)]) -> RootLinks {
        let inventory = world.inventory();
        let wanted = inventory.files().filter(|(_, meta)| inodes.contains(&meta.inode.ino));
        let wanted: HashSet<FileId> = wanted.map(|(file, _)| file).collect();
        let wrappers: Vec<_> = wrappers
            .iter()
            .map(|(path, interpreter)| (named(&inventory, path), interpreter.as_bytes().to_vec()))
            .collect();
        let applets = ["ls", "cat", "vi"].map(str::as_bytes);
        links_of(&inventory, &wanted, &wrappers, &HashSet::from(applets))
    }

    fn named(inventory: &Inventory, path: &str) -> FileId {
        let found = inventory
            .files()
            .find(|(file, _)| inventory.file_path(*file).as_bytes() == path.as_bytes());
        found.unwrap().0
    }

    fn text(paths: &[RootPath]) -> Vec<String> {
        paths.iter().map(|path| String::from_utf8_lossy(path.as_bytes()).into_owned()).collect()
    }

    fn of(found: &RootLinks, ino: u64) -> (String, Vec<String>) {
        let names = &found.names[&InodeId { dev: 1, ino }];
        (text(std::slice::from_ref(&names.path)).remove(0), text(&names.links))
    }

    #[test]
    fn absolute_relative_and_chained_links() {
        let world = World::default()
            .file("usr/bin/busybox", 1)
            .file("usr/bin/bash", 2)
            .link("bin", "usr/bin")
            .link("usr/bin/sh", "bash")
            .link("usr/bin/ls", "/bin/busybox")
            .link("sbin/init", "../bin/busybox")
            .link("usr/bin/view", "vi")
            .link("usr/bin/vi", "/etc/alternatives/vi")
            .link("etc/alternatives/vi", "/bin/busybox");
        let expected =
            ["etc/alternatives/vi", "sbin/init", "usr/bin/ls", "usr/bin/vi", "usr/bin/view"];
        let found = links(&world, &[1], &[]);
        assert_eq!(of(&found, 1), ("usr/bin/busybox".into(), expected.map(Into::into).into()));
        assert_eq!(found.names.len(), 1);
        assert_eq!(found.dangling, []);
    }

    /// In whatever order they stand, and no more than Linux follows.
    #[test]
    fn chains_of_links_lead_as_far_as_they_are_followed() {
        for names in [|at: usize| format!("{at:02}"), |at| format!("{:02}", 99 - at)] {
            let mut world = World::default().file("bin/busybox", 1);
            world = world.link(&format!("bin/{}", names(1)), "busybox");
            for at in 2..=45 {
                let link = format!("bin/{}", names(at));
                world = world.link(&link, &format!("../bin/./{}", names(at - 1)));
            }
            let (_, links) = of(&links(&world, &[1], &[]), 1);
            assert_eq!(links.len(), 40);
            assert!(links.contains(&format!("bin/{}", names(40))));
        }
    }

    #[test]
    fn hard_links_are_names_of_one_inode() {
        let mut world = World::default();
        for at in 0..400 {
            world = world.file(&format!("bin/{at:03}"), 7);
        }
        let found = links(&world.link("bin/x", "399"), &[7], &[]);
        let (path, names) = of(&found, 7);
        assert_eq!((path.as_str(), names.len()), ("bin/000", 400));
        assert_eq!((names[0].as_str(), names[399].as_str()), ("bin/001", "bin/x"));
    }

    #[test]
    fn wrappers_lead_to_their_interpreter() {
        let world = World::default()
            .file("bin/busybox", 1)
            .file("bin/ls", 2)
            .file("bin/dir", 2)
            .file("bin/other", 3)
            .link("bin/ll", "ls")
            .link("usr/bin/busybox", "../../bin/busybox");
        let wrappers = [("bin/ls", "/usr/bin/busybox"), ("bin/other", "/bin/toybox")];
        let found = links(&world, &[1], &wrappers);
        let expected = ["bin/dir", "bin/ll", "bin/ls", "usr/bin/busybox"];
        assert_eq!(of(&found, 1), ("bin/busybox".into(), expected.map(Into::into).into()));
    }

    #[test]
    fn dangling_links_of_applets_are_told() {
        let world = World::default()
            .file("bin/busybox", 1)
            .link("bin/cat", "gone")
            .link("bin/mine", "/cbin/busybox-x86_64-1f3a")
            .link("bin/vi", "/etc/alternatives/vi")
            .link("bin/ls", "busybox")
            .link("etc/mtab", "../proc/self/mounts")
            .link("etc/ls", "/dev/null")
            .link("lib/libx.so", "libx.so.1");
        let found = links(&world, &[1], &[]);
        assert_eq!(text(&found.dangling), ["bin/cat", "bin/mine", "bin/vi"]);
    }

    #[test]
    fn a_wrapper_is_one_line_and_nothing_else() {
        for (script, expected) in [
            ("#!/bin/busybox\n", Some("/bin/busybox")),
            ("#! /usr/bin/busybox.nosuid", Some("/usr/bin/busybox.nosuid")),
            ("#!/bin/toybox \n", Some("/bin/toybox")),
            ("#!/bin/busybox sh\n", None),
            ("#!/bin/busybox\necho\n", None),
            ("#!/bin/sh\n", None),
            ("#!busybox\n", None),
            ("#!\n", None),
            ("", None),
        ] {
            assert_eq!(parse_wrapper(script.as_bytes()), expected.map(str::as_bytes), "{script}");
        }
    }
}
