//! `--whitelist`: a file with one host name a line; agents of other hosts are offered to nobody.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::driver::MasterHandle;
use crate::flags::Flags;

/// Between two looks at the file, as in Mesos.
const LOOK: Duration = Duration::from_secs(5);
/// Bytes that are read of it.
const BYTES_MAX: u64 = 64 << 20;

/// The file that the flag names; none when everybody is offered.
pub fn whitelist_file(flags: &Flags) -> Option<std::path::PathBuf> {
    let value = flags.get("whitelist").filter(|it| !it.is_empty() && *it != "*")?;
    Some(value.strip_prefix("file://").unwrap_or(value).into())
}

/// Tells the master what the file says, for as long as the master runs. While the file cannot be read, what it said last goes on to hold.
pub async fn watch_whitelist(master: MasterHandle, file: std::path::PathBuf) {
    let mut told = None;
    let mut is_readable = true;
    loop {
        let path = file.clone();
        match tokio::task::spawn_blocking(move || read(&path)).await {
            Ok(Ok(hosts)) => {
                is_readable = true;
                if told.as_ref() != Some(&hosts) {
                    tracing::info!(hosts = hosts.len(), file = %file.display(), "only these hosts are offered");
                    if master.set_whitelist(Some(hosts.clone())).await.is_err() {
                        return;
                    }
                    told = Some(hosts);
                }
            }
            Ok(Err(error)) if is_readable => {
                is_readable = false;
                tracing::warn!(%error, file = %file.display(), "the whitelist cannot be read");
            }
            _ => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn read(file: &std::path::Path) -> std::io::Result<BTreeSet<String>> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(file)?.take(BYTES_MAX).read_to_string(&mut text)?;
    Ok(text.lines().map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_names_a_file_or_everybody() {
        let file = |value: &str| whitelist_file(&Flags::default().with([format!("whitelist={value}").as_str()]).unwrap());
        assert_eq!(file("file:///etc/list"), Some("/etc/list".into()));
        assert_eq!((file("/etc/list"), file("*")), (Some("/etc/list".into()), None));
        assert_eq!(whitelist_file(&Flags::default()), None);
    }

    #[test]
    fn a_line_is_a_host() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        std::fs::write(&path, "a.example\n\n  b \n").unwrap();
        assert_eq!(read(&path).unwrap(), BTreeSet::from(["a.example".to_owned(), "b".to_owned()]));
        assert!(read(&directory.path().join("none")).is_err());
    }
}
