//! `--cache`: what the next report need not read again.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cbin_audit::model::Notice;
use cbin_audit::scan::{Cache, CacheError};

use crate::cli::message::{Hinted, quoted};
use crate::cli::output::{Leftover, Output};

/// Where what was read is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nowhere.
    None,
    /// In a file.
    File(PathBuf),
}

impl FromStr for Place {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "none" => Self::None,
            path => Self::File(path.into()),
        })
    }
}

/// The cache of one run.
#[derive(Debug)]
pub(crate) struct Kept {
    /// What earlier runs read.
    pub(crate) cache: Cache,
    /// Where what this run learns goes.
    output: Option<Output>,
    /// What there is to say of it.
    notice: Option<Notice>,
}

impl Place {
    /// Opens both what earlier runs left there and its successor: a run which cannot leave one
    /// ends before it begins.
    pub(crate) fn open(&self) -> anyhow::Result<Kept> {
        let Self::File(path) = self else {
            return Ok(Kept { cache: Cache::none(), output: None, notice: None });
        };
        let (cache, damaged) = Cache::open(path).map_err(|error| refusal(path, error))?;
        let why = "it is damaged or of another version; all is read again";
        let notice = damaged.then(|| Notice::info(path.as_path(), "use the cache", why));
        Ok(Kept { cache, output: Some(Output::open_private(path)?), notice })
    }
}

impl Kept {
    /// What a signal has to remove.
    pub(crate) fn leftover(&self) -> Leftover {
        self.output.as_ref().map(Output::leftover).unwrap_or_default()
    }

    /// What there is to say of it.
    pub(crate) fn notice(&mut self) -> Option<Notice> {
        self.notice.take()
    }

    /// Leaves what this run learned.
    pub(crate) fn write(self) -> anyhow::Result<()> {
        let (Some(output), Some(bytes)) = (self.output, self.cache.bytes()) else { return Ok(()) };
        output.write(|out| out.write_all(&bytes))
    }
}

fn refusal(path: &Path, error: CacheError) -> anyhow::Error {
    let hint = match error {
        CacheError::Foreign => "name another file for the cache",
        CacheError::Untrusted => {
            "a cache belongs to root or to who uses it, and nobody else may write to it: remove it, \
             or chmod go-w"
        }
        _ => "name a file that can be read, or --cache none",
    };
    let error = anyhow::Error::new(error).context(format!("cannot use the cache {}", quoted(path)));
    Hinted::new(error, hint).into()
}
