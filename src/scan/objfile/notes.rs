//! The notes of a core dump: registers of each thread, and whose dump it is.

use super::Rejected;
use super::core::Core;
use super::header::refuse;
use crate::model::SectionTraits;

const NT_PRSTATUS: u32 = 1;
const NT_FPREGSET: u32 = 2;
const NT_PRPSINFO: u32 = 3;
const NT_AUXV: u32 = 6;
const NT_GNU_BUILD_ID: u32 = 3;
const EM_X86_64: u16 = 62;

/// Note types that become a section each: the type, its owner, the section's name.
const REGISTER_SETS: [(u32, &[u8], &str); 46] = [
    (0x46e6_2b7f, b"LINUX\0", ".reg-xfp"),
    (0x202, b"LINUX\0", ".reg-xstate"),
    (0x100, b"LINUX\0", ".reg-ppc-vmx"),
    (0x102, b"LINUX\0", ".reg-ppc-vsx"),
    (0x103, b"LINUX\0", ".reg-ppc-tar"),
    (0x104, b"LINUX\0", ".reg-ppc-ppr"),
    (0x105, b"LINUX\0", ".reg-ppc-dscr"),
    (0x106, b"LINUX\0", ".reg-ppc-ebb"),
    (0x107, b"LINUX\0", ".reg-ppc-pmu"),
    (0x108, b"LINUX\0", ".reg-ppc-tm-cgpr"),
    (0x109, b"LINUX\0", ".reg-ppc-tm-cfpr"),
    (0x10a, b"LINUX\0", ".reg-ppc-tm-cvmx"),
    (0x10b, b"LINUX\0", ".reg-ppc-tm-cvsx"),
    (0x10c, b"LINUX\0", ".reg-ppc-tm-spr"),
    (0x10d, b"LINUX\0", ".reg-ppc-tm-ctar"),
    (0x10e, b"LINUX\0", ".reg-ppc-tm-cppr"),
    (0x10f, b"LINUX\0", ".reg-ppc-tm-cdscr"),
    (0x300, b"LINUX\0", ".reg-s390-high-gprs"),
    (0x301, b"LINUX\0", ".reg-s390-timer"),
    (0x302, b"LINUX\0", ".reg-s390-todcmp"),
    (0x303, b"LINUX\0", ".reg-s390-todpreg"),
    (0x304, b"LINUX\0", ".reg-s390-ctrs"),
    (0x305, b"LINUX\0", ".reg-s390-prefix"),
    (0x306, b"LINUX\0", ".reg-s390-last-break"),
    (0x307, b"LINUX\0", ".reg-s390-system-call"),
    (0x308, b"LINUX\0", ".reg-s390-tdb"),
    (0x309, b"LINUX\0", ".reg-s390-vxrs-low"),
    (0x30a, b"LINUX\0", ".reg-s390-vxrs-high"),
    (0x30b, b"LINUX\0", ".reg-s390-gs-cb"),
    (0x30c, b"LINUX\0", ".reg-s390-gs-bc"),
    (0x600, b"LINUX\0", ".reg-arc-v2"),
    (0x400, b"LINUX\0", ".reg-arm-vfp"),
    (0x401, b"LINUX\0", ".reg-aarch-tls"),
    (0x402, b"LINUX\0", ".reg-aarch-hw-break"),
    (0x403, b"LINUX\0", ".reg-aarch-hw-watch"),
    (0x405, b"LINUX\0", ".reg-aarch-sve"),
    (0x406, b"LINUX\0", ".reg-aarch-pauth"),
    (0x409, b"LINUX\0", ".reg-aarch-mte"),
    (0xff00_0000, b"GDB\0", ".gdb-tdesc"),
    (0x900, b"GDB\0", ".reg-riscv-csr"),
    (0xa00, b"LINUX\0", ".reg-loongarch-cpucfg"),
    (0xa04, b"LINUX\0", ".reg-loongarch-lbt"),
    (0xa02, b"LINUX\0", ".reg-loongarch-lsx"),
    (0xa03, b"LINUX\0", ".reg-loongarch-lasx"),
    (0x4649_4c45, b"", ".note.linuxcore.file"),
    (0x5349_4749, b"", ".note.linuxcore.siginfo"),
];

/// One note.
struct Note<'n> {
    kind: u32,
    owner: &'n [u8],
    content: &'n [u8],
}

/// Adds the sections that the notes in `bytes` make.
pub(super) fn add(core: &mut Core<'_, '_>, bytes: &[u8], align: u64) -> Result<(), Rejected> {
    let align = match align {
        0..=4 => 4,
        8 => 8,
        _ => return Err(Rejected::NotRecognized),
    };
    let mut at = 0;
    while at < bytes.len() {
        let (note, next) =
            parse(&bytes[at..], align, core.header.little()).ok_or(Rejected::NotRecognized)?;
        add_note(core, &note)?;
        at += next;
    }
    Ok(())
}

/// The first note, and how many bytes it takes with its padding.
fn parse(bytes: &[u8], align: usize, little: bool) -> Option<(Note<'_>, usize)> {
    let word = |at: usize| {
        let word = <[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?;
        Some(if little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) })
    };
    let (name_size, size) = (word(0)? as usize, word(4)? as usize);
    let owner = bytes.get(12..12 + name_size)?;
    let start = (12 + name_size).next_multiple_of(align);
    let content = if size == 0 { &[] } else { bytes.get(start..start + size)? };
    let next = (start + size).next_multiple_of(align);
    Some((Note { kind: word(8)?, owner, content }, next))
}

fn add_note(core: &mut Core<'_, '_>, note: &Note<'_>) -> Result<(), Rejected> {
    if note.owner.starts_with(b"GNU") {
        return refuse(note.kind == NT_GNU_BUILD_ID && note.content.is_empty());
    }
    match note.kind {
        NT_PRSTATUS => add_status(core, note.content),
        NT_FPREGSET => add_per_thread(core, ".reg2", note.content.len()),
        NT_PRPSINFO => read_process(core, note.content),
        NT_AUXV => add_contents(core, ".auxv", note.content.len()),
        _ => add_registers(core, note),
    }
    Ok(())
}

fn add_registers(core: &mut Core<'_, '_>, note: &Note<'_>) {
    let found = REGISTER_SETS
        .iter()
        .find(|(kind, owner, _)| *kind == note.kind && (owner.is_empty() || *owner == note.owner));
    if let Some((.., name)) = found {
        add_per_thread(core, name, note.content.len());
    }
}

/// `struct elf_prstatus` of x86: the thread, and its general registers. A dump of another
/// machine whose structure is as large is taken for one.
fn add_status(core: &mut Core<'_, '_>, status: &[u8]) {
    let x86_64 = core.header.machine == EM_X86_64;
    let (thread_at, registers) = match status.len() {
        336 => (32, 216),
        296 if x86_64 => (24, 216),
        144 => (24, 68),
        _ => return,
    };
    core.thread = number_at(status, thread_at);
    add_per_thread(core, ".reg", registers);
}

/// `struct elf_prpsinfo`: the process and its command line.
fn read_process(core: &mut Core<'_, '_>, info: &[u8]) {
    let (process_at, command_at) = match info.len() {
        124 => (12, 44),
        136 => (24, 56),
        _ => return,
    };
    core.process = number_at(info, process_at);
    let command = &info[command_at..command_at + 80];
    let command = command.split(|&byte| byte == 0).next().unwrap_or_default();
    let command = command.strip_suffix(b" ").unwrap_or(command);
    core.dump.command = Some(command.to_vec());
}

fn number_at(bytes: &[u8], at: usize) -> i32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, i32::from_le_bytes)
}

/// One section for the thread, and one without its number for the first thread.
fn add_per_thread(core: &mut Core<'_, '_>, name: &str, size: usize) {
    let thread = if core.thread == 0 { core.process } else { core.thread };
    add_contents(core, &format!("{name}/{thread}"), size);
    if !core.has(name) {
        add_contents(core, name, size);
    }
}

fn add_contents(core: &mut Core<'_, '_>, name: &str, size: usize) {
    // Nothing says that registers are read-only.
    let traits = SectionTraits { contents: true, ..SectionTraits::default() };
    core.add(name, size as u64, 0, traits);
}
