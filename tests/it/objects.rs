//! Object files, core dumps and archives, written field by field.

/// Word size, byte order and machine.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub wide: bool,
    pub big: bool,
    pub machine: u16,
}

pub const X86_64: Kind = Kind { wide: true, big: false, machine: 62 };
pub const I386: Kind = Kind { wide: false, big: false, machine: 3 };
pub const S390X: Kind = Kind { wide: true, big: true, machine: 22 };
pub const M68K: Kind = Kind { wide: false, big: true, machine: 4 };

pub const REL: u16 = 1;
pub const EXEC: u16 = 2;
pub const DYN: u16 = 3;
pub const CORE: u16 = 4;

/// One section header, and its contents.
#[derive(Debug, Clone, Default)]
pub struct Section {
    pub name: Vec<u8>,
    pub kind: u32,
    pub flags: u64,
    pub address: u64,
    pub size: Option<u64>,
    pub offset: Option<u64>,
    pub link: u32,
    pub info: u32,
    pub align: u64,
    pub entry: u64,
    pub contents: Vec<u8>,
}

/// A section of `kind` with `flags`, holding `size` bytes.
pub fn section(name: &str, kind: u32, flags: u64, size: usize) -> Section {
    let contents = if kind == 8 { Vec::new() } else { vec![0; size] };
    Section {
        name: name.into(),
        kind,
        flags,
        size: (kind == 8).then_some(size as u64),
        contents,
        ..Section::default()
    }
}

/// One program header, and its contents.
#[derive(Debug, Clone, Default)]
pub struct Segment {
    pub kind: u32,
    pub flags: u32,
    pub address: u64,
    pub memory: u64,
    pub align: u64,
    pub contents: Vec<u8>,
    pub offset: Option<u64>,
}

/// An object, and what its header says where that is to differ from the truth.
#[derive(Debug, Clone)]
pub struct Object {
    pub of: Kind,
    pub kind: u16,
    pub sections: Vec<Section>,
    pub segments: Vec<Segment>,
    /// Without `.shstrtab`, which stands last.
    pub names: Option<Section>,
    /// Section header 0.
    pub first: Section,
    pub count: Option<u16>,
    pub names_index: Option<u16>,
    pub segment_count: Option<u16>,
    pub table: bool,
}

impl Object {
    pub fn new(of: Kind, kind: u16) -> Self {
        Self {
            of,
            kind,
            sections: Vec::new(),
            segments: Vec::new(),
            names: None,
            first: Section::default(),
            count: None,
            names_index: None,
            segment_count: None,
            table: true,
        }
    }

    pub fn with(mut self, sections: impl IntoIterator<Item = Section>) -> Self {
        self.sections.extend(sections);
        self
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut sections = self.sections.clone();
        let mut names = vec![0];
        let mut offsets = vec![0];
        for section in &sections {
            offsets.push(push_name(&mut names, &section.name));
        }
        offsets.push(push_name(&mut names, b".shstrtab"));
        let table =
            Section { name: b".shstrtab".into(), kind: 3, contents: names, ..Section::default() };
        sections.push(self.names.clone().unwrap_or(table));

        let (header_size, entry, segment_entry) =
            if self.of.wide { (64, 64, 56) } else { (52, 40, 32) };
        let segments_at = header_size;
        let mut body = vec![0; header_size + self.segments.len() * segment_entry];
        let mut segments = Vec::new();
        for segment in &self.segments {
            let offset = segment.offset.unwrap_or(body.len() as u64);
            body.extend_from_slice(&segment.contents);
            segments.extend(self.segment_header(segment, offset));
        }
        let mut headers = self.section_header(&self.first, 0, 0);
        for (section, name) in sections.iter().zip(&offsets[1..]) {
            let offset = section.offset.unwrap_or(body.len() as u64);
            body.extend_from_slice(&section.contents);
            headers.extend(self.section_header(section, *name, offset));
        }
        body.resize(body.len().next_multiple_of(8), 0);
        let sections_at = if self.table { body.len() } else { 0 };
        if self.table {
            body.extend(headers);
        }
        let count = self.count.unwrap_or(if self.table { sections.len() as u16 + 1 } else { 0 });
        let names_index =
            self.names_index.unwrap_or(if self.table { sections.len() as u16 } else { 0 });
        let header = self.header(segments_at as u64, sections_at as u64, entry, count, names_index);
        body[..header_size].copy_from_slice(&header);
        body[segments_at..segments_at + segments.len()].copy_from_slice(&segments);
        body
    }

    fn header(
        &self,
        segments_at: u64,
        sections_at: u64,
        entry: u16,
        count: u16,
        names: u16,
    ) -> Vec<u8> {
        let mut out = b"\x7fELF".to_vec();
        out.extend([1 + u8::from(self.of.wide), 1 + u8::from(self.of.big), 1, 0]);
        out.extend([0; 8]);
        let mut put = Put { of: self.of, out };
        put.half(self.kind).half(self.of.machine).word(1).long(0);
        put.long(if self.segments.is_empty() { 0 } else { segments_at }).long(sections_at);
        let (size, segment) = if self.of.wide { (64, 56) } else { (52, 32) };
        let segments = self.segment_count.unwrap_or(self.segments.len() as u16);
        put.word(0).half(size).half(segment).half(segments).half(entry).half(count).half(names);
        put.out
    }

    fn section_header(&self, section: &Section, name: u32, offset: u64) -> Vec<u8> {
        let size = section.size.unwrap_or(section.contents.len() as u64);
        let mut put = Put { of: self.of, out: Vec::new() };
        put.word(name).word(section.kind).long(section.flags).long(section.address).long(offset);
        put.long(size)
            .word(section.link)
            .word(section.info)
            .long(section.align)
            .long(section.entry);
        put.out
    }

    fn segment_header(&self, segment: &Segment, offset: u64) -> Vec<u8> {
        let mut put = Put { of: self.of, out: Vec::new() };
        let size = segment.contents.len() as u64;
        put.word(segment.kind);
        if self.of.wide {
            put.word(segment.flags);
        }
        put.long(offset)
            .long(segment.address)
            .long(segment.address)
            .long(size)
            .long(segment.memory);
        if !self.of.wide {
            put.word(segment.flags);
        }
        put.long(segment.align);
        put.out
    }
}

fn push_name(names: &mut Vec<u8>, name: &[u8]) -> u32 {
    if name.is_empty() {
        return 0;
    }
    let at = names.len() as u32;
    names.extend_from_slice(name);
    names.push(0);
    at
}

/// Writes numbers in the byte order and word size of an object.
#[derive(Debug)]
pub struct Put {
    pub of: Kind,
    pub out: Vec<u8>,
}

impl Put {
    fn bytes<const N: usize>(&mut self, little: [u8; N]) -> &mut Self {
        let mut bytes = little;
        if self.of.big {
            bytes.reverse();
        }
        self.out.extend(bytes);
        self
    }

    pub fn half(&mut self, number: u16) -> &mut Self {
        self.bytes(number.to_le_bytes())
    }

    pub fn word(&mut self, number: u32) -> &mut Self {
        self.bytes(number.to_le_bytes())
    }

    /// An address, an offset or a size.
    pub fn long(&mut self, number: u64) -> &mut Self {
        if self.of.wide { self.bytes(number.to_le_bytes()) } else { self.word(number as u32) }
    }

    pub fn symbol(&mut self, name: u32, info: u8, section: u16, size: u64) -> &mut Self {
        self.word(name);
        if self.of.wide {
            self.out.extend([info, 0]);
            return self.half(section).long(0).long(size);
        }
        self.long(0).long(size);
        self.out.extend([info, 0]);
        self.half(section)
    }
}

/// Symbols: the null one, a section's, a function, and two common ones.
pub fn symbols(of: Kind) -> Vec<u8> {
    let mut put = Put { of, out: Vec::new() };
    put.symbol(0, 0, 0, 0).symbol(0, 3, 1, 0).symbol(1, 0x12, 1, 16);
    put.symbol(1, 0x11, 0xfff2, 100).symbol(1, 0x11, 0xfff2, 28);
    put.out
}

/// A relocatable object as a C++ compiler makes it: code, data, a group, relocations, notes.
pub fn relocatable(of: Kind) -> Object {
    let (symbol, rela, word) = if of.wide { (24, 24, 8) } else { (16, 12, 4) };
    let mut group = Put { of, out: Vec::new() };
    group.word(1).word(5).word(6);
    let rela = |name: &str, info, flags| Section {
        link: 9,
        info,
        entry: rela,
        ..section(name, 4, flags, 2 * rela as usize)
    };
    Object::new(of, REL).with([
        Section { align: 16, ..section(".text", 1, 6, 33) },
        rela(".rela.text", 1, 0x40),
        Section { align: word, ..section(".data", 1, 3, 24) },
        section(".bss", 8, 3, 40),
        section(".text._Z1fv", 1, 0x206, 11),
        rela(".rela.text._Z1fv", 5, 0x240),
        Section { link: 9, info: 2, entry: 4, contents: group.out, ..section(".group", 17, 0, 0) },
        section(".note.GNU-stack", 1, 0, 0),
        Section {
            link: 10,
            info: 2,
            entry: symbol,
            contents: symbols(of),
            ..section(".symtab", 2, 0, 0)
        },
        Section { contents: b"\0f\0".into(), ..section(".strtab", 3, 0, 0) },
        Section { entry: 1, ..section(".comment", 1, 0x30, 17) },
        section(".eh_frame", 1, 2, 48),
        section(".tbss", 8, 0x403, 12),
    ])
}

/// A shared object: dynamic symbols and relocations, versions, a symbol table.
pub fn shared(of: Kind) -> Object {
    let (symbol, rela, word) = if of.wide { (24, 24, 8) } else { (16, 12, 4) };
    let dynamic = Section { link: 3, entry: 2 * word, ..section(".dynamic", 6, 3, 32) };
    let mut object = Object::new(of, DYN).with([
        section(".note.gnu.build-id", 7, 2, 0),
        Section {
            link: 3,
            info: 1,
            entry: symbol,
            contents: symbols(of),
            ..section(".dynsym", 11, 2, 0)
        },
        section(".dynstr", 3, 2, 9),
        Section { link: 2, entry: 2, ..section(".gnu.version", 0x6fff_ffff, 2, 10) },
        Section { link: 3, info: 1, ..section(".gnu.version_r", 0x6fff_fffe, 2, 32) },
        Section { link: 2, entry: rela, ..section(".rela.dyn", 4, 2, 2 * rela as usize) },
        Section { link: 2, info: 11, entry: rela, ..section(".rela.plt", 4, 0x42, rela as usize) },
        Section { link: 2, ..section(".gnu.hash", 0x6fff_fff6, 2, 28) },
        section(".text", 1, 6, 100),
        section(".plt", 8, 7, 20),
        section(".got", 1, 3, 24),
        section(".init_array", 14, 3, 8),
        dynamic,
        section(".bss", 8, 3, 64),
        Section { entry: 1, ..section(".comment", 1, 0x30, 5) },
        Section {
            link: 17,
            info: 2,
            entry: symbol,
            contents: symbols(of),
            ..section(".symtab", 2, 0, 0)
        },
        section(".strtab", 3, 0, 9),
    ]);
    object.segments = vec![
        Segment {
            kind: 1,
            flags: 5,
            memory: 16,
            align: 0x1000,
            contents: vec![0; 16],
            ..Segment::default()
        },
        Segment { kind: 0x6474_e551, flags: 6, ..Segment::default() },
    ];
    object
}

/// One note, padded to four bytes.
pub fn note(of: Kind, owner: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
    let mut put = Put { of, out: Vec::new() };
    put.word(owner.len() as u32).word(content.len() as u32).word(kind);
    for part in [owner, content] {
        put.out.extend_from_slice(part);
        put.out.resize(put.out.len().next_multiple_of(4), 0);
    }
    put.out
}

/// A core dump with one thread.
pub fn core(of: Kind) -> Object {
    let (status, info) = if of.wide { (336, 136) } else { (144, 124) };
    let mut process = vec![0; info];
    let (pid, command) = if of.wide { (24, 56) } else { (12, 44) };
    process[pid..pid + 2].copy_from_slice(&[7, 1]);
    process[command..command + 8].copy_from_slice(b"sleep 9 ");
    let mut notes = note(of, b"CORE\0", 1, &vec![3; status]);
    notes.extend(note(of, b"CORE\0", 3, &process));
    notes.extend(note(of, b"CORE\0", 6, &[0; 32]));
    notes.extend(note(of, b"CORE\0", 0x5349_4749, &[0; 128]));
    notes.extend(note(of, b"CORE\0", 2, &[0; 512]));
    notes.extend(note(of, b"LINUX\0", 0x202, &[0; 64]));
    let load = |flags, memory, size| Segment {
        kind: 1,
        flags,
        address: 0x1000,
        memory,
        align: 0x1000,
        contents: vec![0; size],
        offset: None,
    };
    let mut core = Object::new(of, CORE);
    core.table = false;
    core.segments = vec![
        Segment { kind: 4, contents: notes, ..Segment::default() },
        load(5, 64, 64),
        load(6, 128, 64),
        load(6, 100, 0),
        load(4, 10, 10),
    ];
    core
}

/// `ar`: the magic and members as they are given.
pub fn archive<'a>(members: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, contents) in members {
        out.extend(member_header(name, contents.len() as i64));
        out.extend_from_slice(contents);
        out.resize(out.len().next_multiple_of(2), b'\n');
    }
    out
}

pub fn member_header(name: &str, size: i64) -> Vec<u8> {
    format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 644).into_bytes()
}
