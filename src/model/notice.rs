//! What went wrong, or was left out, on the way to an answer.

use super::HostPath;

/// Something that could not be read, was cut off, or was left out on purpose.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notice {
    /// What it is about, on the host.
    pub path: HostPath,
    /// The operation: `open`, `read`, `walk`, ...
    pub doing: &'static str,
    /// The reason in words, with the way out where there is one.
    pub cause: String,
    /// The answer is not complete because of it: exit status 3.
    pub partial: bool,
}

impl Notice {
    /// Something below a root could not be read: the answer is partial.
    pub fn partial(
        path: impl Into<HostPath>,
        doing: &'static str,
        cause: impl Into<String>,
    ) -> Self {
        Self { path: path.into(), doing, cause: cause.into(), partial: true }
    }

    /// Worth telling; the answer is complete nevertheless.
    pub fn info(path: impl Into<HostPath>, doing: &'static str, cause: impl Into<String>) -> Self {
        Self { path: path.into(), doing, cause: cause.into(), partial: false }
    }
}

/// The notices of one run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notices(Vec<Notice>);

impl Notices {
    /// Adds one.
    pub fn push(&mut self, notice: Notice) {
        self.0.push(notice);
    }

    /// No notice makes the answer partial.
    pub fn complete(&self) -> bool {
        !self.0.iter().any(|notice| notice.partial)
    }

    /// In a fixed order, each once: the same for any number of threads.
    pub fn sorted(mut self) -> Self {
        self.0.sort();
        self.0.dedup();
        self
    }

    /// The notices, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Notice> {
        self.0.iter()
    }
}

impl Extend<Notice> for Notices {
    fn extend<I: IntoIterator<Item = Notice>>(&mut self, notices: I) {
        self.0.extend(notices);
    }
}

impl IntoIterator for Notices {
    type Item = Notice;
    type IntoIter = std::vec::IntoIter<Notice>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
