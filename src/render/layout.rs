//! How tables stand on a page: columns, widths, headings, and lists that are cut.

use std::io::{self, Write};

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, TableStyle};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::human;

/// How a page for people looks.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Columns of the terminal.
    pub width: u16,
    /// Headings are bold.
    pub color: bool,
    /// Lists are whole.
    pub verbose: bool,
    /// Rows of a table; what lies beyond is counted.
    pub top: usize,
}

impl Page {
    /// Wider lines are hard to read; in narrower ones numbers would break.
    fn columns(&self) -> u16 {
        self.width.clamp(80, 100)
    }
}

/// A column's heading, and what stands in it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Column {
    /// Broken into lines where it is too long.
    Text(&'static str),
    /// Right-aligned, never broken.
    Number(&'static str),
}

impl Column {
    fn heading(self) -> &'static str {
        match self {
            Self::Text(heading) | Self::Number(heading) => heading,
        }
    }
}

const RULE: comfy_table::LineStyle = comfy_table::LineStyle::none().fill('─').junction('─');

/// Writes a heading.
pub(super) fn heading(out: &mut dyn Write, page: &Page, text: &str) -> io::Result<()> {
    match page.color {
        true => writeln!(out, "\x1b[1m{text}\x1b[0m"),
        false => writeln!(out, "{text}"),
    }
}

/// Writes the first rows of a table, and how many more there are.
pub(super) fn table(
    out: &mut dyn Write,
    page: &Page,
    columns: &[Column],
    rows: impl ExactSizeIterator<Item = Vec<String>>,
) -> io::Result<()> {
    let more = rows.len().saturating_sub(page.top);
    let mut table = bare(page);
    table.load_style(TableStyle::new().header_separator(RULE));
    table.set_header(columns.iter().map(|column| column.heading()));
    table.add_rows(rows.take(page.top));
    // The style itself leaves one more column between cells.
    shape(&mut table, columns, 1);
    print(out, &table)?;
    if more > 0 {
        writeln!(out, "{} more: --top 0 shows all", human::count(more as u64))?;
    }
    Ok(())
}

/// Writes rows of a label and a text, without headings.
pub(super) fn pairs(
    out: &mut dyn Write,
    page: &Page,
    rows: impl IntoIterator<Item = (String, String)>,
) -> io::Result<()> {
    let mut table = bare(page);
    table.add_rows(rows.into_iter().map(|(label, text)| [format!("  {label}"), text]));
    if table.is_empty() {
        return Ok(());
    }
    shape(&mut table, &[Column::Text(""), Column::Text("")], 2);
    print(out, &table)
}

fn bare(page: &Page) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new());
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(page.columns());
    table
}

fn shape(table: &mut Table, columns: &[Column], gap: u16) {
    for (place, column) in columns.iter().enumerate() {
        let Some(shaped) = table.column_mut(place) else { continue };
        shaped.set_padding((0, gap));
        if let Column::Number(_) = column {
            shaped.set_cell_alignment(CellAlignment::Right);
            shaped.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

fn print(out: &mut dyn Write, table: &Table) -> io::Result<()> {
    table.lines().try_for_each(|line| writeln!(out, "{}", line.trim_end()))
}

/// The beginning and the end of a text that takes more than `most` columns: one
/// hostile name must not fill the screen.
pub(super) fn elide(text: String, most: usize) -> String {
    if text.width() <= most {
        return text;
    }
    let before = most * 2 / 3;
    let start = fitting(text.chars(), before);
    let end = fitting(text.chars().rev(), most - 1 - before);
    format!("{start}…{}", end.chars().rev().collect::<String>())
}

fn fitting(chars: impl Iterator<Item = char>, most: usize) -> String {
    let mut columns = 0;
    let fits = |char: &char| {
        columns += char.width().unwrap_or(0);
        columns <= most
    };
    chars.take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const PAGE: Page = Page { width: 80, color: false, verbose: false, top: 2 };

    fn shown(page: &Page, names: &[&str]) -> String {
        let mut out = Vec::new();
        let rows = names.iter().map(|name| vec![(*name).to_owned(), "12".to_owned()]);
        table(&mut out, page, &[Column::Text("name"), Column::Number("copies")], rows).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_stand_on_the_right_and_no_line_ends_in_spaces() {
        let expected = "name     copies\n────────────────\nbusybox      12\n";
        assert_eq!(shown(&PAGE, &["busybox"]), expected);
    }

    #[test]
    fn a_cut_list_says_how_many_more() {
        let text = shown(&PAGE, &["a", "b", "c", "d"]);
        assert!(text.ends_with("b         12\n2 more: --top 0 shows all\n"), "{text}");
    }

    #[test]
    fn long_names_are_broken_to_fit() {
        for width in [20, 80, 100, 300] {
            let page = Page { width, ..PAGE };
            let text = shown(&page, &[&"x".repeat(300), &"字".repeat(200)]);
            let widest = text.lines().map(UnicodeWidthStr::width).max().unwrap();
            assert!(widest <= usize::from(width.clamp(80, 100)), "{widest} of {width}\n{text}");
        }
    }

    #[test]
    fn a_long_text_keeps_both_ends() {
        assert_eq!(elide("short".to_owned(), 10), "short");
        assert_eq!(elide("abcdefghijklmnop".to_owned(), 10), "abcdef…nop");
        assert_eq!(elide("字".repeat(9), 10), "字字字…字");
    }

    #[test]
    fn only_headings_are_coloured() {
        let mut out = Vec::new();
        heading(&mut out, &Page { color: true, ..PAGE }, "Roots").unwrap();
        assert_eq!(out, b"\x1b[1mRoots\x1b[0m\n");
    }
}
