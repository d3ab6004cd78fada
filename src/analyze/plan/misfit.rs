//! Why a directory stays a root's own: whoever reads it must find in the store what he found, and
//! whoever writes it must not be one that is kept from it.

use super::Refusal;
use super::eligible::because;
use crate::model::{
    DirId, EntryKind, FileTraits, Inventory, RootPath, SkipReason, StoreFormat, TREE_DEPTH,
    TREE_NAMES,
};

/// To share less is not worth a link.
const SMALLEST: u64 = 64 * 1024;

/// What a directory holds that the store's could not.
pub fn misfit(inventory: &Inventory, dir: DirId) -> Option<Refusal> {
    let mut dirs = vec![(dir, 0, RootPath::default())];
    let (mut names, mut allocated) = (0, 0);
    while let Some((at, depth, path)) = dirs.pop() {
        if let Some(why) = directory(inventory, at, depth) {
            return Some(of(&path, &why));
        }
        for (name, kind) in inventory.entries(at) {
            let why = match kind {
                EntryKind::Dir(below) => {
                    dirs.push((below, depth + 1, path.join(name)));
                    None
                }
                EntryKind::File(file) => {
                    let meta = inventory.file(file);
                    allocated += meta.allocated.0 / u64::from(meta.nlink.max(1));
                    (meta.mode & 0o111 != 0).then_some(PROGRAM).or_else(|| mode(meta.mode, READ))
                }
                EntryKind::Symlink(target) => escapes(depth, target).then_some(ESCAPES),
                EntryKind::Special(kind) => {
                    let why = format!("is {}, which the store's could not be", kind.noun());
                    return Some(of(&path.join(name), &why));
                }
            };
            if let Some(why) = why {
                return Some(of(&path.join(name), why));
            }
            names += 1;
            if names > TREE_NAMES {
                return Some(because(SkipReason::Tree, many()));
            }
        }
    }
    (allocated < SMALLEST).then(|| because(SkipReason::Tree, SMALL))
}

fn directory(inventory: &Inventory, at: DirId, depth: usize) -> Option<String> {
    let dir = inventory.dir(at);
    if depth > TREE_DEPTH {
        return Some(format!("lies below more than {TREE_DEPTH} directories in one another"));
    }
    if dir.mount_point {
        return Some(MOUNT_POINT.to_owned());
    }
    if !dir.complete {
        return Some(UNREAD.to_owned());
    }
    mode(dir.meta.mode, READ_AND_SEARCH).map(str::to_owned)
}

/// What cannot be compared with another directory: no copy of it would be the same.
pub fn is_beyond_compare(inventory: &Inventory, dir: DirId) -> bool {
    let mut dirs = vec![dir];
    while let Some(at) = dirs.pop() {
        if !inventory.dir(at).complete {
            return true;
        }
        for (_, kind) in inventory.entries(at) {
            match kind {
                EntryKind::Dir(below) => dirs.push(below),
                EntryKind::Special(_) => return true,
                EntryKind::File(_) | EntryKind::Symlink(_) => {}
            }
        }
    }
    false
}

/// What something in a directory would lose with its inode, or forbids. All of it has to belong to
/// `owner`, as all of the store's does to one.
pub fn odd(below: &[(RootPath, FileTraits)], owner: u32, format: StoreFormat) -> Option<Refusal> {
    below.iter().find_map(|(path, traits)| {
        let why = if let Some(cause) = &traits.unreadable {
            format!("could not be looked at: {cause}")
        } else if traits.immutable {
            "is immutable: chattr -i would allow the change".to_owned()
        } else if traits.append_only {
            "is append-only: chattr -a would allow the change".to_owned()
        } else if traits.casefold {
            "finds names in upper and lower case, which the store's would not".to_owned()
        } else if traits.capabilities {
            "has file capabilities, which the store's would not have".to_owned()
        } else if traits.xattrs == [b"security.selinux"] {
            match format {
                StoreFormat::Dir => LABEL.to_owned(),
                StoreFormat::Erofs => IMAGE_LABEL.to_owned(),
            }
        } else if !traits.xattrs.is_empty() {
            let names = traits.xattrs.iter().map(|name| String::from_utf8_lossy(name));
            let names = names.collect::<Vec<_>>().join(", ");
            format!("has extended attributes, which the store's would not have: {names}")
        } else if traits.user.0 != owner {
            let user = traits.user.0;
            format!("belongs to user {user}, and the root to user {owner}: the store has one owner")
        } else {
            return None;
        };
        Some(of(path, &why))
    })
}

/// Of something in the directory, or of the directory itself.
fn of(path: &RootPath, why: &str) -> Refusal {
    let explanation = match path.as_bytes() {
        b"" => format!("it {why}"),
        _ => format!("{:?} in it {why}", path.as_path()),
    };
    because(SkipReason::Tree, explanation)
}

const READ: u32 = 0o444;
const READ_AND_SEARCH: u32 = 0o555;

fn mode(mode: u32, wanted: u32) -> Option<&'static str> {
    match mode {
        _ if mode & 0o7000 != 0 => Some(SPECIAL_BITS),
        _ if mode & 0o022 != 0 => Some(WRITABLE),
        _ if mode & wanted != wanted => Some(CLOSED),
        _ => None,
    }
}

/// A relative link that leads out of the tree leads elsewhere when the tree lies elsewhere.
fn escapes(depth: usize, target: &[u8]) -> bool {
    let mut depth = depth;
    if target.starts_with(b"/") {
        return false;
    }
    for part in target.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

fn many() -> String {
    format!(
        "it holds more than {TREE_NAMES} names, each of which would be journaled, and held open \
         meanwhile; --method reflink shares its blocks"
    )
}

const PROGRAM: &str = "may be executed: programs are shared one by one";
const MOUNT_POINT: &str = "has another file system mounted on it";
const UNREAD: &str = "could not be read whole: the notices say why";
const SPECIAL_BITS: &str = "has a set-id or sticky bit, which the store's would not have";
const WRITABLE: &str = "may be written by others than its owner, and the store is read-only";
const CLOSED: &str = "may not be read by everybody: in the store everybody could";
const ESCAPES: &str =
    "is a relative link that leads out of it: from the store it would lead elsewhere";
const LABEL: &str = "has a security label that is not the store's, so that other rules would hold: \
     chcon --reference=DIRECTORY STORE gives the store, and objects that come, the directory's";
const IMAGE_LABEL: &str = "has a security label, and what is in an EROFS store has none: \
     --store-format dir takes it where the store has the same label";
const SMALL: &str = "it takes less than 64 KiB: to share it saves nothing worth a link";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Bytes, Listed, SpecialKind};

    fn of(entries: &[(&str, Listed<'_>)]) -> Option<String> {
        let inventory = Inventory::sample(entries);
        said(&inventory)
    }

    fn said(inventory: &Inventory) -> Option<String> {
        let dir = crate::analyze::trees::dir_at(inventory, b"t")?;
        Some(misfit(inventory, dir).map(|why| why.explanation).unwrap_or_default())
    }

    fn file(mode: u32, allocated: u64) -> Listed<'static> {
        let Listed::File(mut meta) = Listed::sample_file(1, allocated) else { unreachable!() };
        (meta.mode, meta.allocated) = (mode, Bytes(allocated));
        Listed::File(meta)
    }

    fn large() -> (&'static str, Listed<'static>) {
        ("t/f", file(0o100_644, SMALLEST))
    }

    #[test]
    fn what_everybody_reads_and_nobody_writes_may_be_shared() {
        let link = Listed::Symlink(b"a/../b");
        assert_eq!(of(&[large(), ("t/l", link)]).as_deref(), Some(""));
    }

    #[test]
    fn what_would_be_lost_is_refused_by_its_name() {
        let with = |mode| vec![("t/f", file(mode, SMALLEST))];
        let link = Listed::Symlink(b"../../x");
        let fifo = Listed::Special(SpecialKind::Fifo);
        let cases = [
            (with(0o100_755), "\"f\" in it may be executed"),
            (with(0o100_640), "\"f\" in it may not be read by everybody"),
            (with(0o100_664), "\"f\" in it may be written by others"),
            (with(0o104_644), "\"f\" in it has a set-id or sticky bit"),
            (vec![large(), ("t/d/l", link)], "\"d/l\" in it is a relative link that leads out"),
            (vec![large(), ("t/d/p", fifo)], "\"d/p\" in it is a FIFO"),
            (vec![("t/f", file(0o100_644, SMALLEST - 1))], "it takes less than 64 KiB"),
        ];
        for (entries, expected) in cases {
            let said = of(&entries).unwrap_or_default();
            assert!(said.starts_with(expected), "{said}");
        }
    }

    #[test]
    fn what_is_not_looked_into_is_said() {
        let inventory = Inventory::sample(&[large(), ("t/d/e/f", file(0o100_644, 1))]);
        let dir = |path: &[u8]| crate::analyze::trees::dir_at(&inventory, path);
        let (Some(top), Some(below)) = (dir(b"t"), dir(b"t/d/e")) else { unreachable!() };
        assert!(!is_beyond_compare(&inventory, top));
        let mut mounted = inventory.clone();
        mounted.mark_incomplete(below);
        assert!(is_beyond_compare(&mounted, top));
        assert_eq!(said(&mounted).as_deref(), Some(&*format!("\"d/e\" in it {UNREAD}")));
        mounted.mark_mount_point(below);
        assert_eq!(said(&mounted).as_deref(), Some(&*format!("\"d/e\" in it {MOUNT_POINT}")));
    }

    #[test]
    fn the_limits_are_those_of_the_journal() {
        let deep = |depth: usize| format!("t/{}f", "d/".repeat(depth));
        let (most, more) = (deep(TREE_DEPTH), deep(TREE_DEPTH + 1));
        assert_eq!(of(&[(&most, file(0o100_644, SMALLEST))]).as_deref(), Some(""));
        let said = of(&[(&more, file(0o100_644, SMALLEST))]).unwrap_or_default();
        assert!(said.contains("lies below more than 64 directories"), "{said}");
        let many = |names: usize| {
            let mut inventory = Inventory::new();
            let below = inventory.taken(DirId(0), &[("t", Listed::Dir)].into_iter().collect());
            let name = |at: usize| (at.to_string(), file(0o100_644, 4096));
            inventory.taken(below[0], &(0..names).map(name).collect());
            super::misfit(&inventory, below[0]).map(|why| why.explanation)
        };
        assert_eq!(many(TREE_NAMES), None);
        assert!(many(TREE_NAMES + 1).is_some_and(|said| said.contains("more than 65536 names")));
    }

    #[test]
    fn what_is_lost_with_an_inode_is_refused() {
        let plain = FileTraits { user: (7, 7), ..FileTraits::default() };
        let with = |change: fn(&mut FileTraits)| {
            let mut changed = plain.clone();
            change(&mut changed);
            let below = [(RootPath::default(), plain.clone()), (RootPath::new("d/x"), changed)];
            odd(&below, 7, StoreFormat::Dir).map(|why| why.explanation).unwrap_or_default()
        };
        assert_eq!(with(|_| ()), "");
        let cases: [(fn(&mut FileTraits), _); 8] = [
            (|it| it.unreadable = Some("why".to_owned()), "could not be looked at: why"),
            (|it| it.immutable = true, "is immutable"),
            (|it| it.casefold = true, "finds names in upper and lower case"),
            (|it| it.append_only = true, "is append-only"),
            (|it| it.capabilities = true, "has file capabilities"),
            (|it| it.xattrs = vec![b"user.a".to_vec()], "has extended attributes"),
            (|it| it.xattrs = vec![b"security.selinux".to_vec()], "has a security label"),
            (|it| it.user = (0, 7), "belongs to user 0, and the root to user 7"),
        ];
        for (change, expected) in cases {
            let said = with(change);
            assert!(said.starts_with(&format!("\"d/x\" in it {expected}")), "{said}");
        }
        assert!(odd(&[(RootPath::default(), plain)], 0, StoreFormat::Dir).is_some());
    }

    #[test]
    fn a_link_that_stays_in_the_tree_does_not_escape() {
        for (depth, target, out) in [
            (0, "../x", true),
            (1, "../x", false),
            (1, "../../x", true),
            (0, "a/../../x", true),
            (0, "/etc/localtime", false),
            (2, "a/./../..", false),
        ] {
            assert_eq!(escapes(depth, target.as_bytes()), out, "{depth} {target}");
        }
    }
}
