//! Files that entries are names of: what stood there before is copied from them.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd as _;
use std::rc::Rc;

use super::Back;
use crate::exec::cause::explain;
use crate::exec::held::Held;
use crate::exec::place::{Found, stat_now};
use crate::exec::twin;
use crate::exec::work::CHANGED;
use crate::model::{Before, Bytes, ContentId, Twin};

/// Those of a batch, by device and inode, each held once with nobody writing it.
#[derive(Debug, Default)]
pub(super) struct Shared(HashMap<(u32, u32, u64), Result<Rc<Held>, String>>);

impl Shared {
    /// Holds what an entry is a name of; why that cannot be parted from the others.
    pub(super) fn hold(&mut self, back: &Back<'_>) -> Result<Option<Rc<Held>>, String> {
        let intent = &back.entry.intent;
        let (Some(shared), Before::File { size, content, .. }) = (&intent.twin, &intent.before)
        else {
            return Ok(None);
        };
        self.take(back, shared, (*size, *content)).map(Some)
    }

    fn take(
        &mut self,
        back: &Back<'_>,
        shared: &Twin,
        (size, content): (Bytes, ContentId),
    ) -> Result<Rc<Held>, String> {
        let opened = back.place.look().and_then(|found| match found {
            Found::Other(pinned) if twin::is(&pinned.stat, shared) => {
                let file = pinned.open()?;
                let stat = stat_now(file.as_fd())?;
                Ok((file, stat))
            }
            _ => Err(io::Error::other("it is another file by now")),
        });
        let (file, stat) = opened.map_err(|error| explain("open it", &error))?;
        let key = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
        let take = || match Held::take(file, stat, size) {
            Ok(held) if held.content() == content => Ok(Rc::new(held)),
            Ok(_) => Err(WRITTEN.to_owned()),
            Err(why) if why == CHANGED => Err(WRITTEN.to_owned()),
            Err(why) => Err(why),
        };
        self.0.entry(key).or_insert_with(take).clone()
    }
}

/// Nobody knows any more what stood there.
pub(super) const WRITTEN: &str = "the file that it shares with other roots has been written since, and what it held \
     before is nowhere: it stays shared; cp makes it a file of its own";
