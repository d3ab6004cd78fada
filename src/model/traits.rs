//! What is known of a file beyond its inventory entry: whether it may become a link.

/// What was found at one name of a file that could be shared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileTraits {
    /// It could not be looked at; the system's words.
    pub unreadable: Option<String>,
    /// It has file capabilities: `security.capability`, capabilities(7).
    pub capabilities: bool,
    /// The names of its other extended attributes.
    pub xattrs: Vec<Vec<u8>>,
    /// It, or its directory, has `FS_IMMUTABLE_FL`: `ioctl_iflags(2)`.
    pub immutable: bool,
    /// It, or its directory, has `FS_APPEND_FL`.
    pub append_only: bool,
    /// It has `FS_CASEFOLD_FL`: names in it are found whatever their case.
    pub casefold: bool,
    /// `st_uid` and `st_gid`, as the host sees them.
    pub user: (u32, u32),
    /// The package database that lists it.
    pub owner: Option<&'static str>,
}
