//! One run of one machine: boots it, listens to its console, and ends it when it takes too long.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::Hierarchy;
use super::image::MARK;
use super::kernels::{self, Fetched};
use crate::progress::{last_lines, note};
use crate::{Checkout, machine};

/// An emulated processor is slow, but not this slow.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// Silence of this length is a hang.
const SILENCE: Duration = Duration::from_secs(240);

/// What one machine told.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) release: String,
    pub(crate) hierarchy: Hierarchy,
    pub(crate) rung: Option<String>,
    /// Hooks by name: `ok`, or why not.
    pub(crate) hooks: BTreeMap<String, String>,
    pub(crate) passed: u32,
    /// Names of tests that failed.
    pub(crate) failed: Vec<String>,
    /// Test programs that did not come to their end well.
    bad_ends: Vec<String>,
    ended: Vec<String>,
    /// Why the machine was given up, if it was.
    given_up: Option<String>,
    log: String,
}

impl Outcome {
    /// An error unless every test ran and passed.
    pub(crate) fn verdict(&self) -> Result<()> {
        if let Some(reason) = &self.given_up {
            bail!("{reason}; the console's last lines ({}):\n{}", self.log, last_lines(Path::new(&self.log), 25));
        }
        if !self.failed.is_empty() || !self.bad_ends.is_empty() {
            bail!("failed: {} {}; the console is in {}", self.failed.join(", "), self.bad_ends.join(", "), self.log);
        }
        if self.passed == 0 {
            bail!("no test ran; the console's last lines ({}):\n{}", self.log, last_lines(Path::new(&self.log), 25));
        }
        note(&format!("{} tests passed on rung {}", self.passed, self.rung.as_deref().unwrap_or("?")));
        Ok(())
    }

    fn take(&mut self, line: &str) {
        let Some(told) = line.trim().strip_prefix(MARK).map(str::trim_start) else {
            return self.take_test(line);
        };
        let mut words = told.splitn(3, ' ').map(str::trim);
        match (words.next(), words.next(), words.next()) {
            (Some("rung"), Some(rung), _) => self.rung = Some(rung.to_owned()),
            (Some("hook"), Some(name), Some(state)) => drop(self.hooks.insert(name.to_owned(), state.to_owned())),
            (Some("end"), Some(name), Some(status)) => {
                self.ended.push(name.to_owned());
                if status != "0" {
                    self.bad_ends.push(format!("{name} (status {status})"));
                }
            }
            _ => {}
        }
    }

    /// A line of a test program: `test <name> ... ok`. What the test itself printed may stand between.
    fn take_test(&mut self, line: &str) {
        let Some((name, verdict)) = line.trim().strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) else { return };
        if verdict.ends_with("ok") {
            self.passed += 1;
        } else if verdict.ends_with("FAILED") {
            self.failed.push(name.to_owned());
        }
    }
}

/// Boots and listens until the machine is off.
pub(crate) fn run(checkout: &Checkout, kernel: &Fetched, hierarchy: Hierarchy, image: &Path) -> Result<Outcome> {
    let log = kernels::directory(checkout).join(format!("{}-{}.log", kernel.series, hierarchy.name()));
    let mut console = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(machine::program("qemu-system-x86_64").context("no qemu-system-x86_64")?);
    command.args([
        "-machine",
        "q35",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "3072",
        "-nographic",
        "-no-reboot",
        "-net",
        "none",
    ]);
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(image);
    command.args(["-append", "console=ttyS0 quiet panic=-1 rdinit=/init"]);
    let mut emulator =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start the emulator")?;
    let output = emulator.stdout.take().context("the emulator has an output")?;
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    let mut outcome = Outcome {
        release: kernel.release.clone(),
        hierarchy,
        rung: None,
        hooks: BTreeMap::new(),
        passed: 0,
        failed: Vec::new(),
        bad_ends: Vec::new(),
        ended: Vec::new(),
        given_up: None,
        log: log.display().to_string(),
    };
    let begun = Instant::now();
    outcome.given_up = loop {
        if begun.elapsed() > PATIENCE {
            break Some(format!("the machine was not done after {} minutes", PATIENCE.as_secs() / 60));
        }
        match lines.recv_timeout(SILENCE) {
            Ok(line) => {
                writeln!(console, "{}", line.trim_end_matches('\r'))?;
                outcome.take(&line);
            }
            Err(RecvTimeoutError::Timeout) => break Some(format!("the machine said nothing for {} s", SILENCE.as_secs())),
            Err(RecvTimeoutError::Disconnected) => break None,
        }
    };
    if outcome.given_up.is_some() {
        emulator.kill().context("cannot end the emulator")?;
    }
    let ended = emulator.wait_with_output().context("cannot wait for the emulator")?;
    drop(reader.join());
    console.write_all(&ended.stderr)?;
    // Rebuilt in seconds, and large.
    fs::remove_file(image)?;
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_understood() {
        let mut outcome = Outcome {
            release: String::new(),
            hierarchy: Hierarchy::V2,
            rung: None,
            hooks: BTreeMap::new(),
            passed: 0,
            failed: Vec::new(),
            bad_ends: Vec::new(),
            ended: Vec::new(),
            given_up: None,
            log: String::new(),
        };
        let console = "@@ booted\r\n@@ rung 1\n@@ hook tcp              ok\n@@ hook sweep            kernel says: no such thing\n\
                       test one ... ok\ntest two ... [ 12.3] noise FAILED\n@@ end kernel 101\n";
        console.lines().for_each(|line| outcome.take(line));
        assert_eq!((outcome.rung.as_deref(), outcome.passed, outcome.failed.as_slice()), (Some("1"), 1, ["two".to_owned()].as_slice()));
        assert_eq!(outcome.hooks["sweep"], "kernel says: no such thing");
        assert!(outcome.verdict().is_err());
    }
}
