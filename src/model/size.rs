//! What `size` is asked, and what it finds.

use super::{Bytes, ElfFacts, SectionSums};

/// One section as the binutils' `size` sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// Where its name starts in [`ObjectSizes::names`].
    pub name_at: u64,
    /// `sh_size`.
    pub size: u64,
    /// `sh_addr`.
    pub address: u64,
    /// What its header says of it.
    pub traits: SectionTraits,
}

/// The properties of a section that decide where `size` counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SectionTraits {
    /// Takes memory in the running program.
    pub alloc: bool,
    /// Holds instructions.
    pub code: bool,
    /// Is not written to.
    pub readonly: bool,
    /// Has bytes in the file.
    pub contents: bool,
    /// Any other property that keeps it in the list of format `sysv`.
    pub other: bool,
}

impl SectionTraits {
    /// Format `sysv` leaves out sections of which there is nothing to say.
    pub fn listed(self) -> bool {
        self.alloc || self.code || self.readonly || self.contents || self.other
    }

    /// The column that counts the section; `None` for one that takes no memory.
    pub fn column(self, rule: ReadOnly) -> Option<Column> {
        if !self.alloc {
            None
        } else if self.code || (rule == ReadOnly::Text && self.readonly) {
            Some(Column::Text)
        } else if self.contents {
            Some(Column::Data)
        } else {
            Some(Column::Bss)
        }
    }
}

/// Where read-only sections without code are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOnly {
    /// In `text`, as format `berkeley` has it.
    Text,
    /// In `data` or `bss`, as format `gnu` has it.
    Data,
}

/// A column of the formats `berkeley` and `gnu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Code.
    Text,
    /// Written, with contents in the file.
    Data,
    /// Written, without contents in the file.
    Bss,
}

/// What is odd about an object that is counted nevertheless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Oddity {
    /// A section ends beyond the file.
    SectionPastEnd,
    /// `e_shstrndx` names no string table: no section has a name, so none is counted.
    NoNameTable,
    /// The section of this name says that it is in a group, and no group has it.
    Ungrouped(Vec<u8>),
    /// A table of symbols after the first one, at this place: it is passed over.
    FurtherSymbols(u32),
    /// The same of a table of dynamic symbols.
    FurtherDynamicSymbols(u32),
    /// A group is called by a symbol whose name would lie in this section, which holds no strings.
    NoStrings(u32),
    /// A table of relocations links to a section that the file does not have.
    RelocationLink {
        /// The name of the table.
        section: Vec<u8>,
        /// Its place among the section headers.
        index: u32,
        /// `sh_link`.
        link: u32,
    },
    /// A section has a further table of relocations without addends: it is passed over.
    FurtherRelocations {
        /// The name of the table.
        section: Vec<u8>,
        /// The name of the section.
        target: Vec<u8>,
    },
    /// A segment's alignment is no power of two.
    SegmentAlignment,
    /// A segment of a core dump ends beyond the file.
    SegmentPastEnd,
}

/// A core dump.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CoreDump {
    /// The command line, up to 80 bytes of it.
    pub command: Option<Vec<u8>>,
}

/// The sections of one object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObjectSizes {
    /// In the order in which format `sysv` lists them.
    pub sections: Vec<Section>,
    /// The names, each up to its NUL. Empty where no names were asked for.
    pub names: Vec<u8>,
    /// Sum of the sizes of common symbols; 0 where it was not asked for.
    pub common: u64,
    /// The object is a core dump.
    pub core: Option<CoreDump>,
    /// What is odd about it.
    pub oddities: Vec<Oddity>,
}

impl ObjectSizes {
    /// A section's name.
    pub fn name(&self, section: &Section) -> &[u8] {
        let from = usize::try_from(section.name_at).unwrap_or(usize::MAX).min(self.names.len());
        let rest = &self.names[from..];
        rest.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    /// The three columns, modulo 2^64 as `size` has them. Common symbols are in `bss`.
    pub fn sums(&self, rule: ReadOnly) -> SectionSums {
        let (mut text, mut data, mut bss) = (0_u64, 0_u64, self.common);
        for section in &self.sections {
            let sum = match section.traits.column(rule) {
                Some(Column::Text) => &mut text,
                Some(Column::Data) => &mut data,
                Some(Column::Bss) => &mut bss,
                None => continue,
            };
            *sum = sum.wrapping_add(section.size);
        }
        SectionSums { text: Bytes(text), data: Bytes(data), bss: Bytes(bss) }
    }
}

/// An object, and under what name it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizedObject {
    /// As named by the user, or by the archive.
    pub name: Vec<u8>,
    /// The archive it is a member of.
    pub archive: Option<Vec<u8>>,
    /// Its bytes do not lie in the archive, which is a thin one.
    pub outside: bool,
    /// Its sections.
    pub sizes: ObjectSizes,
    /// Its segments, where they were asked for.
    pub facts: Option<ElfFacts>,
}

/// Why an operand of `size` was not counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SizeFault {
    /// There is no such file.
    Missing,
    /// `stat(2)` failed otherwise; the system's words.
    Unlocatable(String),
    /// It is a directory.
    Directory,
    /// It is a device, a FIFO or a socket; it was not opened.
    NotOrdinary,
    /// It holds nothing.
    Empty,
    /// `open(2)` or `read(2)` failed; the system's words.
    Unreadable(String),
    /// It is neither an ELF file nor an archive of such.
    NotRecognized,
    /// An archive breaks off.
    MalformedArchive,
    /// A member that lies outside a thin archive cannot be opened; the system's words.
    MissingMember(String),
    /// The target's name means nothing.
    InvalidTarget,
    /// The symbol table is cut off: `size` ends the whole run here.
    TruncatedSymbols,
}

impl SizeFault {
    /// The exit status it leads to.
    pub fn status(&self) -> u8 {
        match self {
            Self::NotRecognized => 3,
            Self::MalformedArchive | Self::MissingMember(_) => 2,
            _ => 1,
        }
    }
}

/// An operand of `size` comes to any number of these, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SizeEvent {
    /// An object was counted.
    Object(Box<SizedObject>),
    /// Something was not, under the name that the message gives.
    Failed(Vec<u8>, SizeFault),
}
