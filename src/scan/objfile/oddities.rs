//! What is noted of a file that is counted nevertheless.

use goblin::elf::section_header as sh;

use super::sections::Visitor;
use crate::model::Oddity;

/// Further ones say nothing new.
const MOST_ODDITIES: usize = 4096;
/// A message shows no more of a name.
const LONGEST_NAME: u64 = 1024;

impl Visitor<'_, '_> {
    fn push(&mut self, oddity: impl FnOnce(&mut Self) -> Oddity) {
        if self.oddities.len() < MOST_ODDITIES {
            let oddity = oddity(self);
            self.oddities.push(oddity);
        }
    }

    /// Notes what is told by the place of a header alone.
    pub(super) fn note(&mut self, index: usize, oddity: fn(u32) -> Oddity) {
        self.push(|_| oddity(number(index)));
    }

    /// A section says that it is in a group, and no group has it.
    pub(super) fn note_ungrouped(&mut self, index: usize) {
        self.push(|this| Oddity::Ungrouped(this.name_of(index)));
    }

    /// A table of relocations links to no section.
    pub(super) fn note_link(&mut self, index: usize) {
        self.push(|this| {
            let link = this.header(index).sh_link;
            Oddity::RelocationLink { section: this.name_of(index), index: number(index), link }
        });
    }

    /// A section has a further table of relocations without addends.
    pub(super) fn note_further_relocations(&mut self, index: usize, target: usize) {
        self.push(|this| {
            let (section, target) = (this.name_of(index), this.name_of(target));
            Oddity::FurtherRelocations { section, target }
        });
    }

    /// The name of a group's symbol is looked up at `at` in a section: is it one of strings?
    /// What was read already, the contents of groups, is taken for strings without a look.
    pub(super) fn note_strings(&mut self, index: usize, at: u32) {
        let kind = self.header(index).sh_type;
        let strings = kind == sh::SHT_STRTAB || kind >= sh::SHT_LOOS || self.is_group(index, 2);
        if at != 0 && !strings {
            self.note(index, Oddity::NoStrings);
        }
    }

    fn name_of(&mut self, index: usize) -> Vec<u8> {
        let at = self.header(index).sh_name as u64;
        let table = self.header(self.tables.header.names_index as usize);
        let len = table.sh_size.saturating_sub(at).min(LONGEST_NAME);
        if at == 0 {
            return Vec::new();
        }
        let len = usize::try_from(len).unwrap_or(0);
        let bytes = self.object.copy(table.sh_offset + at, len).unwrap_or_default();
        bytes.split(|&byte| byte == 0).next().unwrap_or_default().to_vec()
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
