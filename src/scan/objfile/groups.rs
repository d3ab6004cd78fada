//! Section groups, which refuse a file whose members and tables do not fit.

use goblin::elf::section_header as sh;

use super::Rejected;
use super::header::refuse;
use super::sections::Visitor;
use super::symbol::Symbol;

/// `SHN_XINDEX`: the section's index stands in a table of its own.
const EXTENDED: u16 = 0xffff;

/// One `SHT_GROUP` and the sections it names; `None` for an entry that names none.
#[derive(Debug)]
struct Group {
    section: usize,
    /// `None` where its contents cannot be read.
    members: Option<Vec<Option<u32>>>,
}

/// The groups of an object, read when the first member is met.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// `None` until they were counted.
    found: Option<usize>,
    read: Vec<Group>,
    /// Where the last member was found: the next one is probably there too.
    last: usize,
    /// Groups become sections ahead of their turn; they are listed in it nevertheless.
    pub looking_ahead: bool,
}

impl Visitor<'_, '_> {
    /// A table of groups with at least `words` words.
    pub(super) fn is_group(&self, index: usize, words: u64) -> bool {
        let header = self.header(index);
        header.sh_type == sh::SHT_GROUP
            && header.sh_size >= 4 * words
            && header.sh_entsize == 4
            && header.sh_size.is_multiple_of(4)
    }

    /// Finds the group of a section that says it is in one. A file of separate debugging
    /// information has empty groups, so that it is no error to find none.
    pub(super) fn join_group(&mut self, index: usize) -> Result<(), Rejected> {
        if self.groups.found.is_none() {
            self.read_groups()?;
        }
        let count = self.groups.read.len();
        for step in 0..count {
            let number = (step + self.groups.last) % count;
            self.look(1)?;
            let group = &self.groups.read[number];
            let members = group.members.as_ref().ok_or(Rejected::NotRecognized)?;
            let looked = members.len() as u64;
            if members.contains(&u32::try_from(index).ok()) {
                self.groups.last = number;
                return self.join(index, number);
            }
            self.look(looked)?;
        }
        self.note_ungrouped(index);
        Ok(())
    }

    fn join(&mut self, index: usize, number: usize) -> Result<(), Rejected> {
        let group = &self.groups.read[number];
        let members = group.members.as_deref().unwrap_or_default();
        let named = members.iter().flatten().any(|&member| self.marks[member as usize].grouped);
        let section = group.section;
        self.look(members.len() as u64)?;
        if !named {
            self.check_signature(section)?;
        }
        self.marks[index].grouped = true;
        self.marks[section].grouped |= self.marks[section].made;
        Ok(())
    }

    /// Every group becomes a section, so that its members can refer to it.
    fn read_groups(&mut self) -> Result<(), Rejected> {
        let all: Vec<usize> = (0..self.count()).filter(|&index| self.is_group(index, 2)).collect();
        self.groups.found = Some(all.len());
        for index in all {
            let outer = std::mem::replace(&mut self.groups.looking_ahead, true);
            self.visit(index)?;
            self.groups.looking_ahead = outer;
            let members = self.read_members(index)?;
            if members.is_some() {
                self.groups.read.push(Group { section: index, members });
            }
        }
        Ok(())
    }

    /// The words after the first; each section named is a member, even if it does not say so.
    fn read_members(&mut self, index: usize) -> Result<Option<Vec<Option<u32>>>, Rejected> {
        let header = self.header(index);
        let (at, size) = (header.sh_offset, header.sh_size);
        if !self.object.holds(at, size) {
            return Ok(None);
        }
        self.look(size / 4)?;
        let bytes = self.object.copy(at, usize::try_from(size).unwrap_or(usize::MAX))?;
        let little = self.tables.header.little();
        let words = bytes.chunks_exact(4).skip(1).map(|word| word_of(word, little));
        Ok(Some(words.map(|word| self.member(word)).collect()))
    }

    fn member(&mut self, word: u32) -> Option<u32> {
        let header = self.tables.sections.get_mut(word as usize)?;
        header.sh_flags |= u64::from(sh::SHF_GROUP);
        (header.sh_type != sh::SHT_GROUP).then_some(word)
    }

    /// A group's name is that of a symbol, which must be there.
    fn check_signature(&mut self, group: usize) -> Result<(), Rejected> {
        let header = self.header(group);
        let (link, symbol) = (header.sh_link as usize, u64::from(header.sh_info));
        refuse(link >= self.count() || self.header(link).sh_type != sh::SHT_SYMTAB)?;
        self.visit(link)?;
        let entry = if self.tables.header.wide() { 24 } else { 16 };
        let table = self.header(self.one).sh_offset;
        let at = if self.one == 0 { 0 } else { table }.wrapping_add(symbol * entry);
        refuse(!self.object.holds(at, entry))?;
        let symbol = self.object.copy(at, usize::try_from(entry).unwrap_or(0))?;
        let symbol = Symbol::parse(&symbol, &self.tables.header);
        refuse(symbol.section == EXTENDED && !self.has_extended_indices())?;
        self.look_up_name(&symbol);
        Ok(())
    }

    /// The symbol of a section is called like the section.
    fn look_up_name(&mut self, symbol: &Symbol) {
        let section = usize::from(symbol.section);
        if symbol.name == 0 && symbol.is_section() && section < self.count() {
            let at = u32::try_from(self.header(section).sh_name).unwrap_or(u32::MAX);
            return self.note_strings(self.tables.header.names_index as usize, at);
        }
        let table = if self.one == 0 { 0 } else { self.header(self.one).sh_link as usize };
        if table < self.count() {
            self.note_strings(table, symbol.name);
        }
    }

    fn has_extended_indices(&self) -> bool {
        self.tables.sections.iter().any(|header| {
            header.sh_type == sh::SHT_SYMTAB_SHNDX && header.sh_link as usize == self.one
        })
    }

    /// Every group has a member, and every member is a section or relocations.
    pub(super) fn check_groups(&self) -> Result<(), Rejected> {
        for (index, mark) in self.marks.iter().enumerate() {
            let group = mark.made && self.header(index).sh_type == sh::SHT_GROUP;
            let linked_order = self.header(index).sh_flags & u64::from(sh::SHF_LINK_ORDER) != 0;
            refuse(group && !linked_order && !mark.grouped)?;
        }
        let members = self.groups.read.iter().flat_map(|group| group.members.iter().flatten());
        for &member in members.flatten() {
            let kind = self.header(member as usize).sh_type;
            let relocations = matches!(kind, sh::SHT_REL | sh::SHT_RELA);
            refuse(!self.marks[member as usize].made && !relocations)?;
        }
        Ok(())
    }
}

fn word_of(bytes: &[u8], little: bool) -> u32 {
    let word = <[u8; 4]>::try_from(bytes).unwrap_or_default();
    if little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) }
}
