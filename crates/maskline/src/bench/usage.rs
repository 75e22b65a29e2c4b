//! What processes used of the machine, as Linux tells.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// CPU time of a group of processes, by what it was for.
#[derive(Clone, Debug, Default)]
pub(super) struct Usage {
    /// All of it: what threads that have ended used is in it.
    pub(super) cpu: Duration,
    /// Of the threads that live, by the first part of their names.
    by_part: BTreeMap<String, Duration>,
}

impl Usage {
    /// Of these processes, up to now.
    pub(super) fn of(processes: &[u32]) -> Self {
        let mut usage = Self::default();
        for process in processes {
            let folder = format!("/proc/{process}");
            usage.cpu += spent(Path::new(&folder)).unwrap_or_default();
            let Ok(threads) = std::fs::read_dir(format!("{folder}/task")) else {
                continue;
            };
            for thread in threads.flatten() {
                let name = std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
                let part = name
                    .trim()
                    .trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
                *usage.by_part.entry(part.to_owned()).or_default() +=
                    spent(&thread.path()).unwrap_or_default();
            }
        }
        usage
    }

    /// Of the living threads whose names begin so.
    pub(super) fn part(&self, name: &str) -> Duration {
        let parts = self.by_part.iter();
        parts
            .filter(|(part, _)| part.starts_with(name))
            .map(|(_, cpu)| *cpu)
            .sum()
    }

    /// What was used since an earlier look.
    pub(super) fn since(&self, before: &Self) -> Self {
        let earlier = |part: &String| before.by_part.get(part).copied().unwrap_or_default();
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            by_part: self
                .by_part
                .iter()
                .map(|(part, cpu)| (part.clone(), cpu.saturating_sub(earlier(part))))
                .collect(),
        }
    }
}

/// CPU seconds for so many of a thing, when this was what so many took; `-` for none.
pub(super) fn per(cpu: Duration, of: f64, took: f64) -> String {
    if cpu.is_zero() {
        return "-".to_owned();
    }
    format!("{:.2}", cpu.as_secs_f64() * of / took.max(1.0))
}

/// User and system time of a process or thread, from the 14th and 15th field of its `stat`.
fn spent(folder: &Path) -> Option<Duration> {
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    // The name, in parentheses, may hold spaces.
    let fields = stat.rsplit_once(')')?.1;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    // A clock tick of /proc is 10 ms on every Linux that runs here (USER_HZ).
    Some(Duration::from_millis((user + system) * 10))
}

/// Resident memory that is the process's own (anonymous), in bytes.
pub(super) fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|rest| {
            rest.trim()
                .trim_end_matches("kB")
                .trim()
                .parse::<u64>()
                .ok()
        });
    kib.unwrap_or(0) * 1024
}

/// A process and those that it started, and they.
pub(super) fn family(of: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(process) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, fields)| fields.split_ascii_whitespace().nth(1)?.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (process, parent)));
    }
    let mut family = vec![of];
    loop {
        let before = family.len();
        for (process, parent) in &parents {
            if family.contains(parent) && !family.contains(process) {
                family.push(*process);
            }
        }
        if family.len() == before {
            return family;
        }
    }
}

/// The machine, in one line.
pub(super) fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{cores} × {model}")
}

/// The most files that a process of ours may have open.
pub(super) fn open_files_limit() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok())
        .unwrap_or(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_memory_and_is_in_its_own_family() {
        let own = std::process::id();
        assert!(resident_bytes(own) > 100_000);
        assert!(family(own).contains(&own));
        assert!(open_files_limit() > 0);
    }
}
