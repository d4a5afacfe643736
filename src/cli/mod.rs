//! The command line: a file per command.

mod bench;
mod docs;
mod drift;
mod eval;
mod generate;
mod models;
mod options;
mod output;
mod profile;
mod table;
mod validate;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

/// Live stream diffusion: redraws video frame by frame, each frame conditioned on what was drawn before.
#[derive(Parser)]
#[command(name = "mirage", version = version(), max_term_width = 100, propagate_version = true)]
#[command(after_help = "Exit codes: 0 done; 1 a check failed (validate, drift, bench --compare); 2 could not run.

Example:
  mirage generate --input clip.mp4 --output out.gif")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Generate(generate::Arguments),
    Bench(bench::Arguments),
    Profile(profile::Arguments),
    Validate(validate::Arguments),
    Drift(drift::Arguments),
    Eval(eval::Arguments),
    Models(models::Arguments),
    Completions(docs::CompletionArguments),
    Man(docs::ManArguments),
}

/// Whether a command that ran found what it checks in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
}

/// Parses the arguments of this process and runs the command.
pub fn run() -> ExitCode {
    let verdict = match Arguments::parse().command {
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Profile(arguments) => profile::run(&arguments),
        Command::Validate(arguments) => validate::run(&arguments),
        Command::Drift(arguments) => drift::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Models(arguments) => models::run(&arguments),
        Command::Completions(arguments) => docs::completions(&arguments),
        Command::Man(arguments) => docs::man(&arguments),
    };
    match verdict {
        Ok(Verdict::Passed) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The whole command line, for completions, the man page and the command reference.
pub fn command() -> clap::Command {
    Arguments::command()
}

fn version() -> &'static str {
    static TEXT: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        let cuda = if crate::cuda::COMPILED { "+cuda" } else { "-cuda" };
        format!(
            "{} ({})\nstages {} {cuda}\nbuilt for {} by {}, {} profile",
            env!("CARGO_PKG_VERSION"),
            env!("MIRAGE_GIT_REVISION"),
            crate::stages::compiled(),
            env!("MIRAGE_TARGET"),
            env!("MIRAGE_RUSTC"),
            env!("MIRAGE_PROFILE"),
        )
    });
    &TEXT
}
