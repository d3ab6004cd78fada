//! Which files may become links, and the words for those that may not.

use super::{Ground, Holding, MOST_BINDS, Refusal, Sharable};
use crate::model::{Method, PlanSettings, SkipReason, StoreFormat};

const SETID: u32 = 0o6000;

/// Why a holding stays as it is; `None` where it may become a link.
pub(super) fn refusal(
    settings: &PlanSettings,
    ground: &Ground<'_>,
    sharable: &Sharable,
    holding: &Holding,
) -> Option<Refusal> {
    let file = *holding.files.first()?;
    let meta = ground.inventory.file(file);
    let traits = &holding.traits;
    if let Some(cause) = &traits.unreadable {
        return Some(because(
            SkipReason::Unreadable,
            format!("it could not be looked at: {cause}"),
        ));
    }
    if traits.immutable {
        return Some(because(SkipReason::Immutable, IMMUTABLE_WORDS));
    }
    if traits.append_only {
        return Some(because(SkipReason::AppendOnly, APPEND_ONLY_WORDS));
    }
    // What shares extents alone keeps its inode, and everything that hangs on it.
    if settings.method == Method::Reflink {
        return None;
    }
    if meta.mode & SETID != 0 && !settings.include_setid {
        return Some(because(SkipReason::Setid, SETID_WORDS));
    }
    if traits.capabilities {
        return Some(because(SkipReason::Capabilities, CAPABILITIES_WORDS));
    }
    if !traits.xattrs.is_empty() {
        return Some(because(SkipReason::Xattrs, xattrs(&traits.xattrs, settings.store_format)));
    }
    if ground.stack {
        return None;
    }
    if settings.method == Method::Symlink {
        if sharable.multicall.is_none() && ground.critical.contains(&file) {
            return Some(because(SkipReason::BootCritical, BOOT_CRITICAL_WORDS));
        }
        if let Some(mark) = sharable.locates_itself {
            return Some(because(SkipReason::SelfLocating, self_locating(mark)));
        }
    }
    // Names that one inode has in several roots are counted there.
    if settings.method == Method::Hardlink {
        return None;
    }
    (holding.files.len() as u64 != u64::from(meta.nlink))
        .then(|| because(SkipReason::OtherNames, other_names(holding.files.len(), meta.nlink)))
}

/// The content is in one place alone.
pub(super) fn only_copy(stack: bool) -> Refusal {
    because(SkipReason::OnlyCopy, if stack { ONE_LAYER_WORDS } else { ONLY_COPY_WORDS })
}

/// Of the names of a stack.
pub(super) fn too_many() -> Refusal {
    because(
        SkipReason::ManyNames,
        format!(
            "with its names more than {MOST_BINDS} would be bound over in its container, and each is a mount: \
             start it with the store's mount, and link to that in its image"
        ),
    )
}

pub(super) fn because(reason: SkipReason, explanation: impl Into<String>) -> Refusal {
    Refusal { reason, explanation: explanation.into() }
}

const ONLY_COPY_WORDS: &str =
    "no other inode of these roots holds it, and the store does not: to share it saves nothing";
const ONE_LAYER_WORDS: &str = "the containers that have it run it from one file of a layer, and share its pages \
     already";
const SETID_WORDS: &str = "set-user-id or set-group-id: objects carry no such bit, and the program \
     would lose it; --include-setid takes it all the same";
const CAPABILITIES_WORDS: &str =
    "it has file capabilities, which objects do not carry: it would lose them";
const IMMUTABLE_WORDS: &str =
    "it, or its directory, is immutable: chattr -i would allow the change";
const APPEND_ONLY_WORDS: &str =
    "it, or its directory, is append-only: chattr -a would allow the change";

const BOOT_CRITICAL_WORDS: &str = "the root does not start without it, and would not find it before the \
     store is mounted; --method reflink shares its blocks";

fn self_locating(mark: &str) -> String {
    format!(
        "it finds its files by where it lies itself ({mark}), and would look for them in the store; \
         --method reflink shares its blocks"
    )
}

fn xattrs(names: &[Vec<u8>], format: StoreFormat) -> String {
    if names == [b"security.selinux"] {
        let words = match format {
            StoreFormat::Dir => LABEL_WORDS,
            StoreFormat::Erofs => IMAGE_LABEL_WORDS,
        };
        return words.to_owned();
    }
    let names: Vec<_> = names.iter().map(|name| String::from_utf8_lossy(name)).collect();
    format!("it has extended attributes that a link cannot carry: {}", names.join(", "))
}

const LABEL_WORDS: &str = "its security label is not that of the store, so that other rules would hold for the \
     object: chcon --reference=PROGRAM STORE gives the store, and objects that come, the program's";

const IMAGE_LABEL_WORDS: &str = "it has a security label, and what is in an EROFS store has none: --store-format dir \
     takes it where the store has the same label";

fn other_names(seen: usize, links: u32) -> String {
    format!(
        "it has {links} names, and {seen} of them lie in this root: the others would keep its blocks"
    )
}
