//! What the owner of a container does to it, over and over.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, openat};

use super::ground::{EVIL, Ground, ORIGINAL};

impl Ground {
    /// The entry and a link out of the root change places.
    pub fn swap_entry(&self, _turn: u64) {
        exchange(&self.beside("tool"), &self.beside("evil"));
    }

    /// A directory on the way and a link to one outside change places.
    pub fn swap_parent(&self, _turn: u64) {
        exchange(&self.own("x"), &self.own("x.link"));
    }

    /// The temporary name is taken before, or swapped for a link out of the root.
    pub fn swap_temporary(&self, turn: u64) {
        if turn.is_multiple_of(8) {
            let _taken = symlink(EVIL, self.temporary());
        }
        exchange(&self.temporary(), &self.beside("evil"));
    }

    /// The program is written to where it is: told to be done once the file is closed.
    pub fn write_in_place(&self, turn: u64) {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_NOFOLLOW);
        let Ok(mut file) = options.open(self.beside("tool")) else { return };
        let text = format!("{turn:0width$}", width = ORIGINAL.len());
        file.write_all(text.as_bytes()).unwrap();
        *self.written.lock().unwrap() = Some(text);
    }

    /// The same with the name that a directory has while it is taken away, or made.
    pub fn swap_scrap(&self, turn: u64) {
        if turn.is_multiple_of(8) {
            let _taken = symlink(EVIL, self.scrap());
        }
        exchange(&self.scrap(), &self.beside("evil"));
    }

    /// A directory in the directory and a link to one outside change places, by the path of the
    /// entry, by that which it has while it is taken away or made, or from inside.
    pub fn swap_below(&self, turn: u64) {
        let way = self.beside("way");
        let _there = symlink("../../../../outside/tool/sub", &way);
        match self.inside.lock().unwrap().as_ref() {
            Some(inside) if turn.is_multiple_of(3) => {
                let flags = RenameFlags::EXCHANGE;
                let _missing = rustix::fs::renameat_with(inside, "sub", CWD, &way, flags);
            }
            _ if turn.is_multiple_of(2) => exchange(&self.beside("tool").join("sub"), &way),
            _ => exchange(&self.scrap().join("sub"), &way),
        }
    }

    /// A file in the directory is written: by its path, or by who works in the directory.
    pub fn write_inside(&self, turn: u64) {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW;
        let opened = match self.inside.lock().unwrap().as_ref().filter(|_| turn.is_multiple_of(2)) {
            Some(inside) => openat(inside, "zone", flags, Mode::empty()),
            None => openat(CWD, self.entry().join("zone"), flags, Mode::empty()),
        };
        let Ok(file) = opened else { return };
        let text = format!("{turn:0width$}", width = ORIGINAL.len());
        File::from(file).write_all(text.as_bytes()).unwrap();
        *self.written.lock().unwrap() = Some(text);
    }

    /// A new file is put in the place of one in the directory.
    pub fn put_package_inside(&self, turn: u64) {
        let (new, text) = (self.beside(".package"), format!("package {turn}"));
        let Ok(mut file) = File::create(&new) else { return };
        file.write_all(text.as_bytes()).unwrap();
        let put = match self.inside.lock().unwrap().as_ref().filter(|_| turn.is_multiple_of(2)) {
            Some(inside) => rustix::fs::renameat(CWD, &new, inside, "zone"),
            None => rustix::fs::renameat(CWD, &new, CWD, self.entry().join("zone")),
        };
        match put {
            Ok(()) => *self.written.lock().unwrap() = Some(text),
            Err(_) => fs::remove_file(&new).unwrap(),
        }
    }

    /// A new program is put in place of the old, as package managers do.
    pub fn put_package(&self, turn: u64) {
        let (new, text) = (self.beside(".package"), format!("package {turn}"));
        let mut file = File::create(&new).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        fs::rename(&new, self.beside("tool")).unwrap();
        *self.written.lock().unwrap() = Some(text);
    }
}

/// Where one of the names is missing, nothing happens.
fn exchange(one: &Path, other: &Path) {
    let _missing = rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
}
