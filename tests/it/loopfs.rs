//! Real file systems, in a file or in memory, mounted for as long as the value lives.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in a sparse image, on a loop device.
pub struct LoopFs {
    dir: tempfile::TempDir,
    mount: PathBuf,
}

impl LoopFs {
    /// Makes and mounts one; `kind` is what `mkfs.KIND` is for.
    pub fn make(kind: &str, mebibytes: u64) -> Self {
        Self::make_with(kind, mebibytes, "loop")
    }

    /// The same, mounted with other options; `loop` is one of them.
    pub fn make_with(kind: &str, mebibytes: u64, options: &str) -> Self {
        Self::laid(kind, mebibytes, &[], options)
    }

    /// `laid_out` are options of `mkfs`, `options` those of the mount.
    pub fn laid(kind: &str, mebibytes: u64, laid_out: &[&str], options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
        run(Command::new(format!("mkfs.{kind}")).arg("-q").args(laid_out).arg(&image));
        let mount = dir.path().join("mount");
        std::fs::create_dir(&mount).unwrap();
        run(Command::new("mount").args(["-o", options]).args([&image, &mount]));
        Self { dir, mount }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l").arg(&self.mount));
        assert!(self.dir.path().exists());
    }
}

/// A file system that needs no device: in memory, or stacked on others.
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts one; the directory is made where it is missing.
    pub fn new(kind: &str, at: PathBuf, options: &str) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        run(Command::new("mount").args(["-t", kind, "-o", options, kind]).arg(&at));
        Self(at)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l").arg(&self.0));
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("start");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
