//! Errors, as a person reads them.

use std::io::{ErrorKind, Write};

use super::exit::Exit;

/// Says on standard error why a command failed. A reader that went away is no failure.
pub(crate) fn report(error: &anyhow::Error) -> Exit {
    if is_broken_pipe(error) {
        return Exit::Done;
    }
    let mut text = format!("cbin-audit: {error}");
    for cause in error.chain().skip(1) {
        text.push_str(&format!(": {cause}"));
    }
    // Nothing is left to be told to anybody when standard error is gone.
    let _gone = writeln!(std::io::stderr(), "{text}");
    Exit::Failed
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == ErrorKind::BrokenPipe)
}
