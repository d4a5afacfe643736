//! `mirage models`: the networks that this build knows.
use super::Verdict;
use super::table::table;
use crate::model::{ModelSpec, PRESETS};
use anyhow::Result;
use clap::Args;

/// Lists the networks: what they are for, their parameters, where their weights lie, their licence.
#[derive(Args)]
#[command(after_help = "Example:
  mirage models")]
pub struct Arguments {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Entry {
    name: &'static str,
    about: &'static str,
    parameters: usize,
    weights: &'static str,
    licence: &'static str,
}

pub fn run(arguments: &Arguments) -> Result<Verdict> {
    let entries = PRESETS
        .iter()
        .map(|preset| {
            Ok(Entry {
                name: preset.name,
                about: preset.about,
                parameters: preset.spec.parameter_count()?,
                weights: match preset.spec {
                    ModelSpec::Live => "trained, in the program; --weights FILE for others",
                    ModelSpec::Reference { .. } => "by formula, in the program; --weights FILE for others",
                },
                licence: env!("CARGO_PKG_LICENSE"),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    if arguments.json {
        say!("{}", serde_json::to_string_pretty(&entries)?);
        return Ok(Verdict::Passed);
    }
    let mut table = table(&["model", "about", "weights", "licence", "parameters"], 4);
    for e in &entries {
        table.add_row([e.name, e.about, e.weights, e.licence, &grouped(e.parameters)]);
    }
    say!("{table}");
    say!("reference:CHANNELS gives the reference network with any multiple of 16 base channels.");
    say!("Weights by formula are random: they serve benchmarks and tests, what they draw is no real video.");
    Ok(Verdict::Passed)
}

/// `880,258,653`
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    #[test]
    fn digits_are_grouped_by_three() {
        assert_eq!(super::grouped(880_258_653), "880,258,653");
        assert_eq!(super::grouped(12), "12");
        assert_eq!(super::grouped(1000), "1,000");
    }
}
