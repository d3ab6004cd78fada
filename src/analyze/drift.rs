//! Whether a root's links still lead where a run put them.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::ffi::OsStrExt;

use crate::model::{
    Bytes, Check, ContainerPath, ContentId, DirId, EntryKind, HostPath, Inventory, ObjectName,
    RootPath, RunId, Twin,
};

/// A link that a run made, and that nobody was asked to take back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The run.
    pub run: RunId,
    /// The entry.
    pub path: RootPath,
    /// The link's target, exactly.
    pub target: Vec<u8>,
    /// It stands where the program itself stood: other links may lead to it.
    pub replaced_file: bool,
}

/// A name that a run gave a file which other roots have names of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The run.
    pub run: RunId,
    /// The entry.
    pub path: RootPath,
    /// The file.
    pub twin: Twin,
    /// How long it was.
    pub size: Bytes,
    /// What it held.
    pub content: ContentId,
}

/// Looks at one root: every name that a run gave a shared file. Of each file that still has one, the
/// first is returned.
pub fn names<'a>(
    root: &HostPath,
    inventory: &Inventory,
    named: &'a [Named],
) -> (Vec<Check>, Vec<&'a Named>) {
    let (mut checks, mut first, mut good) = (Vec::new(), BTreeMap::new(), 0u64);
    for name in named {
        let run = name.run.0;
        let found = match find(inventory, &name.path) {
            Some(EntryKind::File(file)) if inventory.file(file).inode.ino == name.twin.ino => {
                good += 1;
                first.entry(name.twin.ino).or_insert(name);
                continue;
            }
            Some(EntryKind::File(_)) => "another file stands there, as a package upgrade leaves it",
            Some(_) => "no file stands there any more",
            None => "the name is gone",
        };
        let detail =
            format!("{found}: it is no name of the file of run {run} any more: dedupe again");
        checks.push(Check::bad("drift", detail).in_root(root).at(name.path.as_bytes()));
    }
    if good > 0 {
        let detail = format!("{good} names lead to files that other roots have names of");
        checks.push(Check::good("hardlinks", detail).in_root(root));
    }
    (checks, first.into_values().collect())
}

/// Looks at one root: every link that a run made, and every other that leads into the store.
pub fn links(
    root: &HostPath,
    inventory: &Inventory,
    made: &[Made],
    objects: &HashSet<ObjectName>,
    mount_point: &ContainerPath,
) -> Vec<Check> {
    let mut checks: Vec<Check> =
        made.iter().filter_map(|made| drifted(root, inventory, made)).collect();
    let into: Vec<(RootPath, Option<ObjectName>)> = into_store(inventory, mount_point);
    let (good, bad): (Vec<_>, Vec<_>) = into
        .into_iter()
        .partition(|(_, name)| name.as_ref().is_some_and(|name| objects.contains(name)));
    checks.extend(bad.iter().map(|(path, name)| {
        let what = match name {
            Some(name) => format!("it leads to {name}, which is not in the store"),
            None => "it leads to no object of the store".to_owned(),
        };
        let detail =
            format!("{what}: nothing can be started by this name; undo the run, or dedupe again");
        Check::bad("link", detail).in_root(root).at(path.as_bytes())
    }));
    if !good.is_empty() {
        let detail = match good.len() {
            1 => "1 link leads to an object of the store".to_owned(),
            many => format!("{many} links lead to objects of the store"),
        };
        checks.push(Check::good("links", detail).in_root(root));
    }
    checks
}

fn drifted(root: &HostPath, inventory: &Inventory, made: &Made) -> Option<Check> {
    let run = made.run.0;
    let split = match made.replaced_file {
        true => "; links to the store beside it still start the old program",
        false => "",
    };
    let found = match find(inventory, &made.path) {
        Some(EntryKind::Symlink(target)) if target == made.target => return None,
        Some(EntryKind::Symlink(_)) => "a link to something else stands there",
        Some(EntryKind::File(_)) => "a file stands there, as a package upgrade leaves it",
        Some(EntryKind::Dir(_)) => "a directory stands there",
        Some(EntryKind::Special(_)) => "a special file stands there",
        None => "the name is gone",
    };
    let detail = format!("{found}, not the link of run {run}{split}: dedupe again");
    Some(Check::bad("drift", detail).in_root(root).at(made.path.as_bytes()))
}

fn find<'a>(inventory: &'a Inventory, path: &RootPath) -> Option<EntryKind<'a>> {
    let mut dir = DirId(0);
    let mut names = path.as_bytes().split(|&byte| byte == b'/').peekable();
    while let Some(name) = names.next() {
        let found = inventory.lookup(dir, name)?;
        match found {
            EntryKind::Dir(below) if names.peek().is_some() => dir = below,
            found if names.peek().is_none() => return Some(found),
            _ => return None,
        }
    }
    None
}

/// The links that lead below the mount point, and the objects that they name.
fn into_store(
    inventory: &Inventory,
    mount_point: &ContainerPath,
) -> Vec<(RootPath, Option<ObjectName>)> {
    let mut prefix = mount_point.0.as_os_str().as_bytes().to_vec();
    prefix.push(b'/');
    let mut found = Vec::new();
    for dir in inventory.dir_ids() {
        for (name, kind) in inventory.entries(dir) {
            let EntryKind::Symlink(target) = kind else { continue };
            let Some(object) = target.strip_prefix(prefix.as_slice()) else { continue };
            let object = std::str::from_utf8(object).ok().and_then(ObjectName::parse);
            found.push((inventory.dir_path(dir).join(name), object));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ContentId, Listed};

    fn object() -> ObjectName {
        ObjectName::new("busybox", "x86_64", ContentId([7; 32]))
    }

    fn look(
        entries: &[(&str, Listed<'_>)],
        stored: bool,
    ) -> Vec<(&'static str, Option<Vec<u8>>, bool)> {
        let target = format!("/cbin/{}", object());
        let made = Made {
            run: RunId(1),
            path: RootPath::new("bin/busybox"),
            target: target.into_bytes(),
            replaced_file: true,
        };
        let objects = HashSet::from_iter(stored.then(object));
        let checks = links(
            &HostPath::from("/home/web"),
            &Inventory::sample(entries),
            &[made],
            &objects,
            &ContainerPath("/cbin".into()),
        );
        checks.into_iter().map(|check| (check.what, check.path, check.ok)).collect()
    }

    fn link(target: &str) -> Listed<'_> {
        Listed::Symlink(target.as_bytes())
    }

    #[test]
    fn what_stands_as_it_was_made_is_counted() {
        let target = format!("/cbin/{}", object());
        let entries = [("bin/busybox", link(&target)), ("bin/sh", link("busybox"))];
        assert_eq!(look(&entries, true), [("links", None, true)]);
    }

    #[test]
    fn a_file_in_its_place_is_drift() {
        let entries = [("bin/busybox", Listed::sample_file(1, 10))];
        assert_eq!(look(&entries, true), [("drift", Some(b"bin/busybox".to_vec()), false)]);
        assert_eq!(look(&[("bin/x", link("y"))], true)[0].0, "drift");
        assert_eq!(look(&[("bin", link("usr/bin"))], true)[0].0, "drift");
    }

    #[test]
    fn a_link_to_nothing_is_named() {
        let target = format!("/cbin/{}", object());
        let entries = [("bin/busybox", link(&target)), ("bin/ls", link("/cbin/../etc/shadow"))];
        let found = look(&entries, false);
        let paths: Vec<_> = found.iter().map(|(what, path, _)| (*what, path.clone())).collect();
        let at = |path: &str| ("link", Some(path.as_bytes().to_vec()));
        assert_eq!(paths, [at("bin/busybox"), at("bin/ls")]);
    }
}
