//! Files with holes keep them: in the store, and when they come back.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{SeekFrom, seek};

use super::{TREE, apply, cbin, lay, whole};
use crate::rig::image::{BTRFS, EXT4, FileSystem, Mounted, XFS, scratch};
use crate::rig::scene::{NEEDS, Scene, age, run};
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    let file_systems = [
        ("privileged_trees_sparse_on_tmpfs", None),
        ("privileged_trees_sparse_on_ext4", Some(EXT4)),
        ("privileged_trees_sparse_on_xfs", Some(XFS)),
        ("privileged_trees_sparse_on_btrfs", Some(BTRFS)),
    ];
    for (name, on) in file_systems {
        let program = on.map(|it| match it.kind {
            "ext4" => "mkfs.ext4",
            "xfs" => "mkfs.xfs",
            _ => "mkfs.btrfs",
        });
        let needs: Vec<Need> = NEEDS.iter().copied().chain(program.map(Need::Program)).collect();
        suite.test(name, &needs, move || with(on, there_and_back));
    }
}

fn with(on: Option<FileSystem>, test: fn(&Path)) {
    let dir = scratch();
    let Some(on) = on else { return test(dir.path()) };
    let image = dir.path().join("image");
    on.make(|_| ()).lay(&image, on.size());
    let mounted = Mounted::new(&image, &dir.path().join("mount"));
    test(mounted.path());
}

/// More than there is room for, if a hole were written.
const LENGTH: u64 = 40 << 20;

/// Where there is data, of this length.
const DATA: [(u64, usize); 3] = [(0, 100_000), (16 << 20, 4096), (LENGTH - 70_000, 69_999)];

/// The pieces of a file that are no holes.
fn data(path: &Path) -> Vec<(u64, u64)> {
    let file = File::open(path).unwrap();
    let (mut pieces, mut at) = (Vec::new(), 0);
    while let Ok(start) = seek(&file, SeekFrom::Data(at)) {
        at = seek(&file, SeekFrom::Hole(start)).unwrap();
        pieces.push((start, at));
    }
    pieces
}

fn holed(path: &Path, head: &[u8]) {
    let file = File::create(path).unwrap();
    file.set_len(LENGTH).unwrap();
    for (at, length) in DATA {
        file.write_all_at(&vec![b'd'; length], at).unwrap();
    }
    file.write_all_at(head, 0).unwrap();
    file.sync_all().unwrap();
}

fn there_and_back(base: &Path) {
    let scene = lay(&base.join("scene"));
    let crate::world::Entry::File(elf, _) = crate::world::program(b"with holes") else {
        unreachable!()
    };
    let program = "usr/bin/holed";
    for root in scene.roots() {
        holed(&root.join(TREE).join("holed"), b"zones");
        fs::create_dir(root.join("usr/bin")).unwrap();
        holed(&root.join(program), &elf);
        fs::set_permissions(root.join(program), fs::Permissions::from_mode(0o755)).unwrap();
        age(&root);
    }
    let before = whole(&scene);
    let files = |scene: &Scene| {
        let holed = [TREE.to_owned() + "/holed", program.to_owned()];
        scene.roots().map(|root| holed.clone().map(|name| root.join(name)))
    };
    let pieces: Vec<_> = files(&scene)[0].iter().map(|file| data(file)).collect();
    assert!(pieces.iter().all(|pieces| pieces.len() == 3), "{pieces:?}");
    let applied = run(&mut apply(&scene)).unwrap();
    for root in scene.roots() {
        for name in [TREE, program] {
            let target = fs::read_link(root.join(name)).unwrap_or_else(|_| panic!("{applied}"));
            let object = scene.store().join(target.file_name().unwrap());
            let (file, pieces) = match name {
                TREE => (object.join("holed"), &pieces[0]),
                _ => (object, &pieces[1]),
            };
            assert_eq!(data(&file), *pieces, "{name}");
            assert!(fs::metadata(&file).unwrap().blocks() * 512 < 1 << 20, "{name}");
        }
    }
    let undone = cbin(&scene, "undo");
    assert_eq!(undone.status, 0, "{undone:?}");
    for (now, then) in whole(&scene).iter().zip(&before) {
        assert_eq!(then.differences(now), [""; 0]);
    }
    for root in files(&scene) {
        let now: Vec<_> = root.iter().map(|file| data(file)).collect();
        assert_eq!(now, pieces);
    }
}
