//! Output of Docker's containers, copied to their sandboxes.

use std::path::Path;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::time::sleep;

use super::{AWAY, Docker};

/// Copies the container's output to its sandbox. What was copied before a restart of the agent is told by times.
pub(super) async fn copy_logs(docker: &Docker, name: &str, sandbox: &Path, keeper: &Path, over: &tokio_util::sync::CancellationToken) {
    let position_file = keeper.join("log-position");
    drop(tokio::fs::create_dir_all(keeper).await);
    let mut position = tokio::fs::read_to_string(&position_file).await.unwrap_or_default();
    let open = |file: &'static str| {
        let path = sandbox.join(file);
        async move { tokio::fs::OpenOptions::new().append(true).create(true).open(path).await }
    };
    let (Ok(mut stdout), Ok(mut stderr)) = (open("stdout").await, open("stderr").await) else { return };
    loop {
        let last = over.is_cancelled();
        let since = seconds(&position);
        let options = LogsOptionsBuilder::new().follow(!last).stdout(true).stderr(true).timestamps(true).since(since).build();
        let Ok(connection) = docker.connect().await else { return };
        let mut lines = connection.logs(name, Some(options));
        loop {
            let line = tokio::select! {
                line = lines.next() => line,
                // The daemon ends the stream by itself when the container is over; should it not: one more look without following.
                () = async { over.cancelled().await; sleep(Duration::from_secs(1)).await }, if !last => None,
            };
            let Some(Ok(line)) = line else { break };
            let (file, bytes) = match line {
                LogOutput::StdErr { message } => (&mut stderr, message),
                LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => (&mut stdout, message),
            };
            let Some(space) = bytes.iter().position(|it| *it == b' ') else { continue };
            let time = String::from_utf8_lossy(&bytes[..space]).into_owned();
            if time <= position {
                continue;
            }
            drop(file.write_all(&bytes[space + 1..]).await);
            drop(file.flush().await);
            position = time;
            drop(tokio::fs::write(&position_file, &position).await);
        }
        if last {
            return;
        }
        if !over.is_cancelled() {
            tokio::select! { () = over.cancelled() => {}, () = sleep(AWAY) => {} }
        }
    }
}

/// Seconds since 1970 of a time such as `2024-05-01T10:00:00.123456789Z`; 0 when it is none.
fn seconds(time: &str) -> i32 {
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
    fn times_of_log_lines_are_read() {
        assert_eq!(seconds("2024-02-29T12:34:56.789Z"), 1_709_210_096);
        assert_eq!(seconds("1970-01-01T00:00:01Z"), 1);
        assert_eq!(seconds("nonsense"), 0);
    }
}
