//! `@FILE` stands for the arguments that the file holds.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Files that name each other.
const MOST_FILES: u32 = 2000;

/// Puts the contents of each `@FILE` in its place, and looks at those again. An
/// argument that names no file stays as it is.
pub(super) fn expand(arguments: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, &'static str> {
    let mut waiting: Vec<Vec<u8>> = arguments.into_iter().rev().collect();
    let mut expanded = Vec::new();
    let mut files = 0;
    while let Some(argument) = waiting.pop() {
        match read(&argument)? {
            None => expanded.push(argument),
            Some(text) => {
                files += 1;
                if files >= MOST_FILES {
                    return Err("error: too many @-files encountered");
                }
                waiting.extend(split(&text).into_iter().rev());
            }
        }
    }
    Ok(expanded)
}

fn read(argument: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    let Some(name) = argument.strip_prefix(b"@") else {
        return Ok(None);
    };
    let path = Path::new(OsStr::from_bytes(name));
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err("error: @-file refers to a directory"),
        // Not a FIFO: it would block, and cannot be read twice.
        Ok(metadata) if metadata.is_file() => Ok(std::fs::read(path).ok()),
        _ => Ok(None),
    }
}

/// Blanks separate arguments; quotes and backslashes keep them in.
fn split(text: &[u8]) -> Vec<Vec<u8>> {
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    let mut arguments = Vec::new();
    let mut argument: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        let blank = byte.is_ascii_whitespace() || byte == 0x0b;
        if blank && quote.is_none() {
            arguments.extend(argument.take());
            continue;
        }
        let current = argument.get_or_insert_default();
        match byte {
            b'\\' => current.extend(bytes.next()),
            _ if quote == Some(byte) => quote = None,
            b'\'' | b'"' if quote.is_none() => quote = Some(byte),
            _ => current.push(byte),
        }
    }
    arguments.extend(argument);
    arguments
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn quotes_and_backslashes_keep_blanks() {
        let cases: [(&str, &[&str]); 8] = [
            ("", &[]),
            (" \t\n", &[]),
            ("a b\nc", &["a", "b", "c"]),
            ("'a b' \"c d\"", &["a b", "c d"]),
            (r"a\ b", &["a b"]),
            ("''", &[""]),
            ("a'b'\"c\"", &["abc"]),
            (r#""a\"b" 'c"d'"#, &["a\"b", "c\"d"]),
        ];
        for (text, expected) in cases {
            let found = split(text.as_bytes());
            let expected: Vec<Vec<u8>> =
                expected.iter().map(|part| part.as_bytes().into()).collect();
            assert_eq!(found, expected, "{text:?}");
        }
    }
}
