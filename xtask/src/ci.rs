//! The checks of CI as steps: what each runs, how long it took, what failed.
//!
//! All steps run even when one fails, so that one round shows everything. The rules behind the
//! `tidy` step live in [`crate::tidy`]; how tests are run lives in `scripts/test`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::tidy;

/// One check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The tree's own rules.
    Tidy,
    /// rustfmt.
    Fmt,
    /// Licences, sources, duplicates.
    Deny,
    /// Lints.
    Clippy,
    /// Documentation builds without a warning.
    Doc,
    /// README's test command.
    Test,
    /// Known vulnerabilities: fetches a database that changes daily, so not part of [`ALL`].
    Advisories,
}

/// What CI runs: the quick ones first, the tests last.
pub const ALL: [Step; 6] = [
    Step::Tidy,
    Step::Fmt,
    Step::Deny,
    Step::Clippy,
    Step::Doc,
    Step::Test,
];

impl Step {
    const fn name(self) -> &'static str {
        match self {
            Self::Tidy => "tidy",
            Self::Fmt => "fmt",
            Self::Deny => "deny",
            Self::Clippy => "clippy",
            Self::Doc => "doc",
            Self::Test => "test",
            Self::Advisories => "advisories",
        }
    }

    fn run(self, root: &Path) -> Result<(), String> {
        match self {
            Self::Tidy => tidy::check(root),
            Self::Fmt => execute(cargo(root).args(["fmt", "--all", "--check"])),
            Self::Deny => execute(
                deny(root)?
                    .args(["--locked", "--log-level", "warn"])
                    .args(["check", "bans", "licenses", "sources"]),
            ),
            Self::Clippy => execute(
                cargo(root)
                    .args([
                        "clippy",
                        "--workspace",
                        "--all-targets",
                        "--locked",
                        "--quiet",
                    ])
                    .args(["--", "-D", "warnings"]),
            ),
            Self::Doc => execute(
                cargo(root)
                    .args(["doc", "--workspace", "--no-deps", "--locked", "--quiet"])
                    .arg("--document-private-items")
                    .env(
                        "RUSTDOCFLAGS",
                        "-D warnings -A rustdoc::private-intra-doc-links",
                    ),
            ),
            Self::Test => execute(Command::new(root.join("scripts/test")).current_dir(root)),
            Self::Advisories => execute(deny(root)?.args(["check", "advisories"])),
        }
    }
}

/// Runs the steps in order, says how each went, and whether all passed.
pub fn run(root: &Path, steps: &[Step]) -> bool {
    let mut outcomes = Vec::with_capacity(steps.len());
    for &step in steps {
        println!("== {}", step.name());
        let started = Instant::now();
        let outcome = step.run(root);
        let took = started.elapsed();
        if let Err(fault) = &outcome {
            eprintln!("{}: {fault}", step.name());
        }
        outcomes.push((step, took, outcome.is_ok()));
    }
    println!("==");
    for (step, took, passed) in &outcomes {
        let word = if *passed { "ok" } else { "FAILED" };
        println!("{:<11} {word:<7} {}", step.name(), seconds(*took));
    }
    outcomes.iter().all(|(_, _, passed)| *passed)
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

/// `cargo`, without what the cargo that runs this chore says about *this* package: build scripts
/// that watch those variables would be run anew, and with them half of the tree.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    for (name, _) in std::env::vars_os() {
        let of_package = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        });
        if of_package {
            command.env_remove(name);
        }
    }
    command
}

/// `cargo-deny` from the search path, else where `scripts/setup` puts it.
fn deny(root: &Path) -> Result<Command, String> {
    let own = root.join("target/tools/bin/cargo-deny");
    let found = on_path("cargo-deny").or_else(|| own.is_file().then_some(own));
    let program = found.ok_or("cargo-deny is missing; scripts/setup installs it")?;
    let mut command = Command::new(program);
    command.current_dir(root);
    Ok(command)
}

fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

pub(crate) fn execute(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|error| {
        format!(
            "{} does not start: {error}",
            command.get_program().display()
        )
    })?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{status}"))
    }
}
