//! What was verified, for people: what is wrong first.

use std::io::{self, Write};

use super::escape::{escape, escape_controls};
use super::human::plural;
use super::layout::{Page, heading, pairs};
use crate::model::{Check, Verified};

/// Writes what is wrong, each with its way out; with `verbose` also what is as it should be.
///
/// # Errors
///
/// Those of `out`.
pub fn write(out: &mut dyn Write, page: &Page, verified: &Verified) -> io::Result<()> {
    let wrong: Vec<&Check> = verified.checks.iter().filter(|check| !check.ok).collect();
    let good: Vec<&Check> = verified.checks.iter().filter(|check| check.ok).collect();
    section(out, page, "Damaged", wrong.iter().copied().filter(|check| check.damage))?;
    section(out, page, "Not as it should be", wrong.iter().copied().filter(|check| !check.damage))?;
    section(out, page, "As it should be", good.iter().copied())?;
    let checks = plural(verified.checks.len() as u64, "check", "checks");
    match wrong.len() as u64 {
        0 if good.is_empty() => writeln!(out, "No run stands: there is nothing to verify."),
        0 => writeln!(out, "{checks}, all well."),
        count => writeln!(out, "{checks}, {} to look into.", plural(count, "thing", "things")),
    }
}

fn section<'a>(
    out: &mut dyn Write,
    page: &Page,
    title: &str,
    checks: impl Iterator<Item = &'a Check> + Clone,
) -> io::Result<()> {
    let all = checks.clone().count();
    if all == 0 {
        return Ok(());
    }
    heading(out, page, title)?;
    pairs(out, page, checks.take(page.top).map(row))?;
    if let Some(more) = all.checked_sub(page.top).filter(|more| *more > 0) {
        writeln!(out, "  {more} more: --top 0 shows all")?;
    }
    writeln!(out)
}

fn row(check: &Check) -> (String, String) {
    let root = check.root.as_ref().map(|root| escape(root.as_bytes()));
    let path = check.path.as_ref().map(|path| escape(path));
    let place = match (root, path) {
        (Some(root), Some(path)) if path.starts_with('/') => format!("{root}, {path}: "),
        (Some(root), Some(path)) => format!("{root}/{path}: "),
        (Some(place), None) | (None, Some(place)) => format!("{place}: "),
        (None, None) => String::new(),
    };
    (check.what.to_owned(), format!("{place}{}", escape_controls(&check.detail)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::model::{HostPath, Notices};

    fn shown(checks: Vec<Check>) -> String {
        let page = Page { width: 80, color: false, verbose: false, top: 20 };
        let mut out = Vec::new();
        write(&mut out, &page, &Verified { checks, notices: Notices::default() }).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_wrong_comes_first() {
        let root = HostPath::from("/home/web");
        let drift = Check::bad("drift", "a file stands there").in_root(&root).at(b"bin/b\x1b");
        let text = shown(vec![Check::good("links", "2 links").in_root(&root), drift]);
        let expected = "Not as it should be\n  drift  /home/web/bin/b\\u{1b}: a file stands there\n\n\
            As it should be\n  links  /home/web: 2 links\n\n2 checks, 1 thing to look into.\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        assert_eq!(shown(Vec::new()), "No run stands: there is nothing to verify.\n");
    }
}
