//! Root file systems for containers of the agent's own making: the files of a Docker image, with a layer of the container's own on top.
//!
//! Docker is the store of images: it pulls them and knows their credentials. What is unpacked is kept by image id.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bollard::models::ImageConfig;
use futures::StreamExt as _;
use mesos_proto::v1::{CommandInfo, Image, image};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::parameters::Pull;
use crate::environment;

/// In the directory of a container's keeper: which images it uses, a line each.
const IMAGE_FILE: &str = "image";

/// In the same place: its root.
const ROOT: &str = "root";

/// In the same place: a directory for each volume that is an image, with its files in one of this name.
const VOLUMES: &str = "volumes";

/// Why an image is not brought.
const CANCELLED: &str = "The container was destroyed while its image was being brought";

/// A root file system, and what the image says of how to run in it.
pub(super) struct Root {
    pub(super) path: PathBuf,
    pub(super) environment: Vec<(String, String)>,
    pub(super) directory: Option<String>,
    entrypoint: Vec<String>,
    command: Vec<String>,
}

impl Root {
    /// What is run: the command, or what the image would run.
    pub(super) fn arguments(&self, command: &CommandInfo) -> Result<(Vec<String>, Option<String>), String> {
        if command.value.is_some() {
            if command.shell() {
                return environment::arguments(command);
            }
            // As docker/runtime has it: the value is the program, its arguments follow.
            return environment::arguments(command);
        }
        let arguments = if command.arguments.is_empty() { &self.command } else { &command.arguments };
        let all: Vec<String> = self.entrypoint.iter().chain(arguments).cloned().collect();
        if all.is_empty() { Err("neither the task nor its image says what to run".to_owned()) } else { Ok((all, None)) }
    }
}

/// Brings the files of an image to the directory of a container's keeper: as its root, or as its volume of this number. Ends soon after `cancel`, and
/// never with something mounted that nobody waits for.
pub(super) async fn provision(
    shared: &Shared,
    image: &Image,
    keeper: &Path,
    volume: Option<usize>,
    cancel: &CancellationToken,
) -> Result<Root, String> {
    let stocked = tokio::select! {
        stocked = stock(shared, image) => stocked?,
        () = cancel.cancelled() => return Err(CANCELLED.to_owned()),
    };
    let Stocked { id, store, turn, config } = stocked;
    let target = match volume {
        Some(number) => keeper.join(VOLUMES).join(number.to_string()).join(ROOT),
        None => keeper.join(ROOT),
    };
    let (keeper, at, cancel) = (keeper.to_owned(), target.clone(), cancel.clone());
    let mounted = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        if cancel.is_cancelled() {
            return Err(std::io::Error::other(CANCELLED));
        }
        crate::sandbox::make_private(&keeper)?;
        let mut used = File::options().create(true).append(true).open(keeper.join(IMAGE_FILE))?;
        writeln!(used, "{id}")?;
        lay_over(&store, &at)
    });
    mounted.await.map_err(|_| "mounting the image failed".to_owned())?.map_err(|error| format!("Failed to mount the image: {error}"))?;
    let pairs = config.env.unwrap_or_default();
    Ok(Root {
        path: target,
        environment: pairs.iter().filter_map(|it| it.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        directory: config.working_dir.filter(|it| !it.is_empty()),
        entrypoint: config.entrypoint.unwrap_or_default(),
        command: config.cmd.unwrap_or_default(),
    })
}

/// An image whose files are there.
struct Stocked {
    id: String,
    store: PathBuf,
    /// As long as somebody has it no image is removed.
    turn: OwnedMutexGuard<()>,
    config: ImageConfig,
}

async fn stock(shared: &Shared, image: &Image) -> Result<Stocked, String> {
    let (name, credentials) = match (image.r#type(), &image.docker) {
        (image::Type::Docker, Some(it)) => (it.name.clone(), super::docker::given_credentials(it)?),
        _ => return Err("Only images of Docker are supported".to_owned()),
    };
    let docker = shared.docker.as_ref().ok_or_else(|| "Images need a Docker daemon, and the agent has none".to_owned())?;
    let pull = if image.cached() { Pull::Missing } else { Pull::Always };
    let found = docker.image(&name, pull, None, credentials.as_ref()).await?;
    let id = directory_name(&found.id.clone().unwrap_or_default());
    let config = found.config.unwrap_or_default();
    let store = store(&shared.config.work_dir).join(&id);
    // One at a time: whoever wants the same image meanwhile finds it there when its turn comes, and nobody removes it before it is used.
    let mut turn = shared.unpacking.clone().lock_owned().await;
    if !store.exists() {
        turn = unpack(docker, &name, &shared.owner(), &store, turn).await?;
    }
    Ok(Stocked { id, store, turn, config })
}

/// Takes the files of an image out of Docker.
///
/// Who waits for it may give up, and a thread does not: it keeps its turn until it is done.
async fn unpack(
    docker: &super::Docker,
    name: &str,
    owner: &str,
    store: &Path,
    turn: OwnedMutexGuard<()>,
) -> Result<OwnedMutexGuard<()>, String> {
    let failed = |error: std::io::Error| format!("Failed to unpack the image: {error}");
    let parent = store.parent().ok_or_else(|| "no store".to_owned())?;
    tokio::fs::create_dir_all(parent).await.map_err(failed)?;
    // What an agent has left that ended in the midst of it, or that failed.
    let (draft, tarball) = (store.with_extension("draft"), store.with_extension("tar"));
    drop(tokio::fs::remove_dir_all(&draft).await);
    let mut files = docker.export(name, owner).await?;
    let mut file = tokio::fs::File::create(&tarball).await.map_err(failed)?;
    while let Some(piece) = files.next().await {
        file.write_all(&piece.map_err(|error| error.to_string())?).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    let store = store.to_owned();
    let unpacked = tokio::task::spawn_blocking(move || {
        let mut archive = tar::Archive::new(std::fs::File::open(&tarball)?);
        archive.set_preserve_permissions(true);
        archive.set_preserve_ownerships(true);
        archive.unpack(&draft)?;
        drop(std::fs::remove_file(tarball));
        std::fs::rename(&draft, store).map(|()| turn)
    });
    unpacked.await.map_err(|_| "unpacking the image failed".to_owned())?.map_err(failed)
}

/// The image below, a layer of the container's own above. Where the file system cannot do that, a copy.
fn lay_over(lower: &Path, target: &Path) -> std::io::Result<()> {
    let Some(directory) = target.parent() else { return Ok(()) };
    let (upper, work) = (directory.join("upper"), directory.join("work"));
    for it in [target, &upper, &work] {
        std::fs::create_dir_all(it)?;
    }
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let over = mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options.as_str()));
    if over.is_ok() {
        return Ok(());
    }
    let copied = std::process::Command::new("cp").arg("-a").arg(lower.join(".")).arg(target).status()?;
    if copied.success() { Ok(()) } else { Err(std::io::Error::other("neither an overlay nor a copy can be made")) }
}

/// Where unpacked images are.
fn store(work_dir: &Path) -> PathBuf {
    work_dir.join("store/docker")
}

/// The name of an image's files, by its id.
fn directory_name(id: &str) -> String {
    id.replace(':', "-")
}

/// Removes the files of images that no container uses, but for those of `kept`. Docker has them still: whoever wants one again waits until it is
/// unpacked again. How many were removed.
pub(super) async fn prune(shared: &Shared, kept: &[Image]) -> usize {
    let mut excluded = BTreeSet::new();
    for name in kept.iter().filter_map(|it| it.docker.as_ref()).map(|it| &it.name) {
        if let Some(docker) = &shared.docker {
            excluded.extend(docker.image_id(name).await.map(|it| directory_name(&it)));
        }
    }
    let turn = shared.unpacking.clone().lock_owned().await;
    let (store, keepers) = (store(&shared.config.work_dir), shared.layout.keepers());
    let pruned = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let mut used = used_images(&keepers);
        used.extend(excluded);
        // Those of an agent that did not write down what it used are known by what is mounted.
        let mounted = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let is_used = |path: &Path, id: &str| used.contains(id) || mounted.contains(&format!("lowerdir={},", path.display()));
        let entries = std::fs::read_dir(&store).into_iter().flatten().flatten().map(|it| it.path());
        let unused = entries.filter(|it| it.file_name().is_some_and(|id| !is_used(it, &id.to_string_lossy())));
        unused
            .filter(|it| {
                let removed = if it.is_dir() { std::fs::remove_dir_all(it) } else { std::fs::remove_file(it) };
                removed.is_ok()
            })
            .count()
    });
    pruned.await.unwrap_or(0)
}

/// Ids of the images that containers run on.
fn used_images(keepers: &Path) -> BTreeSet<String> {
    let directories = std::fs::read_dir(keepers).into_iter().flatten().flatten();
    let noted = directories.filter_map(|it| std::fs::read_to_string(it.path().join(IMAGE_FILE)).ok());
    noted.flat_map(|it| it.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Takes away the root and the volumes of a container, by the directory of its keeper.
pub(super) fn remove(keeper: &Path) {
    let volumes = std::fs::read_dir(keeper.join(VOLUMES)).into_iter().flatten().flatten().map(|it| it.path().join(ROOT));
    for root in std::iter::once(keeper.join(ROOT)).chain(volumes).filter(|it| it.exists()) {
        let _ = umount2(&root, MntFlags::MNT_DETACH);
        drop(std::fs::remove_dir_all(root));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts_below(directory: &Path) -> usize {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.lines().filter(|it| it.contains(&directory.display().to_string())).count()
    }

    #[test]
    fn the_root_and_every_volume_of_a_container_are_taken_away() {
        let directory = tempfile::tempdir().unwrap();
        let (image, keeper) = (directory.path().join("image"), directory.path().join("keepers/c"));
        std::fs::create_dir_all(&image).unwrap();
        std::fs::write(image.join("file"), "of the image").unwrap();
        let targets = [keeper.join(ROOT), keeper.join(VOLUMES).join("0").join(ROOT), keeper.join(VOLUMES).join("1").join(ROOT)];
        for target in &targets {
            lay_over(&image, target).unwrap();
            assert!(target.join("file").exists());
        }
        remove(&keeper);
        assert!(targets.iter().all(|it| !it.exists()));
        assert_eq!(mounts_below(directory.path()), 0);
        assert_eq!(std::fs::read_to_string(image.join("file")).unwrap(), "of the image");
    }

    #[test]
    fn the_images_of_roots_and_of_volumes_are_in_use() {
        let directory = tempfile::tempdir().unwrap();
        for (container, noted) in [("a", "one\ntwo\n"), ("b", "three")] {
            std::fs::create_dir(directory.path().join(container)).unwrap();
            std::fs::write(directory.path().join(container).join(IMAGE_FILE), noted).unwrap();
        }
        let used: Vec<String> = used_images(directory.path()).into_iter().collect();
        assert_eq!(used, ["one", "three", "two"]);
    }
}
