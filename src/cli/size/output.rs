//! Standard output, collected, and standard error, each in its turn.

use std::io::{self, ErrorKind, Write};

/// Text is written this much at a time.
const ENOUGH: usize = 1 << 16;

/// The two outputs of a run.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// What standard output is to receive next.
    pub text: Vec<u8>,
}

impl Output {
    /// Writes what was collected, if it is much.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        if self.text.len() < ENOUGH { Ok(()) } else { self.flush() }
    }

    /// Writes what was collected.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        let text = std::mem::take(&mut self.text);
        stdout.write_all(&text)?;
        stdout.flush()?;
        self.text = text;
        self.text.clear();
        Ok(())
    }

    /// Says something on standard error, after all that was printed before.
    pub(super) fn say(&mut self, message: &[u8]) -> io::Result<()> {
        self.flush()?;
        // Nothing is left to be told to anybody when standard error is gone.
        let _gone = io::stderr().write_all(message);
        Ok(())
    }
}

/// The exit status when standard output failed; a reader that went away is no failure.
pub(super) fn status_of(error: &io::Error) -> u8 {
    if error.kind() == ErrorKind::BrokenPipe {
        return 0;
    }
    let text = error.to_string();
    let cause = text.split(" (os error").next().unwrap_or_default();
    let _gone = writeln!(io::stderr(), "size: standard output: {cause}");
    1
}
