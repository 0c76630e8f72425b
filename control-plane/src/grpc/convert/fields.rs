//! Single values: ids, texts, addresses, numbers, moments.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use base::Timestamp;
use proto::probe::v1 as wire;
use topology::{Network, ProcessKey};

use super::{Checked, Converter, Fault, ID_MAX, NAME_MAX, TEXT_MAX};

/// A host's name is the beginning of node ids, in which `;` separates and `<>` mark: it is letters, digits, `-`, `_`, `.` and `:`.
pub(super) fn check_host_name(name: &str) -> Checked<()> {
    if !(1..=253).contains(&name.len()) {
        return Err(Fault::malformed("host_name has not 1 to 253 characters"));
    }
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':'))) {
        Some(c) => Err(Fault::malformed(format!("host_name has the character {c:?}"))),
        None => Ok(()),
    }
}

pub(super) fn id(field: &str, text: &str) -> Checked<Arc<str>> {
    if !(1..=ID_MAX).contains(&text.len()) {
        return Err(Fault::malformed(format!("{field} has not 1 to {ID_MAX} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(Fault::malformed(format!("{field} has control characters")));
    }
    Ok(text.into())
}

pub(super) fn optional_id(field: &str, text: &str) -> Checked<Option<Arc<str>>> {
    if text.is_empty() { Ok(None) } else { id(field, text).map(Some) }
}

pub(super) fn port(field: &str, number: u32) -> Checked<u16> {
    u16::try_from(number).map_err(|_| Fault::malformed(format!("{field} is {number}, which is no port")))
}

pub(super) fn address(field: &str, bytes: &[u8]) -> Checked<IpAddr> {
    let address = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok(),
        16 => <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok(),
        _ => None,
    };
    let address = address.ok_or_else(|| Fault::malformed(format!("{field} has {} bytes, not 4 or 16", bytes.len())))?;
    Ok(address.to_canonical())
}

pub(super) fn written_address(field: &str, text: &str) -> Checked<IpAddr> {
    let address: IpAddr = text.parse().map_err(|_| Fault::malformed(format!("{field} is {}, which is no address", shown(text))))?;
    Ok(address.to_canonical())
}

pub(super) fn network(field: &str, text: &str) -> Checked<Network> {
    let parsed = || {
        let (address, length) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let prefix_length = length.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (prefix_length <= longest).then_some(Network { address, prefix_length })
    };
    parsed().ok_or_else(|| Fault::malformed(format!("{field} is {}, which is no network", shown(text))))
}

/// A peer's text in a message to people: short, and without surprises.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    format!("{short:?}")
}

pub(super) fn process_key(field: &str, key: Option<wire::ProcessKey>) -> Checked<ProcessKey> {
    let key = key.ok_or_else(|| Fault::malformed(format!("{field} is missing")))?;
    if key.pid == 0 {
        return Err(Fault::malformed(format!("{field}.pid is 0")));
    }
    Ok(ProcessKey { pid: key.pid, start_time: key.start_time_boot_nanos })
}

pub(super) fn number(field: &str, value: f64) -> Checked<f64> {
    if value.is_finite() && value >= 0.0 { Ok(value) } else { Err(Fault::malformed(format!("{field} is {value}"))) }
}

pub(super) fn percent(field: &str, value: f64) -> Checked<f64> {
    // A little more than all comes from two clocks that do not tick together.
    number(field, value).map(|value| value.min(100.0))
}

/// Converts a list; a fault names the place.
pub(super) fn each<T, U>(field: &str, items: Vec<T>, mut convert: impl FnMut(T) -> Checked<U>) -> Checked<Vec<U>> {
    let numbered = items.into_iter().enumerate();
    numbered.map(|(at, item)| convert(item).map_err(|fault| fault.inside(format_args!("{field}[{at}]")))).collect()
}

impl Converter {
    pub(super) fn time(&mut self, unix_nanos: u64) -> Timestamp {
        let at = Timestamp::from_unix_nanos(unix_nanos);
        if at <= self.latest {
            return at;
        }
        self.repairs.times_clamped += 1;
        self.now
    }

    pub(super) fn optional_time(&mut self, unix_nanos: u64) -> Option<Timestamp> {
        (unix_nanos != 0).then(|| self.time(unix_nanos))
    }

    /// A text for people, cut where it is too long.
    pub(super) fn text(&mut self, text: String, longest: usize) -> Arc<str> {
        if text.len() <= longest {
            return text.into();
        }
        self.repairs.texts_cut += 1;
        let end = (0..=longest).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text[..end].into()
    }

    pub(super) fn texts(&mut self, entries: HashMap<String, String>) -> BTreeMap<Arc<str>, Arc<str>> {
        entries.into_iter().map(|(key, value)| (self.text(key, NAME_MAX), self.text(value, TEXT_MAX))).collect()
    }

    /// The first of a list, where a probe tells more than anybody looks at.
    pub(super) fn first<T>(&mut self, items: Vec<T>, most: usize) -> impl Iterator<Item = T> + use<T> {
        self.repairs.lists_cut += u64::from(items.len() > most);
        items.into_iter().take(most)
    }
}
