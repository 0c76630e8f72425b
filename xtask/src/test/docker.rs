//! A Docker daemon for tests with containers: the one that runs, or one that is started and left running.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::progress::{Pulse, last_lines, note};
use crate::{Checkout, machine, setup};

/// How long a daemon may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes sure that a daemon answers.
pub(crate) fn start(checkout: &Checkout) -> Result<()> {
    if answers() {
        note("Docker answers");
        return Ok(());
    }
    let Some(program) = machine::program("dockerd") else { return setup::missing("Docker is not installed") };
    if std::path::Path::new("/run/systemd/system").exists()
        && machine::output(machine::as_root("systemctl").args(["start", "docker"])).is_some()
    {
        note("started Docker through systemd");
    } else {
        let log = checkout.notes().join("dockerd.log");
        std::fs::create_dir_all(checkout.notes())?;
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone()?;
        note(&format!("starting {} and leaving it running; its log is {}", program.display(), log.display()));
        machine::as_root(&program)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .context("cannot start dockerd")?;
    }
    let _alive = Pulse::start("waiting for Docker");
    let begun = Instant::now();
    while !answers() {
        if begun.elapsed() > PATIENCE {
            let log = last_lines(&checkout.notes().join("dockerd.log"), 15);
            return setup::missing(&format!("Docker did not answer within {} s\n{log}", PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn answers() -> bool {
    let Some(docker) = machine::program("docker") else { return false };
    let mut command: Command = machine::as_root(docker);
    machine::output(command.args(["version", "--format", "{{.Server.Version}}"])).is_some()
}
