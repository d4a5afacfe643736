//! The pages that a program prints hold what it prints today: the command reference and the benchmark tables.
use assert_cmd::Command;
use mirage::bench::{present, report::Report};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_mirage")).args(arguments).assert().success().get_output().clone();
    let text = String::from_utf8(output.stdout).expect("help is UTF-8");
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Names of the commands, as the main help lists them.
fn commands() -> Vec<String> {
    let text = help(&["--help"]);
    let (_, list) = text.split_once("Commands:\n").expect("the main help lists commands");
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn the_command_reference_is_current() {
    let mut text =
        "# Commands\n\nWhat `mirage COMMAND --help` prints; `UPDATE_DOCS=1 cargo test --release --test docs` \
                    writes it anew.\n\n"
            .to_owned();
    for name in commands() {
        text += &format!("## mirage {name}\n\n```text\n{}```\n\n", help(&[&name, "--help"]));
    }
    let path = root().join("docs/commands.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, text.trim_end().to_owned() + "\n").expect("the reference can be written");
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored.trim_end() == text.trim_end(),
        "docs/commands.md is old: UPDATE_DOCS=1 cargo test --release --test docs"
    );
}

#[test]
fn the_readme_names_every_command() {
    let readme = fs::read_to_string(root().join("README.md")).expect("there is a README");
    for name in commands() {
        assert!(readme.contains(&format!("`mirage {name}`")), "README.md does not name `mirage {name}`");
    }
}

/// Every page with benchmark markers: its name, and what lies between them.
fn tables() -> Vec<(PathBuf, String)> {
    let pages = ["README.md", "benches/README.md", "stages/README.md"].map(PathBuf::from).into_iter().chain(
        fs::read_dir(root().join("stages"))
            .expect("there are stages")
            .flatten()
            .map(|e| Path::new("stages").join(e.file_name()).join("README.md")),
    );
    let mut found = vec![];
    for page in pages {
        let text = fs::read_to_string(root().join(&page)).unwrap_or_default();
        for part in text.split("<!-- bench:begin ").skip(1) {
            let (name, rest) = part.split_once(" -->\n").expect("a begin marker ends");
            let (table, _) = rest.split_once(&format!("<!-- bench:end {name} -->")).expect("a table ends");
            found.push((page.clone(), table.to_owned()));
        }
    }
    found
}

#[test]
fn tables_are_those_of_stored_runs() {
    let tables = tables();
    assert!(tables.len() >= 4, "{} tables", tables.len());
    for (page, table) in tables {
        let page = page.display();
        let file = table.split_once("Report: `").and_then(|(_, rest)| rest.split_once('`')).map(|(file, _)| file);
        let file = Path::new(file.unwrap_or_else(|| panic!("{page}: the table does not name its report")));
        let report = Report::load(&root().join(file)).unwrap_or_else(|e| panic!("{page}: {e:#}"));
        let now = present::markdown(&report, Some(file));
        assert_eq!(table.trim(), now.trim(), "{page}: mirage bench --from {} --markdown {page}", file.display());
    }
}
