//! Three frames of reference for a path, three types.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A path on the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPath(pub PathBuf);

impl HostPath {
    /// The path's exact bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_os_str().as_bytes()
    }
}

impl<P: Into<PathBuf>> From<P> for HostPath {
    fn from(path: P) -> Self {
        Self(path.into())
    }
}

/// A path inside a root: relative, without `.` or `..`, empty for the root
/// itself. Any bytes but NUL may stand in it. A copy of it shares its bytes: many roots have
/// the same paths.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RootPath(Arc<[u8]>);

impl RootPath {
    /// Takes bytes that name an entry below a root.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into().into())
    }

    /// The path's exact bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// This path as the kernel takes it.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The entry `name` of the directory that this path names.
    pub fn join(&self, name: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Self::new(bytes)
    }

    /// The directory of this entry; the root for an entry of the root's own.
    pub fn parent(&self) -> Self {
        let cut = self.0.iter().rposition(|&byte| byte == b'/');
        Self::new(cut.and_then(|cut| self.0.get(..cut)).unwrap_or_default())
    }

    /// The last component; empty for the root itself.
    pub fn file_name(&self) -> &[u8] {
        self.0.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
    }

    /// Where this entry lies on the host.
    pub fn on_host(&self, root: &HostPath) -> HostPath {
        if self.0.is_empty() {
            // Joining nothing would append a slash.
            return root.clone();
        }
        HostPath(root.0.join(self.as_path()))
    }
}

/// An absolute path as a process inside the container sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerPath(pub PathBuf);
