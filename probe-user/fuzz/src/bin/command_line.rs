//! Command lines and paths of cgroups, which any process may choose: nothing makes the masks or the names panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use orchestrator_probe::cgroups::names::named;
use orchestrator_probe::mask::Masks;
use orchestrator_probe::procfs::{COMMAND_LINE_MAX, parse};

fuzz_target!(|bytes: &[u8]| {
    let line = parse::command_line(bytes, &Masks::default());
    assert!(line.whole.len() <= COMMAND_LINE_MAX && !line.whole.chars().any(char::is_control));
    if let Ok(path) = std::str::from_utf8(bytes)
        && let Some(container) = named(path)
    {
        assert!(path.starts_with(container.root) && !container.name.is_empty());
    }
});
