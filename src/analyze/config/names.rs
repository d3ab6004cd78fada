//! Names of units, and the specifiers that stand for their parts: systemd.unit(5).

/// `PREFIX.TYPE`, `PREFIX@.TYPE` or `PREFIX@INSTANCE.TYPE`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnitName {
    /// What stands before `@` or the type.
    pub prefix: String,
    /// What stands after `@`: empty for a template, `None` where there is no `@`.
    pub instance: Option<String>,
    /// `service`, `mount`, ...
    pub kind: String,
}

impl UnitName {
    /// Takes a name apart; `None` for what is no name of a unit.
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, kind) = name.rsplit_once('.')?;
        let (prefix, instance) = match stem.split_once('@') {
            Some((prefix, instance)) => (prefix, Some(instance.to_owned())),
            None => (stem, None),
        };
        let valid =
            |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c));
        (!prefix.is_empty() && !kind.is_empty() && valid(stem)).then(|| Self {
            prefix: prefix.to_owned(),
            instance,
            kind: kind.to_owned(),
        })
    }

    /// It is a template: `PREFIX@.TYPE`.
    pub fn is_template(&self) -> bool {
        self.instance.as_deref() == Some("")
    }

    /// The template that an instance is made of.
    pub fn template(&self) -> Option<Self> {
        let instance = self.instance.as_ref()?;
        (!instance.is_empty()).then(|| self.with_instance(""))
    }

    /// An instance of this template.
    pub fn with_instance(&self, instance: &str) -> Self {
        Self { instance: Some(instance.to_owned()), ..self.clone() }
    }

    /// The directories in which drop-ins for it lie, those first that are for it alone.
    pub fn drop_in_dirs(&self) -> Vec<String> {
        let own = self.to_string();
        let template = self.template().map(|name| name.to_string());
        let dashes = self.prefix.match_indices('-').map(|(at, _)| at).collect::<Vec<_>>();
        let at = if self.instance.is_some() { "@" } else { "" };
        let prefixes = dashes.into_iter().rev().filter_map(|dash| {
            let head = self.prefix.get(..=dash).filter(|head| *head != self.prefix)?;
            Some(format!("{head}{at}.{}", self.kind))
        });
        let names = std::iter::once(own).chain(template).chain(prefixes);
        names.chain([self.kind.clone()]).map(|name| format!("{name}.d")).collect()
    }

    /// Replaces the specifiers of a word; `None` for one whose value only the running
    /// system knows.
    pub fn expand(&self, word: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(word.len());
        let mut bytes = word.iter();
        while let Some(&byte) = bytes.next() {
            match byte {
                b'%' => out.extend(self.specifier(*bytes.next()?)?),
                byte => out.push(byte),
            }
        }
        Some(out)
    }

    /// The instance of this template whose specifiers make `wanted` of `word`.
    pub fn instance_for(&self, word: &[u8], wanted: &[u8]) -> Option<Self> {
        let at = word.windows(2).position(|pair| matches!(pair, b"%i" | b"%I"))?;
        let escaped = word.get(at + 1) == Some(&b'i');
        let head = self.expand(word.get(..at)?)?;
        let rest = wanted.strip_prefix(head.as_slice())?;
        (1..=rest.len()).find_map(|length| {
            let value = rest.get(..length)?;
            let instance = match escaped {
                true => std::str::from_utf8(value).ok()?.to_owned(),
                false => escape(value),
            };
            let name = Self::parse(&self.with_instance(&instance).to_string())?;
            (name.expand(word)? == wanted).then_some(name)
        })
    }

    fn specifier(&self, letter: u8) -> Option<Vec<u8>> {
        let instance = self.instance.as_deref().unwrap_or_default();
        let last = self.prefix.rsplit('-').next().unwrap_or_default();
        Some(match letter {
            b'%' => b"%".to_vec(),
            b'n' => self.to_string().into_bytes(),
            b'N' => self.stem().into_bytes(),
            b'p' => self.prefix.clone().into_bytes(),
            b'P' => unescape(&self.prefix),
            b'i' => instance.as_bytes().to_vec(),
            b'I' => unescape(instance),
            b'j' => last.as_bytes().to_vec(),
            b'J' => unescape(last),
            // The directories of the system's own manager.
            b'h' => b"/root".to_vec(),
            b't' => b"/run".to_vec(),
            b'S' => b"/var/lib".to_vec(),
            b'C' => b"/var/cache".to_vec(),
            b'L' => b"/var/log".to_vec(),
            b'E' => b"/etc".to_vec(),
            b'T' => b"/tmp".to_vec(),
            b'V' => b"/var/tmp".to_vec(),
            _ => return None,
        })
    }

    fn stem(&self) -> String {
        match &self.instance {
            Some(instance) => format!("{}@{instance}", self.prefix),
            None => self.prefix.clone(),
        }
    }
}

impl std::fmt::Display for UnitName {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}.{}", self.stem(), self.kind)
    }
}

/// Escapes a string for the name of a unit: systemd.unit(5), "String Escaping for
/// Inclusion in Unit Names".
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'/' => out.push('-'),
            b'.' if at == 0 => out.push_str("\\x2e"),
            byte if byte.is_ascii_alphanumeric() || b":_.".contains(&byte) => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out
}

/// Escapes a path for the name of a unit, as `systemd-escape --path` does.
pub fn escape_path(path: &[u8]) -> String {
    let parts: Vec<&[u8]> =
        path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.is_empty() { "-".to_owned() } else { escape(&parts.join(&b'/')) }
}

/// The inverse of [`escape`].
pub fn unescape(name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        match rest {
            [b'\\', b'x', a, b, after @ ..] if hex(&[*a, *b]).is_some() => {
                out.extend(hex(&[*a, *b]));
                rest = after;
                continue;
            }
            [b'-', ..] => out.push(b'/'),
            _ => out.push(*first),
        }
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn name(text: &str) -> UnitName {
        UnitName::parse(text).unwrap()
    }

    #[test]
    fn names_are_taken_apart_and_put_together() {
        for text in ["nifty.service", "nifty@.service", "nifty@2.service", "a-b@c@d.service"] {
            assert_eq!(name(text).to_string(), text);
        }
        assert!(name("nifty@.service").is_template());
        assert!(!name("nifty@2.service").is_template());
        assert_eq!(name("nifty@2.service").template().unwrap().to_string(), "nifty@.service");
        for bad in ["nifty", ".service", "@x.service", "a b.service", "a/b.service"] {
            assert_eq!(UnitName::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn specifiers_stand_for_parts_of_the_name() {
        let unit = name("my-web@a\\x2db-c.service");
        let table = [
            ("/home/%i", Some("/home/a\\x2db-c")),
            ("/home/%I", Some("/home/a-b/c")),
            ("%p %j %n %N", Some("my-web web my-web@a\\x2db-c.service my-web@a\\x2db-c")),
            ("%%i %t/x", Some("%i /run/x")),
            ("%H", None),
            ("cut %", None),
        ];
        for (word, expected) in table {
            let expanded = unit.expand(word.as_bytes());
            assert_eq!(expanded.as_deref(), expected.map(str::as_bytes), "{word}");
        }
    }

    #[test]
    fn the_instance_of_a_template_is_found() {
        let unit = name("nifty@.service");
        let table = [
            ("/home/nifty%i", "/home/nifty2", Some("nifty@2.service")),
            ("/home/nifty%i", "/home/nifty", None),
            ("/home/nifty%i", "/home/nif", None),
            ("/srv/%i/%i.root", "/srv/web/web.root", Some("nifty@web.service")),
            ("/srv/%i/%i.root", "/srv/web/db.root", None),
            ("/srv/%I", "/srv/a/b-c", Some("nifty@a-b\\x2dc.service")),
            ("/srv/%i", "/srv/a b", None),
            ("/srv/fixed", "/srv/fixed", None),
        ];
        for (word, wanted, expected) in table {
            let found = unit.instance_for(word.as_bytes(), wanted.as_bytes());
            let found = found.map(|name| name.to_string());
            assert_eq!(found.as_deref(), expected, "{word} {wanted}");
        }
    }

    #[test]
    fn paths_are_escaped_as_systemd_escape_does() {
        let table = [
            ("/home/nifty1/cbin", "home-nifty1-cbin"),
            ("/", "-"),
            ("//srv//a b/", "srv-a\\x20b"),
            ("/.hidden/x-y", "\\x2ehidden-x\\x2dy"),
            ("/srv/ä", "srv-\\xc3\\xa4"),
        ];
        for (path, expected) in table {
            assert_eq!(escape_path(path.as_bytes()), expected, "{path}");
        }
        assert_eq!(unescape("srv-a\\x20b\\xzz"), b"srv/a b\\xzz");
    }

    #[test]
    fn drop_ins_lie_in_several_directories() {
        let dirs = name("my-web@2.service").drop_in_dirs();
        assert_eq!(
            dirs,
            ["my-web@2.service.d", "my-web@.service.d", "my-@.service.d", "service.d"]
        );
    }
}
