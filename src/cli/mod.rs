//! The command line: a file per command.

/// Prints a line to standard output; where nobody reads it any more, that is an error, not a panic.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::print_line(format_args!($($text)*))?
    };
}

mod awaited;
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

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use std::io::Write;
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
            eprintln!("error: {}", in_words(&error));
            ExitCode::from(2)
        }
    }
}

/// What was typed, with quotes where there are spaces; wherever the program lies, it is called by its name.
fn command_line() -> String {
    let quoted = |word: String| if word.contains(char::is_whitespace) { format!("'{word}'") } else { word };
    std::iter::once("mirage".to_owned()).chain(std::env::args().skip(1).map(quoted)).collect::<Vec<_>>().join(" ")
}

fn print_line(text: std::fmt::Arguments) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("cannot write to standard output")
}

/// An error with its causes, each said once: some errors tell their cause themselves. A driver's word for too little memory comes with a way out.
fn in_words(error: &anyhow::Error) -> String {
    let words = error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        _ if said.contains(&cause) => said,
        _ => format!("{said}: {cause}"),
    });
    if words.contains("CUDA_ERROR_OUT_OF_MEMORY") {
        return format!(
            "the GPU has no more memory: choose a smaller --size, --batch or --model, or add fp16,flash-attn to --stages; `nvidia-smi` shows who \
             else uses it ({words})"
        );
    }
    words
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let cause = || std::io::Error::other("disk full");
        let plain = anyhow::Error::from(cause()).context("cannot write a.gif");
        assert_eq!(in_words(&plain), "cannot write a.gif: disk full");
        let told = crate::Error::Io { doing: "read", path: "a".into(), source: cause() };
        assert_eq!(in_words(&told.into()), "cannot read a: disk full");
        let full = in_words(&anyhow::anyhow!("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")"));
        assert!(full.contains("smaller --size") && full.contains("DriverError"), "{full}");
    }
}
