//! Output of Docker's containers, copied to their sandboxes.

use std::path::Path;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::time::sleep;

use super::{AWAY, Docker};
use crate::sandbox::Sandbox;

/// Lines that come at once are written together.
const BATCH: usize = 256;

/// How far one of the streams was copied. Lines have times, and pieces of a long line may have the same one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Position {
    time: String,
    /// How many of that time.
    count: u64,
}

/// A position, while the daemon says again what was said since its second.
#[derive(Debug)]
struct Reading {
    position: Position,
    /// Lines of the position's time that came again so far; `None` when all that is known has passed by.
    again: Option<u64>,
}

impl Reading {
    fn from(position: Position) -> Self {
        Reading { again: (!position.time.is_empty()).then_some(0), position }
    }

    /// Whether a line is new. Only what comes first after connecting can be known: afterwards times may repeat, as those of pieces of a line do.
    fn is_new(&mut self, time: &str) -> bool {
        if let Some(again) = self.again {
            if time < self.position.time.as_str() {
                return false;
            }
            if time == self.position.time && again < self.position.count {
                self.again = Some(again + 1);
                return false;
            }
            self.again = None;
        }
        if time == self.position.time {
            self.position.count += 1;
        } else {
            self.position = Position { time: time.to_owned(), count: 1 };
        }
        true
    }
}

/// Standard output and errors, a line each. A line with a time alone has both, as agents wrote it before.
fn read_positions(text: &str) -> [Position; 2] {
    let read = |line: &str| match line.split_once(' ') {
        Some((time, count)) => Position { time: time.to_owned(), count: count.parse().unwrap_or(u64::MAX) },
        None => Position { time: line.to_owned(), count: u64::MAX },
    };
    let mut lines = text.lines();
    let first = lines.next().map(read).unwrap_or_default();
    let second = lines.next().map_or_else(|| first.clone(), read);
    [first, second]
}

fn write_positions(readings: &[Reading; 2]) -> String {
    readings.iter().map(|it| format!("{} {}\n", it.position.time, it.position.count)).collect()
}

/// The logs of a sandbox, open: standard output and errors.
#[derive(Debug)]
pub(super) struct Logs([std::fs::File; 2]);

impl Logs {
    /// Those of a sandbox.
    ///
    /// # Errors
    /// When the container has put something else in the place of one.
    pub(super) fn open(sandbox: &Sandbox) -> std::io::Result<Self> {
        Ok(Logs([sandbox.log("stdout")?, sandbox.log("stderr")?]))
    }
}

/// Copies the container's output to its sandbox. What was copied before a restart of the agent is told by times.
pub(super) async fn copy_logs(docker: &Docker, name: &str, logs: Logs, keeper: &Path, over: &tokio_util::sync::CancellationToken) {
    let position_file = keeper.join("log-position");
    drop(tokio::fs::create_dir_all(keeper).await);
    let mut positions = read_positions(&tokio::fs::read_to_string(&position_file).await.unwrap_or_default());
    let mut files = logs.0.map(tokio::fs::File::from_std);
    loop {
        let last = over.is_cancelled();
        let since = positions.iter().map(|it| seconds(&it.time)).min().unwrap_or(0);
        let mut readings = positions.map(Reading::from);
        let options = LogsOptionsBuilder::new().follow(!last).stdout(true).stderr(true).timestamps(true).since(since).build();
        let Ok(connection) = docker.connect().await else { return };
        let mut batches = connection.logs(name, Some(options)).ready_chunks(BATCH);
        loop {
            let batch = tokio::select! {
                batch = batches.next() => batch,
                // The daemon ends the stream by itself when the container is over; should it not: one more look without following.
                () = async { over.cancelled().await; sleep(Duration::from_secs(1)).await }, if !last => None,
            };
            let Some(batch) = batch else { break };
            let mut said = [Vec::new(), Vec::new()];
            let is_broken = batch.iter().any(Result::is_err);
            for line in batch.into_iter().map_while(Result::ok) {
                let (stream, bytes) = match line {
                    LogOutput::StdErr { message } => (1, message),
                    LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => (0, message),
                };
                let Some(space) = bytes.iter().position(|it| *it == b' ') else { continue };
                if readings[stream].is_new(&String::from_utf8_lossy(&bytes[..space])) {
                    said[stream].extend_from_slice(&bytes[space + 1..]);
                }
            }
            for (file, said) in files.iter_mut().zip(&said).filter(|(_, said)| !said.is_empty()) {
                drop(file.write_all(said).await);
                drop(file.flush().await);
            }
            if said.iter().any(|it| !it.is_empty()) {
                drop(tokio::fs::write(&position_file, write_positions(&readings)).await);
            }
            if is_broken {
                break;
            }
        }
        positions = readings.map(|it| it.position);
        if last {
            return;
        }
        if !over.is_cancelled() {
            tokio::select! { () = over.cancelled() => {}, () = sleep(AWAY) => {} }
        }
    }
}

/// Seconds since 1970 of a time such as `2024-05-01T10:00:00.123456789Z`; 0 when it is none.
pub(super) fn seconds(time: &str) -> i32 {
    let number = |from: usize, to: usize| time.get(from..to).and_then(|it| it.parse::<i64>().ok());
    let parts = (|| Some((number(0, 4)?, number(5, 7)?, number(8, 10)?, number(11, 13)?, number(14, 16)?, number(17, 19)?)))();
    let Some((year, month, day, hour, minute, second)) = parts else { return 0 };
    // Days since 1970 in the Gregorian calendar, with years that begin in March.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    i32::try_from(days * 86_400 + hour * 3_600 + minute * 60 + second).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_copied_is_left_out_once_and_nothing_else() {
        let mut reading = Reading::from(Position::default());
        assert!(["1", "1", "2", "2", "1"].iter().all(|time| reading.is_new(time)), "times repeat, and go back");
        let mut stderr = Reading::from(Position::default());
        assert!(stderr.is_new("2") && stderr.is_new("2"));
        let [first, second] = read_positions(&write_positions(&[reading, stderr]));
        assert_eq!((first.time.as_str(), first.count, second.time.as_str(), second.count), ("1", 1, "2", 2));
        let mut again = Reading::from(second);
        let seen: Vec<bool> = ["1", "2", "2", "2", "2", "3", "3"].iter().map(|time| again.is_new(time)).collect();
        assert_eq!(seen, [false, false, false, true, true, true, true]);
        let old = read_positions("2");
        assert_eq!(old[0], old[1]);
        let mut after_old = Reading::from(old[0].clone());
        assert_eq!(["2", "2", "3"].map(|time| after_old.is_new(time)), [false, false, true]);
        assert_eq!(read_positions(""), [Position::default(), Position::default()]);
    }

    #[test]
    fn times_of_log_lines_are_read() {
        assert_eq!(seconds("2024-02-29T12:34:56.789Z"), 1_709_210_096);
        assert_eq!(seconds("1970-01-01T00:00:01Z"), 1);
        assert_eq!(seconds("nonsense"), 0);
    }
}
