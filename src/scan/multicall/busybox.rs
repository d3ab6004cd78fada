//! BusyBox: `applet_names[]` is one constant of NUL-terminated names in `strcmp`
//! order, in every version, architecture and libc.

use std::ops::Range;
use std::sync::LazyLock;

use super::{after, constants, part, read_only, version};
use crate::model::{ElfFacts, Family, Program};

pub(super) const MARKER: &[u8] = b"BusyBox v";

/// The longest applet name is half of it.
const NAME_MAX: usize = 32;

/// The names of upstream's applets, sorted: they tell the table from other sorted
/// strings, and where its first name begins.
static KNOWN: LazyLock<Vec<&[u8]>> = LazyLock::new(|| {
    include_str!("busybox-names.txt").split_whitespace().map(str::as_bytes).collect()
});

pub(super) fn read(bytes: &[u8], facts: &ElfFacts) -> Option<Program> {
    let best_of = |ranges: Vec<Range<u64>>| {
        let tables = ranges.into_iter().filter_map(|range| table(part(bytes, &range)));
        tables.max_by_key(|table| table.known)
    };
    // Code is the larger part, and looks like names here and there.
    let best = best_of(constants(&facts.loads)).or_else(|| best_of(read_only(&facts.loads)))?;
    let banner = after(bytes, facts, MARKER, |byte| byte.is_ascii_graphic());
    Some(Program {
        family: Family::Busybox,
        version: banner.and_then(version),
        applets: best.names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
    })
}

struct Table<'a> {
    names: Vec<&'a [u8]>,
    known: usize,
}

/// The applet table of a segment: the run of strictly ascending names that holds
/// most of the known ones, by at least half.
fn table(segment: &[u8]) -> Option<Table<'_>> {
    let (mut best, mut most) = (None, 0);
    for run in runs(segment) {
        // Most runs are short, and to look up what cannot win would take as long as to find the runs.
        if run.count > most {
            let known =
                segment[run.bytes.clone()].split(|&byte| byte == 0).filter(|it| is_known(it));
            let known = known.count();
            if known > most {
                (best, most) = (Some(run), known);
            }
        }
    }
    let run = best.filter(|run| most >= 2 && most * 2 >= run.count)?;
    let mut names: Vec<_> = segment[run.bytes.clone()].split(|&byte| byte == 0).collect();
    mend_first(&mut names, &segment[..run.bytes.start]);
    Some(Table { names, known: most })
}

/// A run of ascending names: where it lies, without its last NUL.
struct Run {
    bytes: Range<usize>,
    count: usize,
}

fn runs(segment: &[u8]) -> impl Iterator<Item = Run> {
    let mut start = 0;
    let mut last: &[u8] = b"";
    let mut open: Option<Run> = None;
    // An empty token at the end closes the last run.
    let tokens = segment.split(|&byte| byte == 0).chain([&b""[..]]);
    tokens.filter_map(move |token| {
        let bytes = start..start + token.len();
        start = bytes.end + 1;
        let is_name = is_name(token);
        let continues = is_name && token > last;
        last = token;
        match &mut open {
            Some(run) if continues => {
                run.bytes.end = bytes.end;
                run.count += 1;
                None
            }
            _ => std::mem::replace(&mut open, is_name.then_some(Run { bytes, count: 1 })),
        }
    })
}

/// The bytes before the table need not end in NUL, so that its first name may be
/// glued to them: either the run's first token is such a compound, or the token
/// before the run is one. The longest known name at its end is the name.
fn mend_first<'a>(names: &mut Vec<&'a [u8]>, before: &'a [u8]) {
    let [first, rest @ ..] = &names[..] else { return };
    if is_known(first) {
        let token = before.strip_suffix(b"\0").unwrap_or_default();
        if let Some(name) = known_suffix(token).filter(|name| name < first) {
            names.insert(0, name);
        }
    } else if let Some(name) = known_suffix(first)
        && rest.first().is_some_and(|second| name < *second)
    {
        names[0] = name;
    }
}

fn known_suffix(token: &[u8]) -> Option<&[u8]> {
    let longest = token.len().saturating_sub(NAME_MAX);
    (longest..token.len()).map(|at| &token[at..]).find(|suffix| is_known(suffix))
}

fn is_known(name: &[u8]) -> bool {
    KNOWN.binary_search(&name).is_ok()
}

fn is_name(token: &[u8]) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+[-".contains(&byte);
    matches!(token, [first, ..] if *first != b'-')
        && token.len() <= NAME_MAX
        && token.iter().all(|&byte| inner(byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{KNOWN, table};

    fn names(segment: &[u8]) -> Option<Vec<String>> {
        let text = |name: &&[u8]| String::from_utf8_lossy(name).into_owned();
        table(segment).map(|table| table.names.iter().map(text).collect())
    }

    #[test]
    fn the_known_names_are_sorted() {
        assert!(KNOWN.is_sorted());
        assert!(KNOWN.len() > 400);
    }

    #[test]
    fn the_first_name_may_be_glued_to_what_stands_before() {
        let tail = b"\0[[\0acpid\0cat\0\0usage\0";
        for (before, first) in [
            (&b"junk\0\xbb\x82["[..], &["["][..]),
            (b"junk\0Q[", &["["]),
            (b"junk\0[", &["["]),
            (b"junk\0\0", &[]),
            (b"junk", &[]),
        ] {
            let found = names(&[before, tail].concat()).unwrap();
            let expected = [first, &["[[", "acpid", "cat"]].concat();
            assert_eq!(found, expected, "after {before:?}");
        }
    }

    #[test]
    fn a_small_table_wins_over_a_longer_list_of_other_words() {
        let segment = b"\0alpha\0beta\0delta\0epsilon\0gamma\0kappa\0\0ash\0cat\0ls\0\0x\0";
        assert_eq!(names(segment).unwrap(), ["ash", "cat", "ls"]);
    }

    #[test]
    fn sorted_words_alone_are_no_table() {
        assert_eq!(names(b"\0alpha\0beta\0cat\0delta\0echo\0gamma\0"), None);
        assert_eq!(names(b"\0cat\0"), None);
        assert_eq!(names(b""), None);
    }
}
