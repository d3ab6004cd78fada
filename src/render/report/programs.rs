//! The duplicate programs: a table, and what is odd about the multi-call binaries' links.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};

use super::{compared, limited, names, root_name, shown};
use crate::model::{
    BinaryMemory, Bytes, ContentId, ElfFacts, FileCopy, Group, Host, Report, RootId, RootPath,
    RootSummary,
};
use crate::render::human::{count, plural, size};
use crate::render::layout::{Column, Page, elide, heading, pairs, table};
use crate::render::order::by_content;

/// Writes the table of programs and the lines beneath it.
pub(super) fn write(
    out: &mut dyn Write,
    page: &Page,
    report: &Report,
    host: &Host,
) -> io::Result<()> {
    writeln!(out)?;
    let compared = compared(report.select);
    if report.groups.is_empty() {
        return heading(out, page, &format!("Duplicate {compared}: none"));
    }
    heading(out, page, &format!("Duplicate {compared}: {}", count(report.groups.len() as u64)))?;
    let view = View::of(report, host);
    table(out, page, &view.columns(), report.groups.iter().map(|group| view.row(group)))?;
    let roots: HashMap<RootId, &RootSummary> =
        report.roots.iter().map(|root| (root.id, root)).collect();
    for group in report.groups.iter().take(page.top) {
        details(out, page, group, &roots)?;
    }
    Ok(())
}

/// What the columns are: those that would say the same in every row are left out.
struct View<'a> {
    memory: Option<HashMap<ContentId, &'a BinaryMemory>>,
    page_size: Bytes,
    architectures: bool,
}

impl<'a> View<'a> {
    fn of(report: &'a Report, host: &Host) -> Self {
        let found: BTreeSet<_> = report.groups.iter().filter_map(arch).collect();
        Self {
            memory: report.memory.is_some().then(|| by_content(report)),
            page_size: host.page_size,
            architectures: found.len() > 1,
        }
    }

    fn columns(&self) -> Vec<Column> {
        let mut columns = vec![Column::Text("name"), Column::Text("version")];
        if self.architectures {
            columns.push(Column::Text("for"));
        }
        columns.extend(["copies", "inodes", "text", "disk", "wasted"].map(Column::Number));
        if self.memory.is_some() {
            columns.extend(["memory", "wasted"].map(Column::Number));
        }
        columns
    }

    fn row(&self, group: &Group) -> Vec<String> {
        let text = group.elf.as_ref().and_then(|elf| elf.sections).map(|sections| sections.text);
        let version = group.version.as_deref().unwrap_or("");
        let mut row = vec![shown(group.name.as_bytes()), shown(version.as_bytes())];
        if self.architectures {
            row.push(arch(group).unwrap_or_default());
        }
        row.push(count(group.physical_copies));
        row.push(count(group.inodes));
        row.push(text.map_or_else(String::new, size));
        row.push(size(disk(group)));
        row.push(size(group.wasted));
        if let Some(memory) = &self.memory {
            row.extend(self.memory_cells(memory.get(&group.content).copied()));
        }
        row
    }

    /// A content that no process maps has empty cells, not zeros.
    fn memory_cells(&self, binary: Option<&BinaryMemory>) -> [String; 2] {
        binary.map_or_else(Default::default, |binary| {
            let pages = [binary.file.resident, binary.file.wasted()];
            pages.map(|pages| size(pages.bytes(self.page_size)))
        })
    }
}

fn arch(group: &Group) -> Option<String> {
    group.elf.as_deref().map(ElfFacts::arch)
}

/// The blocks of all copies: those beyond one, and the one that has to stay, the largest.
fn disk(group: &Group) -> Bytes {
    let kept = group.copies.iter().map(|copy| copy.allocated).max();
    group.wasted + kept.unwrap_or_default()
}

/// What there is to say of one group: odd links, and with `--verbose` every copy.
fn details(
    out: &mut dyn Write,
    page: &Page,
    group: &Group,
    roots: &HashMap<RootId, &RootSummary>,
) -> io::Result<()> {
    let said = group.copies.iter().filter_map(|copy| Some((copy, remark(page, group, copy)?)));
    let rows = alike(said).map(|(copies, remark)| (place(roots, &copies), remark));
    let rows = limited(page, rows);
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    heading(out, page, &title(page, group))?;
    pairs(out, page, rows)
}

fn title(page: &Page, group: &Group) -> String {
    let mut title = shown(group.name.as_bytes());
    if let Some(version) = &group.version {
        title.push(' ');
        title.push_str(&shown(version.as_bytes()));
    }
    // A page is at least 80 columns wide.
    title = elide(title, 78);
    if page.verbose {
        title = format!("{title}\n  {}", group.content);
    }
    title
}

/// Copies at one path of which the same is to be said, in the order of the first of each.
fn alike<'a>(
    said: impl Iterator<Item = (&'a FileCopy, String)>,
) -> impl Iterator<Item = (Vec<&'a FileCopy>, String)> {
    let mut rows: Vec<(Vec<&FileCopy>, String)> = Vec::new();
    let mut places = HashMap::new();
    for (copy, remark) in said {
        let at = *places.entry((&copy.path, remark)).or_insert_with_key(|(_, remark)| {
            rows.push((Vec::new(), remark.clone()));
            rows.len() - 1
        });
        rows[at].0.push(copy);
    }
    rows.into_iter()
}

fn place(roots: &HashMap<RootId, &RootSummary>, copies: &[&FileCopy]) -> String {
    let [first, others @ ..] = copies else { return String::new() };
    let root = roots.get(&first.root).map_or_else(String::new, |root| root_name(root));
    let more = match others.len() as u64 {
        0 => String::new(),
        more => format!(" and {}", plural(more, "other", "others")),
    };
    elide(format!("{root}{more}: {}", shown(first.path.as_bytes())), 60)
}

/// What is worth saying of one copy, in lines.
fn remark(page: &Page, group: &Group, copy: &FileCopy) -> Option<String> {
    let mut parts = Vec::new();
    if page.verbose {
        parts.push(format!(
            "{} on disk, inode {}:{}",
            size(copy.allocated),
            copy.inode.dev,
            copy.inode.ino
        ));
    }
    if !group.applets.is_empty() && !copy.links().is_empty() {
        parts.extend(missing(page, group, copy));
    }
    if !copy.unknown_applets().is_empty() {
        let unknown = copy.unknown_applets().len() as u64;
        let links = plural(unknown, "link has a name", "links have names");
        parts.push(format!(
            "{links} it does not answer to: {}",
            names(page, copy.unknown_applets().iter())
        ));
    }
    if page.verbose && !copy.links().is_empty() {
        parts.push(format!("links: {}", names(page, copy.links().iter())));
    }
    (!parts.is_empty()).then(|| parts.join("\n"))
}

/// The applets that no name in the root leads to.
fn missing(page: &Page, group: &Group, copy: &FileCopy) -> Option<String> {
    let linked: BTreeSet<&[u8]> =
        copy.links().iter().chain([&copy.path]).map(RootPath::file_name).collect();
    let missing: Vec<RootPath> = group
        .applets
        .iter()
        .filter(|applet| !linked.contains(applet.as_bytes()))
        .map(|applet| RootPath::new(applet.as_bytes()))
        .collect();
    let (without, all) = (count(missing.len() as u64), count(group.applets.len() as u64));
    (!missing.is_empty()).then(|| {
        format!("{without} of {all} applets without a link: {}", names(page, missing.iter()))
    })
}
