use super::*;

/// Gives a few bytes at a time, as a file of the kernel may.
struct Dripping<'a>(&'a [u8], usize);

impl Read for Dripping<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.1.min(self.0.len()).min(buffer.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

fn task(tgid: u32) -> [u8; size_of::<FoundTask>()] {
    let mut bytes = [0; size_of::<FoundTask>()];
    bytes[..8].copy_from_slice(&10_000_001_u64.to_le_bytes());
    bytes[16..20].copy_from_slice(&tgid.to_le_bytes());
    bytes[32..36].copy_from_slice(b"init");
    bytes
}

#[test]
fn records_are_whole_however_they_come() {
    let bytes: Vec<u8> = (1..=100).flat_map(task).collect();
    for drip in [1, 7, 48, 49, 4_096] {
        let processes = read_processes(Dripping(&bytes, drip)).expect("read");
        assert_eq!(processes.len(), 100);
        assert!(processes.iter().zip(1..).all(|(process, pid)| process.pid == pid && process.comm == "init"));
        assert_eq!(processes[0].start_time, Some(BootNanos(10_000_000)), "cut to the tick");
    }
}

#[test]
fn half_a_record_at_the_end_is_nothing() {
    let bytes: Vec<u8> = task(1)[..47].to_vec();
    assert_eq!(read_processes(&bytes[..]).expect("read"), []);
}

#[test]
fn more_than_there_is_room_for_is_an_error_and_not_a_part_of_the_truth() {
    let bytes: Vec<u8> = (1..=3).flat_map(task).collect();
    assert!(each(&bytes[..], 2, |_: FoundTask| {}).is_err());
}
