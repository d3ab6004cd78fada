//! How the store's objects are called.

use std::fmt;

use super::ContentId;

/// An object's file name in the store: `<family>-<arch>-<first 12 hex digits of the content>`.
///
/// The family's prefix keeps the dispatch of multi-call programs working, and the
/// hash keeps a container from claiming a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

/// How the names of directories begin; no architecture follows.
const TREE: &str = "tree-";

impl ObjectName {
    /// The name of a content. `family` begins the name: `busybox`, `dropbear`, ..., or a file name.
    pub fn new(family: &str, arch: &str, content: ContentId) -> Self {
        let plain = |text: &str| -> String {
            let kept = |c: &char| c.is_ascii_alphanumeric() || "._+-".contains(*c);
            text.chars().filter(kept).skip_while(|c| *c == '.').take(64).collect()
        };
        let hash = content.to_string();
        Self(format!("{}-{}-{}", plain(family), plain(arch), &hash[..12]))
    }

    /// The name of a directory, whose content is its [`TreeHasher`](super::TreeHasher)'s.
    pub fn tree(digest: ContentId) -> Self {
        Self(format!("{TREE}{}", &digest.to_string()[..12]))
    }

    /// It is a directory's.
    pub fn is_tree(&self) -> bool {
        self.0.strip_prefix(TREE).is_some_and(|hash| hash.len() == 12)
    }

    /// Takes a name that a journal, a plan or a directory holds; `None` where it is none of ours.
    pub fn parse(name: &str) -> Option<Self> {
        let (_, hash) = name.rsplit_once('-')?;
        let is_hash = hash.len() == 12 && hash.bytes().all(|b| b"0123456789abcdef".contains(&b));
        let plain = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
        (is_hash && !name.starts_with('.') && name.chars().all(plain))
            .then(|| Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The content may be the one that the name was made of.
    pub fn fits(&self, content: ContentId) -> bool {
        self.0.rsplit_once('-').is_some_and(|(_, hash)| content.to_string().starts_with(hash))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objects_name_keeps_the_family_and_the_hash() {
        let content = ContentId([0xab; 32]);
        let name = ObjectName::new("busybox", "x86_64", content);
        assert_eq!(name.as_str(), "busybox-x86_64-abababababab");
        assert!(name.fits(content));
        assert!(!name.fits(ContentId([1; 32])));
        assert!(!name.is_tree());
        assert_eq!(ObjectName::parse(name.as_str()), Some(name));
        let tree = ObjectName::tree(content);
        assert_eq!(tree.as_str(), "tree-abababababab");
        assert!(tree.is_tree() && tree.fits(content));
        assert!(!ObjectName::new("tree", "x86_64", content).is_tree());
        assert_eq!(ObjectName::parse(tree.as_str()), Some(tree));
    }

    #[test]
    fn a_hostile_name_leaves_the_store_alone() {
        let name = ObjectName::new("../../etc/\u{1b}[2Jx", "x", ContentId([0; 32]));
        assert_eq!(name.as_str(), "etc2Jx-x-000000000000");
        for bad in ["", "x", "../x-000000000000", ".x-000000000000", "a/b-000000000000", "x-00"] {
            assert_eq!(ObjectName::parse(bad), None, "{bad}");
        }
    }
}
