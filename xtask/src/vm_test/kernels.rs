//! The kernels: fetched from Debian's archive, unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::must;
use crate::progress::note;
use crate::{Checkout, machine};

/// A series of kernels, and where the archive has it.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What it is asked for by.
    pub(crate) series: &'static str,
    /// Address and suite of the archive.
    archives: &'static [(&'static str, &'static str)],
}

const MAIN: &str = "http://deb.debian.org/debian";
const SECURITY: &str = "http://deb.debian.org/debian-security";

/// All series, the oldest first.
pub(crate) const KERNELS: [Kernel; 4] = [
    Kernel { series: "5.10", archives: &[(SECURITY, "bullseye-security")] },
    Kernel { series: "6.1", archives: &[(MAIN, "bookworm"), (SECURITY, "bookworm-security")] },
    Kernel { series: "6.12", archives: &[(MAIN, "trixie"), (SECURITY, "trixie-security")] },
    Kernel { series: "newest", archives: &[(MAIN, "sid")] },
];

/// The package that follows the series.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// Packages that the kernel itself may be split into.
const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];

/// A kernel on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    pub(crate) series: &'static str,
    /// As `uname -r` will say it.
    pub(crate) release: String,
    /// What boots.
    pub(crate) image: PathBuf,
    /// Directory of its modules.
    pub(crate) modules: PathBuf,
}

/// Gets a kernel, unless it is here already.
pub(crate) fn fetch(checkout: &Checkout, kernel: &'static Kernel, refresh: bool) -> Result<Fetched> {
    let directory = directory(checkout).join(kernel.series);
    let unpacked = directory.join("root");
    if refresh && unpacked.exists() {
        fs::remove_dir_all(&unpacked).with_context(|| format!("cannot remove {}", unpacked.display()))?;
    }
    if !unpacked.exists() {
        if !machine::has_apt() {
            bail!("the kernels come from Debian's archive through apt, which is not here");
        }
        download(&directory, kernel, &unpacked)?;
    }
    found(kernel.series, &unpacked)
}

/// Where kernels and images are kept.
pub(crate) fn directory(checkout: &Checkout) -> PathBuf {
    checkout.target().join("vm")
}

/// Uses apt with lists of its own: what this machine installs is not touched.
fn download(directory: &Path, kernel: &Kernel, unpacked: &Path) -> Result<()> {
    let archives = directory.join("archives");
    for place in [&archives, &directory.join("apt/lists/partial"), &directory.join("apt/cache/archives/partial")] {
        fs::create_dir_all(place).with_context(|| format!("cannot make {}", place.display()))?;
    }
    let line = |(address, suite): &(&str, &str)| {
        format!("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {address} {suite} main\n")
    };
    fs::write(directory.join("apt/sources.list"), kernel.archives.iter().map(line).collect::<String>())?;
    let apt = |program: &str| {
        let mut command = Command::new(program);
        let place = |name: &str| directory.join("apt").join(name).display().to_string();
        let options = [
            format!("Dir::State={}", place("")),
            format!("Dir::Cache={}", place("cache")),
            format!("Dir::Etc::sourcelist={}", place("sources.list")),
            "Dir::Etc::sourceparts=-".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ];
        options.iter().for_each(|option| {
            command.args(["-o", option]);
        });
        command.current_dir(&archives);
        command
    };
    note(&format!("asking Debian's archive for {PACKAGE} of {}", kernel.archives[0].1));
    must(apt("apt-get").args(["update", "-q"]))?;
    let image = dependencies(&must(apt("apt-cache").args(["depends", PACKAGE]))?)
        .into_iter()
        .next()
        .with_context(|| format!("{PACKAGE} of {} depends on no kernel", kernel.archives[0].1))?;
    let mut packages = dependencies(&must(apt("apt-cache").args(["depends", &image]))?);
    packages.push(image);
    note(&format!("downloading {}", packages.join(" ")));
    must(apt("apt-get").args(["download", "-q"]).args(&packages))?;
    let partly = directory.join("root.partly");
    for entry in fs::read_dir(&archives)? {
        let package = entry?.path();
        must(Command::new("dpkg").arg("-x").arg(&package).arg(&partly))?;
        fs::remove_file(&package)?;
    }
    fs::rename(&partly, unpacked).context("cannot keep the unpacked kernel")
}

/// The packages with parts of a kernel among those that `apt-cache depends` names.
fn dependencies(text: &str) -> Vec<String> {
    let named = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    named.filter(|name| PARTS.iter().any(|part| name.starts_with(part))).map(str::to_owned).collect()
}

fn found(series: &'static str, unpacked: &Path) -> Result<Fetched> {
    let modules = ["lib/modules", "usr/lib/modules"].map(|place| unpacked.join(place));
    let releases = modules.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().filter_map(Result::ok);
    let modules = releases.map(|entry| entry.path()).find(|path| path.join("kernel").is_dir());
    let modules = modules.with_context(|| format!("no modules in {}", unpacked.display()))?;
    let release = modules.file_name().context("a directory has a name")?.to_string_lossy().into_owned();
    let images = [unpacked.join(format!("boot/vmlinuz-{release}")), modules.join("vmlinuz")];
    let image = images.into_iter().find(|image| image.is_file());
    let image = image.with_context(|| format!("no image of kernel {release} in {}", unpacked.display()))?;
    Ok(Fetched { series, release, image, modules })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parts_of_the_kernel_are_fetched() {
        let text = "linux-image-7.2.13+deb14-cloud-amd64\n  PreDepends: linux-base\n |Depends: dracut\n  Depends: linux-base-7.2.13+deb14-cloud-amd64\n  \
                    Depends: linux-binary-7.2.13+deb14-cloud-amd64\n  Depends: linux-modules-7.2.13+deb14-cloud-amd64\n  Breaks: fwupdate\n";
        assert_eq!(dependencies(text), ["linux-binary-7.2.13+deb14-cloud-amd64", "linux-modules-7.2.13+deb14-cloud-amd64"]);
    }
}
