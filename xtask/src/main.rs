//! Repository chores: `cargo xtask ci`, and its parts one by one.
//!
//! What each check is lives in [`ci`]; the tree's own rules live in [`tidy`], and
//! [`soak`] starts the tool of that name. Nothing here is shipped.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line chore talks to its user"
)]

mod ci;
mod soak;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask <chore>

  ci          everything that CI runs: tidy, fmt, deny, clippy, doc, test
  tidy        the tree's own rules (purity, layers, file sizes, names)
  fmt         rustfmt, check only
  deny        licences, sources, duplicates
  clippy      clippy over all targets, warnings are errors
  doc         rustdoc, warnings are errors
  test        what scripts/test does
  advisories  fetch the advisory database and check the dependencies against it
  soak …      kills and floods a release build of maskline, and counts every event;
              `cargo xtask soak help` lists what there is";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let chore = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    if chore != "soak" && !rest.is_empty() {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    }
    let Some(root) = workspace_root() else {
        eprintln!("xtask: the workspace root is not where this was built");
        return ExitCode::FAILURE;
    };
    let passed = match chore.as_str() {
        "ci" => ci::run(&root, &ci::ALL),
        "tidy" => ci::run(&root, &[ci::Step::Tidy]),
        "fmt" => ci::run(&root, &[ci::Step::Fmt]),
        "deny" => ci::run(&root, &[ci::Step::Deny]),
        "clippy" => ci::run(&root, &[ci::Step::Clippy]),
        "doc" => ci::run(&root, &[ci::Step::Doc]),
        "test" => ci::run(&root, &[ci::Step::Test]),
        "advisories" => ci::run(&root, &[ci::Step::Advisories]),
        "soak" => soak::run(&root, &rest),
        _ => {
            eprintln!("{USAGE}");
            false
        }
    };
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn workspace_root() -> Option<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
}
