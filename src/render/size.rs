//! The text of `size`: byte for byte what the binutils print.

mod segments;

use std::fmt::Write as _;

pub use segments::segments;

use crate::model::{ObjectSizes, Oddity, ReadOnly, Section, SizeFault, SizedObject};

/// How sizes are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One line per object; read-only data is text.
    #[default]
    Berkeley,
    /// One line per object; read-only data is data.
    Gnu,
    /// One line per section.
    SysV,
}

impl Format {
    /// Where read-only data counts.
    pub fn rule(self) -> ReadOnly {
        match self {
            Self::Gnu => ReadOnly::Data,
            Self::Berkeley | Self::SysV => ReadOnly::Text,
        }
    }
}

/// In which base numbers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Radix {
    /// With a leading `0`.
    Octal,
    /// Plain.
    #[default]
    Decimal,
    /// With a leading `0x`.
    Hexadecimal,
}

impl Radix {
    fn number(self, number: u64) -> String {
        match self {
            Self::Octal => format!("0{number:o}"),
            Self::Decimal => number.to_string(),
            Self::Hexadecimal => format!("{number:#x}"),
        }
    }
}

/// What the text looks like.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    /// The layout.
    pub format: Format,
    /// The base of numbers.
    pub radix: Radix,
    /// A line of sums stands at the end, except in format `sysv`.
    pub totals: bool,
    /// Common symbols are shown in format `sysv`.
    pub common: bool,
}

/// The text of one run: it starts with a header, and may end with sums.
#[derive(Debug, Default)]
pub struct Listing {
    style: Style,
    begun: bool,
    sums: [u64; 3],
}

impl Listing {
    /// A listing without any object.
    pub fn new(style: Style) -> Self {
        Self { style, ..Self::default() }
    }

    /// Appends one object to `out`.
    pub fn object(&mut self, object: &SizedObject, out: &mut Vec<u8>) {
        match self.style.format {
            Format::SysV => self.sections(object, out),
            Format::Berkeley | Format::Gnu => self.row(object, out),
        }
        match &object.sizes.core {
            Some(core) => push_core(core.command.as_deref(), out),
            None => out.push(b'\n'),
        }
    }

    /// Appends what stands at the end.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.style.totals && self.style.format != Format::SysV {
            self.columns(self.sums, out);
            out.extend_from_slice(b"(TOTALS)\n");
        }
    }

    fn row(&mut self, object: &SizedObject, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(self.header().as_bytes());
        }
        let sums = object.sizes.sums(self.style.format.rule());
        let sums = [sums.text.0, sums.data.0, sums.bss.0];
        for (total, sum) in self.sums.iter_mut().zip(sums) {
            *total = total.wrapping_add(sum);
        }
        self.columns(sums, out);
        out.extend_from_slice(&object.name);
        push_archive(object, out);
    }

    fn header(&self) -> &'static str {
        match (self.style.format, self.style.radix) {
            (Format::Gnu, _) => "      text       data        bss      total filename\n",
            (_, Radix::Octal) => "   text\t   data\t    bss\t    oct\t    hex\tfilename\n",
            _ => "   text\t   data\t    bss\t    dec\t    hex\tfilename\n",
        }
    }

    fn columns(&self, sums: [u64; 3], out: &mut Vec<u8>) {
        let total = sums.iter().fold(0_u64, |total, sum| total.wrapping_add(*sum));
        let mut text = String::with_capacity(64);
        let [text_size, data, bss] = sums.map(|sum| self.style.radix.number(sum));
        // Writing into a String cannot fail.
        let _infallible = match (self.style.format, self.style.radix) {
            (Format::Gnu, radix) => {
                let total = radix.number(total);
                write!(text, "{text_size:>10} {data:>10} {bss:>10} {total:>10} ")
            }
            (_, Radix::Octal) => {
                write!(text, "{text_size:>7}\t{data:>7}\t{bss:>7}\t{total:>7o}\t{total:>7x}\t")
            }
            _ => write!(text, "{text_size:>7}\t{data:>7}\t{bss:>7}\t{total:>7}\t{total:>7x}\t"),
        };
        out.extend_from_slice(text.as_bytes());
    }

    fn sections(&self, object: &SizedObject, out: &mut Vec<u8>) {
        out.extend_from_slice(&object.name);
        out.extend_from_slice(b"  ");
        push_archive(object, out);
        out.extend_from_slice(b":\n");
        let shown = Shown::new(&object.sizes, self.style);
        shown.line(b"section", "size", "addr", out);
        for section in listed(&object.sizes) {
            let (size, address) = (shown.number(section.size), shown.number(section.address));
            shown.line(object.sizes.name(section), &size, &address, out);
        }
        if self.style.common {
            let common = shown.number(object.sizes.common);
            shown.line(b"*COM*", &common, &shown.number(0), out);
        }
        shown.total(out);
    }
}

/// The widths of format `sysv`, which depend on all that is to be shown.
struct Shown {
    radix: Radix,
    total: u64,
    name: usize,
    size: usize,
    address: usize,
}

impl Shown {
    fn new(sizes: &ObjectSizes, style: Style) -> Self {
        let common = if style.common { ("*COM*".len(), sizes.common) } else { (0, 0) };
        let mut shown =
            Self { radix: style.radix, total: common.1, name: common.0, size: 0, address: 0 };
        let mut highest = 0;
        for section in listed(sizes) {
            shown.name = shown.name.max(sizes.name(section).len());
            shown.total = shown.total.wrapping_add(section.size);
            highest = highest.max(section.address);
        }
        shown.size = shown.number(shown.total).len().max("size".len());
        shown.address = shown.number(highest).len().max("addr".len());
        shown
    }

    fn number(&self, number: u64) -> String {
        self.radix.number(number)
    }

    fn line(&self, name: &[u8], size: &str, address: &str, out: &mut Vec<u8>) {
        self.name(name, out);
        let (size_width, address_width) = (self.size, self.address);
        let numbers = format!("   {size:>size_width$}   {address:>address_width$}\n");
        out.extend_from_slice(numbers.as_bytes());
    }

    fn total(&self, out: &mut Vec<u8>) {
        self.name(b"Total", out);
        let width = self.size;
        let total = format!("   {:>width$}\n\n", self.number(self.total));
        out.extend_from_slice(total.as_bytes());
    }

    /// Padded by bytes, not by characters.
    fn name(&self, name: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(name);
        out.resize(out.len() + self.name.saturating_sub(name.len()), b' ');
    }
}

fn listed(sizes: &ObjectSizes) -> impl Iterator<Item = &Section> {
    sizes.sections.iter().filter(|section| section.traits.listed())
}

fn push_archive(object: &SizedObject, out: &mut Vec<u8>) {
    if let Some(archive) = &object.archive {
        out.extend_from_slice(b" (ex ");
        out.extend_from_slice(archive);
        out.push(b')');
    }
}

fn push_core(command: Option<&[u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(b" (core file");
    if let Some(command) = command {
        out.extend_from_slice(b" invoked as ");
        out.extend_from_slice(command);
    }
    out.extend_from_slice(b")\n\n");
}

/// The messages about what is odd with an object that is counted, a line each. As with
/// binutils, the program's name stands before the first one alone; empty if there is none.
pub fn oddities(object: &SizedObject) -> Vec<u8> {
    let name = full_name(object);
    let lines = object.sizes.oddities.iter().map(|oddity| [oddity_of(&name, oddity), b"\n".into()]);
    let lines = lines.flatten().collect::<Vec<_>>().concat();
    if lines.is_empty() { lines } else { [b"size: ".as_slice(), &lines].concat() }
}

fn oddity_of(name: &[u8], oddity: &Oddity) -> Vec<u8> {
    let warning = |what: &str| [b"warning: ", name, b" ", what.as_bytes()].concat();
    let told = |what: &str| [name, b": ", what.as_bytes()].concat();
    let further = |what: &str, at: &u32| {
        told(&format!(
            "warning: multiple {what}symbol tables detected - ignoring the table in section {at}"
        ))
    };
    match oddity {
        Oddity::SectionPastEnd => warning("has a section extending past end of file"),
        Oddity::NoNameTable => warning("has a corrupt string table index"),
        Oddity::SegmentAlignment => warning("has a program header with invalid alignment"),
        Oddity::SegmentPastEnd => warning("has a segment extending past end of file"),
        Oddity::Ungrouped(section) => {
            [&told("no group info for section '"), section.as_slice(), b"'"].concat()
        }
        Oddity::FurtherSymbols(at) => further("", at),
        Oddity::FurtherDynamicSymbols(at) => further("dynamic ", at),
        Oddity::NoStrings(at) => {
            told(&format!("attempt to load strings from a non-string section (number {at})"))
        }
        Oddity::RelocationLink { section, index, link } => {
            let what = told(&format!("invalid link {link} for reloc section "));
            [&what, section.as_slice(), format!(" (index {index})").as_bytes()].concat()
        }
        Oddity::FurtherRelocations { section, target } => {
            let what = told("warning: secondary relocation section '");
            let found = b"' for section ".as_slice();
            [&what, section.as_slice(), found, target, b" found - ignoring"].concat()
        }
    }
}

/// A member's name follows that of the archive it lies in.
fn full_name(object: &SizedObject) -> Vec<u8> {
    match &object.archive {
        Some(archive) if !object.outside => [archive, b"(".as_slice(), &object.name, b")"].concat(),
        _ => object.name.clone(),
    }
}

/// Why an operand was not counted.
pub fn cause(fault: &SizeFault) -> String {
    match fault {
        SizeFault::Missing => "No such file".to_owned(),
        SizeFault::Directory => "is a directory".to_owned(),
        SizeFault::NotOrdinary => "is not an ordinary file".to_owned(),
        SizeFault::Empty => "is empty".to_owned(),
        SizeFault::NotRecognized => "file format not recognized".to_owned(),
        SizeFault::MalformedArchive => "malformed archive".to_owned(),
        SizeFault::InvalidTarget => "invalid bfd target".to_owned(),
        SizeFault::TruncatedSymbols => "file truncated".to_owned(),
        SizeFault::Unlocatable(why)
        | SizeFault::Unreadable(why)
        | SizeFault::MissingMember(why) => why.clone(),
    }
}

/// The message about an operand that was not counted, with its line feed; there
/// is none about an empty file.
pub fn fault(name: &[u8], fault: &SizeFault) -> Vec<u8> {
    let (before, between) = match fault {
        SizeFault::Empty => return Vec::new(),
        SizeFault::Missing => ("'", "': "),
        SizeFault::Unlocatable(_) => ("Warning: could not locate '", "'.  reason: "),
        SizeFault::Directory | SizeFault::NotOrdinary => ("Warning: '", "' "),
        _ => ("", ": "),
    };
    let cause = cause(fault);
    [b"size: ", before.as_bytes(), name, between.as_bytes(), cause.as_bytes(), b"\n"].concat()
}
