//! Words of a command line in a unit: systemd.service(5), "Command lines", and
//! `extract_first_word()` of systemd's extract-word.c.

/// One word of a value, unquoted, and where it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The word's bytes; specifiers and variables stand as written.
    pub bytes: Vec<u8>,
    /// It stood bare: `;` then ends a command.
    pub bare: bool,
    /// Where its text ends in the value.
    pub end: usize,
}

/// Splits a value into words; `None` when a quote is not closed.
///
/// A backslash sequence that is none stays as it is, as systemd leaves it after a warning.
pub fn split(value: &str) -> Option<Vec<Word>> {
    let mut reader = Reader { bytes: value.as_bytes(), at: 0 };
    let mut words = Vec::new();
    loop {
        reader.skip_blanks();
        if reader.peek().is_none() {
            return Some(words);
        }
        words.push(reader.word()?);
    }
}

/// A word, quoted where it must be, that means exactly `bytes` in an `Exec…=` line: nothing
/// in it is taken as a specifier, a variable or an escape.
pub fn quote_argument(bytes: &[u8]) -> String {
    // `$$` stands for one `$`: systemd.service(5).
    quote(bytes, true)
}

/// A word, quoted where it must be, that means exactly `bytes` in a list of paths.
pub fn quote_path(bytes: &[u8]) -> String {
    quote(bytes, false)
}

fn quote(bytes: &[u8], variables: bool) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/_.:=,+-@".contains(byte);
    if let (false, true, Ok(text)) =
        (bytes.is_empty(), bytes.iter().all(plain), std::str::from_utf8(bytes))
    {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                '%' => out.push_str("%%"),
                '$' if variables => out.push_str("$$"),
                c if c.is_control() => {
                    c.to_string().bytes().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
                }
                c => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out.push('"');
    out
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(is_blank) {
            self.at += 1;
        }
    }

    fn word(&mut self) -> Option<Word> {
        let start = self.at;
        let mut bytes = Vec::new();
        let mut quote = None;
        while let Some(byte) = self.peek() {
            match (byte, quote) {
                (b, None) if is_blank(b) => break,
                (b, Some(open)) if b == open => quote = None,
                (b'"' | b'\'', None) => quote = Some(byte),
                (b'\\', _) => {
                    self.at += 1;
                    self.escape(&mut bytes);
                    continue;
                }
                _ => bytes.push(byte),
            }
            self.at += 1;
        }
        let bare = self.bytes.get(start..self.at) == Some(&bytes);
        quote.is_none().then_some(Word { bytes, bare, end: self.at })
    }

    /// What follows a backslash: `cunescape_one()`.
    fn escape(&mut self, out: &mut Vec<u8>) {
        let start = self.at;
        let simple = match self.next() {
            Some(b'a') => 7,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 11,
            Some(b's') => b' ',
            Some(byte @ (b'\\' | b'"' | b'\'')) => byte,
            Some(kind) if self.number(kind, out).is_some() => return,
            _ => {
                // None of systemd's: the backslash stays, and what follows is read on.
                self.at = start;
                b'\\'
            }
        };
        out.push(simple);
    }

    /// `\x41`, `\101`, `\u00e4`, `\U0001f600`; never NUL.
    fn number(&mut self, kind: u8, out: &mut Vec<u8>) -> Option<()> {
        let (start, count, radix) = match kind {
            b'x' => (self.at, 2, 16),
            b'u' => (self.at, 4, 16),
            b'U' => (self.at, 8, 16),
            b'0'..=b'7' => (self.at - 1, 3, 8),
            _ => return None,
        };
        let digits = std::str::from_utf8(self.bytes.get(start..start + count)?).ok()?;
        let plain = digits.chars().all(|c| c.is_digit(radix));
        let value = u32::from_str_radix(digits, radix).ok().filter(|v| plain && *v != 0)?;
        if matches!(kind, b'u' | b'U') {
            out.extend(char::from_u32(value)?.to_string().into_bytes());
        } else {
            out.push(u8::try_from(value).ok()?);
        }
        self.at = start + count;
        Some(())
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(value: &str) -> Vec<String> {
        let words = split(value).unwrap_or_default();
        words.into_iter().map(|word| String::from_utf8_lossy(&word.bytes).into_owned()).collect()
    }

    #[test]
    fn words_are_unquoted_and_unescaped() {
        let table: [(&str, &[&str]); 9] = [
            ("/bin/a  -b\tc", &["/bin/a", "-b", "c"]),
            ("a \"b c\" 'd e'", &["a", "b c", "d e"]),
            ("a\"b c\"d", &["ab cd"]),
            ("\"--bind-ro=/srv/c\\\\:bin:/cb2\"", &["--bind-ro=/srv/c\\:bin:/cb2"]),
            ("--bind-ro=/srv/c\\:bin", &["--bind-ro=/srv/c\\:bin"]),
            (r"\x41\102\u00e4\s\t", &["ABä \t"]),
            (r"\q\x4\x00\", &[r"\q\x4\x00\"]),
            ("\"\" x", &["", "x"]),
            ("  ", &[]),
        ];
        for (value, expected) in table {
            assert_eq!(words(value), expected, "{value}");
        }
        assert_eq!(split("a \"b"), None);
    }

    #[test]
    fn a_semicolon_ends_a_command_only_when_bare() {
        let bare: Vec<bool> =
            split("a ; \\; \";\"").unwrap_or_default().iter().map(|w| w.bare).collect();
        assert_eq!(bare, [true, true, true, false]);
        assert_eq!(words("a ; \\;"), ["a", ";", "\\;"]);
    }

    #[test]
    fn what_is_quoted_is_read_back() {
        let table: [&[u8]; 5] = [
            b"--bind-ro=/home/cbin:/cbin",
            b"a\\:b \"c\"",
            b"tab\tline\n",
            b"\xff\xfe",
            "ä".as_bytes(),
        ];
        for bytes in table {
            let read = split(&quote_argument(bytes)).unwrap_or_default();
            assert_eq!(read.len(), 1);
            assert_eq!(read[0].bytes, bytes);
        }
        assert_eq!(quote_argument(b"100% $HOME"), "\"100%% $$HOME\"");
        assert_eq!(quote_path(b"/a$b"), "\"/a$b\"");
    }
}
