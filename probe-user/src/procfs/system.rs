//! The formats of the files of `/proc` that tell of the machine as a whole. Total: whatever the bytes are, the answer is a value or `None`.

use proto::probe::v1::host_metrics::BlockDevice;

use crate::procfs::parse::printable;
use crate::procfs::words::{decimal, lines, number, words};

/// Bytes per sector in `/proc/diskstats`, whatever the device's own sectors are.
const SECTOR_BYTES: u64 = 512;

/// Load of the last 1, 5 and 15 minutes, from `/proc/loadavg`.
pub fn loads(bytes: &[u8]) -> Option<[f64; 3]> {
    let mut loads = words(bytes).map(decimal);
    Some([loads.next()??, loads.next()??, loads.next()??])
}

/// Bytes of swap in use, from `/proc/meminfo`.
pub fn swap_used(bytes: &[u8]) -> Option<u64> {
    let kibibytes = |name: &[u8]| {
        let line = lines(bytes).find_map(|line| line.strip_prefix(name)?.strip_prefix(b":"))?;
        words(line).next().and_then(number).map(|it| it.saturating_mul(1_024))
    };
    Some(kibibytes(b"SwapTotal")?.saturating_sub(kibibytes(b"SwapFree")?))
}

/// Share of the last ten seconds in which some task waited, 0 to 100: `avg10` of the line `some` of `/proc/pressure/*` and `*.pressure`.
pub fn pressure(bytes: &[u8]) -> Option<f64> {
    let line = lines(bytes).find_map(|line| line.strip_prefix(b"some "))?;
    let share = words(line).find_map(|word| word.strip_prefix(b"avg10="))?;
    decimal(share).map(|share| share.min(100.0))
}

/// Bytes that a process read from and wrote to devices, from `/proc/<pid>/io`.
pub fn process_io(bytes: &[u8]) -> Option<(u64, u64)> {
    let value = |name: &[u8]| lines(bytes).find_map(|line| number(line.strip_prefix(name)?));
    Some((value(b"read_bytes:")?, value(b"write_bytes:")?))
}

/// One line of `/proc/diskstats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskLine<'a> {
    /// Major and minor number.
    pub device: (u64, u64),
    /// Name below `/dev`.
    pub name: &'a [u8],
    /// Whether it is a part of the device before it.
    pub is_partition: bool,
    read_sectors: u64,
    written_sectors: u64,
    busy_millis: u64,
}

impl DiskLine<'_> {
    /// Whether it keeps its data on other devices or in memory: what goes through it is counted there, or nowhere.
    pub fn is_stacked(&self) -> bool {
        ["dm-", "md", "loop", "zram", "ram", "bcache", "drbd"]
            .iter()
            .any(|kind| self.name.strip_prefix(kind.as_bytes()).is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_digit)))
    }

    /// Whether it is part of the machine's storage as people know it: a disk, or a volume or array made of disks.
    fn is_shown(&self) -> bool {
        let is_used = (self.read_sectors | self.written_sectors | self.busy_millis) != 0;
        let is_volume = self.name.starts_with(b"dm-") || self.name.starts_with(b"md");
        is_used && !self.is_partition && (is_volume || !self.is_stacked())
    }

    fn record(&self) -> BlockDevice {
        BlockDevice {
            name: printable(self.name),
            read_bytes: self.read_sectors.saturating_mul(SECTOR_BYTES),
            written_bytes: self.written_sectors.saturating_mul(SECTOR_BYTES),
            busy_millis: self.busy_millis,
        }
    }
}

/// The lines of `/proc/diskstats`. A device is followed by its partitions.
pub fn disk_lines(bytes: &[u8]) -> impl Iterator<Item = DiskLine<'_>> {
    let mut whole: &[u8] = b"";
    lines(bytes).filter_map(move |line| {
        let mut fields = words(line);
        let device = (number(fields.next()?)?, number(fields.next()?)?);
        let name = fields.next()?;
        // Reads, merged, sectors, ms; writes, merged, sectors, ms; in flight, ms busy.
        let mut numbers = [0; 10];
        for slot in &mut numbers {
            *slot = number(fields.next()?)?;
        }
        let is_partition = is_partition(whole, name);
        if !is_partition {
            whole = name;
        }
        Some(DiskLine { device, name, is_partition, read_sectors: numbers[2], written_sectors: numbers[6], busy_millis: numbers[9] })
    })
}

/// Whether `name` is a partition of `whole`: "sda1" of "sda"; "nvme0n1p2" of "nvme0n1", as of every name that ends in a digit.
fn is_partition(whole: &[u8], name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(whole) else { return false };
    let Some(last) = whole.last() else { return false };
    let number = if last.is_ascii_digit() { rest.strip_prefix(b"p") } else { Some(rest) };
    number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

/// Whole block devices that were ever used, at most `max` of them, disks before what is made of disks; and how many found no room.
pub fn block_devices(bytes: &[u8], max: usize) -> (Vec<BlockDevice>, usize) {
    let mut shown: Vec<DiskLine<'_>> = disk_lines(bytes).filter(DiskLine::is_shown).collect();
    shown.sort_by_key(DiskLine::is_stacked);
    let left_out = shown.len().saturating_sub(max);
    (shown.iter().take(max).map(DiskLine::record).collect(), left_out)
}

/// Devices of `/proc/diskstats` that keep their data on others, in order.
pub fn stacked_devices(bytes: &[u8]) -> Vec<(u64, u64)> {
    let mut stacked: Vec<(u64, u64)> = disk_lines(bytes).filter(DiskLine::is_stacked).map(|it| it.device).collect();
    stacked.sort_unstable();
    stacked
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DISKSTATS: &[u8] = b"   7       0 loop0 1 0 10 0 0 0 0 0 0 0 0\n\
         259       0 nvme0n1 184 13 100 261 482 19 200 413 0 35 684 55 27 273 88 28 11\n\
         259       1 nvme0n1p1 1 0 10 0 0 0 0 0 0 1 0\n\
           8       0 sda 1 0 2 0 1 0 4 0 0 5 0\n\
           8       1 sda1 1 0 2 0 1 0 4 0 0 5 0\n\
           8      16 sdb 0 0 0 0 0 0 0 0 0 0 0\n\
         253       1 dm-1 1 0 2 0 1 0 4 0 0 5 0\n\
         253      10 dm-10 1 0 2 0 1 0 4 0 0 5 0\n\
         179       0 mmcblk0 1 0 2 0 1 0 4 0 0 5 0\n\
         179       8 mmcblk0boot0 1 0 2 0 1 0 4 0 0 5 0\n\
         252       0 zram0 9 0 9 0 9 0 9 0 0 9 0\n\
         garbage 1 2 3\n  8 32 sdc 1 2 3\n";

    #[test]
    fn whole_devices_that_were_used_are_told_disks_first() {
        let (devices, left_out) = block_devices(DISKSTATS, 64);
        let names: Vec<&str> = devices.iter().map(|it| it.name.as_str()).collect();
        assert_eq!((names, left_out), (vec!["nvme0n1", "sda", "mmcblk0", "mmcblk0boot0", "dm-1", "dm-10"], 0));
        let nvme = &devices[0];
        assert_eq!((nvme.read_bytes, nvme.written_bytes, nvme.busy_millis), (51_200, 102_400, 35));
        let (few, left_out) = block_devices(DISKSTATS, 2);
        assert_eq!((few.len(), left_out), (2, 4));
    }

    #[test]
    fn what_goes_through_a_stacked_device_is_counted_below_it() {
        assert_eq!(stacked_devices(DISKSTATS), [(7, 0), (252, 0), (253, 1), (253, 10)]);
    }

    #[test]
    fn a_partition_is_told_from_the_next_device() {
        for (whole, name, expected) in
            [("sda", "sda1", true), ("sda", "sdaa", false), ("dm-1", "dm-10", false), ("md0", "md0p1", true), ("", "sda", false)]
        {
            assert_eq!(is_partition(whole.as_bytes(), name.as_bytes()), expected, "{whole} {name}");
        }
    }

    #[test]
    fn pressure_is_the_share_in_which_some_task_waited() {
        let text = b"some avg10=2.63 avg60=2.43 avg300=11.63 total=208467177\nfull avg10=9.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(pressure(text), Some(2.63));
        assert_eq!(pressure(b"some avg10=1000.0 avg60=0\n"), Some(100.0));
        assert_eq!(pressure(b"full avg10=1.0\n"), None);
        assert_eq!(pressure(b"some avg10=nan\n"), None);
    }

    #[test]
    fn loads_swap_and_io_are_read() {
        assert_eq!(loads(b"0.36 1.50 1.38 2/345 6789\n"), Some([0.36, 1.5, 1.38]));
        assert_eq!(loads(b"0.36 1.50\n"), None);
        assert_eq!(swap_used(b"MemTotal: 5 kB\nSwapTotal:  100 kB\nSwapFree:  40 kB\n"), Some(60 * 1_024));
        assert_eq!(swap_used(b"SwapTotal: 18446744073709551615 kB\nSwapFree: 1 kB\n"), Some(u64::MAX - 1_024));
        let io = b"rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 0\n";
        assert_eq!(process_io(io), Some((4_096, 8_192)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            loads(&bytes);
            swap_used(&bytes);
            pressure(&bytes);
            process_io(&bytes);
            block_devices(&bytes, 4);
            stacked_devices(&bytes);
        }

        #[test]
        fn arbitrary_numbers_are_devices_of_bounded_number(numbers in proptest::collection::vec(any::<u64>(), 120)) {
            let text: String = numbers.chunks(12).map(|row| {
                let words: Vec<String> = row.iter().map(u64::to_string).collect();
                format!("{} {} sd{} {}\n", words[0], words[1], words[2], words[2..].join(" "))
            }).collect();
            let (devices, left_out) = block_devices(text.as_bytes(), 4);
            prop_assert!(devices.len() <= 4 && devices.len() + left_out <= 10);
        }
    }
}
