//! Why a plan leaves something as it is.

/// A word for each reason, stable for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SkipReason {
    // Whole roots.
    /// A container runs from the root, and would not see the store.
    Running,
    /// It is not known whether a container runs from the root.
    StateUnknown,
    /// One layer of a stacked root file system, or such a stack itself.
    Overlay,
    /// A package manager is at work in the root.
    PackageManager,
    /// The root's file system is mounted read-only.
    ReadOnly,
    /// Something else stands at the store's mount point.
    MountPoint,
    /// No means to make the store visible in the root.
    NoMount,
    /// Programs on the store's file system cannot be executed.
    StoreNoexec,
    /// The root may not share with the others.
    TrustDomain,

    // Entries.
    /// The content is in one place only: nothing to gain.
    OnlyCopy,
    /// The file has names that the plan does not see.
    OtherNames,
    /// More names than are bound over in one container.
    ManyNames,
    /// Set-user-id or set-group-id.
    Setid,
    /// File capabilities.
    Capabilities,
    /// Other extended attributes, which a link cannot carry.
    Xattrs,
    /// The program finds its files by where it lies itself.
    SelfLocating,
    /// The interpreter, or a library that the program needs, differs or is missing.
    LibrariesDiffer,
    /// Owner or mode are not those of the file that it would be another name of.
    AttributesDiffer,
    /// The link's name is no applet of the program.
    AppletMissing,
    /// The root does not start without it.
    BootCritical,
    /// The entry, or its directory, may not be changed (`chattr +i`).
    Immutable,
    /// The entry, or its directory, may only grow (`chattr +a`).
    AppendOnly,
    /// The file systems cannot do what the method needs.
    FileSystem,
    /// It could not be looked at, or changed meanwhile.
    Unreadable,
    /// The tree holds programs, special files or mount points, or is too small.
    Tree,
}

/// Every reason, in order, and its name.
const NAMES: [(SkipReason, &str); 25] = [
    (SkipReason::Running, "running"),
    (SkipReason::StateUnknown, "state-unknown"),
    (SkipReason::Overlay, "overlay"),
    (SkipReason::PackageManager, "package-manager"),
    (SkipReason::ReadOnly, "read-only"),
    (SkipReason::MountPoint, "mount-point"),
    (SkipReason::NoMount, "no-mount"),
    (SkipReason::StoreNoexec, "store-noexec"),
    (SkipReason::TrustDomain, "trust-domain"),
    (SkipReason::OnlyCopy, "only-copy"),
    (SkipReason::OtherNames, "other-names"),
    (SkipReason::ManyNames, "many-names"),
    (SkipReason::Setid, "setid"),
    (SkipReason::Capabilities, "capabilities"),
    (SkipReason::Xattrs, "xattrs"),
    (SkipReason::SelfLocating, "self-locating"),
    (SkipReason::LibrariesDiffer, "libraries-differ"),
    (SkipReason::AttributesDiffer, "attributes-differ"),
    (SkipReason::AppletMissing, "applet-missing"),
    (SkipReason::BootCritical, "boot-critical"),
    (SkipReason::Immutable, "immutable"),
    (SkipReason::AppendOnly, "append-only"),
    (SkipReason::FileSystem, "file-system"),
    (SkipReason::Unreadable, "unreadable"),
    (SkipReason::Tree, "tree"),
];

impl SkipReason {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        let named = NAMES.iter().find(|(reason, _)| *reason == self);
        named.map_or("other", |(_, name)| *name)
    }

    /// The reason of this name, as a document has it.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, named)| *named == name).map(|(reason, _)| *reason)
    }

    /// Every reason.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(reason, _)| *reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let last = SkipReason::Tree as usize;
        assert_eq!(NAMES.len(), last + 1);
        assert!(SkipReason::all().is_sorted());
        for reason in SkipReason::all() {
            assert_eq!(SkipReason::from_name(reason.name()), Some(reason));
        }
    }
}
