//! What the person sees while both run: warnings and errors as they are logged, and which one died, if one does.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use super::Interrupted;
use crate::progress::{dim, last_lines, red, without_colours, yellow};
use crate::services::Service;

/// How often the logs are looked at.
const INTERVAL: Duration = Duration::from_millis(250);
/// How many lines are shown of one look; the rest is in the file.
const LINES_AT_ONCE: usize = 10;
/// How much of a log is read in one look.
const BYTES_AT_ONCE: u64 = 256 << 10;

/// Returns when somebody asked to stop; an error when one of the two ended by itself.
pub(super) fn until_interrupted(control: &mut Service, probe: &mut Service, interrupted: &Interrupted) -> Result<()> {
    let mut tails = [Tail::new("control", &control.log), Tail::new("probe", &probe.log)];
    while !interrupted.is_set() {
        for tail in &mut tails {
            tail.show_new();
        }
        for service in [&mut *control, &mut *probe] {
            if let Some(status) = service.ended() {
                bail!("{} ended ({status}). The last lines of {}:\n{}", service.name, service.log.display(), last_lines(&service.log, 20));
            }
        }
        std::thread::sleep(INTERVAL);
    }
    Ok(())
}

/// A log that is read as it grows.
struct Tail {
    name: &'static str,
    path: PathBuf,
    position: u64,
    incomplete: Vec<u8>,
}

impl Tail {
    fn new(name: &'static str, path: &Path) -> Self {
        Self { name, path: path.to_path_buf(), position: 0, incomplete: Vec::new() }
    }

    fn show_new(&mut self) {
        let lines = self.new_lines().unwrap_or_default();
        let interesting: Vec<_> = lines.iter().filter_map(|line| Some((line, level(line)?))).collect();
        for (line, level) in interesting.iter().take(LINES_AT_ONCE) {
            let paint = if *level == Level::Error { red } else { yellow };
            println!("{} {}", dim(&format!("{:>7} |", self.name)), paint(line));
        }
        if interesting.len() > LINES_AT_ONCE {
            println!("{:>7} | … {} more in {}", self.name, interesting.len() - LINES_AT_ONCE, self.path.display());
        }
    }

    fn new_lines(&mut self) -> std::io::Result<Vec<String>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.position))?;
        let mut bytes = Vec::new();
        self.position += u64::try_from(file.take(BYTES_AT_ONCE).read_to_end(&mut bytes)?).unwrap_or(u64::MAX);
        self.incomplete.append(&mut bytes);
        let Some(end) = self.incomplete.iter().rposition(|byte| *byte == b'\n') else { return Ok(Vec::new()) };
        let rest = self.incomplete.split_off(end + 1);
        let complete = std::mem::replace(&mut self.incomplete, rest);
        Ok(String::from_utf8_lossy(&complete).lines().map(without_colours).collect())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Warning,
    Error,
}

/// How serious a log line is; `None` for what is not worth interrupting a person.
fn level(line: &str) -> Option<Level> {
    let word = line.split_whitespace().take(3).find(|word| matches!(*word, "ERROR" | "WARN"));
    match word {
        Some("ERROR") => Some(Level::Error),
        Some(_) => Some(Level::Warning),
        None if line.contains("panicked at") || line.contains("\"level\":\"ERROR\"") => Some(Level::Error),
        None if line.contains("\"level\":\"WARN\"") => Some(Level::Warning),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_and_errors_are_interesting_and_the_word_in_a_message_is_not() {
        assert_eq!(level("2026-01-01T00:00:00Z  WARN probe: ring full"), Some(Level::Warning));
        assert_eq!(level("{\"timestamp\":\"…\",\"level\":\"ERROR\"}"), Some(Level::Error));
        assert_eq!(level("2026-01-01T00:00:00Z  INFO control: no ERROR so far"), None);
    }

    #[test]
    fn a_line_is_shown_once_it_is_complete() -> Result<()> {
        use std::io::Write as _;
        let mut file = tempfile::NamedTempFile::new()?;
        let mut tail = Tail::new("x", file.path());
        write!(file, "one\ntw")?;
        assert_eq!(tail.new_lines()?, ["one"]);
        writeln!(file, "o")?;
        assert_eq!(tail.new_lines()?, ["two"]);
        Ok(())
    }
}
