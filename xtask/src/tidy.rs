//! The tree's own rules, checked by reading it: purity of the crates that decide, layers, file
//! sizes, file headers, names, leftovers.
//!
//! The checks look at lines, not at syntax: a rule that needs a parser belongs to clippy. A line
//! that has to break a rule says so on itself or on the line above: `// tidy: allow(rule) because …`.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The most lines that a source file may have.
const MOST_LINES: usize = 800;

/// Lower crates first; a crate may depend only on those before it. `soak`, `sim` and `xtask` come last:
/// nothing that is shipped may depend on them.
const LAYERS: [&str; 16] = [
    "maskline-events",
    "maskline-media",
    "maskline-switch",
    "maskline-trace",
    "maskline-phone",
    "maskline-rtpengine",
    "maskline-store",
    "maskline-webhook",
    "maskline-prompts",
    "maskline-net",
    "maskline-http",
    "maskline",
    "soak",
    "sim",
    "maskline-fuzz",
    "xtask",
];

/// Crates whose code decides and does nothing else. The engine of `maskline-media` is its shell.
const PURE: [&str; 6] = [
    "maskline-events",
    "maskline-media",
    "maskline-switch",
    "maskline-trace",
    "maskline-phone",
    "sim",
];

/// What a pure crate may not say, and what it should do instead.
const IMPURE: [(&str, &str); 22] = [
    ("Instant::now", "time comes in with the input"),
    ("SystemTime", "time comes in with the input"),
    ("Timestamp::now", "time comes in with the input"),
    ("Zoned::now", "time comes in with the input"),
    ("tokio::", "the shell runs tasks and timers"),
    ("std::thread", "the shell runs threads"),
    ("std::process", "the shell starts and ends processes"),
    ("std::env", "configuration comes in from the shell"),
    ("std::fs", "the shell does file IO"),
    ("std::io", "the shell does IO"),
    ("UdpSocket", "the shell owns sockets"),
    ("TcpStream", "the shell owns sockets"),
    ("TcpListener", "the shell owns sockets"),
    ("ToSocketAddrs", "the shell resolves names"),
    ("rand::rng", "a seed comes in from the shell"),
    ("rand::random", "a seed comes in from the shell"),
    ("thread_rng", "a seed comes in from the shell"),
    ("OsRng", "a seed comes in from the shell"),
    ("from_os_rng", "a seed comes in from the shell"),
    (
        "now_v7",
        "the time and the random bits of an id come in from the shell",
    ),
    ("new_v4", "the random bits of an id come in from the shell"),
    (
        "RandomState",
        "an order that differs from run to run does not replay",
    ),
];

/// Hash maps in pure crates: looking up is fine, walking one makes a run that does not replay.
const HASHED: [&str; 2] = ["HashMap<", "HashSet<"];

/// A broken rule at a place.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    path: String,
    line: usize,
    rule: &'static str,
    message: String,
}

/// Checks every file that git knows or would add, and prints each fault.
///
/// # Errors
///
/// When git cannot be asked, or with the number of faults.
pub fn check(root: &Path) -> Result<(), String> {
    let mut faults = Vec::new();
    let paths = files(root)?;
    for path in &paths {
        // A file that is listed but gone, or is no text, has no lines to look at.
        let Ok(text) = fs::read_to_string(root.join(path)) else {
            continue;
        };
        faults.extend(check_any(path, &text));
        if path.ends_with(".rs") {
            faults.extend(check_rust(path, &text));
        }
        if path.ends_with("Cargo.toml") {
            faults.extend(check_manifest(path, &text));
        }
    }
    for fault in &faults {
        let Fault {
            path,
            line,
            rule,
            message,
        } = fault;
        eprintln!("{path}:{line}: [{rule}] {message}");
    }
    match faults.len() {
        0 => {
            println!("{} files in order", paths.len());
            Ok(())
        }
        count => Err(format!("{count} broken rules")),
    }
}

fn files(root: &Path) -> Result<Vec<String>, String> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()
        .map_err(|error| format!("git does not start: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let list = String::from_utf8(output.stdout).map_err(|error| error.to_string())?;
    Ok(list
        .split('\0')
        .filter(|path| !path.is_empty())
        .map(str::to_owned)
        .collect())
}

/// Rules for every text file.
fn check_any(path: &str, text: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (number, line) in numbered(text) {
        // `=======` alone underlines a heading.
        for mark in ["<", ">", "|"] {
            let mark = mark.repeat(7);
            if line
                .strip_prefix(&mark)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            {
                let message = format!("{mark}: a merge that is not finished");
                faults.push(fault(path, number, "conflict", message));
            }
        }
        // Put together here, so that this file does not break its own rule.
        for home in [
            ["/home", "/"],
            ["/root", "/"],
            ["/Users", "/"],
            ["/work", "/"],
        ] {
            let home = home.concat();
            let starts_a_path = line.match_indices(&home).any(|(at, _)| {
                line.get(..at)
                    .and_then(|before| before.chars().next_back())
                    .is_none_or(|before| {
                        !before.is_alphanumeric() && !matches!(before, '/' | '.' | '}' | '-' | '_')
                    })
            });
            if starts_a_path {
                let message = format!("a path of one person's machine: {home}");
                faults.push(fault(path, number, "personal-path", message));
            }
        }
    }
    faults
}

/// Rules for Rust files.
fn check_rust(path: &str, text: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    if !text.starts_with("//!") {
        let message = "open with `//!`: what lives here and what does not".to_owned();
        faults.push(fault(path, 1, "header", message));
    }
    let lines = text.lines().count();
    if lines > MOST_LINES {
        let message = format!("{lines} lines, at most {MOST_LINES}: which two things live here?");
        faults.push(fault(path, 1, "length", message));
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    if matches!(
        name,
        "utils.rs" | "util.rs" | "helpers.rs" | "common.rs" | "misc.rs"
    ) {
        let message = "name a file after the one thing that it holds".to_owned();
        faults.push(fault(path, 1, "name", message));
    }
    let pure = is_pure(path);
    let shipped = shipped_lines(path, text);
    let mut above = "";
    for (number, line) in numbered(text) {
        let allowed = |rule: &str| {
            let mark = format!("tidy: allow({rule})");
            line.contains(&mark) || above.contains(&mark)
        };
        let code = without_comment(line);
        for mark in [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]] {
            let mark = mark.concat();
            if !allowed("leftover") && words(line).any(|word| word == mark) {
                let message = format!("{mark}: do it, or say in the present tense why not");
                faults.push(fault(path, number, "leftover", message));
            }
        }
        if !allowed("ignored-test") && code.trim_start().starts_with(&["#[", "ignore"].concat()) {
            let message = "a test that is not run proves nothing".to_owned();
            faults.push(fault(path, number, "ignored-test", message));
        }
        if !allowed("name") {
            faults.extend(check_names(path, number, code));
        }
        if pure && shipped.contains(&number) {
            for (word, instead) in IMPURE {
                if code.contains(word) && !allowed("purity") {
                    let message = format!("{word} in a pure crate: {instead}");
                    faults.push(fault(path, number, "purity", message));
                }
            }
            for word in HASHED {
                if code.contains(word) && !code.contains("BuildHasher") && !allowed("hash-order") {
                    let message = format!("{word}…> in a pure crate: use a BTreeMap or BTreeSet");
                    faults.push(fault(path, number, "hash-order", message));
                }
            }
        }
        above = line;
    }
    faults
}

fn check_names(path: &str, number: usize, code: &str) -> Option<Fault> {
    let after = |keyword: &str| {
        let at = code.find(keyword)?;
        let starts_word = !code
            .get(..at)?
            .ends_with(|before: char| before.is_alphanumeric());
        let rest = code.get(at + keyword.len()..)?;
        let name = rest
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .next()?;
        starts_word.then_some(name)
    };
    if after("fn ").is_some_and(|name| name.starts_with("get_")) {
        let message = "`get_` says nothing: name what is returned".to_owned();
        return Some(fault(path, number, "name", message));
    }
    let vague = |name: &str| name.ends_with("Manager") || name.ends_with("Helper");
    if ["struct ", "enum ", "trait "]
        .into_iter()
        .filter_map(after)
        .any(vague)
    {
        let message = "`Manager` and `Helper` say nothing: name what it is".to_owned();
        return Some(fault(path, number, "name", message));
    }
    None
}

/// A crate depends only on crates of lower layers. Development dependencies are free.
fn check_manifest(path: &str, text: &str) -> Vec<Fault> {
    let layer = |name: &str| LAYERS.iter().position(|candidate| *candidate == name);
    let own = numbered(text).find_map(|(_, line)| quoted(line.strip_prefix("name = ")?));
    let Some(own) = own else { return Vec::new() };
    let Some(own_layer) = layer(own) else {
        let message = format!("crate {own} has no layer yet: give it one in xtask/src/tidy.rs");
        return vec![fault(path, 1, "layers", message)];
    };
    let mut faults = Vec::new();
    let mut section = "";
    for (number, line) in numbered(text) {
        if line.starts_with('[') {
            section = line.trim();
        }
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        let lower = layer(name).is_none_or(|layer| layer < own_layer);
        if section == "[dependencies]" && !lower {
            let message = format!("{own} may not depend on {name}: it is not below it");
            faults.push(fault(path, number, "layers", message));
        }
    }
    faults
}

fn is_pure(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("crates/") else {
        return false;
    };
    let Some((owner, file)) = rest.split_once('/') else {
        return false;
    };
    let shell = owner == "maskline-media" && file.starts_with("src/engine");
    PURE.contains(&owner) && file.starts_with("src/") && !shell
}

/// The numbers of the lines that are compiled into what is shipped: no `#[cfg(test)]` item and no
/// file of tests.
fn shipped_lines(path: &str, text: &str) -> Vec<usize> {
    if path.ends_with("/tests.rs") || path.contains("/tests/") {
        return Vec::new();
    }
    let mut shipped = Vec::new();
    let mut inside_test = false;
    for (number, line) in numbered(text) {
        if line == "#[cfg(test)]" {
            inside_test = true;
        }
        if !inside_test {
            shipped.push(number);
        }
        // rustfmt ends an item of the file in the first column.
        if inside_test && (line == "}" || (line.ends_with(';') && !line.starts_with(' '))) {
            inside_test = false;
        }
    }
    shipped
}

/// The line without its `//` comment. A `//` behind a colon is a URL in a string.
fn without_comment(line: &str) -> &str {
    line.match_indices("//")
        .find(|(at, _)| !line.get(..*at).is_some_and(|before| before.ends_with(':')))
        .and_then(|(at, _)| line.get(..at))
        .unwrap_or(line)
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

fn quoted(text: &str) -> Option<&str> {
    text.split('"').nth(1)
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

fn fault(path: &str, line: usize, rule: &'static str, message: String) -> Fault {
    Fault {
        path: path.to_owned(),
        line,
        rule,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<(usize, &'static str)> {
        check_rust(path, text)
            .into_iter()
            .map(|fault| (fault.line, fault.rule))
            .collect()
    }

    #[test]
    fn a_clock_in_a_pure_crate_is_a_fault_and_elsewhere_is_not() {
        let text = "//! x\nfn f() { Instant::now(); }\n";
        assert_eq!(
            rules("crates/maskline-switch/src/leg.rs", text),
            [(2, "purity")]
        );
        assert_eq!(rules("crates/maskline-net/src/udp.rs", text), []);
        assert_eq!(rules("crates/maskline-media/src/engine/udp.rs", text), []);
    }

    #[test]
    fn comments_and_tests_of_a_pure_crate_may_name_a_clock() {
        let text = "//! x\n/// unlike Instant::now\nfn f() {}\n#[cfg(test)]\nmod tests {\n    \
                    fn g() { Instant::now(); }\n}\nfn h() { tokio::spawn(x); }\n";
        assert_eq!(
            rules("crates/maskline-switch/src/leg.rs", text),
            [(8, "purity")]
        );
    }

    #[test]
    fn a_line_that_says_why_may_break_the_rule_that_it_names() {
        let text =
            "//! x\n// tidy: allow(hash-order) looked up, never walked\nlet a: HashMap<u8, u8>;\n";
        assert_eq!(rules("crates/maskline-switch/src/leg.rs", text), []);
    }

    #[test]
    fn a_file_opens_with_what_lives_in_it_and_ends_before_it_is_too_long() {
        let long = "fn f() {}\n".repeat(MOST_LINES + 1);
        assert_eq!(
            rules("crates/maskline/src/a.rs", &long),
            [(1, "header"), (1, "length")]
        );
    }

    #[test]
    fn vague_names_and_leftovers_are_faults() {
        let text = [
            "//! x\nstruct CallManager;\nfn get_call() {}\n// TO",
            "DO: later\n",
        ]
        .concat();
        let found = rules("crates/maskline/src/a.rs", &text);
        assert_eq!(found, [(2, "name"), (3, "name"), (4, "leftover")]);
    }

    #[test]
    fn a_crate_that_depends_on_a_higher_one_is_a_fault() {
        let text = "name = \"maskline-switch\"\n[dependencies]\nmaskline-store.workspace = true\n\
                    maskline-events.workspace = true\n[dev-dependencies]\nsim.workspace = true\n";
        let found = check_manifest("crates/maskline-switch/Cargo.toml", text);
        assert_eq!(
            found
                .into_iter()
                .map(|f| (f.line, f.rule))
                .collect::<Vec<_>>(),
            [(3, "layers")]
        );
    }

    #[test]
    fn what_a_merge_left_behind_is_a_fault_in_any_text() {
        for mark in ["<", ">", "|"] {
            let mark = mark.repeat(7);
            for text in [format!("a\n{mark} HEAD\n"), format!("{mark}\n")] {
                let faults = check_any("docs/x.md", &text);
                assert_eq!(faults.len(), 1, "{text}");
                assert_eq!(faults[0].rule, "conflict");
            }
            for text in [
                format!("{mark}{}", mark.get(..1).unwrap()),
                format!(" {mark} x"),
            ] {
                assert_eq!(check_any("docs/x.md", &text), [], "{text}");
            }
        }
    }

    #[test]
    fn a_path_below_somebodys_home_is_a_fault_and_a_web_address_is_not() {
        let path = ["see /ho", "me/jo/x"].concat();
        assert_eq!(check_any("README.md", &path).len(), 1);
        let address = ["https://example.com/wo", "rk/x"].concat();
        assert_eq!(check_any("README.md", &address).len(), 0);
    }
}
