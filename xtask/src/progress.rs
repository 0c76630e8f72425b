//! What the person at the terminal sees while things take long.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How often a line says that something still runs, where there is no terminal to animate.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How many of a failed command's last lines are shown.
const TAIL_LINES: usize = 40;

/// Numbered steps with their durations.
#[derive(Debug)]
pub(crate) struct Steps {
    total: usize,
    started: Instant,
    done: Vec<StepDone>,
}

#[derive(Debug)]
struct StepDone {
    name: String,
    took: Duration,
    is_good: bool,
}

impl Steps {
    /// A plan of `total` steps.
    pub(crate) fn new(total: usize) -> Self {
        Self { total, started: Instant::now(), done: Vec::new() }
    }

    /// Runs the next step; its error ends the caller's plan.
    pub(crate) fn run<T>(&mut self, name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        println!("{} {}", bold(&format!("[{}/{}]", self.done.len() + 1, self.total)), bold(name));
        let outcome = step();
        let took = begun.elapsed();
        let verdict = if outcome.is_ok() { green("done in") } else { red("FAILED after") };
        println!("      {verdict} {}", seconds(took));
        self.done.push(StepDone { name: name.to_owned(), took, is_good: outcome.is_ok() });
        outcome
    }

    /// Runs the next step; its failure is told and remembered, and the plan goes on.
    pub(crate) fn check(&mut self, name: &str, step: impl FnOnce() -> Result<()>) {
        if let Err(error) = self.run(name, step) {
            println!("      {error:#}");
        }
    }

    /// Prints every step with its duration; an error if one failed.
    pub(crate) fn summary(&self) -> Result<()> {
        println!("\n{}", bold("Summary"));
        for step in &self.done {
            let mark = if step.is_good { green("ok    ") } else { red("FAILED") };
            println!("  {mark} {:>9}  {}", seconds(step.took), step.name);
        }
        let failed: Vec<_> = self.done.iter().filter(|step| !step.is_good).map(|step| step.name.as_str()).collect();
        println!("  total  {:>9}", seconds(self.started.elapsed()));
        if !failed.is_empty() {
            bail!("{} of {} steps failed: {}", failed.len(), self.done.len(), failed.join("; "));
        }
        Ok(())
    }
}

/// Runs a command whose output the person sees as it comes. Without a terminal a line every 15 s says that it still runs.
pub(crate) fn stream(what: &str, command: &mut Command) -> Result<()> {
    note(&shown(command));
    let status = {
        let _alive = (!std::io::stderr().is_terminal()).then(|| Pulse::start(what));
        command.status().with_context(|| format!("cannot start `{}`", command.get_program().display()))?
    };
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command whose output goes to a file; a live line shows that it runs, and its last lines are shown when it fails.
pub(crate) fn quietly(what: &str, command: &mut Command, log: &Path) -> Result<()> {
    note(&shown(command));
    if let Some(directory) = log.parent() {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let errors = output.try_clone().context("cannot share the log file")?;
    let status = {
        let _alive = Pulse::start(what);
        command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .status()
            .with_context(|| format!("cannot start `{}`", command.get_program().display()))?
    };
    if !status.success() {
        eprintln!("{}", last_lines(log, TAIL_LINES));
        bail!("`{}` failed ({status}); the whole output is in {}", shown(command), log.display());
    }
    Ok(())
}

/// The last lines of a file, for showing why something failed; empty when it cannot be read.
pub(crate) fn last_lines(file: &Path, count: usize) -> String {
    let text = std::fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let from = lines.len().saturating_sub(count);
    lines.iter().skip(from).map(|line| format!("      | {}\n", without_colours(line))).collect()
}

/// A line without the sequences that colour it on a terminal.
pub(crate) fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut inside_sequence = false;
    for character in line.chars() {
        match (inside_sequence, character) {
            (false, '\x1b') => inside_sequence = true,
            (false, other) => plain.push(other),
            (true, end) if end.is_ascii_alphabetic() => inside_sequence = false,
            (true, _) => {}
        }
    }
    plain
}

/// A command as a person would type it, without the environment.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |character: char| character.is_alphanumeric() || "-_./=:,+@%".contains(character);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// A line below a step.
pub(crate) fn note(text: &str) {
    println!("      {}", dim(text));
}

/// A duration for people.
pub(crate) fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    if whole >= 60 { format!("{} min {:02} s", whole / 60, whole % 60) } else { format!("{:.1} s", duration.as_secs_f64()) }
}

/// A sign of life for as long as it exists: a spinner on a terminal, a line every 15 s elsewhere.
#[derive(Debug)]
pub(crate) struct Pulse {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pulse {
    /// Begins to say that `what` is going on.
    pub(crate) fn start(what: &str) -> Self {
        let (stop, stopped) = mpsc::channel();
        let what = what.to_owned();
        let thread =
            std::thread::spawn(move || if std::io::stdout().is_terminal() { spin(&what, &stopped) } else { beat(&what, &stopped) });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A sign of life that panicked has nothing to add.
            let _ = thread.join();
        }
    }
}

fn spin(what: &str, stopped: &mpsc::Receiver<()>) {
    let begun = Instant::now();
    for frame in ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'].iter().cycle() {
        print!("\r      {frame} {what}  {} s ", begun.elapsed().as_secs());
        // A terminal that went away takes the animation with it.
        let _ = std::io::stdout().flush();
        if stopped.recv_timeout(Duration::from_millis(120)) != Err(RecvTimeoutError::Timeout) {
            break;
        }
    }
    print!("\r\x1b[2K");
    let _ = std::io::stdout().flush();
}

fn beat(what: &str, stopped: &mpsc::Receiver<()>) {
    let begun = Instant::now();
    while stopped.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
        println!("      … {what}: {} s", begun.elapsed().as_secs());
    }
}

/// Draws lines in a box.
pub(crate) fn boxed(lines: &[String]) -> String {
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let edge = "─".repeat(width + 4);
    let mut drawn = format!("╭{edge}╮\n");
    for line in lines {
        let padding = " ".repeat(width - line.chars().count());
        drawn.push_str(&format!("│  {line}{padding}  │\n"));
    }
    drawn.push_str(&format!("╰{edge}╯"));
    drawn
}

pub(crate) fn bold(text: &str) -> String {
    styled("1", text)
}

pub(crate) fn dim(text: &str) -> String {
    styled("2", text)
}

pub(crate) fn green(text: &str) -> String {
    styled("32", text)
}

pub(crate) fn yellow(text: &str) -> String {
    styled("33", text)
}

pub(crate) fn red(text: &str) -> String {
    styled("31", text)
}

fn styled(code: &str, text: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some() || !std::io::stdout().is_terminal();
    if plain { text.to_owned() } else { format!("\x1b[{code}m{text}\x1b[0m") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_taken_out() {
        assert_eq!(without_colours("\x1b[2m12:00\x1b[0m \x1b[33m WARN\x1b[0m x"), "12:00  WARN x");
    }

    #[test]
    fn a_command_is_shown_as_a_person_would_type_it() {
        assert_eq!(shown(Command::new("sh").args(["-c", "echo it's me"])), r"sh -c 'echo it'\''s me'");
    }
}
