//! What the kernel maps of an object, for people.

use std::fmt::Write as _;

use crate::model::{Bytes, ElfFacts, LoadSegment, SegmentPages, SizedObject};
use crate::render::escape::escape;

/// Appends the segments of one object, counted in pages of `page_size`.
pub fn segments(object: &SizedObject, page_size: Bytes, out: &mut Vec<u8>) {
    let mut text = escape(&object.name);
    if let Some(archive) = &object.archive {
        text.push_str(&format!(" (ex {})", escape(archive)));
    }
    match &object.facts {
        Some(facts) => push_facts(facts, page_size, &mut text),
        None => text.push_str(": no ELF header\n"),
    }
    out.extend_from_slice(text.as_bytes());
    out.push(b'\n');
}

fn push_facts(facts: &ElfFacts, page_size: Bytes, text: &mut String) {
    let page = page_size.0;
    // Writing into a String cannot fail.
    let _infallible =
        writeln!(text, ": {}, {}, pages of {page} bytes", facts.arch(), facts.linkage.name());
    if let Some(interpreter) = &facts.interpreter {
        push_line(text, "interpreter", &escape(interpreter));
    }
    for needed in &facts.needed {
        push_line(text, "needed", &escape(needed));
    }
    if let Some(id) = &facts.build_id {
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        push_line(text, "build-id", &id);
    }
    if facts.relro.0 > 0 {
        push_line(text, "relro", &format!("{} bytes", facts.relro.0));
    }
    if facts.textrel {
        push_line(text, "textrel", "text is written at start, and not shared");
    }
    push_table(facts, page_size, text);
}

fn push_line(text: &mut String, key: &str, value: &str) {
    let _infallible = writeln!(text, "  {key:<11}  {value}");
}

fn push_table(facts: &ElfFacts, page_size: Bytes, text: &mut String) {
    if facts.loads.is_empty() {
        text.push_str("  nothing is mapped\n");
        return;
    }
    push_row(text, ["flags", "offset", "address", "file", "memory", "align"].map(str::to_owned));
    push_counts(text, ["ro", "rx", "cow", "anon"].map(str::to_owned));
    for load in &facts.loads {
        let numbers = [load.offset, load.vaddr, load.file_size, load.mem_size, load.align];
        let [offset, address, file, memory, align] = numbers.map(|number| format!("{number:#x}"));
        push_row(text, [letters(load), offset, address, file, memory, align]);
        push_counts(text, counts(load.pages(page_size)));
    }
    // A page that two segments share is counted once here.
    push_row(text, ["total", "", "", "", "", ""].map(str::to_owned));
    push_counts(text, counts(facts.segments));
}

fn push_row(text: &mut String, [flags, offset, address, file, memory, align]: [String; 6]) {
    let _infallible =
        write!(text, "  {flags:<5} {offset:>10} {address:>18} {file:>10} {memory:>10} {align:>8}");
}

fn push_counts(text: &mut String, [ro, rx, cow, anon]: [String; 4]) {
    let _infallible = writeln!(text, " {ro:>6} {rx:>6} {cow:>6} {anon:>6}");
}

fn counts(pages: SegmentPages) -> [String; 4] {
    [pages.ro, pages.rx, pages.cow, pages.anon].map(|pages| pages.0.to_string())
}

/// As `ls` shows permissions.
fn letters(load: &LoadSegment) -> String {
    [(4, 'r'), (2, 'w'), (1, 'x')]
        .map(|(flag, letter)| if load.flags & flag != 0 { letter } else { '-' })
        .iter()
        .collect()
}
