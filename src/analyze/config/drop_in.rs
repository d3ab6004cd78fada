//! Drop-ins of ours for services: whole files, beside the administrator's own.

use super::nspawn_file::HEADER;
use super::service::Service;
use super::words;
use crate::model::Bind;

/// A drop-in that sets the service's commands again, the `at`th with `options` added.
///
/// `ExecStart=` is a list: without the empty assignment there would be a second command,
/// which only `Type=oneshot` may have.
pub fn with_options(service: &Service, at: usize, options: &[String], binds: &[Bind]) -> Vec<u8> {
    let mut text = head(binds);
    text.push_str("ExecStart=\n");
    for (number, command) in service.commands().iter().enumerate() {
        let line = match number == at {
            true => command.with_arguments(options),
            false => command.value.clone(),
        };
        text.push_str(&format!("ExecStart={line}\n"));
    }
    text.into_bytes()
}

/// A drop-in for a service with a root directory of its own: systemd.exec(5). `None` when a path
/// cannot be written there.
pub fn with_paths(binds: &[Bind]) -> Option<Vec<u8>> {
    let mut text = head(binds);
    for bind in binds {
        text.push_str(&format!("BindReadOnlyPaths={}\n", paths(bind)?));
    }
    Some(text.into_bytes())
}

/// `SOURCE:TARGET`. In quotes, systemd would not split it: each character that it has a
/// meaning for stands behind a backslash, and nothing else can be escaped.
fn paths(bind: &Bind) -> Option<String> {
    let value = String::from_utf8(super::nspawn_file::bind_value(bind)).ok()?;
    let mut out = String::new();
    for c in value.chars() {
        match c {
            c if c.is_control() => return None,
            ' ' | '"' | '\'' => out.extend(['\\', c]),
            '%' => out.push_str("%%"),
            c => out.push(c),
        }
    }
    Some(out)
}

fn head(binds: &[Bind]) -> String {
    let sources: Vec<String> =
        binds.iter().map(|bind| words::quote_path(bind.source.as_bytes())).collect();
    format!(
        "{HEADER}: programs shared by containers, read-only.\n\
         [Unit]\nRequiresMountsFor={}\n\n[Service]\n",
        sources.join(" ")
    )
}
