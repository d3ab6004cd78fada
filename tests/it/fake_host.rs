//! A directory that stands in for the host, and roots to put into it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use cbin_audit::model::{Notices, Root};
use cbin_audit::scan::{RootsError, find_roots};

/// A host of our own. Its `/` is a temporary directory.
pub struct FakeHost(tempfile::TempDir);

impl FakeHost {
    pub fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        host.dir("proc");
        host
    }

    /// The stand-in for `/`.
    pub fn root(&self) -> &Path {
        self.0.path()
    }

    /// Where a path of this host really is.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    pub fn dir(&self, path: &str) -> PathBuf {
        let dir = self.at(path);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    pub fn file(&self, path: &str, content: &str) -> PathBuf {
        let file = self.at(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content).unwrap();
        file
    }

    pub fn link(&self, path: &str, target: impl AsRef<Path>) -> PathBuf {
        let link = self.at(path);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(target, &link).unwrap();
        link
    }

    /// The root of the article: busybox and links to it, no os-release.
    pub fn busybox_root(&self, path: &str) -> PathBuf {
        self.file(&format!("{path}/bin/busybox-x86_64"), "busybox");
        self.link(&format!("{path}/bin/sh"), "busybox-x86_64");
        self.file(&format!("{path}/etc/inittab"), "::respawn:/bin/sh\n");
        self.at(path)
    }

    /// Debian's layout: merged /usr.
    pub fn debian_root(&self, path: &str) -> PathBuf {
        for dir in ["dev", "proc", "sys", "etc", "usr/lib", "var/lib/dpkg"] {
            self.dir(&format!("{path}/{dir}"));
        }
        self.file(&format!("{path}/usr/bin/dash"), "dash");
        self.link(&format!("{path}/usr/bin/sh"), "dash");
        self.link(&format!("{path}/bin"), "usr/bin");
        self.link(&format!("{path}/etc/os-release"), "../usr/lib/os-release");
        self.at(path)
    }

    /// A process whose `/` is a directory of this host.
    pub fn process(&self, pid: u32, root: &str) {
        self.link(&format!("proc/{pid}/root"), self.at(root));
    }

    pub fn find(&self, named: &[PathBuf]) -> Result<(Vec<Root>, Notices), RootsError> {
        let mut notices = Notices::default();
        let roots = find_roots(named, self.root(), &self.at("home/cbin"), &mut notices)?;
        Ok((roots, notices.sorted()))
    }

    /// Discovery, as lines: path below the host, name, runtime, state, layer.
    pub fn discover(&self) -> Vec<String> {
        let (roots, notices) = self.find(&[]).unwrap();
        assert!(notices.complete(), "{notices:?}");
        roots.iter().map(|root| self.line(root)).collect()
    }

    pub fn line(&self, root: &Root) -> String {
        let path = root.path.0.strip_prefix(self.root()).unwrap_or(&root.path.0);
        let layer = if root.layer { " layer" } else { "" };
        let (runtime, state) = (root.runtime.name(), root.state.name());
        format!("{} {} {runtime} {state}{layer}", path.display(), root.name)
    }

    /// The paths below this host of the roots that `named` stands for.
    pub fn named(&self, named: &[PathBuf]) -> Vec<String> {
        let (roots, notices) = self.find(named).unwrap();
        assert!(notices.complete(), "{notices:?}");
        let path = |root: &Root| root.path.0.strip_prefix(self.root()).unwrap().to_owned();
        roots.iter().map(|root| path(root).display().to_string()).collect()
    }
}
