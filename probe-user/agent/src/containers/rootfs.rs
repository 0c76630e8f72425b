//! Root file systems for containers of the agent's own making: the files of a Docker image, with a layer of the container's own on top.
//!
//! Docker is the store of images: it pulls them and knows their credentials. What is unpacked is kept by image id.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use mesos_proto::v1::{CommandInfo, Image, image};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::OwnedMutexGuard;

use super::Shared;
use super::parameters::Pull;
use crate::environment;
use crate::sandbox::Layout;
use crate::words::ContainerKey;

/// In the directory of a container's keeper: which image it runs on.
const IMAGE_FILE: &str = "image";

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

/// Where a container's root is.
pub(super) fn mounted_at(layout: &Layout, container: &ContainerKey) -> PathBuf {
    layout.keeper(container).join("root")
}

pub(super) async fn provision(shared: &Shared, image: &Image, container: &ContainerKey) -> Result<Root, String> {
    let name = match (image.r#type(), &image.docker) {
        (image::Type::Docker, Some(docker)) => docker.name.clone(),
        _ => return Err("Only images of Docker are supported".to_owned()),
    };
    let docker = shared.docker.as_ref().ok_or_else(|| "Images need a Docker daemon, and the agent has none".to_owned())?;
    let found = docker.image(&name, if image.cached() { Pull::Missing } else { Pull::Always }, None, None).await?;
    let id = directory_name(&found.id.clone().unwrap_or_default());
    let config = found.config.unwrap_or_default();
    let store = store(&shared.config.work_dir).join(&id);
    // One at a time: whoever wants the same image meanwhile finds it there when its turn comes, and nobody removes it before it is used.
    let mut turn = shared.unpacking.clone().lock_owned().await;
    if !store.exists() {
        turn = unpack(docker, &name, &store, turn).await?;
    }
    let target = mounted_at(&shared.layout, container);
    let (lower, at) = (store, target.clone());
    let mounted = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        if let Some(keeper) = at.parent() {
            crate::sandbox::make_private(keeper)?;
            std::fs::write(keeper.join(IMAGE_FILE), &id)?;
        }
        lay_over(&lower, &at)
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

/// Takes the files of an image out of Docker.
///
/// Who waits for it may give up, and a thread does not: it keeps its turn until it is done.
async fn unpack(docker: &super::Docker, name: &str, store: &Path, turn: OwnedMutexGuard<()>) -> Result<OwnedMutexGuard<()>, String> {
    let failed = |error: std::io::Error| format!("Failed to unpack the image: {error}");
    let parent = store.parent().ok_or_else(|| "no store".to_owned())?;
    tokio::fs::create_dir_all(parent).await.map_err(failed)?;
    // What an agent has left that ended in the midst of it, or that failed.
    let (draft, tarball) = (store.with_extension("draft"), store.with_extension("tar"));
    drop(tokio::fs::remove_dir_all(&draft).await);
    let mut files = docker.export(name).await?;
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
    directories.filter_map(|it| std::fs::read_to_string(it.path().join(IMAGE_FILE)).ok()).collect()
}

/// Takes the root of a container away.
pub(super) fn remove(root: &Path) {
    if root.exists() {
        let _ = umount2(root, MntFlags::MNT_DETACH);
        drop(std::fs::remove_dir_all(root));
    }
}
