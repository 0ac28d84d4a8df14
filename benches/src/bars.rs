//! How much faster than the rivals the backends must be, and whether they are.

use crate::report::{Op, Row};
use crate::rivals::CRYPTO_BIGINT;

/// The size that the bars are set for.
pub const BITS: usize = 2048;
/// Larger sizes must keep this share of the ratio at [`BITS`].
const KEPT: f64 = 0.8;

/// Name, among rivals, of a loop of `vpmadd52` that wait for nothing.
pub const PORT_LIMIT: &str = "vpmadd52 port limit";
/// Name, among backends, of ifma's products by a constant without what is around them.
pub const IFMA_ARITHMETIC: &str = "ifma arithmetic";
/// How many times as long as [`PORT_LIMIT`] each may take at [`BITS`].
static PORT_LIMITS: [(&str, &str, f64); 2] =
    [(IFMA_ARITHMETIC, "arithmetic alone", 1.35), ("ifma", "bytes to bytes", 1.7)];

/// Whom a backend is judged against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Against {
    /// The fastest rival that is no reference.
    Best,
    /// crypto-bigint, portable code as well.
    CryptoBigint,
}

/// The least ratio of one operation on one backend.
struct Bar {
    op: Op,
    backend: &'static str,
    least: f64,
    against: Against,
}

const fn bar(op: Op, backend: &'static str, least: f64) -> Bar {
    Bar { op, backend, least, against: Against::Best }
}

const fn portable(op: Op, least: f64) -> Bar {
    Bar { op, backend: "portable", least, against: Against::CryptoBigint }
}

static BARS: &[Bar] = &[
    bar(Op::T256k, "ifma", 6.0),
    bar(Op::T256k, "adx", 1.3),
    bar(Op::T256k, "avx2", 1.5),
    portable(Op::T256k, 1.2),
    bar(Op::ModpowFullBatch8, "ifma", 7.0),
    bar(Op::ModpowFullBatch8, "adx", 1.05),
    bar(Op::ModpowFullBatch8, "avx2", 1.2),
    portable(Op::ModpowFullBatch8, 1.0),
    bar(Op::ModpowFull, "ifma", 1.05),
    bar(Op::ModpowFull, "adx", 1.05),
    bar(Op::Rekey, "ifma", 20.0),
    bar(Op::Rekey, "adx", 4.0),
    bar(Op::RekeyFull, "ifma", 25.0),
    bar(Op::RekeyFull, "adx", 4.0),
    bar(Op::Sgen, "ifma", 3.0),
    bar(Op::Sgen, "adx", 1.0),
];

/// What became of a bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The operation.
    pub op: Op,
    /// n.
    pub bits: usize,
    /// Our backend.
    pub backend: String,
    /// The ratio reached and the rival it was reached against. None where this run has no such figure.
    pub reached: Option<(f64, String)>,
    /// The least ratio.
    pub least: f64,
}

impl Verdict {
    /// "pass", "miss" or "not tested".
    pub fn word(&self) -> &'static str {
        match &self.reached {
            None => "not tested",
            Some((ratio, _)) if *ratio >= self.least => "pass",
            Some(_) => "miss",
        }
    }
}

/// The row with the fastest gating rival of one operation on one backend.
pub fn best<'r>(rows: &'r [Row], op: Op, bits: usize, backend: &str) -> Option<&'r Row> {
    of(rows, op, bits, backend).min_by(|a, b| a.rival_ns.total_cmp(&b.rival_ns))
}

fn of<'r>(rows: &'r [Row], op: Op, bits: usize, backend: &str) -> impl Iterator<Item = &'r Row> {
    rows.iter()
        .filter(move |row| row.op == op && row.bits == bits && row.backend == backend && !row.reference)
}

/// The bars of the operations in `ops` at [`BITS`].
pub fn bars(rows: &[Row], ops: &[Op]) -> Vec<Verdict> {
    let judge = |bar: &Bar| {
        let row = match bar.against {
            Against::Best => best(rows, bar.op, BITS, bar.backend),
            Against::CryptoBigint => {
                of(rows, bar.op, BITS, bar.backend).find(|row| row.rival == CRYPTO_BIGINT)
            }
        };
        Verdict {
            op: bar.op,
            bits: BITS,
            backend: bar.backend.to_owned(),
            reached: row.map(|row| (row.ratio, row.rival.clone())),
            least: bar.least,
        }
    };
    BARS.iter().filter(|bar| ops.contains(&bar.op)).map(judge).collect()
}

/// What of ifma was timed beside [`PORT_LIMIT`] at [`BITS`], how many times as long it took, and how many it may.
pub fn port_limits(rows: &[Row]) -> Vec<(&'static str, f64, f64)> {
    let timed = |backend: &str| {
        rows.iter().find(|row| row.bits == BITS && row.backend == backend && row.rival == PORT_LIMIT)
    };
    PORT_LIMITS
        .iter()
        .filter_map(|&(backend, what, most)| Some((what, timed(backend)?.ratio.recip(), most)))
        .collect()
}

/// Whether the ratios at 3072 and 4096 bits keep up with those at [`BITS`], where both were run.
pub fn larger_sizes(rows: &[Row]) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = Vec::new();
    for row in rows.iter().filter(|row| row.bits > BITS) {
        let (op, bits, backend) = (row.op, row.bits, &row.backend);
        if verdicts.iter().any(|known| (known.op, known.bits, &known.backend) == (op, bits, backend)) {
            continue;
        }
        if let (Some(here), Some(base)) = (best(rows, op, bits, backend), best(rows, op, BITS, backend)) {
            verdicts.push(Verdict {
                op,
                bits,
                backend: backend.clone(),
                reached: Some((here.ratio, here.rival.clone())),
                least: KEPT * base.ratio,
            });
        }
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(bits: usize, backend: &str, rival: &str, ratio: f64, reference: bool) -> Row {
        Row::new((Op::T256k, bits), (backend, 100.0), (rival, 100.0 * ratio), reference)
    }

    fn word(rows: &[Row], backend: &str) -> &'static str {
        let verdicts = bars(rows, &[Op::T256k]);
        verdicts.iter().find(|verdict| verdict.backend == backend).unwrap().word()
    }

    #[test]
    fn the_fastest_rival_decides() {
        let mut rows = vec![row(2048, "ifma", "gmp", 9.0, false), row(2048, "ifma", "openssl", 6.1, false)];
        assert_eq!(word(&rows, "ifma"), "pass");
        rows.push(row(2048, "ifma", "openssl x2", 5.0, true));
        assert_eq!(word(&rows, "ifma"), "pass", "references do not");
        rows.push(row(2048, "ifma", "another", 5.9, false));
        assert_eq!(word(&rows, "ifma"), "miss");
    }

    #[test]
    fn what_did_not_run_is_not_tested() {
        let rows = [row(2048, "portable", CRYPTO_BIGINT, 2.0, false)];
        assert_eq!(word(&rows, "ifma"), "not tested");
        assert_eq!(bars(&rows, &[Op::Modmul]), []);
    }

    #[test]
    fn portable_is_judged_against_portable() {
        let mut rows = vec![row(2048, "portable", "openssl", 0.5, false)];
        assert_eq!(word(&rows, "portable"), "not tested");
        rows.push(row(2048, "portable", CRYPTO_BIGINT, 1.2, false));
        assert_eq!(word(&rows, "portable"), "pass");
    }

    #[test]
    fn the_port_limit_is_what_ours_takes_longer_than() {
        let rows = [row(2048, "ifma", PORT_LIMIT, 0.8, true), row(4096, "ifma", PORT_LIMIT, 0.5, true)];
        assert_eq!(port_limits(&rows), [("bytes to bytes", 1.25, 1.7)]);
        assert_eq!(best(&rows, Op::T256k, BITS, "ifma").map(|row| row.ratio), None);
    }

    #[test]
    fn larger_sizes_keep_four_fifths() {
        let at = |ratio| {
            let rows = [
                row(2048, "ifma", "openssl", 10.0, false),
                row(4096, "ifma", "openssl", ratio, false),
                row(4096, "ifma", "gmp", 12.0, false),
            ];
            let verdicts = larger_sizes(&rows);
            assert_eq!(verdicts.len(), 1);
            verdicts[0].word()
        };
        assert_eq!(at(8.0), "pass");
        assert_eq!(at(7.9), "miss");
        assert_eq!(larger_sizes(&[row(4096, "ifma", "openssl", 1.0, false)]), []);
    }
}
