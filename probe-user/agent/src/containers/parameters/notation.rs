//! How Docker's command line spells ports, sizes, times, mounts and devices.

use std::collections::HashMap;

use bollard::models::{
    DeviceRequest, Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountImageOptions, MountTmpfsOptions, MountType,
    MountVolumeOptions, MountVolumeOptionsDriverConfig, PortBinding,
};

/// Ports of one range; the daemon would have to keep each of them.
const PORTS_MAX: u32 = 1 << 16;

/// With a protocol.
pub(in super::super) fn port(value: &str) -> String {
    if value.contains('/') { value.to_owned() } else { format!("{value}/tcp") }
}

/// A size: `64m`, `1g`, `1024`.
pub(super) fn bytes(value: &str) -> Option<i64> {
    let lower = value.to_ascii_lowercase();
    let text = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, shift) = match text.chars().last()? {
        'k' => (&text[..text.len() - 1], 10),
        'm' => (&text[..text.len() - 1], 20),
        'g' => (&text[..text.len() - 1], 30),
        't' => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    digits.parse::<i64>().ok()?.checked_mul(1 << shift)
}

/// A time: `30s`, `1m30s`, `0`.
pub(super) fn nanoseconds(value: &str) -> Option<i64> {
    if value == "0" {
        return Some(0);
    }
    let mut rest = value;
    let mut total = 0.0;
    while !rest.is_empty() {
        let unit_at = rest.find(|it: char| !it.is_ascii_digit() && it != '.')?;
        let unit_end = rest[unit_at..].find(|it: char| it.is_ascii_digit()).map_or(rest.len(), |it| unit_at + it);
        let scale = match &rest[unit_at..unit_end] {
            "ns" => 1.0,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3_600e9,
            _ => return None,
        };
        total += rest[..unit_at].parse::<f64>().ok()? * scale;
        rest = &rest[unit_end..];
    }
    #[expect(clippy::cast_possible_truncation, reason = "in range, by the condition")]
    (!value.is_empty() && total < 9e18).then(|| total.round() as i64)
}

/// A line of values between commas, where those in quotes may have commas.
pub(super) fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut characters = quoted.char_indices().peekable();
            let end = loop {
                match characters.next()? {
                    (_, '"') if characters.peek().is_some_and(|(_, it)| *it == '"') => {
                        characters.next();
                        field.push('"');
                    }
                    (at, '"') => break at + 1,
                    (_, it) => field.push(it),
                }
            };
            fields.push(field);
            match quoted[end..].strip_prefix(',') {
                Some(it) => rest = it,
                None if quoted[end..].is_empty() => return Some(fields),
                None => return None,
            }
        } else {
            match rest.split_once(',') {
                Some((field, it)) => {
                    fields.push(field.to_owned());
                    rest = it;
                }
                None => {
                    fields.push(rest.to_owned());
                    return Some(fields);
                }
            }
        }
    }
}

/// `80`, `8080:80/udp`, `127.0.0.1:8080:80`, `[::1]::80`, `8000-8010:9000-9010`: ports inside, each with where it is found outside.
pub(super) fn published(value: &str) -> Option<Vec<(String, PortBinding)>> {
    let (ports, protocol) = value.rsplit_once('/').unwrap_or((value, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return None;
    }
    let (outside, inside) = ports.rsplit_once(':').unwrap_or(("", ports));
    let (ip, outside) = outside.rsplit_once(':').unwrap_or(("", outside));
    let ip = ip.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(ip);
    if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() {
        return None;
    }
    let inside = range(inside)?;
    let count = inside.1 - inside.0 + 1;
    let on_host: Vec<String> = match outside {
        "" => vec![String::new(); usize::try_from(count).ok()?],
        _ => match range(outside)? {
            (first, last) if last - first + 1 == count => (first..=last).map(|it| it.to_string()).collect(),
            // One of several: the daemon takes one that is free.
            _ if count == 1 => vec![outside.to_owned()],
            _ => return None,
        },
    };
    let bound = (inside.0..=inside.1).zip(on_host).map(|(inside, outside)| {
        let host_ip = Some(ip.to_owned()).filter(|it| !it.is_empty());
        (format!("{inside}/{protocol}"), PortBinding { host_ip, host_port: Some(outside) })
    });
    Some(bound.collect())
}

/// One port, or the first and the last of several.
fn range(text: &str) -> Option<(u32, u32)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
    (0 < first && first <= last && last < PORTS_MAX).then_some((first, last))
}

/// `type=bind,source=/a,target=/b,readonly`.
pub(super) fn mount(value: &str) -> Option<Mount> {
    let mut it = Mount { typ: Some(MountType::VOLUME), ..Mount::default() };
    for field in fields(value)? {
        let (key, value) = field.split_once('=').unwrap_or((field.as_str(), ""));
        let truth = || match value {
            "" | "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        };
        match key.to_ascii_lowercase().as_str() {
            "type" => {
                it.typ = Some(match value {
                    "bind" => MountType::BIND,
                    "volume" => MountType::VOLUME,
                    "tmpfs" => MountType::TMPFS,
                    "image" => MountType::IMAGE,
                    _ => return None,
                });
            }
            "source" | "src" => it.source = Some(value.to_owned()),
            "target" | "dst" | "destination" => it.target = Some(value.to_owned()),
            "readonly" | "ro" => it.read_only = Some(truth()?),
            "consistency" => it.consistency = Some(value.to_owned()),
            "bind-propagation" => bind(&mut it).propagation = Some(propagation(value)?),
            "bind-nonrecursive" => bind(&mut it).non_recursive = Some(truth()?),
            "bind-recursive" => match value {
                "enabled" => {}
                "disabled" => bind(&mut it).non_recursive = Some(true),
                "writable" => bind(&mut it).read_only_non_recursive = Some(true),
                "readonly" => bind(&mut it).read_only_force_recursive = Some(true),
                _ => return None,
            },
            "bind-create-src" => bind(&mut it).create_mountpoint = Some(truth()?),
            "volume-nocopy" => volume(&mut it).no_copy = Some(truth()?),
            "volume-subpath" => volume(&mut it).subpath = Some(value.to_owned()),
            "volume-label" => insert(&mut volume(&mut it).labels, value),
            "volume-driver" => driver(&mut it).name = Some(value.to_owned()),
            "volume-opt" => insert(&mut driver(&mut it).options, value),
            "image-subpath" => {
                it.image_options.get_or_insert_with(MountImageOptions::default).subpath = Some(value.to_owned());
            }
            "tmpfs-size" => it.tmpfs_options.get_or_insert_with(MountTmpfsOptions::default).size_bytes = Some(bytes(value)?),
            "tmpfs-mode" => {
                it.tmpfs_options.get_or_insert_with(MountTmpfsOptions::default).mode = Some(i64::from_str_radix(value, 8).ok()?);
            }
            _ => return None,
        }
    }
    it.target.as_ref().is_some_and(|it| !it.is_empty()).then_some(it)
}

fn bind(it: &mut Mount) -> &mut MountBindOptions {
    it.bind_options.get_or_insert_with(MountBindOptions::default)
}

fn volume(it: &mut Mount) -> &mut MountVolumeOptions {
    it.volume_options.get_or_insert_with(MountVolumeOptions::default)
}

fn driver(it: &mut Mount) -> &mut MountVolumeOptionsDriverConfig {
    volume(it).driver_config.get_or_insert_with(MountVolumeOptionsDriverConfig::default)
}

fn propagation(value: &str) -> Option<MountBindOptionsPropagationEnum> {
    use MountBindOptionsPropagationEnum as Propagation;

    Some(match value {
        "private" => Propagation::PRIVATE,
        "rprivate" => Propagation::RPRIVATE,
        "shared" => Propagation::SHARED,
        "rshared" => Propagation::RSHARED,
        "slave" => Propagation::SLAVE,
        "rslave" => Propagation::RSLAVE,
        _ => return None,
    })
}

fn insert(map: &mut Option<HashMap<String, String>>, value: &str) {
    let (name, value) = value.split_once('=').unwrap_or((value, ""));
    map.get_or_insert_with(HashMap::new).insert(name.to_owned(), value.to_owned());
}

/// `all`, `2`, `device=0`, `"device=0,1",driver=nvidia`.
pub(super) fn gpus(value: &str) -> Option<DeviceRequest> {
    let mut it = DeviceRequest { options: Some(HashMap::new()), ..DeviceRequest::default() };
    let count = |text: &str| if text == "all" { Some(-1) } else { text.parse::<i64>().ok().filter(|it| *it >= 0) };
    let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    for field in fields(value)? {
        match field.split_once('=') {
            None => it.count = Some(count(&field)?),
            Some(("count", value)) => it.count = Some(count(value)?),
            Some(("driver", value)) => it.driver = Some(value.to_owned()),
            Some(("device", value)) => it.device_ids = Some(list(value)),
            Some(("capabilities", value)) => it.capabilities = Some(vec![list(value).into_iter().chain(["gpu".to_owned()]).collect()]),
            Some(("options", value)) => fields(value)?.iter().for_each(|option| insert(&mut it.options, option)),
            Some(_) => return None,
        }
    }
    if it.count.is_none() && it.device_ids.is_none() {
        it.count = Some(1);
    }
    it.capabilities.get_or_insert_with(|| vec![vec!["gpu".to_owned()]]);
    Some(it)
}
