//! The live view, for people: what is held twice first, then per program, per
//! container, per process.

use std::io::{self, Write};

use super::escape::escape;
use super::human::{count, plural, size};
use super::layout::{Column, Page, elide, heading, pairs, table};
use crate::model::{
    BinaryMemory, Bytes, ContainerMemory, Host, MemoryMethod, MemoryReport, Pages, ProcessMemory,
    UserNamespace,
};

/// Sentences about single programs.
const SENTENCES: usize = 3;

/// Writes the view. The processes one by one only where `processes` asks for them.
///
/// # Errors
///
/// Those of `out`.
pub fn write(
    out: &mut dyn Write,
    page: &Page,
    memory: &MemoryReport,
    host: &Host,
    processes: bool,
) -> io::Result<()> {
    let view = View { memory, page, page_size: host.page_size };
    view.summary(out)?;
    view.binaries(out)?;
    view.containers(out)?;
    if processes {
        view.processes(out)?;
    }
    view.totals(out)
}

/// Writes the part of a report that is about containers in memory; its programs
/// stand in the report's own table.
///
/// # Errors
///
/// Those of `out`.
pub(super) fn section(
    out: &mut dyn Write,
    page: &Page,
    memory: &MemoryReport,
    host: &Host,
) -> io::Result<()> {
    let view = View { memory, page, page_size: host.page_size };
    heading(out, page, "Memory")?;
    view.summary(out)?;
    // The report may be about roots from which nothing runs.
    if memory.containers.is_empty() { Ok(()) } else { view.containers(out) }
}

struct View<'a> {
    memory: &'a MemoryReport,
    page: &'a Page,
    page_size: Bytes,
}

impl View<'_> {
    fn bytes(&self, pages: Pages) -> String {
        size(pages.bytes(self.page_size))
    }

    /// What it means, in words.
    fn summary(&self, out: &mut dyn Write) -> io::Result<()> {
        let twice = self.memory.binaries.iter().filter(|binary| binary.file.wasted().0 > 0);
        let mut sentences = twice.take(SENTENCES).map(|binary| self.sentence(binary)).peekable();
        if sentences.peek().is_none() {
            writeln!(out, "No program is in memory more than once.")?;
        }
        sentences.try_for_each(|sentence| writeln!(out, "{sentence}"))?;
        if self.memory.method == MemoryMethod::Inferred {
            writeln!(out, "This is an estimate: page frame numbers are shown to root alone.")?;
        }
        writeln!(out)
    }

    fn sentence(&self, binary: &BinaryMemory) -> String {
        let (resident, ideal) = (self.bytes(binary.file.resident), self.bytes(binary.file.ideal));
        let times = binary.objects;
        format!("{} is in memory {times} times: {resident}, {ideal} would do.", title(binary))
    }

    fn binaries(&self, out: &mut dyn Write) -> io::Result<()> {
        heading(
            out,
            self.page,
            &format!("Programs: {}", count(self.memory.binaries.len() as u64)),
        )?;
        let columns = [
            Column::Text("name"),
            Column::Number("copies"),
            Column::Number("processes"),
            Column::Number("containers"),
            Column::Number("in memory"),
            Column::Number("wasted"),
            Column::Number("text"),
            Column::Number("text wasted"),
        ];
        let rows = self.memory.binaries.iter().map(|binary| self.binary_row(binary));
        table(out, self.page, &columns, rows)?;
        let outdated = self.memory.binaries.iter().filter(|binary| binary.pending_restart > 0);
        pairs(out, self.page, outdated.take(self.page.top).map(pending))?;
        writeln!(out)
    }

    fn binary_row(&self, binary: &BinaryMemory) -> Vec<String> {
        vec![
            elide(title(binary), 34),
            count(binary.objects),
            count(binary.processes),
            count(binary.containers),
            self.bytes(binary.file.resident),
            self.bytes(binary.file.wasted()),
            self.bytes(binary.text.resident),
            self.bytes(binary.text.wasted()),
        ]
    }

    fn containers(&self, out: &mut dyn Write) -> io::Result<()> {
        let heading_text = format!("Containers: {}", count(self.memory.containers.len() as u64));
        heading(out, self.page, &heading_text)?;
        let columns = [
            Column::Text("name"),
            Column::Text("runtime"),
            Column::Text("users"),
            Column::Number("processes"),
            Column::Number("text"),
            Column::Number("shared"),
            Column::Number("private"),
            Column::Number("duplicated"),
        ];
        let rows = self.memory.containers.iter().map(|container| self.container_row(container));
        table(out, self.page, &columns, rows)?;
        writeln!(out)
    }

    fn container_row(&self, container: &ContainerMemory) -> Vec<String> {
        vec![
            shown(&container.name),
            container.runtime.name().to_owned(),
            users(container).to_owned(),
            count(container.processes),
            self.bytes(container.text),
            self.bytes(container.shared),
            self.bytes(container.private),
            self.bytes(container.duplicated),
        ]
    }

    fn processes(&self, out: &mut dyn Write) -> io::Result<()> {
        let heading_text = format!("Processes: {}", count(self.memory.processes.len() as u64));
        heading(out, self.page, &heading_text)?;
        let columns = [
            Column::Number("pid"),
            Column::Text("command"),
            Column::Text("container"),
            Column::Number("text"),
            Column::Number("private"),
            Column::Number("in container"),
            Column::Number("shared"),
            Column::Number("anonymous"),
        ];
        let rows = self.memory.processes.iter().map(|process| self.process_row(process));
        table(out, self.page, &columns, rows)?;
        writeln!(out)
    }

    fn process_row(&self, process: &ProcessMemory) -> Vec<String> {
        let container = self.memory.containers.get(process.container as usize);
        vec![
            process.pid.to_string(),
            shown(&process.comm),
            container.map(|container| shown(&container.name)).unwrap_or_default(),
            self.bytes(process.text),
            self.bytes(process.private),
            self.bytes(process.container_shared),
            self.bytes(process.shared),
            self.bytes(process.anonymous),
        ]
    }

    fn totals(&self, out: &mut dyn Write) -> io::Result<()> {
        let totals = &self.memory.totals;
        heading(out, self.page, "In all")?;
        let text = format!(
            "{} of programs and libraries, {} would do: {} wasted",
            self.bytes(totals.resident),
            self.bytes(totals.ideal),
            size(totals.wasted_bytes)
        );
        let cached: Pages = self.memory.binaries.iter().map(|binary| binary.cached_wasted).sum();
        let cached = format!("{} beyond one copy, mapped or not", self.bytes(cached));
        let copied = format!(
            "{} of private copies: written data, relocations",
            self.bytes(totals.anonymous)
        );
        let skipped = match self.memory.processes_skipped {
            0 => String::new(),
            skipped => format!(", {} could not be", count(skipped)),
        };
        let looked = plural(self.memory.processes_seen, "process was", "processes were");
        let rows = [
            ("in memory".to_owned(), text),
            ("apart".to_owned(), copied),
            ("page cache".to_owned(), cached),
            ("looked at".to_owned(), format!("{looked} looked at{skipped}")),
        ];
        pairs(out, self.page, rows)
    }
}

/// `busybox 1.35.0`.
fn title(binary: &BinaryMemory) -> String {
    match &binary.version {
        Some(version) => format!("{} {}", shown(&binary.name), shown(version)),
        None => shown(&binary.name),
    }
}

fn pending(binary: &BinaryMemory) -> (String, String) {
    let processes = plural(binary.pending_restart, "process runs", "processes run");
    let text = format!("{processes} a deleted or replaced file: pending restart");
    (title(binary), text)
}

/// Who its root is to the host.
fn users(container: &ContainerMemory) -> &'static str {
    match (container.user_namespace, container.privileged) {
        (UserNamespace::Host, true) => "host, privileged",
        (UserNamespace::Host, false) => "host",
        (UserNamespace::Own, _) => "own",
    }
}

/// A name for a cell.
fn shown(name: &str) -> String {
    elide(escape(name.as_bytes()), 60)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::render::sample;

    const PAGE: Page = Page { width: 100, color: false, verbose: false, top: 20 };

    fn text(change: impl FnOnce(&mut MemoryReport)) -> String {
        let mut memory = sample::with_memory().memory.unwrap();
        change(&mut memory);
        let mut out = Vec::new();
        write(&mut out, &PAGE, &memory, &sample::host(), true).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn says_what_it_means() {
        let shown = text(|_| ());
        let first = shown.lines().next().unwrap();
        assert_eq!(first, "busybox 1.35.0 is in memory 2 times: 2.41 MiB, 1.20 MiB would do.");
        assert!(shown.contains("1.20 MiB wasted"), "{shown}");
        assert!(shown.contains("6 processes were looked at"), "{shown}");
    }

    #[test]
    fn an_estimate_says_so() {
        assert!(!text(|_| ()).contains("estimate"));
        assert!(text(|memory| memory.method = MemoryMethod::Inferred).contains("estimate"));
    }

    #[test]
    fn nothing_twice_is_said() {
        let shown = text(|memory| memory.binaries.clear());
        assert!(shown.starts_with("No program is in memory more than once."), "{shown}");
    }

    #[test]
    fn what_waits_for_a_restart_is_said() {
        let shown = text(|memory| memory.binaries[0].pending_restart = 3);
        assert!(shown.contains("3 processes run a deleted or replaced file"), "{shown}");
    }

    #[test]
    fn no_name_reaches_the_terminal_as_it_is() {
        let evil = "\x1b[2J\u{202e}\nx".to_owned();
        let shown = text(|memory| {
            memory.binaries[0].name = evil.clone();
            memory.binaries[0].version = Some(evil.clone());
            memory.containers[0].name = evil.clone();
            memory.processes[0].comm = evil.clone();
        });
        assert!(!shown.contains(['\x1b', '\u{202e}']), "{shown:?}");
        assert!(shown.contains("\\u{1b}[2J"), "{shown}");
    }
}
