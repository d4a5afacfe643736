//! What is left when a run is broken off: the whole frames drawn so far, or the older file as it was.
#![cfg(unix)]
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Starts to redraw far more frames than anybody waits for.
fn start(output: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mirage"));
    command.args(["generate", "--size", "32x32", "--frames", "1000000", "--force", "--output"]).arg(output);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
}

/// Waits until frames lie in a temporary file beside the output.
fn wait_for_frames(folder: &Path) {
    let begin = Instant::now();
    loop {
        let parts = fs::read_dir(folder).expect("the folder exists").flatten();
        let mut parts = parts.filter(|e| e.file_name().to_string_lossy().ends_with(".part"));
        if parts.any(|e| e.metadata().is_ok_and(|m| m.len() > 40_000)) {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "no frame was written");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status();
    assert!(status.expect("kill is there").success());
}

#[test]
fn an_interrupt_leaves_every_whole_frame() {
    for name in ["-INT", "-TERM"] {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let output = dir.path().join("out.y4m");
        let mut child = start(&output);
        wait_for_frames(dir.path());
        signal(&child, name);
        assert!(child.wait().expect("it ends").success(), "{name}");
        let options = mirage::media::OpenOptions::default();
        let mut reader = mirage::media::open(&output.display().to_string(), &options).expect("it is a video");
        let mut frames = 0;
        while reader.next_frame().expect("every frame is whole").is_some() {
            frames += 1;
        }
        assert!(frames > 10, "{name}: {frames}");
        assert_eq!(fs::read_dir(dir.path()).expect("the folder exists").count(), 1, "nothing else is left");
    }
}

#[test]
fn a_kill_leaves_the_older_file_as_it_was() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let output = dir.path().join("out.y4m");
    fs::write(&output, "older").expect("a temporary file can be written");
    let mut child = start(&output);
    wait_for_frames(dir.path());
    signal(&child, "-KILL");
    assert!(!child.wait().expect("it ends").success());
    assert_eq!(fs::read(&output).expect("it is there"), b"older");
}

#[test]
fn a_closed_standard_output_is_said() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mirage"));
    command.args(["generate", "--size", "32x32", "--frames", "200", "--output", "-"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("standard output") && !said.contains("panicked"), "{said}");
}
