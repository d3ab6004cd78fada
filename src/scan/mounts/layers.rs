//! The directories that an overlay stacks, as its mount options name them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Mount, path};

impl Mount {
    /// The directories that an overlay stacks, the writable one first. A relative one
    /// counts from the directory that holds all layers.
    pub fn layers(&self) -> Vec<PathBuf> {
        let mut layers: Vec<PathBuf> = self.values("upperdir").collect();
        let home = layers.first().and_then(|upper| upper.ancestors().nth(2)).map(Path::to_owned);
        for key in ["lowerdir", "lowerdir+", "datadir+"] {
            layers.extend(self.values(key).flat_map(|value| split_layers(&value)));
        }
        let home = home.unwrap_or_default();
        layers.into_iter().map(|layer| home.join(layer)).collect()
    }

    /// The directory that an overlay writes to, where it has one.
    pub fn upper(&self) -> Option<PathBuf> {
        let upper = self.values("upperdir").next().filter(|it| it.is_absolute());
        upper.filter(|_| self.fs_type == b"overlay").map(|it| without_escapes(&it))
    }

    fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
        self.file_system_options().filter_map(move |option| {
            let value = option.strip_prefix(key.as_bytes())?.strip_prefix(b"=")?;
            Some(path(value))
        })
    }
}

/// `a:b::data`: layers stand between colons, data-only ones between two.
fn split_layers(value: &Path) -> Vec<PathBuf> {
    split_escaped(value.as_os_str().as_bytes(), b':')
        .into_iter()
        .filter(|part| !part.is_empty())
        .map(|part| PathBuf::from(OsStr::from_bytes(&without_backslashes(part))))
        .collect()
}

/// Splits at a separator that no backslash precedes.
pub(super) fn split_escaped(bytes: &[u8], separator: u8) -> Vec<&[u8]> {
    let mut escaped = false;
    bytes
        .split(|&byte| {
            let splits = byte == separator && !escaped;
            escaped = byte == b'\\' && !escaped;
            splits
        })
        .collect()
}

fn without_escapes(path: &Path) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&without_backslashes(path.as_os_str().as_bytes())))
}

fn without_backslashes(bytes: &[u8]) -> Vec<u8> {
    let mut escaped = false;
    let keep = |byte: &u8| {
        escaped = *byte == b'\\' && !escaped;
        !escaped
    };
    bytes.iter().copied().filter(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_an_overlay_in_order() {
        let line = b"1 2 0:50 / / rw - overlay overlay rw,lowerdir=/s/l/A:l/B:/s/x\\134:y,upperdir=/s/u/diff,workdir=/s/u/work";
        let layers = super::super::parse(line)[0].layers();
        let expected = ["/s/u/diff", "/s/l/A", "/s/l/B", "/s/x:y"].map(PathBuf::from);
        assert_eq!(layers, expected);
    }
}
