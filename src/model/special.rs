//! Names that are neither directories, files nor links.

/// What neither holds content nor leads to any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpecialKind {
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// An overlay whiteout (character device 0:0): "deleted in the lower layer".
    Whiteout,
    /// A file that another file system is mounted on.
    MountPoint,
    /// A name whose kind could not be read.
    Unreadable,
}

impl SpecialKind {
    /// What it is, as a sentence says it.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Fifo => "a FIFO",
            Self::Socket => "a socket",
            Self::CharDevice => "a character device",
            Self::BlockDevice => "a block device",
            Self::Whiteout => "a whiteout",
            Self::MountPoint => "a mount point",
            Self::Unreadable => "of a kind that could not be read",
        }
    }

    /// Why nothing of it is read.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Fifo => "a FIFO is not opened",
            Self::Socket => "a socket is not opened",
            Self::CharDevice | Self::BlockDevice => "a device is not opened",
            Self::Whiteout => "a whiteout: deleted in the lower layer",
            Self::MountPoint => "another file system is mounted here; it is not looked into",
            Self::Unreadable => "its kind could not be read",
        }
    }
}
