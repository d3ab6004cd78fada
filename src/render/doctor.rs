//! What this host and its containers allow, for people.

use std::io::{self, Write};

use super::escape::{escape, escape_controls};
use super::human::{count, size};
use super::layout::{Column, Page, elide, heading, pairs, table};
use crate::model::{Ability, ContainerPlace, Doctor, RootPlace, StorePlace};

/// Writes the tables, and below each why not, and what would change it.
///
/// # Errors
///
/// Those of `out`.
pub fn write(out: &mut dyn Write, page: &Page, doctor: &Doctor) -> io::Result<()> {
    heading(out, page, "This host")?;
    abilities(out, page, &doctor.host)?;
    store(out, page, &doctor.store)?;
    roots(out, page, &doctor.roots)?;
    containers(out, page, &doctor.containers)
}

fn abilities(out: &mut dyn Write, page: &Page, abilities: &[Ability]) -> io::Result<()> {
    let columns = [Column::Text("what"), Column::Text("allowed"), Column::Text("for")];
    let rows = abilities.iter().map(|ability| {
        vec![ability.what.to_owned(), word(ability.allowed).to_owned(), ability.purpose.to_owned()]
    });
    let all = Page { top: usize::MAX, ..*page };
    table(out, &all, &columns, rows)?;
    reasons(out, page, abilities.iter().map(|ability| ("", ability)))?;
    writeln!(out)
}

fn store(out: &mut dyn Write, page: &Page, store: &StorePlace) -> io::Result<()> {
    let state = if store.exists { "" } else { ", which does not exist yet" };
    let kind = store.file_system.as_ref().map_or("unknown", |it| it.kind.as_str());
    let (path, kind) = (escape(store.path.as_bytes()), escape_controls(kind));
    heading(out, page, &format!("The store {path}{state}: {kind}, {} free", size(store.free)))?;
    abilities(out, page, &store.abilities)
}

fn roots(out: &mut dyn Write, page: &Page, roots: &[RootPlace]) -> io::Result<()> {
    heading(out, page, &format!("Container roots: {}", count(roots.len() as u64)))?;
    let columns = [
        Column::Text("name"),
        Column::Text("state"),
        Column::Text("file system"),
        Column::Text("quota"),
        Column::Text("entries"),
        Column::Text("exchange"),
        Column::Text("reflink"),
        Column::Text("leases"),
    ];
    table(out, page, &columns, roots.iter().map(root_row))?;
    let each = |place: &'_ RootPlace| escape(place.root.name.as_bytes());
    let names: Vec<String> = roots.iter().map(each).collect();
    let told = roots.iter().zip(&names);
    let told = told.flat_map(|(place, name)| place.abilities.iter().map(|it| (name.as_str(), it)));
    reasons(out, page, told)?;
    writeln!(out)
}

fn root_row(place: &RootPlace) -> Vec<String> {
    let kind = place.file_system.as_ref().map_or("unknown", |it| it.kind.as_str());
    let quota = place.file_system.as_ref().and_then(|it| it.quota.as_deref());
    vec![
        elide(escape(place.root.name.as_bytes()), 30),
        place.root.state.name().to_owned(),
        elide(escape_controls(kind), 12),
        elide(escape_controls(quota.unwrap_or("none")), 10),
        allows(&place.abilities, "change_entries"),
        allows(&place.abilities, "exchange"),
        allows(&place.abilities, "reflink"),
        allows(&place.abilities, "leases"),
    ]
}

fn containers(out: &mut dyn Write, page: &Page, all: &[ContainerPlace]) -> io::Result<()> {
    heading(out, page, &format!("Running containers: {}", count(all.len() as u64)))?;
    if all.is_empty() {
        return Ok(());
    }
    let columns = [
        Column::Text("name"),
        Column::Text("runtime"),
        Column::Text("trust domain"),
        Column::Text("dir store"),
        Column::Text("mounted"),
        Column::Text("set-id"),
        Column::Text("profile"),
    ];
    table(out, page, &columns, all.iter().map(container_row))?;
    let each = |place: &'_ ContainerPlace| escape(place.isolation.name.as_bytes());
    let names: Vec<String> = all.iter().map(each).collect();
    let told = all.iter().zip(&names);
    let told = told.flat_map(|(place, name)| place.abilities.iter().map(|it| (name.as_str(), it)));
    reasons(out, page, told)
}

fn container_row(place: &ContainerPlace) -> Vec<String> {
    let isolation = &place.isolation;
    vec![
        elide(escape(isolation.name.as_bytes()), 30),
        isolation.runtime.name().to_owned(),
        isolation.domain().to_string(),
        allows(&place.abilities, "directory_store"),
        allows(&place.abilities, "mounted"),
        allows(&place.abilities, "setid"),
        allows(&place.abilities, "profile"),
    ]
}

fn allows(abilities: &[Ability], what: &str) -> String {
    let found = abilities.iter().find(|ability| ability.what == what);
    found.map_or("unknown", |ability| word(ability.allowed)).to_owned()
}

fn word(allowed: Option<bool>) -> &'static str {
    match allowed {
        Some(true) => "yes",
        Some(false) => "no",
        None => "maybe",
    }
}

/// What is not possible, once per reason: who has it, why, what would change it.
fn reasons<'a>(
    out: &mut dyn Write,
    page: &Page,
    told: impl Iterator<Item = (&'a str, &'a Ability)>,
) -> io::Result<()> {
    let mut groups: Vec<(&Ability, Vec<&str>)> = Vec::new();
    for (name, ability) in told.filter(|(_, ability)| ability.why.is_some()) {
        match groups.iter_mut().find(|(known, _)| *known == ability) {
            Some((_, names)) => names.push(name),
            None => groups.push((ability, vec![name])),
        }
    }
    groups.sort_by_key(|(ability, _)| ability.what);
    pairs(out, page, groups.iter().map(|(ability, names)| reason(ability, names)))
}

fn reason(ability: &Ability, names: &[&str]) -> (String, String) {
    let why = ability.why.as_deref().unwrap_or_default();
    let mut text = format!("{}{}", who(names), escape_controls(why));
    if let Some(change) = &ability.change {
        text.push_str(&format!(". To change it: {}", escape_controls(change)));
    }
    (ability.what.to_owned(), text)
}

fn who(names: &[&str]) -> String {
    match names {
        [] | [""] => String::new(),
        [one] => format!("{one}: "),
        [one, two] => format!("{one}, {two}: "),
        [one, two, rest @ ..] => format!("{one}, {two} and {} more: ", count(rest.len() as u64)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_reason_is_told_once() {
        let page = Page { width: 80, color: false, verbose: false, top: 20 };
        let no = Ability::no("reflink", "share", "ext4 cannot share blocks", "move it");
        let yes = Ability::yes("exchange", "replace");
        let told = [("a", &no), ("b", &no), ("a", &yes), ("c", &no), ("d", &no)];
        let mut out = Vec::new();
        reasons(&mut out, &page, told.into_iter()).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "  reflink  a, b and 2 more: ext4 cannot share blocks. To change it: move it\n"
        );
    }
}
