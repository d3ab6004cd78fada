//! Whether the store's objects are what their names say.

use std::path::Path;

use crate::exec::check_tree;
use crate::exec::generations::is_left_unmounted;
use crate::model::{Check, ContentId, FileStamp, HostPath, ObjectName};
use crate::scan::file_system::changeable;
use crate::scan::objects::{StoredObject, objects};

use super::runs::Standing;

/// A store, and its objects that are sound.
pub(super) struct Store {
    /// Where it lies.
    pub(super) path: HostPath,
    /// The objects that are sound.
    pub(super) objects: Vec<(ObjectName, ContentId, FileStamp)>,
    /// The directories among them.
    trees: Vec<ObjectName>,
}

impl Store {
    /// Reads a store; what is wrong with it is a check.
    pub(super) fn read(path: &Path, standing: &Standing, checks: &mut Vec<Check>) -> Self {
        let place = HostPath::from(path);
        let mut store = Self { path: place.clone(), objects: Vec::new(), trees: Vec::new() };
        if let Ok(real) = path.canonicalize() {
            checks.extend(changeable(&real).map(|dir| exposed(&place, &dir)));
        }
        if is_left_unmounted(path) {
            let detail = "the image that containers are shown is not mounted: cbin-audit recover";
            checks.push(Check::bad("store", detail.to_owned()).at(place.as_bytes()));
        }
        match objects(path) {
            Ok(found) => {
                found.into_iter().for_each(|object| store.take(object, standing, checks));
            }
            Err(error) => {
                let why = crate::scan::cause(&error);
                let damage = Check::damage("store", format!("it cannot be read: {why}"));
                checks.push(damage.at(place.as_bytes()));
            }
        }
        store.trees(standing, checks);
        store.missing(standing, checks);
        let many = store.names().count();
        if many > 0 {
            let detail = format!("{many} objects hold what their names say");
            checks.push(Check::good("objects", detail).at(place.as_bytes()));
        }
        store
    }

    /// The names of the sound objects.
    pub(super) fn names(&self) -> impl Iterator<Item = &ObjectName> {
        self.objects.iter().map(|(name, _, _)| name).chain(&self.trees)
    }

    fn trees(&mut self, standing: &Standing, checks: &mut Vec<Check>) {
        // What cannot be listed was told already.
        let listed = crate::scan::store::store(&self.path).unwrap_or_default().objects;
        for name in listed.into_iter().filter(ObjectName::is_tree) {
            match check_tree(&self.path.0, &name, standing.contents.get(&name).copied()) {
                Ok(()) => self.trees.push(name),
                Err(error) => {
                    let path = HostPath::from(self.path.0.join(name.as_str()));
                    let detail = format!("{error}; nothing was deleted: restore it from a backup");
                    checks.push(Check::damage("object", detail).at(path.as_bytes()));
                }
            }
        }
    }

    fn take(&mut self, object: StoredObject, standing: &Standing, checks: &mut Vec<Check>) {
        let path = HostPath::from(self.path.0.join(object.name.as_str()));
        let damage = |why: String| {
            let detail = format!(
                "{why}; nothing was deleted: put a sound copy in its place, or restore it from a backup"
            );
            Check::damage("object", detail).at(path.as_bytes())
        };
        let content = match object.content {
            Ok(content) => content,
            Err(error) => return checks.push(damage(crate::scan::cause(&error))),
        };
        let known = standing.contents.get(&object.name);
        if !object.name.fits(content) || known.is_some_and(|known| *known != content) {
            return checks
                .push(damage(format!("its content is {content}, not what its name says")));
        }
        if object.mode & 0o222 != 0 || object.uid != 0 && is_root() {
            let detail = format!(
                "its owner is {} and its mode {:04o}: chown root, chmod 0555",
                object.uid,
                object.mode & 0o7777
            );
            checks.push(Check::bad("object", detail).at(path.as_bytes()));
        }
        self.objects.push((object.name, content, object.stamp));
    }

    /// Objects that undo needs, and that are not there at all.
    fn missing(&self, standing: &Standing, checks: &mut Vec<Check>) {
        let here = standing.needed.iter().filter(|(_, (store, _))| *store == self.path);
        for (name, (_, run)) in here {
            let path = self.path.0.join(name.as_str());
            if path.symlink_metadata().is_err() {
                let detail =
                    format!("run {run} needs it, and it is not there: its links lead to nothing");
                checks.push(Check::damage("object", detail).at(HostPath::from(path).as_bytes()));
            }
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn exposed(store: &HostPath, dir: &HostPath) -> Check {
    let detail = format!(
        "others than root may change {:?}, and put another store in its place: chown root and chmod go-w",
        dir.0
    );
    Check::bad("store", detail).at(store.as_bytes())
}
