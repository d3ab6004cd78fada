//! The syntax of units, drop-ins and `.nspawn` files, read as systemd reads it:
//! systemd.syntax(7), and `config_parse()` of systemd's conf-parser.c.

/// One assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The section it stands in, without brackets.
    pub section: String,
    /// What is assigned to.
    pub key: String,
    /// What is assigned: one line, continuations joined by a blank.
    pub value: String,
}

/// The assignments of a file, in order. A section may come several times. Lines that
/// systemd ignores, with a warning or without, are left out.
pub fn settings(text: &[u8]) -> Vec<Setting> {
    let mut section = None;
    let mut found = Vec::new();
    for line in logical_lines(text) {
        // systemd ignores a line that is not UTF-8.
        let Ok(line) = std::str::from_utf8(&line) else { continue };
        let line = line.trim_matches(is_blank);
        if let Some(rest) = line.strip_prefix('[') {
            section = rest.strip_suffix(']').map(str::to_owned);
        } else if let (Some((key, value)), Some(section)) = (line.split_once('='), &section) {
            found.push(Setting {
                section: section.clone(),
                key: key.trim_matches(is_blank).to_owned(),
                value: value.trim_matches(is_blank).to_owned(),
            });
        }
    }
    found
}

/// What stands in force for a setting that is a list: an empty value forgets those before it.
pub fn list<'a>(settings: &'a [Setting], section: &str, key: &str) -> Vec<&'a str> {
    let mut values = Vec::new();
    for value in assigned(settings, section, key) {
        if value.is_empty() {
            values.clear();
        } else {
            values.push(value);
        }
    }
    values
}

/// What stands in force for a setting that has one value: the last; `None` when that is empty.
pub fn last<'a>(settings: &'a [Setting], section: &str, key: &str) -> Option<&'a str> {
    assigned(settings, section, key).pop().filter(|value| !value.is_empty())
}

/// A boolean as systemd reads one: `parse_boolean()`.
pub fn is_true(value: &str) -> bool {
    ["1", "yes", "y", "true", "t", "on"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// A boolean as systemd reads one: `parse_boolean()`.
pub fn is_false(value: &str) -> bool {
    ["0", "no", "n", "false", "f", "off"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

fn assigned<'a>(settings: &'a [Setting], section: &str, key: &str) -> Vec<&'a str> {
    let named = settings.iter().filter(|s| s.section == section && s.key == key);
    named.map(|setting| setting.value.as_str()).collect()
}

/// Lines without comments, continuations joined. A comment between continuation lines
/// is left out and ends nothing.
fn logical_lines(text: &[u8]) -> Vec<Vec<u8>> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut lines = Vec::new();
    let mut joined: Option<Vec<u8>> = None;
    for line in text.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if matches!(line.trim_ascii_start().first(), Some(b'#' | b';')) {
            continue;
        }
        let mut whole = joined.take().unwrap_or_default();
        whole.extend_from_slice(line);
        if ends_escaped(&whole) {
            whole.pop();
            whole.push(b' ');
            joined = Some(whole);
        } else {
            lines.push(whole);
        }
    }
    lines.extend(joined);
    lines
}

/// The last backslash escapes the line's end: it is not itself escaped.
fn ends_escaped(line: &[u8]) -> bool {
    line.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let all = settings(text.as_bytes());
        all.into_iter().map(|s| (format!("{}.{}", s.section, s.key), s.value)).collect()
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn comments_between_continuation_lines_end_nothing() {
        let text = "[Service]\nExecStart=/usr/bin/systemd-nspawn -b \\\n# where\n  ; it lies\n  -D /srv/web \\\n\
            --bind-ro=/a\nKillMode=process\n";
        let expected = [
            pair("Service.ExecStart", "/usr/bin/systemd-nspawn -b    -D /srv/web  --bind-ro=/a"),
            pair("Service.KillMode", "process"),
        ];
        assert_eq!(pairs(text), expected);
    }

    #[test]
    fn sections_come_back() {
        let text =
            "[Service]\nA=1\n[Install]\nWantedBy=x\n[Service]\nA=2\n [Unit] \nA = 3 \nno line\n";
        let expected = [
            pair("Service.A", "1"),
            pair("Install.WantedBy", "x"),
            pair("Service.A", "2"),
            pair("Unit.A", "3"),
        ];
        assert_eq!(pairs(text), expected);
    }

    #[test]
    fn an_escaped_backslash_continues_nothing() {
        assert_eq!(
            pairs("[S]\nA=x\\\\\nB=y\\\\\\\nz"),
            [pair("S.A", "x\\\\"), pair("S.B", "y\\\\ z")]
        );
    }

    #[test]
    fn what_systemd_ignores_is_left_out() {
        assert_eq!(pairs("A=before a section\n[broken\nA=1\n[S]\n=x\n"), [pair("S.", "x")]);
        assert_eq!(settings(b"[S]\nA=\xff\nB=2\n").len(), 1);
        assert_eq!(pairs("\u{feff}[S]\r\nA=1 \\\r\n2\r\n"), [pair("S.A", "1  2")]);
        assert_eq!(pairs("[S]\nA=cut off \\"), [pair("S.A", "cut off")]);
    }

    #[test]
    fn an_empty_value_resets() {
        let all = settings(b"[S]\nA=1\nA=2\nA=\nA=3\nB=1\nB=\n");
        assert_eq!(list(&all, "S", "A"), ["3"]);
        assert_eq!(last(&all, "S", "A"), Some("3"));
        assert_eq!(last(&all, "S", "B"), None);
        assert_eq!(list(&all, "T", "A"), [""; 0]);
    }
}
