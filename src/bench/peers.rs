//! Other engines doing the same work: a script that prints a JSON object a line, run as a child process.
use super::report::{Row, Status};
use super::statistics::Summary;
use serde::Deserialize;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

/// What a peer says of one of its variants.
#[derive(Debug, Deserialize)]
struct Said {
    name: String,
    /// The op case, where single ops are measured.
    case: Option<String>,
    #[serde(default)]
    ms_per_call: Vec<f64>,
    #[serde(default)]
    ms_per_sequence: Vec<f64>,
    peak_memory_bytes: Option<u64>,
    largest_error: Option<f64>,
    /// Why this variant could not run.
    refused: Option<String>,
}

/// A line longer than this is no result.
const LONGEST_LINE: u64 = 1 << 20;
/// Bytes of a peer's complaints that are kept.
const COMPLAINT: usize = 400;

/// Runs a peer and hands over each row as it comes; a peer that cannot run is a row that says why.
pub fn run(name: &str, command: &mut Command, mut row: impl FnMut(Row)) {
    let refused = |why: String| Row::untimed(name.to_owned(), vec![], Status::Refused(why));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) => return row(refused(format!("cannot start {}: {e}", command.get_program().display()))),
    };
    let complaints = child.stderr.take().map(|stderr| {
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = BufReader::new(stderr).take(LONGEST_LINE).read_to_string(&mut text); // what came is enough
            text
        })
    });
    let mut rows = 0;
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout);
        let mut line = String::new();
        while lines.by_ref().take(LONGEST_LINE).read_line(&mut line).is_ok_and(|n| n > 0) {
            if let Ok(said) = serde_json::from_str::<Said>(&line) {
                rows += 1;
                row(said.into());
            }
            line.clear();
        }
    }
    let status = child.wait();
    let complaint = complaints.and_then(|thread| thread.join().ok()).unwrap_or_default();
    if rows == 0 || !status.as_ref().is_ok_and(|s| s.success()) {
        let last = complaint.trim().lines().last().unwrap_or("it printed no result");
        row(refused(last.chars().take(COMPLAINT).collect()));
    }
}

impl From<Said> for Row {
    fn from(said: Said) -> Self {
        let status = match said.refused {
            Some(why) => Status::Refused(why),
            None if said.ms_per_sequence.is_empty() => Status::Refused("it gave no timings".into()),
            None => Status::Timed,
        };
        let sequence = Summary::new(&said.ms_per_sequence);
        Row {
            call: Summary::new(&said.ms_per_call),
            warnings: sequence.as_ref().map_or(vec![], |s| s.warnings(&said.ms_per_sequence)),
            sequence,
            activations: said.peak_memory_bytes,
            error: said.largest_error,
            case: said.case,
            ..Row::untimed(said.name, vec![], status)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(script: &str) -> Vec<Row> {
        let mut rows = vec![];
        run("peer", Command::new("sh").args(["-c", script]), |r| rows.push(r));
        rows
    }

    #[test]
    fn each_line_becomes_a_row() {
        let rows = rows(
            r#"echo starting; echo '{"name":"A","ms_per_call":[1],"ms_per_sequence":[4,6]}'; echo '{"name":"B","refused":"no GPU"}'"#,
        );
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].sequence.as_ref().map(|s| s.median), Some(5.0));
        assert_eq!(rows[1].status, Status::Refused("no GPU".into()));
    }

    #[test]
    fn a_peer_that_fails_says_why() {
        assert_eq!(rows("echo no torch >&2; exit 3")[0].status, Status::Refused("no torch".into()));
        assert_eq!(rows("true")[0].status, Status::Refused("it printed no result".into()));
        let mut said = vec![];
        run("peer", &mut Command::new("no-such-program"), |r| said.push(r));
        assert!(matches!(&said[0].status, Status::Refused(why) if why.contains("no-such-program")));
    }
}
