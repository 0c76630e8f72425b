//! `cargo xtask images`: the three images from what cargo built here, without a registry; then they are run and do their main job.
//!
//! The programs are linked against this machine's C library, which goes into the image with them: it then runs on any kernel that is new enough,
//! whatever the node has (docs/decisions/0041). The Dockerfiles build the same from source, with a compiler from a registry.

mod bill;
mod trial;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use crate::progress::{Steps, note, stream};
use crate::{Checkout, Profile, build, ebpf, machine, setup, test, ui};

/// Options of `images`.
#[derive(Debug, Args)]
pub(crate) struct ImagesFlags {
    /// Build with optimisation, as what is published is; the sizes then have bars.
    #[arg(long)]
    pub(crate) release: bool,
    /// For which machines; another than this one takes a cross compiler and Rust's library for it.
    #[arg(long, value_enum, default_value_t = Architecture::here())]
    pub(crate) architecture: Architecture,
    /// What the images are tagged with.
    #[arg(long, default_value = "dev")]
    pub(crate) tag: String,
    /// Only lay out what goes into the images, in target/images; neither Docker nor its images are touched.
    #[arg(long)]
    pub(crate) pack_only: bool,
    /// Pack what is built already, for this machine.
    #[arg(long, conflicts_with = "architecture")]
    pub(crate) no_build: bool,
    /// Make none: run those that Docker has under this tag.
    #[arg(long, value_name = "TAG", conflicts_with_all = ["release", "architecture", "tag", "pack_only", "no_build"])]
    pub(crate) run: Option<String>,
}

/// A machine as images name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Architecture {
    /// x86-64.
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

impl Architecture {
    /// This machine's.
    pub(crate) fn here() -> Self {
        if std::env::consts::ARCH == "aarch64" { Self::Arm64 } else { Self::Amd64 }
    }

    /// As Docker names it.
    fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As the kernel names it.
    pub(crate) fn machine(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    fn target(self) -> String {
        format!("{}-unknown-linux-gnu", self.machine())
    }
}

/// One of the three images.
#[derive(Clone, Copy, Debug)]
struct Image {
    /// Its name.
    name: &'static str,
    /// Packages and programs that go into it.
    programs: &'static [(&'static str, &'static str)],
    /// What its directory is called.
    component: &'static str,
    /// Which Dockerfile has it, and as which target.
    dockerfile: &'static str,
    target: &'static str,
    /// Most bytes that it may have, built with optimisation.
    largest: u64,
}

/// The agent's stands after the probe's, whose root it is made from.
const IMAGES: [Image; 3] = [
    Image {
        name: "orchestrator-control",
        // And the command line of operators: `kubectl exec … -- /orchestrator agents`.
        programs: &[("orchestrator-control", "orchestrator-control"), ("orchestrator-cli", "orchestrator")],
        component: "control",
        dockerfile: "control",
        target: "prebuilt",
        largest: 60_000_000,
    },
    Image {
        name: "orchestrator-probe",
        programs: &[("orchestrator-probe", "orchestrator-probe")],
        component: "probe",
        dockerfile: "probe",
        target: "prebuilt",
        largest: 40_000_000,
    },
    Image {
        name: "orchestrator-agent",
        programs: &[("orchestrator-probe", "orchestrator-probe")],
        component: "agent",
        dockerfile: "probe",
        target: "agent-prebuilt",
        // The probe's, a shell, and libraries twice: its own for the shell, and the agent's beside that.
        largest: 48_000_000,
    },
];

/// Reads programs' needs; comes with every compiler.
const READELF: setup::Tool = setup::Tool { program: "readelf", packages: &["binutils"], purpose: "packing images" };
/// Lays out the agent so that it runs in a node's own root.
const PATCHELF: setup::Tool = setup::Tool { program: "patchelf", packages: &["patchelf"], purpose: "packing the agent's image" };
/// What packing takes. The static busybox is the shell of the agent's image.
const TOOLS: [setup::Tool; 3] = [READELF, PATCHELF, setup::BUSYBOX];

/// `cargo xtask images`.
pub(crate) fn run(checkout: &Checkout, flags: &ImagesFlags) -> Result<()> {
    if let Some(tag) = &flags.run {
        let mut steps = Steps::new(2);
        steps.run("Get what running takes", || {
            setup::tools(checkout, &[setup::BUSYBOX])?;
            test::docker::start(checkout)
        })?;
        steps.check("Run the images", || trial::run(tag));
        return steps.summary();
    }
    let profile = if flags.release { Profile::Release } else { Profile::Debug };
    let mut steps = Steps::new(if flags.no_build { 1 } else { 4 } + if flags.pack_only { 0 } else { 2 });
    let binaries = if flags.no_build {
        checkout.target().join(built_in(profile))
    } else {
        steps.run("Get what building needs", || setup::for_building(checkout))?;
        steps.run("Build the kernel programs and the UI", || {
            ebpf::build_for(checkout, flags.architecture.machine())?;
            ui::build(checkout)
        })?;
        steps.run("Build the control plane and the probe", || programs(checkout, profile, flags.architecture))?
    };
    steps.run("Lay out the images", || {
        setup::tools(checkout, &TOOLS)?;
        pack(checkout, flags.architecture, &binaries)
    })?;
    if !flags.pack_only {
        steps.run("Make the images", || {
            test::docker::start(checkout)?;
            make(checkout, flags.architecture, &flags.tag, profile)
        })?;
        steps.check("Run the images", || {
            if flags.architecture != Architecture::here() {
                note("made for another machine: not run here");
                return Ok(());
            }
            trial::run(&flags.tag)
        });
    }
    steps.summary()
}

/// Lays out what goes into the images, of the programs that were built for tests.
pub(crate) fn lay_out(checkout: &Checkout) -> Result<()> {
    setup::tools(checkout, &TOOLS)?;
    pack(checkout, Architecture::here(), &checkout.target().join(Profile::Debug.directory()))
}

/// The step of `cargo xtask test`: images of the programs that were built for the other tests.
pub(crate) fn try_out(checkout: &Checkout) -> Result<()> {
    lay_out(checkout)?;
    make(checkout, Architecture::here(), "test", Profile::Debug)?;
    trial::run("test")
}

/// Builds the programs; where they are then.
fn programs(checkout: &Checkout, profile: Profile, architecture: Architecture) -> Result<PathBuf> {
    if architecture == Architecture::here() && profile == Profile::Debug {
        build::binaries(checkout, profile)?;
        return Ok(checkout.target().join(profile.directory()));
    }
    let elsewhere = (architecture != Architecture::here()).then(|| architecture.target());
    let mut directory = checkout.target();
    let programs: BTreeSet<_> = IMAGES.iter().flat_map(|image| image.programs).collect();
    for (package, program) in programs {
        let mut command = machine::cargo();
        command.current_dir(checkout.root()).args(["rustc", "--package", package, "--bin", program]);
        command.env("ORCHESTRATOR_BPF_DIR", ebpf::objects(checkout, architecture.machine()));
        if let Some(target) = &elsewhere {
            let (variable, linker) = cross_linker(checkout, architecture)?;
            command.args(["--target", target]).env(variable, linker);
        }
        if profile == Profile::Release {
            command.args(["--profile", OPTIMISED]);
            // Rust's own linker, the default on this machine, lays equal functions on one another: 1.2 MB of the probe's 37. Places that the loader
            // must fill in are a list of 1.1 MB, or of a few kB for a loader that can read the short form, and the image has its own.
            if architecture == Architecture::Amd64 && elsewhere.is_none() {
                command.args(["--", if loader_reads_short_lists() { SMALL_AND_SHORT } else { SMALL }]);
            }
        }
        let hint = elsewhere.as_ref().map_or_else(
            || format!("{program} does not build"),
            |target| format!("{program} does not build; is Rust's library for {target} here? `rustup target add {target}`"),
        );
        stream("building the programs", &mut command).context(hint)?;
    }
    if let Some(target) = elsewhere {
        directory.push(target);
    }
    Ok(directory.join(built_in(profile)))
}

/// Cargo's profile of what is published in images: `release`, linked as one program, since images have bars for their sizes.
const OPTIMISED: &str = "image";

/// Which directory of cargo's has the programs.
fn built_in(profile: Profile) -> &'static str {
    match profile {
        Profile::Debug => profile.directory(),
        Profile::Release => OPTIMISED,
    }
}

const SMALL: &str = "-Clink-args=-Wl,--icf=all";
const SMALL_AND_SHORT: &str = "-Clink-args=-Wl,--icf=all -Wl,-z,pack-relative-relocs";

/// Whether this machine's C library, which goes into the image, is glibc 2.36 or newer.
fn loader_reads_short_lists() -> bool {
    let version = machine::output(Command::new("getconf").arg("GNU_LIBC_VERSION")).unwrap_or_default();
    let number = version.strip_prefix("glibc 2.").and_then(|minor| minor.parse::<u32>().ok());
    number.is_some_and(|minor| minor >= 36)
}

/// The C compiler for another machine, which links, and the variable by which cargo is told of it.
fn cross_linker(checkout: &Checkout, architecture: Architecture) -> Result<(String, String)> {
    let linker = format!("{}-linux-gnu-gcc", architecture.machine());
    if machine::program(&linker).is_none() {
        let package = format!("gcc-{}-linux-gnu", architecture.machine().replace('_', "-"));
        let library = format!("libc6-dev-{}-cross", architecture.name());
        setup::packages(checkout, &[&package, &library], "compiling for another machine")?;
    }
    Ok((format!("CARGO_TARGET_{}_LINKER", architecture.target().replace('-', "_").to_uppercase()), linker))
}

/// The bill of materials of a program for this machine, without what an image adds.
pub(crate) fn write_bill(checkout: &Checkout, program: &str, file: &Path) -> Result<()> {
    let text = bill::of(checkout, &[program], &Architecture::here().target(), "")?;
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// What Docker is given: nothing of the checkout but what goes into the images.
fn context(checkout: &Checkout) -> PathBuf {
    checkout.target().join("images")
}

/// Lays out the images' roots, and writes what is in them.
fn pack(checkout: &Checkout, architecture: Architecture, binaries: &Path) -> Result<()> {
    let context = context(checkout);
    let roots = context.join("dist").join(architecture.name());
    std::fs::create_dir_all(&roots).with_context(|| format!("cannot make {}", roots.display()))?;
    std::fs::copy(checkout.root().join("LICENSE"), context.join("LICENSE")).context("cannot copy the licence")?;
    for image in IMAGES {
        let root = roots.join(image.component);
        let scripts = checkout.root().join("deploy/images");
        if image.component == "agent" {
            let mut script = Command::new(scripts.join("agent-root.sh"));
            stream("packing", script.arg(roots.join("probe")).arg(architecture.name()).arg(&root))?;
        } else {
            let programs = image.programs.iter().map(|(_, program)| binaries.join(program));
            stream("packing", Command::new(scripts.join("pack.sh")).args(programs).arg(&root))?;
        }
        let bill = context.join(format!("{}-{}.cdx.json", image.name, architecture.name()));
        let packages = std::fs::read_to_string(root.with_extension("packages")).unwrap_or_default();
        let crates: Vec<_> = image.programs.iter().map(|(package, _)| *package).collect();
        let text = bill::of(checkout, &crates, &architecture.target(), &packages)?;
        std::fs::write(&bill, text).with_context(|| format!("cannot write {}", bill.display()))?;
        note(&format!("bill of materials: {}", bill.display()));
    }
    Ok(())
}

/// Makes the images, and looks at their sizes.
fn make(checkout: &Checkout, architecture: Architecture, tag: &str, profile: Profile) -> Result<()> {
    let context = context(checkout);
    let revision = machine::output(Command::new("git").current_dir(checkout.root()).args(["rev-parse", "HEAD"]));
    // Docker's own builder is enough for these files, and BuildKit may be a plug-in that is not there.
    let buildkit = machine::output(machine::as_root("docker").args(["buildx", "version"])).is_some();
    for image in IMAGES {
        let name = format!("{}:{tag}", image.name);
        let mut command = machine::as_root("env");
        command.arg(format!("DOCKER_BUILDKIT={}", u8::from(buildkit)));
        command.args(["docker", "build", "--quiet", "--target", image.target, "--tag", &name]);
        command.args(["--build-arg", &format!("TARGETARCH={}", architecture.name())]);
        command.args(["--build-arg", &format!("VERSION={}", env!("CARGO_PKG_VERSION"))]);
        command.args(["--build-arg", &format!("REVISION={}", revision.as_deref().unwrap_or("unknown"))]);
        command.arg("--file").arg(checkout.root().join(format!("Dockerfile.{}", image.dockerfile))).arg(&context);
        stream("making an image", &mut command)?;
        let size = docker(&["image", "inspect", "--format", "{{.Size}}", &name])?;
        let size: u64 = size.parse().with_context(|| format!("the size of {name} is {size:?}"))?;
        let megabytes = size.div_ceil(100_000);
        note(&format!("{name}: {}.{} MB", megabytes / 10, megabytes % 10));
        if profile == Profile::Release && size > image.largest {
            bail!("{name} has {size} bytes, more than {}", image.largest);
        }
    }
    Ok(())
}

/// What docker prints; an error with what it says when it fails.
fn docker(arguments: &[&str]) -> Result<String> {
    let output = machine::as_root("docker").args(arguments).output().context("cannot start docker")?;
    if !output.status.success() {
        bail!("docker {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
