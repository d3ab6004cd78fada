//! What a change does to a configuration file, as diff(1) shows it (`-u`).

use std::fmt::Write;

use similar::ChangeTag;
use similar::algorithms::{Capture, Compact, Replace, myers};

use super::escape::{escape, escape_controls};
use crate::model::ConfigChange;

/// Lines that stay around each that changes.
const CONTEXT: usize = 3;

/// The change as a unified diff; empty where nothing changes.
pub fn unified(change: &ConfigChange) -> String {
    let text = |bytes: &Option<Vec<u8>>| {
        String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned()
    };
    let (before, after) = (text(&change.before), text(&change.after));
    let lines = |text| str::split_inclusive(text, '\n').collect();
    let (before, after): (Vec<&str>, Vec<&str>) = (lines(&before), lines(&after));
    let mut out = String::new();
    for group in groups(&before, &after) {
        out.push_str(&range(&group));
        for line in group.iter().flat_map(|op| op.iter_changes(&before[..], &after[..])) {
            let sign = match line.tag() {
                ChangeTag::Equal => ' ',
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
            };
            let text = line.value().trim_end_matches('\n');
            // Tabs indent, and harm nothing.
            let shown: Vec<String> = text.split('\t').map(escape_controls).collect();
            out.push_str(&format!("{sign}{}\n", shown.join("\t")));
            if !line.value().ends_with('\n') {
                out.push_str("\\ No newline at end of file\n");
            }
        }
    }
    if out.is_empty() { out } else { head(change) + &out }
}

/// What changes, with the lines around it. By one algorithm: the crate's own choice among all of them
/// takes 300 kB.
fn groups(before: &[&str], after: &[&str]) -> Vec<Vec<similar::DiffOp>> {
    let mut found = Compact::new(Replace::new(Capture::new()), before, after);
    let Ok(()) = myers::diff(&mut found, before, 0..before.len(), after, 0..after.len());
    found.into_inner().into_inner().into_grouped_ops(CONTEXT)
}

fn head(change: &ConfigChange) -> String {
    let name = escape(change.file.as_bytes());
    let side = |bytes: &Option<Vec<u8>>| match bytes {
        Some(_) => name.clone(),
        None => "/dev/null".to_owned(),
    };
    format!("--- {}\n+++ {}\n", side(&change.before), side(&change.after))
}

/// `@@ -1,3 +1,4 @@`: where the lines stand before and after.
fn range(group: &[similar::DiffOp]) -> String {
    let mut line = String::from("@@");
    let (Some(first), Some(last)) = (group.first(), group.last()) else { return line };
    let spans = [
        ('-', first.old_range().start, last.old_range().end),
        ('+', first.new_range().start, last.new_range().end),
    ];
    for (sign, start, end) in spans {
        let count = end - start;
        let start = if count == 0 { start } else { start + 1 };
        // Writing into a String cannot fail.
        let _infallible = match count {
            1 => write!(line, " {sign}{start}"),
            _ => write!(line, " {sign}{start},{count}"),
        };
    }
    line.push_str(" @@\n");
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HostPath;

    fn change(before: Option<&str>, after: Option<&str>) -> ConfigChange {
        let bytes = |text: &str| text.as_bytes().to_vec();
        ConfigChange {
            file: HostPath::from("/etc/x"),
            before: before.map(bytes),
            after: after.map(bytes),
        }
    }

    #[test]
    fn a_new_file_and_one_that_goes() {
        assert_eq!(
            unified(&change(None, Some("a\nb\n"))),
            "--- /dev/null\n+++ /etc/x\n@@ -0,0 +1,2 @@\n+a\n+b\n"
        );
        assert_eq!(
            unified(&change(Some("a\n"), None)),
            "--- /etc/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n"
        );
        assert_eq!(unified(&change(Some("a\n"), Some("a\n"))), "");
    }

    #[test]
    fn lines_around_a_change_are_shown() {
        let before = "1\n2\n3\n4\n5\n6\n7\n";
        let after = "1\n2\n3\n4\n5\n5 and a half\n6\n7";
        let expected = "--- /etc/x\n+++ /etc/x\n@@ -3,5 +3,6 @@\n 3\n 4\n 5\n+5 and a half\n 6\n-7\n+7\n\
            \\ No newline at end of file\n";
        assert_eq!(unified(&change(Some(before), Some(after))), expected);
    }

    #[test]
    fn what_would_drive_a_terminal_is_escaped() {
        let shown = unified(&change(None, Some("\ta\u{1b}[2J\n")));
        assert!(shown.ends_with("+\ta\\u{1b}[2J\n"), "{shown}");
    }
}
