//! Root trees of real size, which `testdata/make-trees` lays once.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The roots below `CBIN_AUDIT_TREE`, or below `target/trees`.
pub fn roots() -> Vec<PathBuf> {
    let tree = std::env::var_os("CBIN_AUDIT_TREE").map_or_else(made_tree, PathBuf::from);
    let mut roots: Vec<PathBuf> = std::fs::read_dir(tree)
        .expect("list the tree")
        .map(|entry| entry.expect("read the tree").path())
        .filter(|path| path.is_dir())
        .collect();
    roots.sort();
    roots
}

fn made_tree() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tree = package.join("target/trees");
    if !tree.is_dir() {
        let made = Command::new(package.join("testdata/make-trees")).arg(&tree).status();
        assert!(made.expect("start testdata/make-trees").success());
    }
    tree
}
