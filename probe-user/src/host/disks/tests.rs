use std::os::fd::AsRawFd as _;

use proptest::prelude::*;

use super::*;

fn points(mounts: &str) -> Vec<String> {
    let (chosen, left_out) = choose(mounts.as_bytes(), DISKS_MAX);
    assert_eq!(left_out, 0);
    chosen.iter().map(|it| String::from_utf8_lossy(&it.mount_point).into_owned()).collect()
}

#[test]
fn a_device_is_told_once_and_by_where_all_of_it_is() {
    let mounts = "27 1 254:0 / / rw - ext4 /dev/vda rw\n\
        42 27 254:0 /var/lib/docker /var/lib/docker rw shared:1 - ext4 /dev/vda rw\n\
        43 27 8:1 / /srv/long/name rw - xfs /dev/sda1 rw\n\
        44 27 8:1 / /data rw - xfs /dev/sda1 rw\n\
        45 27 8:1 /x /d rw - xfs /dev/sda1 rw\n";
    assert_eq!(points(mounts), ["/", "/data"]);
}

#[test]
fn what_is_no_disk_is_left_out() {
    let mounts = "1 0 0:21 / /proc rw - proc proc rw\n\
        2 0 0:25 / /run rw - tmpfs tmpfs rw\n\
        3 0 0:50 / /merged rw - overlay overlay rw,lowerdir=/a\n\
        4 0 0:51 / /nfs rw - nfs4 server:/export rw\n\
        5 0 0:52 / /fuse rw - fuse.sshfs me@there:/ rw\n\
        6 0 7:1 / /snap/core/1 ro - squashfs /dev/loop1 ro\n\
        7 0 0:53 / /win rw - fuseblk /dev/sdb1 rw\n\
        8 0 0:6 / /dev rw - devtmpfs /dev/x rw\n\
        9 0 0:54 / /share rw - 9p /dev-tag rw\n\
        10 0 8:2 / /boot\\040files rw - vfat /dev/sda2 rw\n";
    assert_eq!(points(mounts), ["/boot\\040files"]);
}

#[test]
fn subvolumes_are_one_device_and_datasets_are_several() {
    let mounts = "1 0 0:30 /@ / rw - btrfs /dev/sda2 rw,subvol=/@\n\
        2 0 0:31 /@home /home rw - btrfs /dev/sda2 rw,subvol=/@home\n\
        3 0 0:40 / /tank rw - zfs tank rw\n\
        4 0 0:41 / /tank/a rw - zfs tank/a rw\n";
    assert_eq!(points(mounts), ["/", "/tank", "/tank/a"]);
}

#[test]
fn more_than_the_limit_are_counted() {
    let mounts: String = (0..70).map(|it| format!("1 0 8:{it} / /d{it:02} rw - ext4 /dev/sd{it} rw\n")).collect();
    let (chosen, left_out) = choose(mounts.as_bytes(), DISKS_MAX);
    assert_eq!((chosen.len(), left_out), (64, 6));
    assert_eq!(chosen[0].mount_point, b"/d00");
}

#[test]
fn the_disks_of_this_machine_have_the_sizes_that_statvfs_tells() {
    let mounts = std::fs::read("/proc/self/mountinfo").unwrap();
    let (chosen, _) = choose(&mounts, DISKS_MAX);
    let sizes = Disks::default().sizes_within(Path::new("/"), chosen.clone(), Duration::from_secs(20));
    assert_eq!(sizes.unanswered, 0);
    for disk in &sizes.disks {
        assert!(disk.size_bytes >= disk.used_bytes && disk.size_bytes > 0, "{disk:?}");
        let statistics = nix::sys::statvfs::statvfs(disk.mount_point.as_str()).unwrap();
        assert_eq!(disk.size_bytes, statistics.blocks() as u64 * statistics.fragment_size() as u64);
    }
    // A container may have none; a machine has one at least.
    let rooted_on_a_device = chosen.iter().any(|it| it.mount_point == b"/");
    assert_eq!(sizes.disks.iter().any(|it| it.mount_point == "/"), rooted_on_a_device);
}

/// A file system whose server never answers, as a network mount whose server has died.
struct Hung {
    directory: tempfile::TempDir,
    device: Option<std::fs::File>,
}

impl Hung {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let device = std::fs::File::options().read(true).write(true).open("/dev/fuse").ok()?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        nix::mount::mount(Some("hung"), directory.path(), Some("fuse"), nix::mount::MsFlags::empty(), Some(options.as_str())).ok()?;
        Some(Hung { directory, device: Some(device) })
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        // Without its server every request fails.
        self.device.take();
        let _ = nix::mount::umount2(self.directory.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// A thread that has answered may take a moment to end.
#[track_caller]
fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_file_system_that_hangs_delays_a_round_once_and_hides_no_other_for_long() {
    let Some(mut hung) = Hung::mount() else {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "this test needs root and FUSE");
        eprintln!("not tested here: mounting FUSE was refused");
        return;
    };
    let name = |path: &Path| FileSystem {
        mount_point: path.to_str().unwrap().as_bytes().to_vec(),
        device: b"/dev/x".to_vec(),
        file_system: b"ext4".to_vec(),
    };
    let all = || vec![name(Path::new("/")), name(hung.directory.path()), name(Path::new("/dev/shm"))];
    let mut disks = Disks::default();
    let begun = Instant::now();
    let first = disks.sizes_within(Path::new("/"), all(), Duration::from_millis(300));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!((first.disks.len(), first.unanswered), (1, 2));
    let second = disks.sizes_within(Path::new("/"), all(), Duration::from_secs(20));
    assert_eq!((second.disks.len(), second.unanswered), (2, 1));
    wait_for("one thread hangs, however many rounds there are", || disks.waiting.load(Ordering::Acquire) == 1);
    // Its server is back, or gone for good: it is asked again.
    hung.device.take();
    wait_for("the thread has come back", || disks.waiting.load(Ordering::Acquire) == 0);
    let third = disks.sizes_within(Path::new("/"), all(), Duration::from_secs(20));
    assert_eq!((third.disks.len(), third.unanswered), (2, 0), "what cannot be read is no disk, and nothing waits for it");
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_disks_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..400), max in 0..4_usize) {
        prop_assert!(choose(&bytes, max).0.len() <= max);
    }
}
