//! How values stand in a journal's line: bytes exactly, hashes as digits.
//!
//! Bytes that are UTF-8 are a string, others `{"base64": "..."}`: a container chose
//! the names, and a person reads the line.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as D;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::{ContainerPath, HostPath, RootPath};

/// A value that is nothing but bytes.
pub(super) trait Exact {
    fn bytes(&self) -> &[u8];
    fn from_bytes(bytes: Vec<u8>) -> Self;
}

impl Exact for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
    fn from_bytes(bytes: Vec<u8>) -> Self {
        bytes
    }
}

impl Exact for RootPath {
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
    fn from_bytes(bytes: Vec<u8>) -> Self {
        Self::new(bytes)
    }
}

impl Exact for HostPath {
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
    fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(OsString::from_vec(bytes).into())
    }
}

impl Exact for ContainerPath {
    fn bytes(&self) -> &[u8] {
        self.0.as_os_str().as_bytes()
    }
    fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(OsString::from_vec(bytes).into())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Text<'a> {
    #[serde(borrow)]
    Plain(Cow<'a, str>),
    Coded {
        base64: String,
    },
}

impl<'a> Text<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Plain(text.into()),
            Err(_) => Self::Coded { base64: STANDARD.encode(bytes) },
        }
    }

    fn bytes<E: serde::de::Error>(self) -> Result<Vec<u8>, E> {
        match self {
            Self::Plain(text) => Ok(text.into_owned().into_bytes()),
            Self::Coded { base64 } => STANDARD.decode(base64).map_err(E::custom),
        }
    }
}

pub(super) fn serialize<T: Exact, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    Text::of(value.bytes()).serialize(to)
}

pub(super) fn deserialize<'de, T: Exact, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Text::deserialize(from)?.bytes().map(T::from_bytes)
}

/// Bytes that may be missing.
pub(super) mod option {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Text};

    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<Vec<u8>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_deref().map(Text::of).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        Option::<Text<'_>>::deserialize(from)?.map(Text::bytes).transpose()
    }
}

/// Names with values, both bytes.
pub(super) mod pairs {
    use super::{Deserialize, Deserializer, Serializer, Text};

    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    pub(in super::super) fn serialize<S: Serializer>(
        pairs: &Pairs,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(pairs.iter().map(|(name, value)| (Text::of(name), Text::of(value))))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Pairs, D::Error> {
        let pairs = Vec::<(Text<'_>, Text<'_>)>::deserialize(from)?;
        pairs.into_iter().map(|(name, value)| Ok((name.bytes()?, value.bytes()?))).collect()
    }
}

/// A content as its 64 hexadecimal digits.
pub(super) mod content {
    use super::{D as _, Deserialize, Deserializer, Serializer};
    use crate::model::ContentId;

    pub(in super::super) fn serialize<S: Serializer>(
        value: &ContentId,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(in super::super) fn deserialize<'de, F: Deserializer<'de>>(
        from: F,
    ) -> Result<ContentId, F::Error> {
        let digits = String::deserialize(from)?;
        ContentId::parse(&digits).ok_or_else(|| F::Error::custom("no content's digits"))
    }
}

/// The name of an object.
pub(super) mod name {
    use super::{D as _, Deserialize, Deserializer, Serializer};
    use crate::model::ObjectName;

    pub(in super::super) fn serialize<S: Serializer>(
        value: &ObjectName,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(value.as_str())
    }

    pub(in super::super) fn deserialize<'de, F: Deserializer<'de>>(
        from: F,
    ) -> Result<ObjectName, F::Error> {
        let name = String::deserialize(from)?;
        ObjectName::parse(&name).ok_or_else(|| F::Error::custom("no object's name"))
    }
}

/// The name of an object that may be missing.
pub(super) mod object {
    use super::{D as _, Deserialize, Deserializer, Serialize, Serializer};
    use crate::model::ObjectName;

    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<ObjectName>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(ObjectName::as_str).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, F: Deserializer<'de>>(
        from: F,
    ) -> Result<Option<ObjectName>, F::Error> {
        let Some(name) = Option::<String>::deserialize(from)? else { return Ok(None) };
        ObjectName::parse(&name).map(Some).ok_or_else(|| F::Error::custom("no object's name"))
    }
}
