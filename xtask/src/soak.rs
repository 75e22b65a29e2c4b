//! Builds `maskline` and the tool `soak` for release, and starts that. A crate of its own, so that the
//! chores stay quick to build.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ci::{cargo, execute};

/// Hands these arguments on. Whether it passed.
pub fn run(root: &Path, arguments: &[String]) -> bool {
    let outcome = start(root, arguments);
    if let Err(fault) = &outcome {
        eprintln!("soak: {fault}");
    }
    outcome.is_ok()
}

fn start(root: &Path, arguments: &[String]) -> Result<(), String> {
    let names_one = arguments.iter().any(|it| it.starts_with("--binary"));
    let mut build = cargo(root);
    build.args(["build", "--release", "--locked", "--package", "soak"]);
    if !names_one {
        build.args(["--package", "maskline"]);
    }
    execute(&mut build)?;
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let release = target.map_or_else(|| root.join("target"), PathBuf::from);
    let release = release.join("release");
    let mut soak = Command::new(release.join("soak"));
    soak.args(arguments);
    let is_show = |it: &String| it != "help" && !it.starts_with('-');
    if !names_one && arguments.first().is_some_and(is_show) {
        soak.arg("--binary").arg(release.join("maskline"));
    }
    execute(&mut soak)
}
