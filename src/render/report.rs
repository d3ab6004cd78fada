//! The report for people, read from the top: roots, duplicate programs, duplicate
//! trees, totals, and what to do next.

mod programs;

use std::io::{self, Write};

use super::escape::escape;
use super::human::{count, plural, size};
use super::layout::{Column, Page, elide, heading, pairs, table};
use super::memory;
use super::next::Step;
use crate::model::{
    Bytes, Host, MemoryMethod, Report, RootPath, RootSummary, Select, Totals, Tree,
};

/// Names of one list in a line, unless the reader wants all.
const NAMES: usize = 4;

/// Writes the report as a page, in its order.
///
/// # Errors
///
/// Those of `out`.
pub fn write(
    out: &mut dyn Write,
    page: &Page,
    report: &Report,
    host: &Host,
    next: &[Step],
) -> io::Result<()> {
    roots(out, page, report)?;
    programs::write(out, page, report, host)?;
    trees(out, page, report)?;
    writeln!(out)?;
    if let Some(live) = &report.memory {
        memory::section(out, page, live, host)?;
    }
    totals(out, page, report)?;
    steps(out, page, next)
}

fn roots(out: &mut dyn Write, page: &Page, report: &Report) -> io::Result<()> {
    heading(out, page, &format!("Container roots: {}", count(report.totals.roots)))?;
    let columns = [
        Column::Text("name"),
        Column::Text("path"),
        Column::Text("runtime"),
        Column::Text("state"),
        Column::Number("files"),
        Column::Number(report.select.elf_files()),
        Column::Number("size"),
    ];
    table(out, page, &columns, report.roots.iter().map(root_row))?;
    dangling(out, page, &report.roots)
}

fn root_row(root: &RootSummary) -> Vec<String> {
    let layer = if root.layer { " layer" } else { "" };
    vec![
        shown(root.name.as_bytes()),
        shown(root.path.as_bytes()),
        format!("{}{layer}", root.runtime.name()),
        root.state.name().to_owned(),
        count(root.files),
        count(root.elf_files),
        size(root.apparent),
    ]
}

fn dangling(out: &mut dyn Write, page: &Page, roots: &[RootSummary]) -> io::Result<()> {
    let broken = roots.iter().filter(|root| !root.dangling.is_empty());
    let rows = broken.map(|root| {
        let links = root.dangling.len() as u64;
        let names = names(page, root.dangling.iter());
        (
            root_name(root),
            format!("{} to nothing: {names}", plural(links, "link leads", "links lead")),
        )
    });
    pairs(out, page, limited(page, rows))
}

fn trees(out: &mut dyn Write, page: &Page, report: &Report) -> io::Result<()> {
    if report.trees.is_empty() {
        return Ok(());
    }
    let found = plural(report.trees.len() as u64, "tree is", "trees are");
    writeln!(out)?;
    heading(out, page, &format!("Duplicate trees: {found} the same in several places"))?;
    let columns = [
        Column::Text("path"),
        Column::Number("roots"),
        Column::Text("on the host"),
        Column::Number("files"),
        Column::Number("size"),
        Column::Number("wasted"),
    ];
    table(out, page, &columns, report.trees.iter().map(tree_row))
}

fn tree_row(tree: &Tree) -> Vec<String> {
    vec![
        shown(tree.path.as_bytes()),
        count(tree.roots.len() as u64),
        if tree.on_host { "too" } else { "" }.to_owned(),
        count(tree.files),
        size(tree.size),
        size(tree.wasted),
    ]
}

fn totals(out: &mut dyn Write, page: &Page, report: &Report) -> io::Result<()> {
    heading(out, page, "Totals")?;
    let totals = &report.totals;
    let mut rows = vec![("disk".to_owned(), disk_total(totals))];
    if totals.wasted_trees > Bytes(0) {
        let more = format!("{} more in trees, outside of these", size(totals.wasted_trees));
        rows.push((String::new(), more));
    }
    rows.push(("memory".to_owned(), memory_total(report)));
    let names = plural(totals.files, "file", "files");
    rows.push((
        "looked at".to_owned(),
        format!("{names}, {} of them {}", count(totals.elf_files), report.select.elf_files()),
    ));
    pairs(out, page, rows)
}

fn disk_total(totals: &Totals) -> String {
    match totals.groups {
        0 => "nothing is held twice".to_owned(),
        groups => format!(
            "{} wasted by {}",
            size(totals.wasted_disk),
            plural(groups, "content", "contents")
        ),
    }
}

fn memory_total(report: &Report) -> String {
    let wasted = size(report.totals.wasted_memory);
    match report.memory.as_ref().map(|memory| memory.method) {
        None => "not looked at".to_owned(),
        Some(MemoryMethod::Pfn) => format!("{wasted} wasted"),
        Some(MemoryMethod::Inferred) => format!("{wasted} wasted (an estimate)"),
    }
}

fn steps(out: &mut dyn Write, page: &Page, next: &[Step]) -> io::Result<()> {
    if next.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    heading(out, page, "Next")?;
    // A command stands on a line of its own, however long: a broken one cannot be copied.
    next.iter().try_for_each(|step| writeln!(out, "  # {}\n  {}", step.why, step.command))
}

/// What the report compares, in words.
fn compared(select: Select) -> &'static str {
    match select {
        Select::Multicall => "multi-call programs",
        Select::Elf => "programs and libraries",
        Select::All => "files",
    }
}

fn root_name(root: &RootSummary) -> String {
    let name = if root.name.is_empty() { root.path.as_bytes() } else { root.name.as_bytes() };
    shown(name)
}

/// A name for a cell.
fn shown(name: &[u8]) -> String {
    elide(escape(name), 120)
}

/// Names in a line: the first of them, or all where the reader wants all.
fn names<'a>(page: &Page, paths: impl ExactSizeIterator<Item = &'a RootPath>) -> String {
    let most = if page.verbose { usize::MAX } else { NAMES };
    let more = paths.len().saturating_sub(most);
    let mut line =
        paths.take(most).map(|path| shown(path.as_bytes())).collect::<Vec<_>>().join(", ");
    if more > 0 {
        line.push_str(&format!(" and {} more", count(more as u64)));
    }
    line
}

/// The first lines of a list, and how many more there are, unless the reader wants all.
fn limited(page: &Page, rows: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut rows: Vec<_> = rows.collect();
    let most = if page.verbose { usize::MAX } else { page.top };
    if rows.len() > most {
        let more = rows.len() - most;
        rows.truncate(most);
        rows.push((String::new(), format!("{} more: --verbose shows all", count(more as u64))));
    }
    rows
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use unicode_width::UnicodeWidthStr;

    use super::*;
    use crate::model::HostPath;
    use crate::render::sample;

    const PAGE: Page = Page { width: 100, color: false, verbose: false, top: 20 };

    fn text(page: &Page, report: &Report) -> String {
        let step = Step { command: "cbin-audit dedupe /home".to_owned(), why: "the plan" };
        let mut out = Vec::new();
        write(&mut out, page, report, &sample::host(), &[step]).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn reads_from_the_top() {
        let expected = include_str!("report/expected.txt");
        assert_eq!(text(&PAGE, &sample::report()), expected);
    }

    #[test]
    fn memory_stands_beside_disk() {
        let text = text(&PAGE, &sample::with_memory());
        let row = text.lines().find(|line| line.starts_with("busybox")).unwrap();
        assert!(row.ends_with("  2.41 MiB  1.20 MiB"), "{text}");
        assert!(text.contains("memory     1.20 MiB wasted\n"), "{text}");
        let sections = ["Duplicate programs", "\nMemory\n", "\nContainers: 2\n", "\n\nTotals\n"];
        let places = sections.map(|section| text.find(section));
        assert!(places.is_sorted() && !places.contains(&None), "{places:?} in\n{text}");
    }

    #[test]
    fn an_estimate_says_so() {
        let mut report = sample::with_memory();
        report.memory.as_mut().unwrap().method = MemoryMethod::Inferred;
        assert!(text(&PAGE, &report).contains("1.20 MiB wasted (an estimate)"));
    }

    #[test]
    fn nothing_found_is_said() {
        let text = text(&PAGE, &sample::empty());
        assert!(text.contains("nothing is held twice"), "{text}");
        assert!(text.contains("not looked at"), "{text}");
    }

    #[test]
    fn every_line_fits_and_no_control_reaches_the_terminal() {
        let mut report = sample::with_memory();
        for at in 2..30 {
            let hostile = "\x1b[2J\u{202e}\n字".repeat(40);
            report.roots.push(RootSummary {
                path: HostPath::from(hostile.clone()),
                ..sample::root(at, &hostile)
            });
            let group = sample::busybox();
            report.groups.push(crate::model::Group { name: hostile, ..group });
        }
        for (width, verbose) in [(0, false), (80, false), (80, true), (100, true), (250, true)] {
            let page = Page { width, verbose, top: usize::MAX, ..PAGE };
            let text = text(&page, &report);
            for line in text.lines() {
                let columns = line.width();
                assert!(columns <= usize::from(width.clamp(80, 100)), "{columns}: {line}");
                assert!(!line.chars().any(char::is_control), "{line:?}");
            }
        }
    }
}
