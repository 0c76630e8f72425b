//! The formats of `/proc`, from bytes. Total: whatever the bytes are, the answer is a value or `None`.

use crate::cgroups::names::named_below;
use crate::mask::Masks;
use crate::observation::BootNanos;
use crate::processes::TICK_NANOS;
use crate::procfs::{COMMAND_LINE_MAX, NAME_MAX};

/// Fields of `/proc/<pid>/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Field 2, without the brackets.
    pub comm: String,
    /// Field 3.
    pub state: u8,
    /// Field 4.
    pub parent_pid: u32,
    /// Fields 14 and 15: user and system time, in ticks.
    pub cpu_ticks: u64,
    /// Field 20.
    pub thread_count: u32,
    /// Field 22, in nanoseconds since boot.
    pub start_time: BootNanos,
    /// Field 24.
    pub resident_pages: u64,
    /// Whether it is a kernel thread (field 9, `PF_KTHREAD`).
    pub is_kernel_thread: bool,
}

impl Stat {
    /// Whether it is a zombie or dead: its exit was or will be told, and nothing more can be read.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// A command line, cut and made printable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// Its first argument.
    pub first_word: Option<String>,
    /// All arguments, joined by blanks.
    pub whole: String,
}

/// Parses `stat`. The name in it may hold blanks and brackets, so fields are counted from the last bracket.
pub fn stat(bytes: &[u8]) -> Option<Stat> {
    const PF_KTHREAD: u64 = 0x0020_0000;
    let open = bytes.iter().position(|&byte| byte == b'(')?;
    let close = bytes.iter().rposition(|&byte| byte == b')').filter(|&close| close > open)?;
    let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
    let mut fields = [""; 22];
    let mut count = 0;
    for (slot, field) in fields.iter_mut().zip(rest.split_ascii_whitespace()) {
        *slot = field;
        count += 1;
    }
    // fields[0] is field 3.
    let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok());
    if count < fields.len() {
        return None;
    }
    Some(Stat {
        comm: printable(&bytes[open + 1..close]),
        state: *fields[0].as_bytes().first()?,
        parent_pid: u32::try_from(number(4)?).ok()?,
        cpu_ticks: number(14)?.saturating_add(number(15)?),
        thread_count: u32::try_from(number(20)?).unwrap_or(u32::MAX),
        start_time: BootNanos(number(22)?.saturating_mul(TICK_NANOS)),
        resident_pages: number(24)?,
        is_kernel_thread: number(9)? & PF_KTHREAD != 0,
    })
}

/// Parses `cmdline`: arguments that end in NUL. Empty for kernel threads. Secrets are hidden by `masks`.
pub fn command_line(bytes: &[u8], masks: &Masks) -> CommandLine {
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let arguments: Vec<String> = bytes[..end].split(|&byte| byte == 0).map(printable).collect();
    let first_word = arguments.first().map(|word| masks.text(word.trim()).into_owned()).filter(|word| !word.is_empty());
    let whole = masks.command_line(arguments.iter().map(String::as_str));
    CommandLine { first_word: first_word.map(|word| cut(word, NAME_MAX)), whole: cut(whole, COMMAND_LINE_MAX) }
}

/// Effective user of `status`: the second number of `Uid:`.
pub fn effective_user(bytes: &[u8]) -> Option<u32> {
    let line = bytes.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// All lines of `cgroup`: controllers (empty for v2) and path.
pub fn cgroups(bytes: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(bytes);
    let line = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let (_hierarchy, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        path.starts_with('/').then(|| (printable(controllers.as_bytes()), printable(path.trim_end_matches(" (deleted)").as_bytes())))
    };
    text.lines().filter_map(line).collect()
}

/// The most telling path of `cgroup`: one that names a container, else that of v2, else that of systemd. `agents_root`: where a Mesos agent has
/// its containers.
pub fn cgroup_path(bytes: &[u8], agents_root: &str) -> String {
    let lines = cgroups(bytes);
    let of = |controllers: &str| lines.iter().find(|(it, path)| it == controllers && path != "/");
    let is_named = |path: &str| named_below(path, agents_root).is_some();
    let chosen = of("").filter(|(_, path)| is_named(path));
    let chosen = chosen.or_else(|| lines.iter().find(|(_, path)| is_named(path)));
    let chosen = chosen.or_else(|| of("")).or_else(|| of("name=systemd"));
    chosen.map_or_else(|| "/".to_owned(), |(_, path)| path.clone())
}

/// Soft limit of `Max open files` in `limits`.
pub fn open_files_limit(bytes: &[u8]) -> Option<u64> {
    let line = bytes.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Max open files"))?;
    match std::str::from_utf8(line).ok()?.split_ascii_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// Inode in the target of a link such as `socket:[1234]`.
pub fn link_inode(target: &str, kind: &str) -> Option<u64> {
    target.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok()
}

/// Busy and total ticks of all CPUs, and how many CPUs there are, from `/proc/stat`.
pub fn cpu_ticks(bytes: &[u8]) -> Option<(u64, u64, u32)> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let numbers: Vec<u64> = lines.next()?.strip_prefix("cpu ")?.split_ascii_whitespace().map_while(|it| it.parse().ok()).take(8).collect();
    let total: u64 = numbers.iter().fold(0, |sum, it| sum.saturating_add(*it));
    // Columns: user nice system idle iowait irq softirq steal. Waiting for a disk is not being busy.
    let idle = numbers.get(3)?.saturating_add(numbers.get(4).copied().unwrap_or(0));
    let count = lines.take_while(|line| line.starts_with("cpu")).count();
    Some((total.saturating_sub(idle), total, u32::try_from(count).ok().filter(|&count| count > 0)?))
}

/// Unix time of the boot in seconds, from `/proc/stat`.
pub fn boot_time(bytes: &[u8]) -> Option<u64> {
    String::from_utf8_lossy(bytes).lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Total and used memory in bytes, from `/proc/meminfo`. Used is without buffers and page cache.
pub fn memory(bytes: &[u8]) -> Option<(u64, u64)> {
    let text = String::from_utf8_lossy(bytes);
    let kibibytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|it| it.saturating_mul(1_024))
    };
    let total = kibibytes("MemTotal")?;
    let part = |name: &str| kibibytes(name).unwrap_or(0);
    let unused = kibibytes("MemFree")?.saturating_add(part("Buffers")).saturating_add(part("Cached"));
    Some((total, total.saturating_sub(unused)))
}

/// Whether a character shows nothing itself, and changes what is shown around it: control characters, those without width, and those that turn the
/// direction of a text.
pub fn moves(it: char) -> bool {
    it.is_control() || matches!(it, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Valid UTF-8 without characters that show nothing: blanks for those that divide, as in scripts of several lines, and a mark for others.
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.chars().any(moves) {
        let shown = |it: char| match it {
            '\n' | '\r' | '\t' => ' ',
            _ if moves(it) => char::REPLACEMENT_CHARACTER,
            _ => it,
        };
        text.chars().map(shown).collect()
    } else {
        text.into_owned()
    }
}

/// Cut to `max` bytes, between two characters.
pub fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        let end = (0..=max).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
