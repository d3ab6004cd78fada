//! What `report` may be told.

use std::path::PathBuf;

use cbin_audit::{model, render};
use clap::{Args, ValueEnum};

use super::cache::Place;
use crate::cli::shared::Shared;

/// What `report` may be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// A container's `/`, or a directory that holds several; discovered when none is named
    #[arg(value_name = "ROOT")]
    pub(crate) roots: Vec<PathBuf>,
    /// Which files are compared
    #[arg(long, value_name = "FILES", default_value = "elf")]
    pub(crate) select: Select,
    /// Leave memory out
    #[arg(long)]
    pub(crate) no_memory: bool,
    /// Leave trees out
    #[arg(long)]
    pub(crate) no_trees: bool,
    /// What comes first
    #[arg(long, value_name = "KEY", default_value = "disk")]
    pub(crate) sort: Sort,
    /// Show the first N rows of each list; 0 shows all [default: 20; JSON: all]
    #[arg(long, value_name = "N")]
    pub(crate) top: Option<usize>,
    /// Exit with status 10 if anything could be shared
    #[arg(long)]
    pub(crate) check: bool,
    /// The form of the answer
    #[arg(long, value_name = "FORMAT", conflicts_with = "json")]
    pub(crate) format: Option<Format>,
    /// Write the answer to FILE, whole or not at all
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Keep in FILE what was read, and read only what has changed since
    #[arg(long, value_name = "FILE|none", default_value = "none")]
    pub(crate) cache: Place,
    /// Look at N names below one root at most
    #[arg(long, value_name = "N", default_value = "10000000")]
    pub(crate) max_entries: u64,
    /// Leave larger files out; K, M, G and T are powers of 1024
    #[arg(long, value_name = "BYTES", default_value = "512M", value_parser = bytes)]
    pub(crate) max_file_size: u64,
}

impl Arguments {
    /// `--json` is short for `--format json`.
    pub(crate) fn format(&self, shared: &Shared) -> Format {
        let unsaid = if shared.json { Format::Json } else { Format::Table };
        self.format.unwrap_or(unsaid)
    }
}

/// Which files are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Select {
    /// Multi-call binaries: busybox, dropbear, toybox, ...
    Multicall,
    /// Every ELF file
    Elf,
    /// Every regular file
    All,
}

impl From<Select> for model::Select {
    fn from(select: Select) -> Self {
        match select {
            Select::Multicall => Self::Multicall,
            Select::Elf => Self::Elf,
            Select::All => Self::All,
        }
    }
}

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    /// The most wasted disk blocks
    Disk,
    /// The most wasted memory
    Memory,
    /// The most copies
    Copies,
    /// The alphabet
    Name,
}

impl From<Sort> for render::Sort {
    fn from(sort: Sort) -> Self {
        match sort {
            Sort::Disk => Self::Disk,
            Sort::Memory => Self::Memory,
            Sort::Copies => Self::Copies,
            Sort::Name => Self::Name,
        }
    }
}

/// The form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// One document, for programs
    Json,
    /// One page without references
    Html,
    /// Gauges, for a collector
    Openmetrics,
}

/// `512M`: digits, and K, M, G or T for a power of 1024.
fn bytes(text: &str) -> Result<u64, String> {
    let unit = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit);
    let shift = match unit {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => return Err("a number of bytes is digits and K, M, G or T".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|error| format!("{error}"))?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let cases = [("0", 0), ("512", 512), ("1K", 1024), ("512M", 512 << 20), ("2g", 2 << 30)];
        for (text, number) in cases {
            assert_eq!(bytes(text), Ok(number), "{text}");
        }
        for text in ["", "M", "1.5G", "-1", "1KiB", "99999999999T"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
