//! The arguments of `size`, read as `getopt_long(3)` reads them for the binutils.

use cbin_audit::render::size::{Format, Radix, Style};
use cbin_audit::scan::objfile::Target;

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub style: Style,
    pub target: Target,
    pub json: bool,
    pub segments: bool,
    pub threads: usize,
    pub operands: Vec<Vec<u8>>,
}

/// What the arguments come to.
#[derive(Debug)]
pub(super) enum Arguments {
    Measure(Request),
    Help,
    Version,
    /// They are not understood; the message may be empty.
    Refused(Vec<u8>),
}

/// Options with a name; the first seven are those of the binutils.
const LONG: [(&str, Long); 10] = [
    ("common", Long::Common),
    ("format", Long::Format),
    ("radix", Long::Radix),
    ("target", Long::Target),
    ("totals", Long::Totals),
    ("version", Long::Version),
    ("help", Long::Help),
    ("json", Long::Json),
    ("segments", Long::Segments),
    ("threads", Long::Threads),
];
const BINUTILS: usize = 7;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Long {
    Common,
    Format,
    Radix,
    Target,
    Totals,
    Version,
    Help,
    Json,
    Segments,
    Threads,
}

impl Long {
    fn takes_value(self) -> bool {
        matches!(self, Self::Format | Self::Radix | Self::Target | Self::Threads)
    }
}

/// Formats that the binutils read and we do not: naming one leaves the choice to the bytes.
const TARGETS: [&str; 20] = [
    "default",
    "elf32-big",
    "elf32-i386",
    "elf32-iamcu",
    "elf32-little",
    "elf32-x86-64",
    "elf64-big",
    "elf64-little",
    "elf64-x86-64",
    "ihex",
    "pdb",
    "pe-bigobj-x86-64",
    "pe-i386",
    "pe-x86-64",
    "pei-i386",
    "pei-x86-64",
    "plugin",
    "srec",
    "symbolsrec",
    "tekhex",
];

/// Reads the arguments that follow `size`.
pub(super) fn parse(arguments: Vec<Vec<u8>>, posix: bool) -> Arguments {
    let mut reader = Reader {
        request: Request { threads: 1, ..Request::default() },
        help: false,
        version: false,
    };
    match reader.read(arguments, posix) {
        Err(message) => Arguments::Refused(message),
        Ok(()) if reader.version => Arguments::Version,
        Ok(()) if reader.help => Arguments::Help,
        Ok(()) => Arguments::Measure(reader.request),
    }
}

struct Reader {
    request: Request,
    help: bool,
    version: bool,
}

type Step = Result<(), Vec<u8>>;

impl Reader {
    /// Options may stand behind operands, unless POSIX is asked for.
    fn read(&mut self, arguments: Vec<Vec<u8>>, posix: bool) -> Step {
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            if argument == b"--" || (posix && !is_option(&argument)) {
                let operand = (argument != b"--").then_some(argument);
                self.request.operands.extend(operand.into_iter().chain(arguments));
                break;
            }
            if let Some(long) = argument.strip_prefix(b"--") {
                self.long(long, &mut arguments)?;
            } else if is_option(&argument) {
                self.shorts(&argument[1..], &mut arguments)?;
            } else {
                self.request.operands.push(argument);
            }
        }
        if self.request.operands.is_empty() {
            self.request.operands.push(b"a.out".to_vec());
        }
        Ok(())
    }

    fn shorts(&mut self, letters: &[u8], rest: &mut impl Iterator<Item = Vec<u8>>) -> Step {
        for (at, letter) in letters.iter().enumerate() {
            match letter {
                b'A' => self.request.style.format = Format::SysV,
                b'B' => self.request.style.format = Format::Berkeley,
                b'G' => self.request.style.format = Format::Gnu,
                b'd' => self.request.style.radix = Radix::Decimal,
                b'o' => self.request.style.radix = Radix::Octal,
                b'x' => self.request.style.radix = Radix::Hexadecimal,
                b't' => self.request.style.totals = true,
                b'v' | b'V' => self.version = true,
                b'f' => {}
                b'h' | b'H' => return Err(Vec::new()),
                b'j' => {
                    let value = &letters[at + 1..];
                    let value = if value.is_empty() { rest.next() } else { Some(value.to_vec()) };
                    return self.threads(&value.ok_or(b"option requires an argument -- 'j'")?);
                }
                other => return Err([b"invalid option -- '", [*other].as_slice(), b"'"].concat()),
            }
        }
        Ok(())
    }

    fn long(&mut self, text: &[u8], rest: &mut impl Iterator<Item = Vec<u8>>) -> Step {
        let (name, value) = match text.iter().position(|&byte| byte == b'=') {
            Some(at) => (&text[..at], Some(text[at + 1..].to_vec())),
            None => (text, None),
        };
        let (full, option) = find(name, text)?;
        match (option.takes_value(), value) {
            (false, Some(_)) => Err(format!("option '--{full}' doesn't allow an argument").into()),
            (false, None) => {
                self.switch(option);
                Ok(())
            }
            (true, value) => {
                let missing = || format!("option '--{full}' requires an argument").into_bytes();
                let value = value.or_else(|| rest.next()).ok_or_else(missing)?;
                self.value(option, &value)
            }
        }
    }

    fn switch(&mut self, option: Long) {
        match option {
            Long::Common => self.request.style.common = true,
            Long::Totals => self.request.style.totals = true,
            Long::Json => self.request.json = true,
            Long::Segments => self.request.segments = true,
            Long::Version => self.version = true,
            _ => self.help = true,
        }
    }

    fn value(&mut self, option: Long, value: &[u8]) -> Step {
        match option {
            Long::Format => self.request.style.format = format_named(value)?,
            Long::Radix => self.request.style.radix = radix_named(value)?,
            Long::Target => self.request.target = target_named(value),
            _ => self.threads(value)?,
        }
        Ok(())
    }

    fn threads(&mut self, value: &[u8]) -> Step {
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        match number {
            Some(threads @ 1..) => {
                self.request.threads = threads;
                Ok(())
            }
            _ => Err([b"invalid argument to --threads: ", value].concat()),
        }
    }
}

/// `-` alone is an operand.
fn is_option(argument: &[u8]) -> bool {
    argument.len() > 1 && argument[0] == b'-'
}

/// A name may be cut short as long as one option alone begins with it. Ours come
/// second, so that what the binutils accept never becomes ambiguous.
fn find(name: &[u8], text: &[u8]) -> Result<(&'static str, Long), Vec<u8>> {
    let (theirs, ours) = LONG.split_at(BINUTILS);
    for options in [theirs, ours] {
        let begun: Vec<_> =
            options.iter().filter(|(full, _)| full.as_bytes().starts_with(name)).collect();
        match begun.as_slice() {
            [] => {}
            [only] => return Ok(**only),
            several => return Err(ambiguous(text, several)),
        }
    }
    Err([b"unrecognized option '--", text, b"'"].concat())
}

fn ambiguous(text: &[u8], several: &[&(&str, Long)]) -> Vec<u8> {
    let mut message = [b"option '--", text, b"' is ambiguous; possibilities:"].concat();
    for (full, _) in several {
        message.extend_from_slice(format!(" '--{full}'").as_bytes());
    }
    message
}

/// The first letter decides.
fn format_named(value: &[u8]) -> Result<Format, Vec<u8>> {
    match value.first() {
        Some(b'b' | b'B') => Ok(Format::Berkeley),
        Some(b's' | b'S') => Ok(Format::SysV),
        Some(b'g' | b'G') => Ok(Format::Gnu),
        _ => Err([b"invalid argument to --format: ", value].concat()),
    }
}

/// What follows the digits is passed over, as `atol(3)` does.
fn radix_named(value: &[u8]) -> Result<Radix, Vec<u8>> {
    let text = value.trim_ascii_start();
    let text = text.strip_prefix(b"+").unwrap_or(text);
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match std::str::from_utf8(&text[..digits]).ok().and_then(|digits| digits.parse().ok()) {
        Some(8_u64) => Ok(Radix::Octal),
        Some(10) => Ok(Radix::Decimal),
        Some(16) => Ok(Radix::Hexadecimal),
        _ => Err([b"Invalid radix: ", value, b"\n"].concat()),
    }
}

fn target_named(value: &[u8]) -> Target {
    match std::str::from_utf8(value) {
        Ok("binary") => Target::Binary,
        Ok(name) if TARGETS.contains(&name) || name == "verilog" => Target::Any,
        _ => Target::Unknown,
    }
}
