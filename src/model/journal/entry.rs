//! What the journal says of one entry: what it was, what it becomes, how that ended.

use serde::{Deserialize, Serialize};

use super::exact;
use crate::model::{Bytes, ContentId, ObjectName, RootId, RootPath};

/// Everything of an entry that undo puts back, beside its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// `st_uid`, as the host sees it.
    pub uid: u32,
    /// `st_gid`, as the host sees it.
    pub gid: u32,
    /// `st_mode`.
    pub mode: u32,
    /// `st_atime` in nanoseconds since the epoch.
    pub atime: i64,
    /// `st_mtime` in nanoseconds since the epoch.
    pub mtime: i64,
    /// Extended attributes, by name.
    #[serde(with = "exact::pairs", default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Those of its flags that undo gives back, ioctl_iflags(2); none up to 0.1.
    #[serde(default, skip_serializing_if = "is_none")]
    pub flags: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks in this way")]
fn is_none(flags: &u32) -> bool {
    *flags == 0
}

/// What an entry was before its step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Before {
    /// A regular file. Steps of one root with one `ino` were hard links of one file.
    File {
        /// `st_ino`: never compared across mounts of other file systems.
        ino: u64,
        /// `st_size`.
        size: Bytes,
        /// `st_nlink`.
        nlink: u32,
        /// Its content, which the object holds too.
        #[serde(with = "exact::content")]
        content: ContentId,
        /// The rest.
        metadata: Metadata,
    },
    /// A symbolic link.
    Link {
        /// Its target, exactly.
        #[serde(with = "exact")]
        target: Vec<u8>,
        /// The rest.
        metadata: Metadata,
    },
    /// Nothing: the step adds the name.
    Absent,
    /// A directory; what was below it is told by [`Record::Tree`](super::Record::Tree), which comes before.
    Tree {
        /// The directory's own.
        metadata: Metadata,
    },
    /// A regular file that stays what it is, and is hidden: the object is bound over its name in
    /// the running container.
    Hidden {
        /// `st_ino`, as the container sees it.
        ino: u64,
        /// `st_size`.
        size: Bytes,
        /// Its content, which the object holds too.
        #[serde(with = "exact::content")]
        content: ContentId,
    },
}

impl Before {
    /// What it was beside its content; `None` where nothing was.
    pub fn metadata(&self) -> Option<&Metadata> {
        match self {
            Self::File { metadata, .. } | Self::Link { metadata, .. } | Self::Tree { metadata } => {
                Some(metadata)
            }
            Self::Absent | Self::Hidden { .. } => None,
        }
    }
}

/// One entry that is about to be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The plan's step.
    pub step: u32,
    /// The root, by its number in [`Begin`](super::Begin).
    pub root: RootId,
    /// The entry.
    #[serde(with = "exact")]
    pub path: RootPath,
    /// The temporary name beside it: while it is changed, and while it is put back.
    #[serde(with = "exact")]
    pub temporary: Vec<u8>,
    /// What it was.
    pub before: Before,
    /// What it becomes: a link with this target; empty for what becomes another name of a file, or
    /// is hidden.
    #[serde(with = "exact")]
    pub target: Vec<u8>,
    /// The object that the link leads to.
    #[serde(with = "exact::object", default, skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectName>,
    /// The file that the entry becomes another name of, where it becomes no link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin: Option<Twin>,
}

/// Where the entry of an [`Intent`] is: read of it where nothing else is asked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EntryPlace {
    /// The plan's step.
    pub step: u32,
    /// The root, by its number in [`Begin`](super::Begin).
    pub root: RootId,
    /// The entry.
    #[serde(with = "exact")]
    pub path: RootPath,
}

/// A file that entries become names of, in the same file system as they.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Twin {
    /// The root that it was found in, by its number in [`Begin`](super::Begin).
    pub root: RootId,
    /// Its name there.
    #[serde(with = "exact")]
    pub path: RootPath,
    /// `st_ino`.
    pub ino: u64,
    /// `stx_btime` in nanoseconds since the epoch: a number is given out again, a time of birth is
    /// not. 0 where the file system keeps none.
    pub born: i64,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The entry is what the plan says, and flushed.
    Done,
    /// The entry is what it was: it had changed, was busy, or the run was cut off.
    RolledBack,
    /// Somebody else put something there meanwhile: it was left alone.
    Superseded,
    /// It could not be brought to an end: looked at again by the next recovery.
    Parked,
    /// Put back by undo.
    Undone,
}

impl Outcome {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::RolledBack => "rolled_back",
            Self::Superseded => "superseded",
            Self::Parked => "parked",
            Self::Undone => "undone",
        }
    }
}

/// Steps that ended alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Which.
    pub steps: Vec<u32>,
    /// How.
    pub outcome: Outcome,
    /// Why, where it is not what the plan says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// One entry of a tree that was taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEntry {
    /// The path from the tree's directory.
    #[serde(with = "exact")]
    pub path: RootPath,
    /// What it is.
    pub before: Before,
}
