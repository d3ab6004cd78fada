//! Makes names safe to show to a person.
//!
//! A file name may hold any byte but NUL and `/`, and its maker may mean harm: an
//! escape sequence drives the terminal, a newline forges a line of output, a
//! bidirectional override shows `gpj.exe` for another name, an invisible
//! character makes two names look like one. Every name that reaches a person,
//! in a table, an error or a progress line, passes through [`escape`].

use std::fmt::Write;

/// Shows `bytes` with everything that is not visible text written as an escape,
/// as `ls -b` and Rust's `{:?}` write it: `\n`, `\t`, `\r`, `\0`, `\u{1b}`, `\xff` for a
/// byte that is not UTF-8, and `\\` for the backslash itself, so that two names
/// never look alike. Letters of any script stay.
pub fn escape(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for (at, char) in chunk.valid().char_indices() {
            push(&mut shown, char, at == 0);
        }
        for byte in chunk.invalid() {
            // Writing into a String cannot fail.
            let _infallible = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// A mark that combines with the character before it would, as the `first`,
/// alter what stands to the left of the name.
fn push(shown: &mut String, char: char, first: bool) {
    match char {
        '\\' => shown.push_str("\\\\"),
        ' '..='~' => shown.push(char),
        _ if is_ignorable(char) => shown.extend(char.escape_unicode()),
        _ if first => shown.extend(char.escape_debug()),
        _ => push_inner(shown, char),
    }
}

/// The standard library's tables know what is printable, but its
/// `char::escape_debug` also escapes combining marks; after another character
/// `str::escape_debug` lets them stand.
fn push_inner(shown: &mut String, char: char) {
    let mut pair = [b'a'; 5];
    let len = 1 + char.encode_utf8(&mut pair[1..]).len();
    if let Ok(pair) = std::str::from_utf8(&pair[..len]) {
        shown.extend(pair.escape_debug().skip(1));
    }
}

/// Characters that Unicode counts among letters or marks but shows as nothing
/// (`Default_Ignorable_Code_Point`, without those that are format or unassigned
/// and so not printable anyway).
fn is_ignorable(char: char) -> bool {
    matches!(char,
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0100}'..='\u{e01ef}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_stay() {
        for name in ["usr/bin/[[", "a b", "Grüße", "日本語", "עברית", "e\u{301}", "🦀", "'\"", "~"]
        {
            assert_eq!(escape(name.as_bytes()), name);
        }
    }

    #[test]
    fn each_class_is_escaped() {
        let cases: &[(&[u8], &str)] = &[
            (b"a\nb", "a\\nb"),
            (b"a\rb\tc", "a\\rb\\tc"),
            (b"\x1b[31mred", "\\u{1b}[31mred"),
            (b"\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}"),
            (b"\x7f", "\\u{7f}"),
            (b"nul\0", "nul\\0"),
            ("c1 \u{9b}31m".as_bytes(), "c1 \\u{9b}31m"),
            ("bidi \u{202e}gpj".as_bytes(), "bidi \\u{202e}gpj"),
            ("isolate \u{2066}".as_bytes(), "isolate \\u{2066}"),
            (
                "zero\u{200b}width\u{200d}\u{feff}".as_bytes(),
                "zero\\u{200b}width\\u{200d}\\u{feff}",
            ),
            ("tag\u{e0041}".as_bytes(), "tag\\u{e0041}"),
            ("line\u{2028}paragraph\u{2029}".as_bytes(), "line\\u{2028}paragraph\\u{2029}"),
            ("space\u{a0}\u{3000}".as_bytes(), "space\\u{a0}\\u{3000}"),
            ("soft\u{ad}hyphen".as_bytes(), "soft\\u{ad}hyphen"),
            ("filler\u{3164}\u{fe0f}".as_bytes(), "filler\\u{3164}\\u{fe0f}"),
            ("private\u{e000}".as_bytes(), "private\\u{e000}"),
            ("\u{301}first".as_bytes(), "\\u{301}first"),
            (b"bad\xff\xfe", "bad\\xff\\xfe"),
            (b"cut\xe2\x82", "cut\\xe2\\x82"),
            (b"back\\n", "back\\\\n"),
        ];
        for (bytes, shown) in cases {
            assert_eq!(escape(bytes), *shown);
        }
    }

    #[test]
    fn nothing_that_a_terminal_acts_on_comes_through() {
        for code in 0..=0x10_ffff {
            let Some(char) = char::from_u32(code) else { continue };
            let shown = escape(format!("x{char}").as_bytes());
            assert!(!shown.chars().any(char::is_control), "U+{code:04X}");
        }
    }

    #[test]
    fn different_names_never_look_alike() {
        let names: [&[u8]; 6] = [b"\n", b"\\n", b"\\\\n", b"\xff", b"\\xff", "\u{fffd}".as_bytes()];
        let shown: std::collections::BTreeSet<_> = names.iter().map(|name| escape(name)).collect();
        assert_eq!(shown.len(), names.len());
    }
}
