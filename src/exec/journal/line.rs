//! One record as a line: eight hexadecimal digits of CRC-32C, a blank, the JSON.

use serde::de::DeserializeOwned;

use crate::model::Record;

/// The line, with its newline.
pub(super) fn encode(record: &Record) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = b"00000000 ".to_vec();
    serde_json::to_writer(&mut line, record)?;
    let sum = format!("{:08x}", crc32c::crc32c(line.get(9..).unwrap_or_default()));
    for (place, digit) in line.iter_mut().zip(sum.bytes()) {
        *place = digit;
    }
    line.push(b'\n');
    Ok(line)
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bad {
    /// It is not what was written: torn, or damaged.
    Checksum,
    /// It was written so, but says nothing that is understood.
    Record(String),
}

/// The record of a line, without its newline.
pub(super) fn decode(line: &[u8]) -> Result<Record, Bad> {
    parse(sound(line)?)
}

/// The same of a record that begins in one of these ways; of others, whether they are sound.
pub(super) fn decode_some<T: DeserializeOwned>(
    line: &[u8],
    begins: &[&[u8]],
) -> Result<Option<T>, Bad> {
    let json = sound(line)?;
    match begins.iter().any(|begin| json.starts_with(begin)) {
        true => parse(json).map(Some),
        false => Ok(None),
    }
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Bad> {
    serde_json::from_slice(json).map_err(|error| Bad::Record(error.to_string()))
}

/// What a line holds beside its checksum, where that matches.
fn sound(line: &[u8]) -> Result<&[u8], Bad> {
    let (sum, json) = line.split_at_checked(9).ok_or(Bad::Checksum)?;
    let digits = sum.strip_suffix(b" ").and_then(|sum| std::str::from_utf8(sum).ok());
    let expected = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    if expected != Some(crc32c::crc32c(json)) {
        return Err(Bad::Checksum);
    }
    Ok(json)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::model::{
        Before, Bytes, ContentId, HostPath, Intent, Metadata, ObjectName, RootId, RootPath,
        RunState, Twin,
    };

    fn every_kind() -> Vec<Record> {
        let metadata = Metadata {
            uid: 0,
            gid: 7,
            mode: 0o100_755,
            atime: -1,
            mtime: i64::MAX,
            xattrs: vec![(b"user.a".to_vec(), vec![0xff, 0])],
            flags: 0x40,
        };
        let content = ContentId([0xab; 32]);
        let file = Before::File { ino: 9, size: Bytes(1), nlink: 2, content, metadata };
        let intent = Intent {
            step: 3,
            root: RootId(1),
            path: RootPath::new(b"bin/\xff\n".to_vec()),
            temporary: b".cbin-audit-1-3".to_vec(),
            before: file,
            target: b"/cbin/x".to_vec(),
            object: Some(ObjectName::new("busybox", "x86_64", content)),
            twin: None,
        };
        let path = RootPath::new(b"bin/\xfe".to_vec());
        let twin = Some(Twin { root: RootId(0), path, ino: 5, born: -1 });
        let hidden = Before::Hidden { ino: 9, size: Bytes(1), content };
        let hidden = Intent { before: hidden, target: Vec::new(), ..intent.clone() };
        let named = Intent { target: Vec::new(), object: None, twin, ..intent.clone() };
        let config = Record::Config {
            step: 1,
            root: RootId(0),
            file: HostPath::from("/etc/x"),
            before: None,
            after: Some(b"a\n".to_vec()),
        };
        vec![
            Record::Intents(vec![intent, named, hidden]),
            Record::UndoBegin { root: None, time_seconds: 5 },
            config,
            Record::End { state: RunState::Applied },
        ]
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for record in every_kind() {
            let line = encode(&record).unwrap();
            assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
            assert_eq!(decode(&line[..line.len() - 1]), Ok(record));
        }
    }

    #[test]
    fn any_other_byte_is_noticed() {
        let line = encode(&Record::End { state: RunState::Applied }).unwrap();
        for at in 0..line.len() - 1 {
            let mut damaged = line[..line.len() - 1].to_vec();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), Err(Bad::Checksum), "byte {at}");
        }
    }
}
