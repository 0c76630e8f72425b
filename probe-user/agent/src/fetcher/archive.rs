//! Archives, by their names, and how each is unpacked.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use tokio_util::sync::CancellationToken;

use super::Until;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Bzip2,
    Xz,
}

/// How files are packed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Archive(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tar(Packing),
    Zip,
    /// One file.
    Packed(Packing),
}

impl Archive {
    /// The archive that a file of this name is, if it is one.
    pub(super) fn of(name: &str) -> Option<Archive> {
        const ENDS: [(&str, Kind); 9] = [
            (".tgz", Kind::Tar(Packing::Gzip)),
            (".tar.gz", Kind::Tar(Packing::Gzip)),
            (".tbz2", Kind::Tar(Packing::Bzip2)),
            (".tar.bz2", Kind::Tar(Packing::Bzip2)),
            (".txz", Kind::Tar(Packing::Xz)),
            (".tar.xz", Kind::Tar(Packing::Xz)),
            (".tar", Kind::Tar(Packing::Plain)),
            (".zip", Kind::Zip),
            (".gz", Kind::Packed(Packing::Gzip)),
        ];
        ENDS.iter().find(|(end, _)| name.ends_with(end)).map(|(_, it)| Archive(*it))
    }

    /// Unpacks it into an empty directory of the agent's own. `name` is the archive's.
    pub(super) fn unpack(self, source: File, into: &Path, name: &str, cancel: &CancellationToken) -> io::Result<()> {
        match self.0 {
            Kind::Zip => zip::ZipArchive::new(source).and_then(|mut it| it.extract(into)).map_err(io::Error::other),
            Kind::Tar(packing) => {
                let mut archive = tar::Archive::new(Until { inner: packing.open(source)?, cancel });
                archive.set_preserve_permissions(true);
                archive.set_preserve_ownerships(false);
                archive.unpack(into)
            }
            Kind::Packed(packing) => {
                let target = into.join(name.trim_end_matches(".gz"));
                if let Some(parent) = target.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                io::copy(&mut Until { inner: packing.open(source)?, cancel }, &mut File::create(target)?).map(drop)
            }
        }
    }
}

impl Packing {
    fn open(self, source: File) -> io::Result<Box<dyn Read>> {
        match self {
            Packing::Plain => Ok(Box::new(source)),
            Packing::Gzip => Ok(Box::new(flate2::read::MultiGzDecoder::new(source))),
            Packing::Bzip2 => by_program("bzip2", source),
            Packing::Xz => by_program("xz", source),
        }
    }
}

/// What few use is unpacked by the host's own programs, as Mesos does with all.
fn by_program(program: &str, source: File) -> io::Result<Box<dyn Read>> {
    let child = Command::new(program)
        .arg("-dc")
        .stdin(source)
        .stderr(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    Ok(Box::new(Unpacking(child)))
}

struct Unpacking(std::process::Child);

impl Read for Unpacking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.stdout.as_mut().map_or(Ok(0), |it| it.read(buffer))?;
        if read == 0 && !buffer.is_empty() && !self.0.wait()?.success() {
            return Err(io::Error::other("the archive is damaged"));
        }
        Ok(read)
    }
}

impl Drop for Unpacking {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
