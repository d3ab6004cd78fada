//! The report as OpenMetrics text, for a collector that reads files or a scrape.
//!
//! Rows per root and per content are cut at a number the user chooses: a hostile
//! root must not be able to create time series without end.

use std::io::{self, Write};

use super::escape::escape;
use super::order::by_content;
use crate::model::{Bytes, Group, Host, Report, RootSummary};

/// Writes the report as gauges, the first `top` roots and contents of each.
///
/// # Errors
///
/// Those of `out`.
pub fn write(out: &mut dyn Write, report: &Report, host: &Host, top: usize) -> io::Result<()> {
    totals(out, report)?;
    let roots = &report.roots[..report.roots.len().min(top)];
    let root = |root: &RootSummary| {
        labels(&[("root", root.path.as_bytes()), ("name", root.name.as_bytes())])
    };
    let of_roots =
        |of: fn(&RootSummary) -> u64| roots.iter().map(move |each| (root(each), of(each)));
    gauge(out, "root_files", "Names of regular files below a root", of_roots(|root| root.files))?;
    gauge(
        out,
        "root_elf_files",
        "Names of ELF files below a root; with multi-call binaries alone, of those that may be executed",
        of_roots(|root| root.elf_files),
    )?;
    let apparent = of_roots(|root| root.apparent.0);
    gauge(out, "root_apparent_bytes", "Sum of file sizes below a root, each inode once", apparent)?;
    contents(out, report, host, top)?;
    out.write_all(b"# EOF\n")
}

fn totals(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let totals = &report.totals;
    let single = [
        ("complete", "1 if nothing is missing from the answer", u64::from(report.complete())),
        (
            "notices",
            "What could not be read, or was left out",
            report.notices.iter().count() as u64,
        ),
        ("roots", "Container roots looked at", totals.roots),
        ("files", "Names of regular files", totals.files),
        (
            "elf_files",
            "Names of ELF files; with multi-call binaries alone, of those that may be executed",
            totals.elf_files,
        ),
        ("contents", "Contents that are held twice", totals.groups),
        ("wasted_disk_bytes", "Disk blocks beyond one copy of each content", totals.wasted_disk.0),
        (
            "wasted_trees_bytes",
            "Disk blocks of duplicate trees, beyond those of contents",
            totals.wasted_trees.0,
        ),
    ];
    for (name, help, value) in single {
        gauge(out, name, help, [(String::new(), value)].into_iter())?;
    }
    if report.memory.is_none() {
        return Ok(());
    }
    let wasted = [(String::new(), totals.wasted_memory.0)];
    gauge(out, "wasted_memory_bytes", "Pages in memory beyond one copy", wasted.into_iter())
}

fn contents(out: &mut dyn Write, report: &Report, host: &Host, top: usize) -> io::Result<()> {
    let groups = &report.groups[..report.groups.len().min(top)];
    let of_groups =
        |of: fn(&Group) -> u64| groups.iter().map(move |each| (content(each), of(each)));
    gauge(out, "content_inodes", "Inodes that hold a content", of_groups(|group| group.inodes))?;
    let copies = of_groups(|group| group.physical_copies);
    gauge(out, "content_physical_copies", "Copies of a content on disk", copies)?;
    let wasted = of_groups(|group| group.wasted.0);
    gauge(out, "content_wasted_disk_bytes", "Disk blocks beyond one copy of a content", wasted)?;
    if report.memory.is_none() {
        return Ok(());
    }
    let memory = by_content(report);
    let pages = groups.iter().filter_map(|group| Some((group, memory.get(&group.content)?)));
    let bytes =
        pages.map(|(group, binary)| (content(group), binary.file.wasted().bytes(host.page_size)));
    let bytes = bytes.map(|(labels, Bytes(bytes))| (labels, bytes));
    gauge(out, "content_wasted_memory_bytes", "Pages in memory beyond one copy of a content", bytes)
}

/// A prefix of the hash tells contents apart; a path would be one more name that a container chooses.
fn content(group: &Group) -> String {
    let hash = group.content.to_string();
    let version = group.version.as_deref().unwrap_or_default();
    labels(&[
        ("blake3", &hash.as_bytes()[..12]),
        ("name", group.name.as_bytes()),
        ("kind", group.kind.name().as_bytes()),
        ("version", version.as_bytes()),
    ])
}

/// One metric family. A name in bytes says so in its unit.
fn gauge(
    out: &mut dyn Write,
    name: &str,
    help: &str,
    samples: impl Iterator<Item = (String, u64)>,
) -> io::Result<()> {
    let name = format!("cbin_audit_{name}");
    writeln!(out, "# TYPE {name} gauge")?;
    if name.ends_with("_bytes") {
        writeln!(out, "# UNIT {name} bytes")?;
    }
    writeln!(out, "# HELP {name} {help}.")?;
    for (labels, value) in samples {
        writeln!(out, "{name}{labels} {value}")?;
    }
    Ok(())
}

fn labels(labels: &[(&str, &[u8])]) -> String {
    let pairs: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", label(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

/// Shown as everywhere, and then quoted as the format wants it.
fn label(value: &[u8]) -> String {
    escape(value).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::render::sample;

    fn text(report: &Report, top: usize) -> String {
        let mut out = Vec::new();
        write(&mut out, report, &sample::host(), top).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_line_is_of_the_format() {
        let text = text(&sample::with_memory(), usize::MAX);
        assert!(text.ends_with("\n# EOF\n"), "{text}");
        let mut families = std::collections::HashSet::new();
        for line in text.lines().filter(|line| *line != "# EOF") {
            match line.split_once("# TYPE ") {
                Some((_, family)) => assert!(families.insert(family.to_owned()), "twice: {family}"),
                None if line.starts_with('#') => {}
                None => {
                    let (series, value) = line.rsplit_once(' ').unwrap();
                    let name = series.split('{').next().unwrap();
                    assert!(families.contains(&format!("{name} gauge")), "{line}");
                    assert!(value.parse::<u64>().is_ok(), "{line}");
                }
            }
        }
        assert!(text.contains("# UNIT cbin_audit_wasted_disk_bytes bytes\n"), "{text}");
        assert!(text.contains("cbin_audit_wasted_disk_bytes 1982464\n"), "{text}");
        assert!(text.contains("cbin_audit_complete 0\n"), "{text}");
        let row = "cbin_audit_content_wasted_memory_bytes{blake3=\"1f1f1f1f1f1f\",name=\"busybox\",\
            kind=\"busybox\",version=\"1.35.0\"} 1261568\n";
        assert!(text.contains(row), "{text}");
    }

    #[test]
    fn a_hostile_name_stays_inside_its_label() {
        let mut report = sample::report();
        report.groups.truncate(1);
        report.groups[0].name = "a\"} 1\nevil_metric{b=\"\\".to_owned();
        let text = text(&report, 20);
        assert!(text.contains(r#"name="a\"} 1\\nevil_metric{b=\"\\\\","#), "{text}");
        assert!(!text.lines().any(|line| line.starts_with("evil")), "{text}");
    }

    #[test]
    fn rows_are_capped_and_totals_are_not() {
        let text = text(&sample::report(), 1);
        assert_eq!(text.matches("\ncbin_audit_content_inodes{").count(), 1);
        assert_eq!(text.matches("\ncbin_audit_root_files{").count(), 1);
        assert!(text.contains("cbin_audit_contents 3\n"), "{text}");
    }

    #[test]
    fn without_a_memory_part_nothing_is_said_of_memory() {
        assert!(!text(&sample::report(), 20).contains("memory"));
    }
}
