//! Who this probe is: an id that survives restarts and is never the same on two hosts.

use std::fs;
use std::io;
use std::path::Path;

use crate::config::Config;
use crate::random::Random;
use crate::uplink::Identity;

/// Why the probe does not know who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The system has no host name that can be told.
    #[error("the system's host name cannot be read; give --host-name")]
    HostName,
    /// There is no machine id, and none that was made could be kept.
    #[error("no machine id, and {path} cannot be written; give --probe-id or a writable --state-dir")]
    Unkept {
        /// Where it should have been kept.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Finds out who this probe is.
///
/// # Errors
/// When there is no name, or no id that would be the same after a restart.
pub fn establish(config: &Config, random: &mut Random) -> Result<Identity, IdentityError> {
    let host_name = host_name(config)?;
    let probe_id = match &config.probe_id {
        Some(id) => id.clone(),
        None => match machine_id(Path::new("/")) {
            Some(id) => id,
            None => kept_id(&config.state_dir, random)?,
        },
    };
    Ok(Identity { probe_id, host_name, session_id: random.id(), cluster_name: String::new() })
}

/// The name under which this host is reported.
///
/// # Errors
/// When it has none that can be told.
pub fn host_name(config: &Config) -> Result<String, IdentityError> {
    config.host_name.clone().or_else(system_host_name).ok_or(IdentityError::HostName)
}

fn system_host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    (!name.is_empty() && !name.chars().any(|it| it.is_control() || it == ';')).then_some(name)
}

/// The machine id below `root`. Machines that were cloned from one image may share it; the firmware's id of the (virtual) machine, where it can be
/// read, tells them apart.
fn machine_id(root: &Path) -> Option<String> {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok().map(|it| it.trim().to_ascii_lowercase());
    let is_id = |it: &String| it.len() == 32 && it.bytes().all(|byte| byte.is_ascii_hexdigit()) && it.bytes().any(|byte| byte != b'0');
    let id = read("etc/machine-id").filter(is_id)?;
    let firmware = read("sys/class/dmi/id/product_uuid")
        .filter(|it| it.len() == 36 && it.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()));
    Some(firmware.map_or(id.clone(), |firmware| format!("{id}-{}", &firmware[24..])))
}

/// The id that an earlier start made, or a new one that later starts will find.
fn kept_id(directory: &Path, random: &mut Random) -> Result<String, IdentityError> {
    let path = directory.join("probe-id");
    if let Ok(id) = fs::read_to_string(&path)
        && id.trim().len() == 32
    {
        return Ok(id.trim().to_owned());
    }
    let id = random.id();
    let written = fs::create_dir_all(directory).and_then(|()| {
        // A crash between the two leaves the old state, never half an id.
        let fresh = path.with_extension("new");
        fs::write(&fresh, &id)?;
        fs::rename(&fresh, &path)
    });
    written.map_err(|source| IdentityError::Unkept { path: path.display().to_string(), source })?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn machines_of_one_image_have_different_ids() {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n");
        assert_eq!(machine_id(root.path()).as_deref(), Some("0123456789abcdef0123456789abcdef"));
        write(&root.path().join("sys/class/dmi/id/product_uuid"), "5A61DBC8-3B5C-4BD3-A8E2-6C8F2A1F0B33\n");
        assert_eq!(machine_id(root.path()).as_deref(), Some("0123456789abcdef0123456789abcdef-6c8f2a1f0b33"));
    }

    #[test]
    fn an_image_without_an_id_has_none() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(machine_id(root.path()), None);
        for text in ["", "uninitialized\n", "00000000000000000000000000000000\n"] {
            write(&root.path().join("etc/machine-id"), text);
            assert_eq!(machine_id(root.path()), None, "{text:?}");
        }
    }

    #[test]
    fn a_full_disk_keeps_no_half_of_an_id() {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let none = None::<&str>;
        nix::mount::mount(none, directory.path(), Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=4096")).unwrap();
        fs::write(directory.path().join("filler"), [0; 4_096]).unwrap();
        let mut random = Random::from_system();
        let refused = kept_id(directory.path(), &mut random).unwrap_err();
        assert!(
            matches!(&refused, IdentityError::Unkept { source, .. } if source.kind() == std::io::ErrorKind::StorageFull),
            "{refused:?}"
        );
        fs::remove_file(directory.path().join("filler")).unwrap();
        let kept = kept_id(directory.path(), &mut random).unwrap();
        assert_eq!(kept_id(directory.path(), &mut random).unwrap(), kept);
        nix::mount::umount(directory.path()).unwrap();
    }

    #[test]
    fn an_id_that_was_made_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("state");
        let mut random = Random::from_system();
        let first = kept_id(&directory, &mut random).unwrap();
        assert_eq!(kept_id(&directory, &mut random).unwrap(), first);
    }
}
