//! Which section headers become sections, and in which order.
//!
//! BFD visits the headers in order, but a header that refers to another may
//! visit that one first, and several kinds (symbol tables, their strings, the
//! relocations of object files) become no section at all. Both decide what
//! `size -A` prints, and a reference that leads nowhere refuses the whole file,
//! so the visit is done here step by step as binutils do it: the order of 2.43
//! and later, the refusals of 2.40.

use goblin::elf::SectionHeader;
use goblin::elf::header::{ET_DYN, ET_EXEC};
use goblin::elf::section_header as sh;

use super::groups::Groups;
use super::header::{Tables, refuse};
use super::{Object, Rejected};
use crate::model::Oddity;

const SHT_RELR: u32 = 19;
/// binutils' own type for a second table of relocations.
const SHT_SECONDARY_RELOC: u32 = sh::SHT_LOOS + sh::SHT_RELA;
const SHT_X86_64_UNWIND: u32 = 0x7000_0001;
const SHF_OS_NONCONFORMING: u64 = 0x100;

/// Deeper references than any linker makes: each costs stack.
const MOST_NESTED: u32 = 2000;
/// Looks at a header from another one: a file made for it needs quadratically many.
const MOST_LOOKS: u64 = 1 << 26;

/// What is known of one header.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mark {
    /// It is being visited.
    busy: bool,
    /// It is a section.
    pub made: bool,
    /// It has its place in the order.
    listed: bool,
    /// It is in a group that has a name.
    pub grouped: bool,
    has_rel: bool,
    has_rela: bool,
}

/// The outcome of a visit to every header.
#[derive(Debug)]
pub(super) struct Visited {
    /// Indices of the headers that are sections, in order.
    pub order: Vec<u32>,
    /// The headers, with the links that were put right on the way.
    pub headers: Vec<SectionHeader>,
    /// The first `SHT_SYMTAB` that is one, or 0.
    pub symbols: usize,
    /// A type was met that only the generic backend accepts.
    pub generic: bool,
    /// What was odd.
    pub oddities: Vec<Oddity>,
}

/// Visits every header.
pub(super) fn visit(object: &mut Object<'_>, tables: Tables) -> Result<Visited, Rejected> {
    let mut visitor = Visitor::new(object, tables);
    if visitor.tables.header.names_index != 0 && visitor.tables.header.sections_at != 0 {
        for index in 1..visitor.count() {
            visitor.visit(index)?;
            visitor.list(index);
        }
        visitor.check_linked_order()?;
        visitor.check_groups()?;
    }
    Ok(Visited {
        order: visitor.order,
        symbols: visitor.one,
        generic: visitor.generic,
        oddities: visitor.oddities,
        headers: visitor.tables.sections,
    })
}

pub(super) struct Visitor<'v, 'a> {
    pub object: &'v mut Object<'a>,
    pub tables: Tables,
    pub marks: Vec<Mark>,
    pub groups: Groups,
    order: Vec<u32>,
    /// The first symbol table, and the first dynamic one; 0 as long as there is none.
    pub one: usize,
    dynamic: usize,
    names: NameTable,
    generic: bool,
    pub oddities: Vec<Oddity>,
    nested: u32,
    looks: u64,
}

impl<'v, 'a> Visitor<'v, 'a> {
    fn new(object: &'v mut Object<'a>, tables: Tables) -> Self {
        let count = tables.sections.len();
        Self {
            object,
            marks: vec![Mark::default(); count],
            order: Vec::with_capacity(count),
            tables,
            groups: Groups::default(),
            one: 0,
            dynamic: 0,
            names: NameTable::default(),
            generic: false,
            oddities: Vec::new(),
            nested: 0,
            looks: 0,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.tables.sections.len()
    }

    pub(super) fn header(&self, index: usize) -> &SectionHeader {
        &self.tables.sections[index]
    }

    /// Counts work that a hostile file could ask for without end.
    pub(super) fn look(&mut self, times: u64) -> Result<(), Rejected> {
        self.looks = self.looks.saturating_add(times);
        refuse(self.looks > MOST_LOOKS)
    }

    /// Visits one header; a visit that meets itself refuses the file.
    pub(super) fn visit(&mut self, index: usize) -> Result<(), Rejected> {
        let busy = self.marks.get(index).is_none_or(|mark| mark.busy);
        refuse(busy || self.nested >= MOST_NESTED)?;
        self.marks[index].busy = true;
        self.nested += 1;
        self.check_name(index)?;
        self.visit_kind(index)?;
        self.nested -= 1;
        self.marks[index].busy = false;
        Ok(())
    }

    fn visit_kind(&mut self, index: usize) -> Result<(), Rejected> {
        match self.header(index).sh_type {
            sh::SHT_NULL | sh::SHT_SHLIB | sh::SHT_SYMTAB_SHNDX => Ok(()),
            sh::SHT_PROGBITS
            | sh::SHT_NOBITS
            | sh::SHT_HASH
            | sh::SHT_NOTE
            | sh::SHT_INIT_ARRAY
            | sh::SHT_FINI_ARRAY
            | sh::SHT_PREINIT_ARRAY
            | sh::SHT_GNU_HASH
            | sh::SHT_GNU_LIBLIST
            | sh::SHT_GNU_VERDEF
            | sh::SHT_GNU_VERNEED
            | sh::SHT_GNU_ATTRIBUTES => self.make(index),
            sh::SHT_GNU_VERSYM => {
                refuse(self.header(index).sh_entsize != 2)?;
                self.make(index)
            }
            sh::SHT_DYNAMIC => self.visit_dynamic(index),
            sh::SHT_SYMTAB => self.visit_symbols(index),
            sh::SHT_DYNSYM => self.visit_dynamic_symbols(index),
            sh::SHT_STRTAB => self.visit_strings(index),
            sh::SHT_REL | sh::SHT_RELA | SHT_RELR => self.visit_relocations(index),
            sh::SHT_GROUP => {
                refuse(!self.is_group(index, 1))?;
                self.make(index)
            }
            _ => self.visit_other(index),
        }
    }

    /// The machine's own backend refuses some types; the generic one, tried after it, none.
    fn visit_other(&mut self, index: usize) -> Result<(), Rejected> {
        let header = self.header(index);
        let flags = header.sh_flags;
        let known = match header.sh_type {
            SHT_X86_64_UNWIND => true,
            sh::SHT_LOUSER.. => flags & u64::from(sh::SHF_ALLOC) == 0,
            sh::SHT_LOOS..=sh::SHT_HIOS => flags & SHF_OS_NONCONFORMING == 0,
            _ => false,
        };
        self.generic |= self.tables.header.machine == 62 && !known;
        self.make(index)
    }

    fn visit_dynamic(&mut self, index: usize) -> Result<(), Rejected> {
        self.make(index)?;
        let link = self.header(index).sh_link as usize;
        if link >= self.count() || self.header(link).sh_type == sh::SHT_STRTAB {
            return Ok(());
        }
        // HP-UX writes a wrong link; that of the dynamic symbols is right.
        let symbols = if self.dynamic != 0 {
            Some(self.dynamic)
        } else {
            self.look(self.count() as u64)?;
            (1..self.count()).find(|&other| self.header(other).sh_type == sh::SHT_DYNSYM)
        };
        if let Some(symbols) = symbols {
            self.tables.sections[index].sh_link = self.header(symbols).sh_link;
        }
        Ok(())
    }

    /// `Ok(false)` for a table that is to be passed over, for now.
    fn accepts_symbols(&mut self, index: usize) -> Result<bool, Rejected> {
        let header = self.header(index);
        let entry = if self.tables.header.wide() { 24 } else { 16 };
        refuse(header.sh_entsize != entry)?;
        if u64::from(header.sh_info) * entry > header.sh_size {
            refuse(header.sh_size != 0)?;
            // Some assemblers count a symbol in an empty table. A second visit finds it put right.
            self.tables.sections[index].sh_info = 0;
            return Ok(false);
        }
        Ok(true)
    }

    fn visit_symbols(&mut self, index: usize) -> Result<(), Rejected> {
        if self.one == index || !self.accepts_symbols(index)? {
            return Ok(());
        }
        if self.one != 0 {
            self.note(index, Oddity::FurtherSymbols);
            return Ok(());
        }
        self.one = index;
        let alloc = self.header(index).sh_flags & u64::from(sh::SHF_ALLOC) != 0;
        if alloc && self.tables.header.kind == ET_DYN {
            self.make(index)?;
        }
        self.visit_extended_indices(index)
    }

    /// The table of section indices above 65,279 belongs to the symbols.
    fn visit_extended_indices(&mut self, symbols: usize) -> Result<(), Rejected> {
        let mut others = (symbols + 1..self.count()).chain(1..symbols);
        self.look(self.count() as u64)?;
        let found = others.find(|&other| {
            let header = self.header(other);
            header.sh_type == sh::SHT_SYMTAB_SHNDX && header.sh_link as usize == symbols
        });
        found.map_or(Ok(()), |found| self.visit(found))
    }

    fn visit_dynamic_symbols(&mut self, index: usize) -> Result<(), Rejected> {
        if self.dynamic == index || !self.accepts_symbols(index)? {
            return Ok(());
        }
        if self.dynamic != 0 {
            self.note(index, Oddity::FurtherDynamicSymbols);
            return Ok(());
        }
        self.dynamic = index;
        self.make(index)
    }

    fn visit_strings(&mut self, index: usize) -> Result<(), Rejected> {
        let names_index = self.tables.header.names_index as usize;
        if self.marks[index].made || index == names_index || self.is_linked(self.one, index) {
            return Ok(());
        }
        if self.is_linked(self.dynamic, index) {
            return self.make(index);
        }
        if self.one == 0 || self.dynamic == 0 {
            self.look(self.count() as u64)?;
            for other in 1..self.count() {
                if !self.is_linked(other, index) {
                    continue;
                }
                refuse(other == index)?;
                self.visit(other)?;
                if self.one == other {
                    return Ok(());
                }
                if self.dynamic == other {
                    break;
                }
            }
        }
        self.make(index)
    }

    fn is_linked(&self, from: usize, to: usize) -> bool {
        self.header(from).sh_link as usize == to
    }

    fn visit_relocations(&mut self, index: usize) -> Result<(), Rejected> {
        let header = self.header(index).clone();
        refuse(header.sh_entsize != self.relocation_entry(header.sh_type))?;
        let (link, target) = (header.sh_link as usize, header.sh_info as usize);
        if link >= self.count() {
            self.note_link(index);
            return self.make(index);
        }
        if matches!(self.header(link).sh_type, sh::SHT_SYMTAB | sh::SHT_DYNSYM) {
            self.visit(link)?;
        }
        if self.are_ordinary(&header) {
            return self.make(index);
        }
        self.visit(target)?;
        refuse(!self.marks[target].made)?;
        self.attach_relocations(index, target)
    }

    /// Relocations that no object file's linker reads: presented as a section like any other.
    fn are_ordinary(&self, header: &SectionHeader) -> bool {
        let linked = matches!(self.tables.header.kind, ET_EXEC | ET_DYN);
        let (link, target) = (header.sh_link as usize, header.sh_info as usize);
        (linked && header.sh_flags & u64::from(sh::SHF_ALLOC) != 0)
            || header.sh_type == SHT_RELR
            || link == 0
            || link != self.one
            || target == 0
            || target >= self.count()
            || matches!(self.header(target).sh_type, sh::SHT_REL | sh::SHT_RELA)
    }

    /// The first table of each kind belongs to its target and is no section.
    fn attach_relocations(&mut self, index: usize, target: usize) -> Result<(), Rejected> {
        let rela = self.header(index).sh_type == sh::SHT_RELA;
        let mark = &mut self.marks[target];
        let taken = if rela { &mut mark.has_rela } else { &mut mark.has_rel };
        if !std::mem::replace(taken, true) {
            return Ok(());
        }
        if !rela {
            self.note_further_relocations(index, target);
            return Ok(());
        }
        self.tables.sections[index].sh_type = SHT_SECONDARY_RELOC;
        self.make(index)
    }

    fn relocation_entry(&self, kind: u32) -> u64 {
        let word = if self.tables.header.wide() { 8 } else { 4 };
        match kind {
            sh::SHT_REL => 2 * word,
            sh::SHT_RELA => 3 * word,
            _ => word,
        }
    }

    /// Makes the section, once.
    fn make(&mut self, index: usize) -> Result<(), Rejected> {
        let made = std::mem::replace(&mut self.marks[index].made, true);
        if !self.groups.looking_ahead {
            self.list(index);
        }
        if made {
            return Ok(());
        }
        if self.header(index).sh_flags & u64::from(sh::SHF_GROUP) != 0 {
            self.join_group(index)?;
        }
        let header = self.header(index);
        let align = header.sh_addralign;
        refuse(align != 0 && align.trailing_zeros() == 63)?;
        let note = header.sh_type == sh::SHT_NOTE && header.sh_size != 0;
        refuse(note && !self.object.holds(header.sh_offset, header.sh_size))
    }

    /// Gives a section its place, once.
    fn list(&mut self, index: usize) {
        let mark = &mut self.marks[index];
        if mark.made && !std::mem::replace(&mut mark.listed, true) {
            self.order.push(u32::try_from(index).unwrap_or(u32::MAX));
        }
    }

    fn check_name(&mut self, index: usize) -> Result<(), Rejected> {
        let at = self.header(index).sh_name as u64;
        if at == 0 {
            return Ok(());
        }
        let table = self.header(self.tables.header.names_index as usize);
        let (offset, size) = (table.sh_offset, table.sh_size);
        self.names.look_up(self.object, offset, size)?;
        refuse(at >= size)
    }

    /// A section that must follow another has to name one, or none.
    fn check_linked_order(&self) -> Result<(), Rejected> {
        let lost = |&index: &u32| {
            let header = self.header(index as usize);
            let link = header.sh_link as usize;
            header.sh_flags & u64::from(sh::SHF_LINK_ORDER) != 0
                && link != 0
                && self.marks.get(link).is_none_or(|mark| !mark.made)
        };
        refuse(self.order.iter().any(lost))
    }
}

/// Looks at the names' table, which binutils accept unterminated for one name, not for two.
#[derive(Debug, Default)]
struct NameTable {
    terminated: Option<bool>,
}

impl NameTable {
    fn look_up(&mut self, object: &Object<'_>, at: u64, size: u64) -> Result<(), Rejected> {
        if let Some(terminated) = self.terminated {
            return refuse(!terminated);
        }
        refuse(size == 0 || !object.holds(at, size))?;
        self.terminated = Some(object.byte(at + size - 1) == Some(0));
        Ok(())
    }
}
