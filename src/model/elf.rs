//! What an ELF file's headers say.

use super::{Bytes, Pages};

/// Word size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ElfClass {
    /// `ELFCLASS32`.
    Elf32,
    /// `ELFCLASS64`.
    Elf64,
}

/// Byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endian {
    /// `ELFDATA2LSB`.
    Little,
    /// `ELFDATA2MSB`.
    Big,
}

/// `e_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ElfType {
    /// `ET_REL`.
    Relocatable,
    /// `ET_EXEC`.
    Executable,
    /// `ET_DYN`.
    Dynamic,
    /// `ET_CORE`.
    Core,
    /// Anything else.
    Other(u16),
}

/// How a program is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Linkage {
    /// `ET_EXEC` without an interpreter.
    Static,
    /// `ET_DYN` with `DF_1_PIE` and without an interpreter.
    StaticPie,
    /// `ET_EXEC` with an interpreter.
    Dynamic,
    /// `ET_DYN` with an interpreter: position-independent executable.
    DynamicPie,
    /// A shared object.
    SharedObject,
    /// `ET_REL`: an object file or kernel module.
    Relocatable,
    /// A core dump.
    Core,
    /// None of these.
    Other,
}

impl Linkage {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::StaticPie => "static-pie",
            Self::Dynamic => "dynamic",
            Self::DynamicPie => "pie",
            Self::SharedObject => "shared-object",
            Self::Relocatable => "relocatable",
            Self::Core => "core",
            Self::Other => "other",
        }
    }
}

/// The three sums of `size` in Berkeley format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SectionSums {
    /// Code and read-only sections.
    pub text: Bytes,
    /// Writable sections with contents.
    pub data: Bytes,
    /// Writable sections without contents.
    pub bss: Bytes,
}

/// Pages of the `PT_LOAD` segments, at the host's page size.
///
/// `ro` and `cow` are counted over distinct file pages; `rx` is a part of `ro`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SegmentPages {
    /// File pages of segments without `PF_W`: shared through the page cache.
    pub ro: Pages,
    /// The part of `ro` with `PF_X`.
    pub rx: Pages,
    /// File pages of segments with `PF_W`: shared until written.
    pub cow: Pages,
    /// Pages beyond the file's: always private.
    pub anon: Pages,
}

/// One `PT_LOAD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadSegment {
    /// `p_flags`: `PF_X` 1, `PF_W` 2, `PF_R` 4.
    pub flags: u32,
    /// `p_offset`.
    pub offset: u64,
    /// `p_vaddr`.
    pub vaddr: u64,
    /// `p_filesz`.
    pub file_size: u64,
    /// `p_memsz`.
    pub mem_size: u64,
    /// `p_align`.
    pub align: u64,
}

impl LoadSegment {
    /// The pages of this segment alone. Two segments may share a page of the file.
    pub fn pages(&self, page_size: Bytes) -> SegmentPages {
        let page = page_size.0.max(1);
        let end = |start: u64, size: u64| start.saturating_add(size).div_ceil(page);
        let file = match self.file_size {
            0 => 0,
            size => end(self.offset, size) - self.offset / page,
        };
        let anonymous_from = match self.file_size {
            0 => self.vaddr / page,
            size => end(self.vaddr, size),
        };
        let anon = Pages(end(self.vaddr, self.mem_size).saturating_sub(anonymous_from));
        let (none, file) = (Pages(0), Pages(file));
        match (self.flags & 2 != 0, self.flags & 1 != 0) {
            (true, _) => SegmentPages { ro: none, rx: none, cow: file, anon },
            (false, true) => SegmentPages { ro: file, rx: file, cow: none, anon },
            (false, false) => SegmentPages { ro: file, rx: none, cow: none, anon },
        }
    }
}

/// What the headers of one ELF file say, beyond its section sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElfFacts {
    /// Word size.
    pub class: ElfClass,
    /// Byte order.
    pub endian: Endian,
    /// `e_machine`.
    pub machine: u16,
    /// `e_type`.
    pub kind: ElfType,
    /// How it is linked.
    pub linkage: Linkage,
    /// `PT_INTERP`, without its NUL.
    pub interpreter: Option<Vec<u8>>,
    /// `DT_NEEDED`, in order.
    pub needed: Vec<Vec<u8>>,
    /// `DT_SONAME`.
    pub soname: Option<Vec<u8>>,
    /// `DT_RPATH` and `DT_RUNPATH`, in order.
    pub runpath: Vec<Vec<u8>>,
    /// The note `NT_GNU_BUILD_ID`, from the program headers. A hint: the file's maker chose it.
    pub build_id: Option<Vec<u8>>,
    /// Every `PT_LOAD`, in order.
    pub loads: Vec<LoadSegment>,
    /// `p_memsz` of `PT_GNU_RELRO`.
    pub relro: Bytes,
    /// `DT_TEXTREL`: text is written at start and then private.
    pub textrel: bool,
    /// Pages of the segments at the host's page size.
    pub segments: SegmentPages,
    /// `size`'s sums; `None` where there is no section table to be read.
    pub sections: Option<SectionSums>,
}

impl ElfFacts {
    /// The architecture as Linux and Debian users name it (`x86_64`, `aarch64`, `mips64el`, ...).
    pub fn arch(&self) -> String {
        let big = self.endian == Endian::Big;
        let wide = self.class == ElfClass::Elf64;
        let name = match (self.machine, wide, big) {
            (62, true, _) => "x86_64",
            (62, false, _) => "x32",
            (3, ..) => "i386",
            (183, _, false) => "aarch64",
            (183, _, true) => "aarch64_be",
            (40, _, false) => "arm",
            (40, _, true) => "armeb",
            (8, false, false) => "mipsel",
            (8, false, true) => "mips",
            (8, true, false) => "mips64el",
            (8, true, true) => "mips64",
            (20, ..) => "ppc",
            (21, _, false) => "ppc64le",
            (21, _, true) => "ppc64",
            (22, true, _) => "s390x",
            (22, false, _) => "s390",
            (243, true, _) => "riscv64",
            (243, false, _) => "riscv32",
            (258, true, _) => "loongarch64",
            (43, ..) => "sparc64",
            (2 | 18, ..) => "sparc",
            (4, ..) => "m68k",
            (15, ..) => "hppa",
            (42, ..) => "sh4",
            (50, ..) => "ia64",
            (0x9026, ..) => "alpha",
            (other, ..) => return format!("machine-{other}"),
        };
        name.to_owned()
    }
}
