//! `mirage completions` and `mirage man`: what a shell and a reader need, generated from the arguments themselves.
use super::{Verdict, command};
use anyhow::{Context, Result};
use clap::Args;
use clap_complete::Shell;
use std::io::Write;
use std::path::PathBuf;

/// Prints a completion script for a shell.
#[derive(Args)]
#[command(after_help = "Example:
  mirage completions bash > ~/.local/share/bash-completion/completions/mirage")]
pub struct CompletionArguments {
    /// Which shell.
    shell: Shell,
}

/// Writes the man pages: `mirage.1` and one for each command.
#[derive(Args)]
#[command(after_help = "Example:
  mirage man --output ~/.local/share/man/man1")]
pub struct ManArguments {
    /// The folder to write into; without it, the main page is printed.
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

pub fn completions(arguments: &CompletionArguments) -> Result<Verdict> {
    let mut script = vec![];
    clap_complete::generate(arguments.shell, &mut command(), "mirage", &mut script);
    print(&script)
}

pub fn man(arguments: &ManArguments) -> Result<Verdict> {
    match &arguments.output {
        Some(folder) => {
            let cannot = || format!("cannot write man pages into {}", folder.display());
            std::fs::create_dir_all(folder).with_context(cannot)?;
            clap_mangen::generate_to(command(), folder).with_context(cannot)?;
            Ok(Verdict::Passed)
        }
        None => {
            let mut page = vec![];
            clap_mangen::Man::new(command()).render(&mut page)?;
            print(&page)
        }
    }
}

fn print(bytes: &[u8]) -> Result<Verdict> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to standard output")?;
    Ok(Verdict::Passed)
}
