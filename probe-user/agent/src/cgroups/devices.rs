//! Which devices the processes of a cgroup of version 2 may open. Version 1 has files for that; here the kernel asks a small program, which is made from
//! the same rules, attached to the cgroup, and gone with it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

/// One thing that is allowed, as in `devices.allow` of version 1: `c 1:3 rwm`, `b *:* m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    kind: i32,
    /// `None`: any.
    major: Option<i32>,
    minor: Option<i32>,
    access: i32,
}

/// `BPF_DEVCG_…` of the kernel.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MAKE: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

impl Rule {
    fn parse(text: &str) -> Option<Rule> {
        let mut words = text.split_whitespace();
        let kind = match words.next()? {
            "c" => CHARACTER,
            "b" => BLOCK,
            _ => return None,
        };
        let (major, minor) = words.next()?.split_once(':')?;
        let number = |text: &str| if text == "*" { Some(None) } else { text.parse().ok().filter(|it| *it >= 0).map(Some) };
        let (major, minor) = (number(major)?, number(minor)?);
        let mut access = 0;
        for letter in words.next()?.chars() {
            access |= match letter {
                'm' => MAKE,
                'r' => READ,
                'w' => WRITE,
                _ => return None,
            };
        }
        Some(Rule { kind, major, minor, access })
    }
}

/// One instruction, as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

// Codes of linux/bpf.h: class, source of the operand, operation.
const LOAD_WORD: u8 = 0x61;
const MOVE_NUMBER: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND_NUMBER: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const ACCESS: u8 = 2;
const KIND: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const LEFT: u8 = 6;

fn with_number(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

fn with_register(code: u8, to: u8, from: u8, offset: i16) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset, immediate: 0 }
}

/// Goes through the rules: the first that allows the access decides; none: refused.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut all = vec![
        // The first word of the context: what is to be done above, the kind of the device below.
        with_register(LOAD_WORD, ACCESS, CONTEXT, 0),
        with_register(MOVE_REGISTER, KIND, ACCESS, 0),
        with_number(AND_NUMBER, KIND, 0xffff),
        with_number(SHIFT_RIGHT, ACCESS, 16),
        with_register(LOAD_WORD, MAJOR, CONTEXT, 4),
        with_register(LOAD_WORD, MINOR, CONTEXT, 8),
    ];
    for rule in rules {
        let mut checks = vec![with_number(JUMP_UNLESS_EQUAL, KIND, rule.kind)];
        checks.extend(rule.major.map(|it| with_number(JUMP_UNLESS_EQUAL, MAJOR, it)));
        checks.extend(rule.minor.map(|it| with_number(JUMP_UNLESS_EQUAL, MINOR, it)));
        checks.push(with_register(MOVE_REGISTER, LEFT, ACCESS, 0));
        checks.push(with_number(AND_NUMBER, LEFT, !rule.access));
        checks.push(with_number(JUMP_UNLESS_EQUAL, LEFT, 0));
        // Behind the rule: its checks, its answer, its exit.
        let end = checks.len() + 2;
        for (at, check) in checks.iter_mut().enumerate().filter(|(_, it)| it.code == JUMP_UNLESS_EQUAL) {
            check.offset = i16::try_from(end - at - 1).unwrap_or(i16::MAX);
        }
        all.extend(checks);
        all.push(with_number(MOVE_NUMBER, ANSWER, 1));
        all.push(with_number(EXIT, 0, 0));
    }
    all.push(with_number(MOVE_NUMBER, ANSWER, 0));
    all.push(with_number(EXIT, 0, 0));
    all
}

/// Lets the processes of a cgroup open what the rules allow, and nothing else.
///
/// # Errors
/// When a rule cannot be understood, or the kernel refuses: it needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN.
pub(super) fn limit<'a>(cgroup: &Path, rules: impl Iterator<Item = &'a str>) -> io::Result<()> {
    let parse = |text: &str| {
        Rule::parse(text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?} is no rule such as \"c 1:3 rwm\"")))
    };
    let rules = rules.map(parse).collect::<io::Result<Vec<_>>>()?;
    let program = load(&program(&rules))?;
    attach(&File::open(cgroup)?, &program)
}

/// The part of `union bpf_attr` for BPF_PROG_LOAD that is used; what the kernel has beyond is zero.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The same for BPF_PROG_ATTACH.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

const COMMAND_LOAD: libc::c_long = 5;
const COMMAND_ATTACH: libc::c_long = 8;
/// BPF_PROG_TYPE_CGROUP_DEVICE
const CGROUP_DEVICE: u32 = 15;
/// BPF_CGROUP_DEVICE
const AT_DEVICE: u32 = 6;
/// BPF_F_ALLOW_MULTI: programs further up are asked, too.
const ALLOW_MULTI: u32 = 2;

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let licence = c"Apache-2.0";
    let attributes = LoadAttributes {
        kind: CGROUP_DEVICE,
        count: u32::try_from(program.len()).unwrap_or(u32::MAX),
        instructions: program.as_ptr() as u64,
        licence: licence.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    let fd = bpf(COMMAND_LOAD, &attributes)?;
    let fd = i32::try_from(fd).map_err(|_| io::Error::other("the kernel gave no descriptor"))?;
    #[expect(unsafe_code, reason = "the kernel has just given it to us, and nobody else has it")]
    // SAFETY: a descriptor that bpf(2) returned is open and ours.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(owned)
}

fn attach(cgroup: &File, program: &OwnedFd) -> io::Result<()> {
    let number = |fd: i32| u32::try_from(fd).unwrap_or(u32::MAX);
    let attributes =
        AttachAttributes { target: number(cgroup.as_raw_fd()), program: number(program.as_raw_fd()), kind: AT_DEVICE, flags: ALLOW_MULTI };
    bpf(COMMAND_ATTACH, &attributes).map(drop)
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    #[expect(unsafe_code, reason = "there is no other way to bpf(2) here")]
    // SAFETY: the attributes are as long as is said, and what they point to outlives the call: the kernel copies it.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn rules_are_those_of_version_one() {
        assert_eq!(Rule::parse("c 1:3 rwm"), Some(Rule { kind: CHARACTER, major: Some(1), minor: Some(3), access: 7 }));
        assert_eq!(Rule::parse("b *:* m"), Some(Rule { kind: BLOCK, major: None, minor: None, access: MAKE }));
        for text in ["", "a", "c 1 r", "c 1:x r", "c 1:-1 r", "c 1:3 q", "c 1:3"] {
            assert_eq!(Rule::parse(text), None, "{text}");
        }
    }

    #[test]
    fn jumps_lead_behind_their_rule() {
        let rules = [Rule::parse("c *:* m").unwrap(), Rule::parse("c 1:3 r").unwrap()];
        let program = program(&rules);
        for (at, it) in program.iter().enumerate().filter(|(_, it)| it.code == JUMP_UNLESS_EQUAL) {
            let to = at + 1 + usize::try_from(it.offset).unwrap();
            assert_eq!(program[to - 1].code, EXIT, "{at} leads to {to}");
        }
        assert_eq!(program.iter().filter(|it| it.code == EXIT).count(), 3);
    }

    /// In the cgroups of version 2 that this machine has, even if their controllers are elsewhere.
    #[test]
    fn the_kernel_asks_the_program() {
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let Some(mount) = mounts.into_iter().find(|it| it.join("cgroup.controllers").exists()) else {
            assert!(std::env::var_os("CI").is_none(), "there is no cgroup of version 2");
            return;
        };
        let cgroup = mount.join(format!("mesos-devices-{}", std::process::id()));
        std::fs::create_dir(&cgroup).unwrap();
        limit(&cgroup, ["c 1:3 rw"].into_iter()).unwrap();
        let enter = format!("echo $$ > {}/cgroup.procs", cgroup.display());
        let can = |what: &str| Command::new("sh").args(["-c", &format!("{enter}; {what}")]).output().unwrap().status.success();
        let (null, zero, full) = (can(": > /dev/null < /dev/null"), can(": < /dev/zero"), can(": > /dev/full"));
        std::fs::remove_dir(&cgroup).unwrap();
        assert_eq!((null, zero, full), (true, false, false));
    }
}
