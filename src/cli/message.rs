//! Errors and notices, as a person reads them.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cbin_audit::model::{Notice, Notices};
use cbin_audit::render::escape::{escape, escape_controls};
use cbin_audit::render::human;

use super::exit::Exit;
use super::shared::Shared;

/// Notices on a screen, unless the user wants every one.
const MOST: usize = 20;

/// An error with a way out.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(crate) struct Hinted {
    error: anyhow::Error,
    hint: &'static str,
}

impl Hinted {
    /// Says what could be done about an error.
    pub(crate) fn new(error: impl Into<anyhow::Error>, hint: &'static str) -> Self {
        Self { error: error.into(), hint }
    }
}

/// Says on standard error why a command failed. A reader that went away is no failure.
pub(crate) fn report(error: &anyhow::Error) -> Exit {
    if is_broken_pipe(error) {
        return Exit::Done;
    }
    let mut text = format!("cbin-audit: {}\n", sentence(error));
    if let Some(hinted) = error.downcast_ref::<Hinted>() {
        text.push_str(&format!("hint: {}\n", hinted.hint));
    }
    say(&text);
    super::change::exit(cause(error))
}

/// The error itself, without its way out.
fn cause(error: &anyhow::Error) -> &anyhow::Error {
    error.downcast_ref::<Hinted>().map_or(error, |hinted| &hinted.error)
}

/// An error and its causes in one line; names in them are escaped where they are written.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    let causes = match error.downcast_ref::<Hinted>() {
        Some(hinted) => hinted.error.chain().skip(1),
        None => error.chain().skip(1),
    };
    for cause in causes {
        // Writing into a String cannot fail.
        let _infallible = write!(text, ": {cause}");
    }
    escape_controls(&text)
}

/// Says what could not be read: always unless quiet. With `--verbose` also what was left out on purpose.
pub(crate) fn notices(notices: &Notices, shared: &Shared) {
    if shared.quiet {
        return;
    }
    let told = notices.iter().filter(|notice| notice.partial || shared.verbose);
    let most = if shared.verbose { usize::MAX } else { MOST };
    let more = told.clone().count().saturating_sub(most);
    let mut text: String = told.take(most).map(line).collect();
    if more > 0 {
        text.push_str(&format!(
            "cbin-audit: {} more: --verbose or --json names them\n",
            human::count(more as u64)
        ));
    }
    say(&text);
}

fn line(notice: &Notice) -> String {
    let (path, cause) = (escape(notice.path.as_bytes()), escape_controls(&notice.cause));
    format!("cbin-audit: {path}: {}: {cause}\n", notice.doing)
}

/// A path in a message.
pub(crate) fn quoted(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}

fn say(text: &str) {
    // Nothing is left to be told to anybody when standard error is gone.
    let _gone = std::io::stderr().write_all(text.as_bytes());
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == ErrorKind::BrokenPipe)
}
