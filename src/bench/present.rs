//! A report's rows in words: cells for a terminal, a markdown table for a page.
use super::report::{Report, Row, Status, Work};
use super::statistics::Summary;
use std::fmt::Write;
use std::path::Path;

/// Column titles of a benchmark of single ops, the first aligned left.
const OP_TITLES: [&str; 9] = ["run", "ms", "p95", "p99", "± MAD", "GFLOP/s", "vs none", "vs before", "error"];

/// Column titles of a benchmark of a network, the first aligned left.
const TITLES: [&str; 10] = [
    "run",
    "ms/call: median / p95 / p99",
    "ms/sequence: median / p95 / p99",
    "± MAD",
    "fps",
    "vs none",
    "vs before",
    "weights MiB",
    "activations MiB",
    "error",
];

/// What random weights mean for these numbers; printed with every table that they made.
pub const RANDOM_WEIGHTS: &str = "Weights by formula are random: this measures speed, what is drawn is not video.";

/// What a peer's error is of; printed with every table that has one.
pub const PEER_ERROR: &str = "Another engine's error is from its own f32, the others are from plain Candle.";

/// Column titles, the first aligned left.
pub fn titles(report: &Report) -> &'static [&'static str] {
    if report.work.model == OPS { &OP_TITLES } else { &TITLES }
}

/// What stands for the model's name where single ops are measured.
pub const OPS: &str = "single ops";

/// Why something was not timed.
pub fn reason(status: &Status) -> Option<String> {
    match status {
        Status::Timed => None,
        Status::NoCall => Some("not timed: ran no call".to_owned()),
        Status::Refused(why) => Some(format!("refused: {why}")),
        Status::Wrong(why) => Some(format!("WRONG, not timed: {why}")),
    }
}

/// Whether a row's error is of another kind than the others': see [`PEER_ERROR`].
pub fn has_peer_error(report: &Report) -> bool {
    report.rows.iter().any(|row| row.is_peer() && row.error.is_some())
}

/// What a row was judged by whose weights are stored in another way.
pub fn stored_error(row: &Row) -> Option<String> {
    let error = row.stored_error?;
    Some(format!("{}: {error:.1e} from plain Candle on the weights that it stores, by which it is judged.", row.name))
}

/// The cells of row `i`.
pub fn cells(report: &Report, i: usize) -> Vec<String> {
    let row = &report.rows[i];
    if let Some(reason) = reason(&row.status) {
        return vec![row.title(), reason];
    }
    let number = |value: Option<f64>, digits: usize| value.map_or("–".to_owned(), |v| format!("{v:.digits$}"));
    let times = |value: Option<f64>| value.map_or("–".to_owned(), |v| format!("{v:.2} ×"));
    let mebibytes = |bytes: Option<u64>| number(bytes.map(|b| b as f64 / f64::from(1 << 20)), 1);
    let quantiles = |summary: Option<&Summary>| {
        summary.map_or("–".to_owned(), |s| format!("{:.2} / {:.2} / {:.2}", s.median, s.p95, s.p99))
    };
    let against_none = times(report.none(i).and_then(|j| report.speedup(i, j)));
    // the rungs stand on each other, other engines do not
    let before = report.before(i).filter(|_| !row.is_peer());
    let against_before = times(before.and_then(|j| report.speedup(i, j)));
    let error = row.error.map_or("–".to_owned(), |e| format!("{e:.1e}"));
    if report.work.model == OPS {
        let fine = |f: fn(&Summary) -> f64| number(row.sequence.as_ref().map(f), 3);
        let rate = row.flops.zip(row.sequence.as_ref()).map(|(flops, s)| flops as f64 / s.median / 1e6);
        return vec![
            row.title(),
            fine(|s| s.median),
            fine(|s| s.p95),
            fine(|s| s.p99),
            fine(|s| s.mad),
            number(rate, 1),
            against_none,
            against_before,
            error,
        ];
    }
    vec![
        row.title(),
        quantiles(row.call.as_ref()),
        quantiles(row.sequence.as_ref()),
        number(row.sequence.as_ref().map(|s| s.mad), 2),
        number(row.frames_per_second(report.work.batch), 2),
        against_none,
        against_before,
        mebibytes(row.weights),
        mebibytes(row.activations),
        error,
    ]
}

/// Who ran how many calls of which op in one sequence, by row.
pub fn callers(row: &Row) -> String {
    let calls: Vec<String> = row.calls.iter().map(|(who, n)| format!("{who} {n}")).collect();
    calls.join(", ")
}

/// What every row did, in words.
pub fn work(w: &Work) -> String {
    match w.model.as_str() {
        OPS => format!("{OPS} with random inputs and weights"),
        model => {
            let how = if w.together { ", what they do not depend on worked out for all at once" } else { "" };
            format!("{model} at {}x{}, batch {}, {} calls a sequence{how}", w.width, w.height, w.batch, w.steps)
        }
    }
}

/// What was run, where and when, in a sentence.
pub fn caption(report: &Report) -> String {
    let w = &report.work;
    let random = if w.weights == "formula" { format!(" {RANDOM_WEIGHTS}") } else { String::new() };
    format!(
        "{}, on {} ({}); mirage {}; `{}`.{random}",
        work(w),
        w.device,
        report.machine.processors(),
        report.build.version,
        report.command
    )
}

/// The table as markdown, with its caption and the name of the file that holds the report.
pub fn markdown(report: &Report, file: Option<&Path>) -> String {
    let titles = titles(report);
    let mut text = format!("| {} |\n|---|{}\n", titles.join(" | "), "--:|".repeat(titles.len() - 1));
    for i in 0..report.rows.len() {
        let mut cells = cells(report, i);
        cells.resize(titles.len(), String::new());
        let _ = writeln!(text, "| {} |", cells.join(" | ")); // a String takes every write
    }
    let _ = writeln!(text, "\n{}", caption(report));
    if has_peer_error(report) {
        let _ = writeln!(text, "{PEER_ERROR}");
    }
    for error in report.rows.iter().filter_map(stored_error) {
        let _ = writeln!(text, "{error}");
    }
    if let Some(file) = file {
        let _ = writeln!(text, "Report: `{}`.", file.display());
    }
    for row in report.rows.iter().filter(|r| !r.calls.is_empty()) {
        let _ = writeln!(text, "\n{} ran: {}.", row.name, callers(row));
    }
    text
}

/// Puts `table` between the markers `<!-- bench:begin NAME -->` and `<!-- bench:end NAME -->` of `page`; all else stays.
///
/// # Errors
/// A page without the two markers in this order.
pub fn insert(page: &str, name: &str, table: &str) -> anyhow::Result<String> {
    let (begin, end) = (format!("<!-- bench:begin {name} -->"), format!("<!-- bench:end {name} -->"));
    let missing = || anyhow::anyhow!("the page lacks the lines {begin} and {end}, between which the table goes");
    let (head, rest) = page.split_once(&begin).ok_or_else(missing)?;
    let (_, tail) = rest.split_once(&end).ok_or_else(missing)?;
    Ok(format!("{head}{begin}\n{}\n{end}{tail}", table.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{report, row};
    use super::*;

    #[test]
    fn cells_of_timed_and_untimed_rows() {
        let refused = Row::untimed("+custom-ptx".into(), vec![], Status::Refused("no GPU".into()));
        let report = report(vec![row("none", 10.0), row("+fp16", 4.0), refused]);
        let line = cells(&report, 1).join("|");
        assert_eq!(line, "+fp16|4.00 / 4.04 / 4.04|4.00 / 4.04 / 4.04|0.04|250.00|2.50 ×|2.50 ×|–|–|–");
        assert_eq!(cells(&report, 2), ["+custom-ptx", "refused: no GPU"]);
        assert_eq!(cells(&report, 0)[6], "–");
        let text = markdown(&report, Some(Path::new("benches/runs/a.json")));
        assert!(text.contains(RANDOM_WEIGHTS) && text.contains("| +custom-ptx | refused: no GPU |"), "{text}");
        assert!(text.contains("\nReport: `benches/runs/a.json`.\n"), "{text}");
        assert!(!text.contains(PEER_ERROR), "{text}");
    }

    #[test]
    fn a_row_says_what_it_was_judged_by() {
        let fp8 = Row { error: Some(0.05), stored_error: Some(0.002), ..row("+custom-ptx, fp8 weights", 2.0) };
        let report = report(vec![row("none", 10.0), fp8]);
        assert_eq!(cells(&report, 1)[9], "5.0e-2", "the error is from plain Candle on weights as they were");
        let said = "+custom-ptx, fp8 weights: 2.0e-3 from plain Candle on the weights that it stores";
        assert!(markdown(&report, None).contains(said));
        assert_eq!(stored_error(&report.rows[0]), None);
    }

    #[test]
    fn the_error_of_another_engine_is_told_apart() {
        let peer = Row { error: Some(0.0), ..row("PyTorch f32", 5.0) };
        let text = markdown(&report(vec![row("none", 10.0), peer]), None);
        assert!(text.contains(PEER_ERROR), "{text}");
    }

    #[test]
    fn a_table_replaces_only_what_lies_between_its_markers() {
        let page = "a\n<!-- bench:begin x -->\nold\n<!-- bench:end x -->\nb\n";
        let new = insert(page, "x", "new\n").unwrap();
        assert_eq!(new, "a\n<!-- bench:begin x -->\nnew\n<!-- bench:end x -->\nb\n");
        assert_eq!(insert(&new, "x", "new\n").unwrap(), new);
        assert!(insert(page, "y", "new").is_err());
    }
}
