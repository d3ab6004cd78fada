//! Arrows point down: what a module refers to, read from its source, is held
//! against the layer table at the top of the library.

use std::fs;
use std::path::{Path, PathBuf};

use crate::suite::Suite;

/// Which modules of ours a module may refer to, beside itself. The library's
/// root joins all of them; the binary is kept to its face by the compiler.
const LAYERS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("sys", &["model"]),
    ("analyze", &["model"]),
    ("render", &["model"]),
    ("scan", &["model", "sys"]),
    ("exec", &["model", "sys", "scan"]),
    ("ops", &["model", "sys", "analyze", "render", "scan", "exec"]),
];

pub fn tests(suite: &mut Suite) {
    suite.test("layering_arrows_point_down", &[], arrows_point_down);
    suite.test("layering_every_module_has_a_layer", &[], every_module_has_a_layer);
    suite.test("layering_a_bad_arrow_is_caught", &[], a_bad_arrow_is_caught);
}

fn arrows_point_down() {
    let sources = library_sources();
    assert!(sources.len() > LAYERS.len(), "only {} files were read", sources.len());
    let bad: Vec<String> = sources
        .iter()
        .flat_map(|path| {
            let module = module_of(path);
            wrong_arrows(&module, &fs::read_to_string(src().join(path)).unwrap())
        })
        .collect();
    assert!(bad.is_empty(), "\n{}", bad.join("\n"));
}

fn every_module_has_a_layer() {
    let root = fs::read_to_string(src().join("lib.rs")).unwrap();
    let tokens = tokens(&root);
    let declared = tokens.windows(3).filter(|w| w[0] == "mod" && w[2] == ";").map(|w| &w[1]);
    for module in declared {
        assert!(rule(module).is_some(), "the module {module} is in no layer");
    }
}

fn a_bad_arrow_is_caught() {
    let caught = |module: &[&str], source: &str| {
        let module: Vec<String> = module.iter().map(|&name| name.to_owned()).collect();
        wrong_arrows(&module, source)
    };
    let analyze = &["analyze", "groups"];
    assert_eq!(
        caught(analyze, "use crate::scan::walk;\nuse crate::model::Bytes;"),
        ["analyze::groups refers to crate::scan::walk"]
    );
    assert_eq!(
        caught(analyze, "use crate::{model::{Bytes, Pages}, render::table as t};"),
        ["analyze::groups refers to crate::render::table"]
    );
    assert_eq!(
        caught(analyze, "fn f() -> super::super::ops::Audit { super::sizes::sum() }"),
        ["analyze::groups refers to crate::ops::Audit"]
    );
    assert_eq!(
        caught(
            &["model"],
            "/// not [`crate::ops`]\nlet s = \"crate::ops\"; crate::sys::page_size()"
        ),
        ["model refers to crate::sys::page_size"]
    );
    assert_eq!(
        caught(&["sys"], "mod tests { use super::*; use crate::*; }"),
        ["sys refers to crate::*"]
    );
    assert_eq!(caught(&["sys"], "use crate as all;"), ["sys refers to crate"]);
    assert_eq!(
        caught(
            &["sys"],
            "fn f<'a>(c: &'a char) { if *c == '\"' || *c == '{' { crate::ops::f() } }"
        ),
        ["sys refers to crate::ops::f"]
    );
    assert_eq!(caught(&["scan", "elf"], "use crate::sys::x; use crate::scan::{self, y};"), [""; 0]);
}

/// What `source`, the text of `module`, refers to but may not.
fn wrong_arrows(module: &[String], source: &str) -> Vec<String> {
    let may = rule(&module[0]).unwrap_or(&[]);
    references(module, source)
        .into_iter()
        .filter(|path| {
            let target = path.first().map_or("", String::as_str);
            target != module[0] && !may.contains(&target)
        })
        .map(|path| {
            let path: Vec<String> = std::iter::once("crate".to_owned()).chain(path).collect();
            format!("{} refers to {}", module.join("::"), path.join("::"))
        })
        .collect()
}

fn rule(module: &str) -> Option<&'static [&'static str]> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, may)| *may)
}

/// Every path that starts at the crate or goes up, as seen from the crate's root.
fn references(module: &[String], source: &str) -> Vec<Vec<String>> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    // Inline modules that are open, each with the depth of its brace.
    let mut inline: Vec<(usize, String)> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "mod" if tokens.get(at + 2).is_some_and(|token| token == "{") => {
                inline.push((depth, tokens[at + 1].clone()));
            }
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inline.pop_if(|(open, _)| *open == depth);
            }
            "crate" | "super" if starts_path(&tokens, at) => {
                let mut base = module.to_vec();
                base.extend(inline.iter().map(|(_, name)| name.clone()));
                at = tree(&tokens, at, base, &mut found);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// `pub(crate)` and `pub(super)` are no paths.
fn starts_path(tokens: &[String], at: usize) -> bool {
    tokens.get(at + 1).is_some_and(|next| next == "::" || next == "as")
}

/// Reads one `use` tree or path at `at`, below `base`; returns where it ends.
fn tree(
    tokens: &[String],
    mut at: usize,
    mut base: Vec<String>,
    found: &mut Vec<Vec<String>>,
) -> usize {
    loop {
        match tokens.get(at).map_or("", String::as_str) {
            "crate" => base.clear(),
            "super" => drop(base.pop()),
            "self" => {}
            "{" => return group(tokens, at + 1, &base, found),
            name => base.push(name.to_owned()),
        }
        at += 1;
        if tokens.get(at).is_none_or(|token| token != "::") {
            found.push(base);
            return at;
        }
        at += 1;
        if tokens.get(at).is_some_and(|token| token == "<") {
            // A turbofish ends the path; what is in it is looked at on its own.
            found.push(base);
            return at;
        }
    }
}

/// Reads the trees of a `{...}` whose brace is behind us.
fn group(tokens: &[String], mut at: usize, base: &[String], found: &mut Vec<Vec<String>>) -> usize {
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            "}" => return at + 1,
            "," => at += 1,
            "as" => at += 2,
            _ => at = tree(tokens, at, base.to_vec(), found),
        }
    }
    at
}

/// Words and punctuation of Rust source, without comments and literals.
fn tokens(source: &str) -> Vec<String> {
    let mut rest = source;
    let mut tokens = Vec::new();
    while let Some(first) = rest.chars().next() {
        let length = skipped(rest).unwrap_or_else(|| {
            let length = token_length(rest, first);
            if !first.is_whitespace() {
                tokens.push(rest[..length].to_owned());
            }
            length
        });
        rest = &rest[length..];
    }
    tokens
}

fn token_length(rest: &str, first: char) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    if rest.starts_with("::") {
        2
    } else if is_word(first) {
        rest.find(|c| !is_word(c)).unwrap_or(rest.len())
    } else {
        first.len_utf8()
    }
}

/// The length of the comment or literal that `rest` starts with.
fn skipped(rest: &str) -> Option<usize> {
    let until = |start: usize, end: &str| {
        rest[start..].find(end).map_or(rest.len(), |found| start + found + end.len())
    };
    if rest.starts_with("//") {
        return Some(until(2, "\n"));
    }
    if rest.starts_with("/*") {
        return Some(until(2, "*/"));
    }
    let prefix = rest.find(|c| c != 'b' && c != 'r' && c != 'c').unwrap_or(rest.len());
    let literal = &rest[prefix..];
    let hashes = literal.find(|c| c != '#').unwrap_or(0);
    if prefix > 0 && rest[..prefix].ends_with('r') && literal[hashes..].starts_with('"') {
        return Some(until(prefix + hashes + 1, &format!("\"{}", &literal[..hashes])));
    }
    if literal.starts_with('"') {
        return Some(prefix + quoted(literal, '"'));
    }
    is_char(literal).then(|| prefix + quoted(literal, '\''))
}

/// A character, not a lifetime.
fn is_char(literal: &str) -> bool {
    let [first, second, third] = [0, 1, 2].map(|at| literal.chars().nth(at));
    first == Some('\'') && (second == Some('\\') || third == Some('\''))
}

/// The length of a quoted literal in which a backslash escapes.
fn quoted(literal: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in literal.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    literal.len()
}

/// The library's files, relative to `src`, without its root and the binary.
fn library_sources() -> Vec<PathBuf> {
    walkdir::WalkDir::new(src())
        .sort_by_file_name()
        .into_iter()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| path.strip_prefix(src()).unwrap().to_owned())
        .filter(|path| !path.starts_with("cli") && path != Path::new("main.rs"))
        .filter(|path| path != Path::new("lib.rs"))
        .collect()
}

/// `scan/mod.rs` and `scan.rs` are `scan`; `scan/elf.rs` is `scan::elf`.
fn module_of(path: &Path) -> Vec<String> {
    let parts = path.with_extension("");
    let names = parts.iter().map(|part| part.to_str().unwrap().to_owned());
    names.filter(|name| name != "mod").collect()
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
