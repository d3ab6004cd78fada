//! The report as one HTML file: no script, no reference to anything outside of it.

use std::io::{self, Write};

use super::escape::escape;
use super::human::{count, size};
use super::order::by_content;
use crate::model::{FileCopy, Group, Host, MemoryMethod, Report, RootPath, RootSummary, Tree};

const STYLE: &str = "\
body{font:15px/1.45 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #8884;vertical-align:top;\
overflow-wrap:anywhere}\
.n{text-align:right;white-space:nowrap}\
summary{cursor:pointer}\
:root{color-scheme:light dark}";

/// Writes the report as a page, in its order, the first `top` rows of each table.
///
/// # Errors
///
/// Those of `out`.
pub fn write(out: &mut dyn Write, report: &Report, host: &Host, top: usize) -> io::Result<()> {
    let title = format!("cbin-audit: {}", text(host.hostname.as_bytes()));
    // Should a name ever slip through the escaping: a browser that runs no script can do no harm.
    writeln!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>{title}</title><style>{STYLE}</style></head>\n<body><h1>{title}</h1>"
    )?;
    totals(out, report)?;
    notices(out, report)?;
    roots(out, report, top)?;
    groups(out, report, host, top)?;
    trees(out, report, top)?;
    writeln!(out, "</body></html>")
}

fn totals(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let totals = &report.totals;
    let memory = match report.memory.as_ref().map(|memory| memory.method) {
        None => "not looked at".to_owned(),
        Some(MemoryMethod::Pfn) => size(totals.wasted_memory),
        Some(MemoryMethod::Inferred) => format!("{} (an estimate)", size(totals.wasted_memory)),
    };
    writeln!(
        out,
        "<p>{} roots, {} files, {} of them ELF. Wasted on disk: <b>{}</b>, in trees outside of \
         these {}. Wasted in memory: <b>{memory}</b>.{}</p>",
        count(totals.roots),
        count(totals.files),
        count(totals.elf_files),
        size(totals.wasted_disk),
        size(totals.wasted_trees),
        if report.complete() { "" } else { " <b>The answer is not complete.</b>" },
    )
}

fn notices(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let number = report.notices.iter().count();
    if number == 0 {
        return Ok(());
    }
    writeln!(out, "<details><summary>{} notices</summary><ul>", count(number as u64))?;
    for notice in report.notices.iter() {
        let (path, cause) = (text(notice.path.as_bytes()), text(notice.cause.as_bytes()));
        writeln!(out, "<li>{path}: {}: {cause}</li>", notice.doing)?;
    }
    writeln!(out, "</ul></details>")
}

fn roots(out: &mut dyn Write, report: &Report, top: usize) -> io::Result<()> {
    let elf = format!("#{}", report.select.elf_files());
    let columns = ["name", "path", "runtime", "state", "#files", &elf, "#size"];
    table(out, "Container roots", &columns, report.roots.iter().map(root_row), top)
}

fn root_row(root: &RootSummary) -> Vec<String> {
    let layer = if root.layer { " layer" } else { "" };
    vec![
        text(root.name.as_bytes()),
        text(root.path.as_bytes()) + &paths("links that lead to nothing", &root.dangling),
        format!("{}{layer}", root.runtime.name()),
        root.state.name().to_owned(),
        count(root.files),
        count(root.elf_files),
        size(root.apparent),
    ]
}

fn groups(out: &mut dyn Write, report: &Report, host: &Host, top: usize) -> io::Result<()> {
    let memory = by_content(report);
    let mut columns =
        vec!["name", "version", "for", "#copies", "#inodes", "#size", "#wasted on disk"];
    if report.memory.is_some() {
        columns.extend(["#in memory", "#wasted in memory"]);
    }
    let rows = report.groups.iter().map(|group| {
        let mut row = group_row(group, &report.roots);
        if report.memory.is_some() {
            let pages =
                memory.get(&group.content).map(|found| [found.file.resident, found.file.wasted()]);
            let sizes = pages.map(|pages| pages.map(|pages| size(pages.bytes(host.page_size))));
            row.extend(sizes.unwrap_or_default());
        }
        row
    });
    table(out, "Duplicate contents", &columns, rows, top)
}

fn group_row(group: &Group, roots: &[RootSummary]) -> Vec<String> {
    let mut name = format!(
        "<details><summary>{}</summary><p>{} <code>{}</code></p><ul>",
        text(group.name.as_bytes()),
        group.kind.name(),
        group.content
    );
    for copy in &group.copies {
        name.push_str(&copy_item(copy, roots));
    }
    name.push_str("</ul></details>");
    vec![
        name,
        text(group.version.as_deref().unwrap_or_default().as_bytes()),
        group.elf.as_ref().map(|elf| elf.arch()).unwrap_or_default(),
        count(group.physical_copies),
        count(group.inodes),
        size(group.size),
        size(group.wasted),
    ]
}

fn copy_item(copy: &FileCopy, roots: &[RootSummary]) -> String {
    let root = roots.iter().find(|root| root.id == copy.root);
    let root = root.map_or_else(String::new, |root| text(root.path.as_bytes()));
    format!(
        "<li>{root}/{} ({} on disk){}{}</li>",
        text(copy.path.as_bytes()),
        size(copy.allocated),
        paths("links", copy.links()),
        paths("links with names it does not answer to", copy.unknown_applets()),
    )
}

fn trees(out: &mut dyn Write, report: &Report, top: usize) -> io::Result<()> {
    let columns = ["path", "#roots", "on the host", "#files", "#size", "#wasted"];
    table(out, "Duplicate trees", &columns, report.trees.iter().map(tree_row), top)
}

fn tree_row(tree: &Tree) -> Vec<String> {
    vec![
        text(tree.path.as_bytes()),
        count(tree.roots.len() as u64),
        if tree.on_host { "too" } else { "" }.to_owned(),
        count(tree.files),
        size(tree.size),
        size(tree.wasted),
    ]
}

/// A list of paths that opens at a click; nothing where there is none.
fn paths(title: &str, paths: &[RootPath]) -> String {
    if paths.is_empty() {
        return String::new();
    }
    let names: Vec<String> = paths.iter().map(|path| text(path.as_bytes())).collect();
    let number = count(paths.len() as u64);
    format!("<details><summary>{number} {title}</summary>{}</details>", names.join(", "))
}

/// A table of cells that are HTML already; `#` marks a column of numbers.
fn table(
    out: &mut dyn Write,
    title: &str,
    columns: &[&str],
    rows: impl ExactSizeIterator<Item = Vec<String>>,
    top: usize,
) -> io::Result<()> {
    let all = rows.len();
    writeln!(out, "<h2>{title}: {}</h2>", count(all as u64))?;
    if all == 0 {
        return Ok(());
    }
    let class = |column: &str| if column.starts_with('#') { " class=\"n\"" } else { "" };
    write!(out, "<table><thead><tr>")?;
    for column in columns {
        write!(out, "<th{}>{}</th>", class(column), column.trim_start_matches('#'))?;
    }
    writeln!(out, "</tr></thead><tbody>")?;
    for row in rows.take(top) {
        write!(out, "<tr>")?;
        for (cell, column) in row.iter().zip(columns) {
            write!(out, "<td{}>{cell}</td>", class(column))?;
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</tbody></table>")?;
    match all.saturating_sub(top) {
        0 => Ok(()),
        more => writeln!(out, "<p>{} more: --top 0 shows all</p>", count(more as u64)),
    }
}

/// Names as they are shown everywhere, and then as HTML's text or attribute.
fn text(name: &[u8]) -> String {
    let mut html = String::with_capacity(name.len());
    for char in escape(name).chars() {
        match char {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            _ => html.push(char),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::render::sample;

    fn page(report: &Report, top: usize) -> String {
        let mut out = Vec::new();
        write(&mut out, report, &sample::host(), top).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_is_fetched_and_nothing_runs() {
        let page = page(&sample::with_memory(), usize::MAX);
        for forbidden in ["<script", "src=", "href=", "url(", "http:", "https:", "@import"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    }

    #[test]
    fn elements_are_closed_in_order() {
        let page = page(&sample::with_memory(), 1);
        let mut open = Vec::new();
        for tag in page.split('<').skip(2) {
            let name: String = tag.chars().take_while(|char| !" >".contains(*char)).collect();
            match name.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop().as_deref(), Some(name), "{tag}"),
                None if name == "meta" => {}
                None => open.push(name),
            }
        }
        assert_eq!(open, Vec::<String>::new());
    }

    #[test]
    fn hostile_names_are_text() {
        let mut report = sample::report();
        report.groups[0].name = "<img src=x onerror=alert(1)>\u{202e}".to_owned();
        report.groups[0].version = Some("'\"&".to_owned());
        let page = page(&report, 20);
        assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;\\u{202e}"), "{page}");
        assert!(page.contains("<td>&#39;&quot;&amp;</td>"), "{page}");
        assert!(!page.contains("<img"), "{page}");
    }

    #[test]
    fn memory_has_columns_where_it_is_known() {
        assert!(!page(&sample::report(), 20).contains("wasted in memory</th>"));
        let page = page(&sample::with_memory(), 20);
        assert!(
            page.contains("<td class=\"n\">2.41 MiB</td><td class=\"n\">1.20 MiB</td>"),
            "{page}"
        );
    }

    #[test]
    fn a_cut_table_says_how_many_more() {
        assert!(page(&sample::report(), 1).contains("<p>2 more: --top 0 shows all</p>"));
    }
}
