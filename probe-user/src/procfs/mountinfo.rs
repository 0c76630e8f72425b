//! `/proc/<pid>/mountinfo`, line by line (proc_pid_mountinfo(5)). Pure, and nothing is copied before somebody wants it: a node with thousands of
//! containers has thousands of lines.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::procfs::words::{lines, number, words};

/// One mount, as it stands in the file. Blanks and the like in names are written as octal numbers there: see [`unescape`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount<'a> {
    /// Major and minor number of the device.
    pub device: (u64, u64),
    /// What of the file system is mounted: "/" is all of it.
    pub root: &'a [u8],
    /// Where.
    pub point: &'a [u8],
    /// Type, such as "ext4".
    pub file_system: &'a [u8],
    /// Source, such as "/dev/sda1".
    pub source: &'a [u8],
    /// Options of the file system itself.
    pub options: &'a [u8],
}

/// All mounts of a file. A line that is not understood is left out.
pub fn parse(bytes: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    lines(bytes).filter_map(mount)
}

fn mount(line: &[u8]) -> Option<Mount<'_>> {
    let mut fields = words(line).skip(2);
    let device = fields.next()?;
    let colon = device.iter().position(|&byte| byte == b':')?;
    let device = (number(&device[..colon])?, number(&device[colon + 1..])?);
    let (root, point) = (fields.next()?, fields.next()?);
    // Options of the mount and any number of optional fields, up to a single dash.
    fields.find(|&field| field == b"-")?;
    Some(Mount { device, root, point, file_system: fields.next()?, source: fields.next()?, options: fields.next().unwrap_or_default() })
}

/// A name with its octal numbers made bytes again.
pub fn unescape(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, behind)) = rest.split_first() {
        if first == b'\\'
            && let Some(octal) = behind.get(..3)
            && let Some(byte) = std::str::from_utf8(octal).ok().and_then(|octal| u8::from_str_radix(octal, 8).ok())
        {
            bytes.push(byte);
            rest = &behind[3..];
        } else {
            bytes.push(first);
            rest = behind;
        }
    }
    bytes
}

/// The place of a mount or file of the host, below `root`, where the host's file system is.
pub fn below(root: &Path, name: &[u8]) -> PathBuf {
    let name = unescape(name);
    let relative = name.iter().position(|&byte| byte != b'/').map_or(&[][..], |first| &name[first..]);
    if relative.is_empty() { root.to_owned() } else { root.join(OsString::from_vec(relative.to_vec())) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_has_optional_fields_or_none() {
        let text = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            garbage\n1 2 x:y / / rw - ext4 a b\n1 2 3:4 / / rw ext4 a b\n";
        let mounts: Vec<_> = parse(text).collect();
        assert_eq!(mounts.len(), 2, "{mounts:?}");
        assert_eq!((mounts[0].device, mounts[0].root, mounts[0].source), ((98, 0), &b"/mnt1"[..], &b"/dev/root"[..]));
        assert_eq!(below(Path::new("/proc/1/root"), mounts[0].point), Path::new("/proc/1/root/mnt 2"));
        assert_eq!((mounts[1].file_system, mounts[1].options), (&b"cgroup"[..], &b"rw,cpu"[..]));
    }

    #[test]
    fn names_stay_below_the_root() {
        let check = |name: &[u8], expected: &str| assert_eq!(below(Path::new("/r"), name), Path::new(expected));
        check(b"/", "/r");
        check(b"//etc", "/r/etc");
        check(b"\\057etc", "/r/etc");
        check(b"\\400\\9", "/r/\\400\\9");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_mounts_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for mount in parse(&bytes) {
                prop_assert!(below(Path::new("/r"), mount.point).starts_with("/r"));
            }
        }
    }
}
