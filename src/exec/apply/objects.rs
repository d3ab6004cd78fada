//! The objects of a run are put into the store.

use std::collections::HashMap;
use std::fs::File;

use super::Applying;
use crate::exec::error::ExecError;
use crate::exec::store::{Put, Store};
use crate::model::{Action, JournalObject, ObjectName, Record, RootId, RootPath};
use crate::scan::dir::{open_dir_at, open_regular};

/// An object, and the files that it may be copied from.
type Source = (JournalObject, Vec<(RootId, RootPath)>);

impl Applying<'_> {
    /// Puts the objects into the store; those whose source is no longer what it was.
    pub(super) fn objects(&mut self) -> Result<HashMap<ObjectName, String>, ExecError> {
        let sources = self.sources();
        let Some(store) = self.store.take() else { return Ok(HashMap::new()) };
        let lost = self.put_all(&store, sources);
        self.store = Some(store);
        lost
    }

    fn put_all(
        &mut self,
        store: &Store,
        sources: Vec<Source>,
    ) -> Result<HashMap<ObjectName, String>, ExecError> {
        let objects: Vec<JournalObject> =
            sources.iter().map(|(object, _)| object.clone()).collect();
        if !objects.is_empty() {
            self.journal.append(&Record::Objects(objects))?;
        }
        let mut lost = HashMap::new();
        for (object, places) in sources {
            if let Err(why) = self.put(store, &object, &places)? {
                lost.insert(object.name, why);
            }
        }
        Ok(lost)
    }

    /// Every object once, with the files that it may be copied from.
    fn sources(&self) -> Vec<Source> {
        let mut sources: Vec<Source> = Vec::new();
        for step in &self.plan.steps {
            let (Action::Store { source, content, size }, Some(name)) =
                (&step.action, &step.object)
            else {
                continue;
            };
            let place = (step.root, source.clone());
            match sources.iter_mut().find(|(object, _)| object.name == *name) {
                Some((_, places)) => places.push(place),
                None => {
                    let object =
                        JournalObject { name: name.clone(), content: *content, size: *size };
                    sources.push((object, vec![place]));
                }
            }
        }
        sources
    }

    fn put(
        &mut self,
        store: &Store,
        object: &JournalObject,
        places: &[(RootId, RootPath)],
    ) -> Result<Result<(), String>, ExecError> {
        if !object.name.fits(object.content) {
            return Ok(Err("its name does not fit its content".to_owned()));
        }
        let mut why = "the plan names nothing that its object is copied from".to_owned();
        for (root, path) in places {
            let source = match self.source(*root, path, object.name.is_tree()) {
                Ok(source) => source,
                Err(error) => {
                    why = crate::exec::cause::explain("open the object's source", &error);
                    continue;
                }
            };
            let put = match object.name.is_tree() {
                true => store.put_tree(object, &source),
                false => store.put(object, &source),
            };
            match put? {
                Put::New(blocks) => {
                    self.done.stored += blocks;
                    return Ok(Ok(()));
                }
                Put::Kept => return Ok(Ok(())),
                Put::Lost(cause) => why = format!("what its object is copied from: {cause}"),
            }
        }
        Ok(Err(why))
    }

    fn source(&self, root: RootId, path: &RootPath, tree: bool) -> std::io::Result<File> {
        let dir = self.roots.get(root).ok_or(rustix::io::Errno::STALE)?;
        let place = crate::exec::place::Parents::default().pin(root, dir, path)?;
        match tree {
            true => Ok(File::from(open_dir_at(place.dir(), &place.name)?)),
            false => Ok(open_regular(place.dir(), &place.name)?.0),
        }
    }
}
