//! What is timed, and how the figures are written.

use std::fmt::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::problem::Width;

/// An operation that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Op {
    /// T over a piece of 256 KiB, bytes to canonical bytes; PEnc and PDec are the same. Rivals: one modular multiplication a block.
    #[value(name = "t_256k")]
    #[serde(rename = "t_256k")]
    T256k,
    /// One modular multiplication, each depending on the last.
    Modmul,
    /// One exponentiation with a full-width exponent.
    ModpowFull,
    /// The same, for each of eight with their own bases and exponents.
    ModpowFullBatch8,
    /// One exponentiation with a short exponent.
    ModpowShort,
    /// The same, for each of eight with their own bases and exponents.
    ModpowShortBatch8,
    /// A re-key from warm tables, in a batch of pieces. Rivals: two exponentiations and a multiplication.
    Rekey,
    /// The same with full-width exponents.
    RekeyFull,
    /// A license entry from the table of g^−1, in a batch of pieces. Rivals: one exponentiation.
    LicenseEntry,
    /// A search for safe primes, for each candidate that is tested. Rivals: one round of a test, without the sieve.
    Sgen,
}

impl Op {
    /// Width of its exponents, where it has any.
    pub fn width(self) -> Option<Width> {
        match self {
            Op::T256k | Op::Modmul | Op::Sgen => None,
            Op::ModpowFull | Op::ModpowFullBatch8 | Op::RekeyFull => Some(Width::Full),
            Op::ModpowShort | Op::ModpowShortBatch8 | Op::Rekey | Op::LicenseEntry => Some(Width::Short),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.to_possible_value().expect("no variant is skipped").get_name())
    }
}

/// One of our figures beside one of a rival's.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was timed.
    pub op: Op,
    /// n.
    pub bits: usize,
    /// Our backend.
    pub backend: String,
    /// Our median, in nanoseconds.
    pub ns: f64,
    /// The other's name.
    pub rival: String,
    /// The other's median, in nanoseconds.
    pub rival_ns: f64,
    /// How many times as fast ours is: `rival_ns / ns`.
    pub ratio: f64,
    /// Shown for comparison, outside the bars.
    pub reference: bool,
}

impl Row {
    /// With the ratio of the two medians.
    pub fn new(
        (op, bits): (Op, usize),
        (backend, ns): (&str, f64),
        (rival, rival_ns): (&str, f64),
        reference: bool,
    ) -> Self {
        let (backend, rival) = (backend.to_owned(), rival.to_owned());
        Row { op, bits, backend, ns, rival, rival_ns, ratio: rival_ns / ns, reference }
    }
}

/// One line of a [`table`].
pub fn cells<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// An aligned table: the first row is its head, and a column of numbers is set to the right.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let is_number = |cell: &String| cell.is_empty() || cell.starts_with(|c: char| c.is_ascii_digit());
    let right = |column: usize| rows.iter().skip(1).filter_map(|row| row.get(column)).all(is_number);
    let shape: Vec<(usize, bool)> = (0..columns).map(|column| (width(column), right(column))).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, &(width, right)) in row.iter().zip(&shape) {
            let pad = " ".repeat(width - cell.chars().count());
            let (before, after) = if right { (pad.as_str(), "") } else { ("", pad.as_str()) };
            write!(line, "{before}{cell}{after}  ").expect("a String takes all");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Nanoseconds in the unit that suits them.
pub fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e4 => format!("{ns:.1} ns"),
        ns if ns < 1e7 => format!("{:.2} µs", ns / 1e3),
        ns if ns < 1e10 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_these_eight_keys() {
        let row = Row::new((Op::T256k, 2048), ("ifma", 100.0), ("openssl", 650.0), false);
        let json = serde_json::to_value(&row).unwrap();
        let expected = serde_json::json!({
            "op": "t_256k", "bits": 2048, "backend": "ifma", "ns": 100.0,
            "rival": "openssl", "rival_ns": 650.0, "ratio": 6.5, "reference": false,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn operations_have_the_same_names_everywhere() {
        let names = "t_256k modmul modpow_full modpow_full_batch8 modpow_short modpow_short_batch8 rekey \
                     rekey_full license_entry sgen";
        let all: Vec<String> = Op::value_variants().iter().map(Op::to_string).collect();
        assert_eq!(all, names.split_whitespace().collect::<Vec<_>>());
        for op in Op::value_variants() {
            assert_eq!(serde_json::to_value(op).unwrap(), op.to_string());
        }
    }

    #[test]
    fn columns_line_up() {
        let text = table(&[cells(["op", "time"]), cells(["modmul", "9 ns"]), cells(["T", "132 µs"])]);
        assert_eq!(text, "op        time\nmodmul    9 ns\nT       132 µs\n");
    }

    #[test]
    fn times_have_a_fitting_unit() {
        assert_eq!(time(129.04), "129.0 ns");
        assert_eq!(time(132_000.0), "132.00 µs");
        assert_eq!(time(62e6), "62.00 ms");
        assert_eq!(time(22.985e9), "22.98 s");
    }
}
