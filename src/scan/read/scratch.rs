//! What one thread reads into, and what it hashed last.

use super::WHOLE;
use crate::model::ContentId;

/// Two buffers: what is read, and what was hashed before it.
pub(super) struct Scratch {
    /// [`WHOLE`] bytes to read into.
    pub(super) buffer: Vec<u8>,
    /// As many, of which the first hold what was hashed last.
    pub(super) other: Vec<u8>,
    hashed: Option<(usize, ContentId)>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        let buffer = || vec![0; WHOLE as usize];
        Self { buffer: buffer(), other: buffer(), hashed: None }
    }

    /// The hash of the first bytes of the buffer, whose content is lost by it. Where they are what was
    /// hashed last, byte for byte, it is known.
    pub(super) fn hash(&mut self, len: usize) -> ContentId {
        if let Some((known, content)) = self.hashed
            && self.buffer[..len] == self.other[..known]
        {
            return content;
        }
        let content = hash(&self.buffer[..len]);
        std::mem::swap(&mut self.buffer, &mut self.other);
        self.hashed = Some((len, content));
        content
    }

    /// Both buffers, to read into.
    pub(super) fn both(&mut self) -> (&mut [u8], &mut [u8]) {
        self.hashed = None;
        (&mut self.buffer, &mut self.other)
    }
}

/// The hash of these bytes.
pub(super) fn hash(bytes: &[u8]) -> ContentId {
    ContentId(blake3::hash(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_same_bytes_are_known() {
        let mut scratch = Scratch::new();
        let mut told = |bytes: &[u8]| {
            scratch.buffer[..bytes.len()].copy_from_slice(bytes);
            scratch.hash(bytes.len())
        };
        for bytes in [&b"one"[..], b"one", b"onE", b"one", b"on", b"one!", b"", b"", b"one"] {
            assert_eq!(told(bytes), hash(bytes), "{bytes:?}");
        }
    }

    #[test]
    fn what_was_read_over_is_known_no_more() {
        let mut scratch = Scratch::new();
        scratch.buffer[..3].copy_from_slice(b"one");
        scratch.hash(3);
        scratch.both().1[..3].copy_from_slice(b"two");
        scratch.buffer[..3].copy_from_slice(b"two");
        assert_eq!(scratch.hash(3), hash(b"two"));
    }
}
