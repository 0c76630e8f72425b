//! The command line.

use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::{
    Checkout, Profile, bench, build, coverage, deploy, doctor, ebpf, images, lint, load, packages, setup, test, traffic, up, vm_test,
};

/// Set-up, build, run, test and measure. Start with `cargo xtask up`.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub(crate) struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Get what is missing, build, and run the control plane and the probe on this machine.
    Up(UpFlags),
    /// Stop what `up` started.
    Down,
    /// Say whether `up` is running, and what it sees.
    Status,
    /// List what this machine has and lacks, with the command that gets it.
    Doctor,
    /// Run every check and test: formatting, lints, unit tests, the page, and end to end on the real kernel.
    Test(TestFlags),
    /// Run the capture tests on other kernels, from 5.10 to the newest, in emulated machines.
    VmTest(vm_test::VmTestFlags),
    /// Check formatting, lints, licences and the rooms' boundaries.
    Lint,
    /// Measure which lines of the pure cores their tests run, and hold them to a floor.
    Coverage,
    /// Make the book of what is in docs.
    Book,
    /// Build the kernel programs, the UI and the binaries.
    Build(BuildFlags),
    /// Build the kernel programs alone.
    BuildEbpf(BuildEbpfFlags),
    /// Check manifests, chart, dashboards, alerts, workflows, images' files and the book, without a cluster.
    DeployCheck(deploy::DeployCheckFlags),
    /// Make the images of the control plane and the probe from what is built here, and run them.
    Images(images::ImagesFlags),
    /// Make Debian packages of the control plane and the probe, with their services.
    Packages(packages::PackagesFlags),
    /// Load and attach the kernel programs alone, and print what they see.
    Load(LoadFlags),
    /// Measure, and print each number with its target.
    Bench(BenchFlags),
    /// Parts that xtask starts itself.
    #[command(hide = true, subcommand)]
    Traffic(traffic::Role),
}

/// Options of `up`.
#[derive(Debug, Args)]
pub(crate) struct UpFlags {
    /// Return as soon as everything runs; `cargo xtask down` stops it.
    #[arg(long)]
    pub(crate) detach: bool,
    /// Build without optimisation: quicker to build, slower to run.
    #[arg(long)]
    pub(crate) debug: bool,
    /// Where the page, the API and the listener for probes can be reached: an address of this machine, or 0.0.0.0 for all. There is no login yet.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) listen: IpAddr,
    /// Port of the page and the API.
    #[arg(long, default_value_t = 4040)]
    pub(crate) port: u16,
    /// Port for probes.
    #[arg(long, default_value_t = 4041)]
    pub(crate) grpc_port: u16,
    /// Port of the probe's own metrics and health, on 127.0.0.1.
    #[arg(long, default_value_t = 4042)]
    pub(crate) admin_port: u16,
    /// Let this machine run tasks of Mesos frameworks and of Marathon's apps, too: a Mesos agent beside the probe.
    #[arg(long)]
    pub(crate) agent: bool,
    /// More arguments for the control plane, after `--`.
    #[arg(last = true)]
    pub(crate) control_arguments: Vec<String>,
}

/// Options of `test`.
#[derive(Debug, Args)]
pub(crate) struct TestFlags {
    /// Leave out what needs root, Docker or a browser.
    #[arg(long)]
    pub(crate) fast: bool,
    /// Run only the tests whose names contain one of these; skips the other checks.
    pub(crate) filters: Vec<String>,
}

/// Options of `build`.
#[derive(Debug, Args)]
pub(crate) struct BuildFlags {
    /// Build with optimisation.
    #[arg(long)]
    pub(crate) release: bool,
}

/// Options of `build-ebpf`.
#[derive(Debug, Args)]
pub(crate) struct BuildEbpfFlags {
    /// The machine that will run them, as `uname -m` says it.
    #[arg(long, default_value = std::env::consts::ARCH)]
    architecture: String,
    /// Build them twice, and compare: who builds them again, with the same compiler and linker, gets the same bytes.
    #[arg(long)]
    twice: bool,
}

/// Options of `load`.
#[derive(Debug, Args)]
pub(crate) struct LoadFlags {
    /// Stop after so many seconds.
    #[arg(long)]
    pub(crate) seconds: Option<u64>,
    /// More arguments for `orchestrator-probe load`, after `--`.
    #[arg(last = true)]
    pub(crate) arguments: Vec<String>,
}

/// Options of `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchFlags {
    /// Which to run; all when none is named.
    #[arg(value_enum)]
    pub(crate) names: Vec<bench::Name>,
    /// Of `probe`, `app` and `master`, these parts alone, separated by commas: each takes less than five minutes. A wrong one lists them.
    #[arg(long = "part", value_name = "PARTS", value_delimiter = ',')]
    pub(crate) parts: Vec<String>,
    /// Measure the release binaries as they are, without building them first.
    #[arg(long)]
    pub(crate) as_built: bool,
    /// Divide the amount of work by this, for trying a benchmark out; the numbers then say nothing about the targets.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) scale_down: u64,
    /// For `app`: measure the binaries in this directory instead of building them.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) binaries: Option<std::path::PathBuf>,
}

impl Flags {
    pub(crate) fn run(self, checkout: &Checkout) -> Result<ExitCode> {
        match self.command {
            Command::Up(flags) => return up::up(checkout, &flags),
            Command::Down => up::down(checkout)?,
            Command::Status => return up::status(checkout),
            Command::Doctor => return doctor::run(checkout),
            Command::Test(flags) => test::run(checkout, &flags)?,
            Command::VmTest(flags) => vm_test::run(checkout, &flags)?,
            Command::Lint => lint::run(checkout)?,
            Command::Coverage => coverage::run(checkout)?,
            Command::Book => coverage::book(checkout)?,
            Command::Build(flags) => build::run(checkout, if flags.release { Profile::Release } else { Profile::Debug })?,
            Command::BuildEbpf(flags) => {
                setup::for_kernel_programs(checkout)?;
                ebpf::build_for(checkout, &flags.architecture)?;
                if flags.twice {
                    ebpf::build_again(checkout, &flags.architecture)?;
                }
            }
            Command::DeployCheck(flags) => deploy::run(checkout, &flags)?,
            Command::Images(flags) => images::run(checkout, &flags)?,
            Command::Packages(flags) => packages::run(checkout, &flags)?,
            Command::Load(flags) => return load::run(checkout, &flags),
            Command::Bench(flags) => bench::run(checkout, &flags)?,
            Command::Traffic(role) => role.run()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
