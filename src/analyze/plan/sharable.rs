//! Contents that could be shared, and where they were found.

use crate::model::{Bytes, ContentId, ElfFacts, FileId, FileTraits, InodeId, ObjectName};

/// What a multi-call program answers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multicall {
    /// How its own file name begins.
    pub prefix: &'static str,
    /// The names it answers to, sorted; empty where only its links tell.
    pub applets: Vec<String>,
}

/// What the dynamic loader is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loads {
    /// `PT_INTERP`.
    pub interpreter: Option<Vec<u8>>,
    /// `DT_NEEDED`.
    pub needed: Vec<Vec<u8>>,
    /// `DT_RPATH` and `DT_RUNPATH`.
    pub runpath: Vec<Vec<u8>>,
}

impl Loads {
    /// What an ELF file asks for.
    pub fn of(elf: &ElfFacts) -> Self {
        Self {
            interpreter: elf.interpreter.clone(),
            needed: elf.needed.clone(),
            runpath: elf.runpath.clone(),
        }
    }
}

/// What a program finds of what it loads, in one root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Libraries {
    /// All of it; the digest is the same where every file has the same content.
    Found(ContentId),
    /// Not this one.
    Missing(Vec<u8>),
}

impl Default for Libraries {
    fn default() -> Self {
        Self::Found(ContentId([0; 32]))
    }
}

/// One content that could be shared.
#[derive(Debug, Clone)]
pub struct Sharable {
    /// The content.
    pub content: ContentId,
    /// What its object is called.
    pub object: ObjectName,
    /// How long it is.
    pub size: Bytes,
    /// What it answers to, where it is a multi-call program.
    pub multicall: Option<Multicall>,
    /// What it loads.
    pub loads: Loads,
    /// What shows that it finds its files by where it lies itself.
    pub locates_itself: Option<&'static str>,
    /// Where it was found.
    pub holdings: Vec<Holding>,
}

/// One inode that holds a content, in one root.
#[derive(Debug, Clone)]
pub struct Holding {
    /// The root's place in the list.
    pub root: usize,
    /// The inode's place among all of them.
    pub inode: usize,
    /// The first inode that lies in the very same blocks; itself, where none is known to.
    pub blocks: usize,
    /// The inode that its pages are of: in a stack that of the layer.
    pub pages: InodeId,
    /// Its names in the root, by path.
    pub files: Vec<FileId>,
    /// What else is known of it.
    pub traits: FileTraits,
    /// What it finds of what it loads.
    pub libraries: Libraries,
}
