//! Small words that every room of the agent uses: names, time, and how Mesos spells durations and uuids.

use std::fmt;
use std::time::Duration;

use mesos_proto::v1::{FrameworkInfo, Resource, TaskState, framework_info, value};

/// When something happens: the wall clock for what is told, the steady clock for what is waited for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Now {
    /// Seconds since 1970 UTC.
    pub wall: f64,
    /// Since an arbitrary moment of this process; never goes back.
    pub steady: Duration,
}

/// An executor of a framework.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExecutorKey {
    /// Framework id.
    pub framework: String,
    /// Executor id.
    pub executor: String,
}

/// A task of a framework.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey {
    /// Framework id.
    pub framework: String,
    /// Task id.
    pub task: String,
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of framework {}", self.task, self.framework)
    }
}

/// A container: its id, and those of the containers it is nested in, outermost first, with dots between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerKey(String);

impl ContainerKey {
    /// A container that is not nested.
    pub fn root(id: &str) -> Self {
        ContainerKey(id.to_owned())
    }

    /// One that is nested in this.
    pub fn nested(&self, id: &str) -> Self {
        ContainerKey(format!("{}.{id}", self.0))
    }

    /// As text: `root.nested`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The outermost container.
    pub fn outermost(&self) -> ContainerKey {
        ContainerKey(self.0.split('.').next().unwrap_or(&self.0).to_owned())
    }

    /// The container that this is nested in.
    pub fn parent(&self) -> Option<ContainerKey> {
        self.0.rsplit_once('.').map(|(parent, _)| ContainerKey(parent.to_owned()))
    }

    /// Whether it is nested in another one, however deeply.
    pub fn is_below(&self, other: &ContainerKey) -> bool {
        self.0.strip_prefix(&other.0).is_some_and(|it| it.starts_with('.'))
    }

    /// Its own id.
    pub fn own_id(&self) -> &str {
        self.0.rsplit('.').next().unwrap_or(&self.0)
    }

    /// As Mesos's message.
    pub fn to_message(&self) -> mesos_proto::v1::ContainerId {
        mesos_proto::v1::ContainerId { value: self.own_id().to_owned(), parent: self.parent().map(|it| Box::new(it.to_message())) }
    }

    /// From Mesos's message, as a client sent it. `None` where an id is empty, too long, or could be another path than a directory's name.
    pub fn from_message(id: &mesos_proto::v1::ContainerId) -> Option<Self> {
        let mut parts = Vec::new();
        let mut at = Some(id);
        while let Some(id) = at {
            let fits = |it: char| it.is_ascii_alphanumeric() || it == '-' || it == '_';
            if id.value.is_empty() || id.value.len() > 255 || !id.value.chars().all(fits) || parts.len() == NESTED_MAX {
                return None;
            }
            parts.push(id.value.as_str());
            at = id.parent.as_deref();
        }
        parts.reverse();
        Some(ContainerKey(parts.join(".")))
    }

    /// From text that this agent wrote.
    pub fn from_text(text: &str) -> Self {
        ContainerKey(text.to_owned())
    }
}

impl fmt::Display for ContainerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How deep containers may be nested.
const NESTED_MAX: usize = 8;

/// Whether a task in this state is over.
pub fn is_terminal(state: TaskState) -> bool {
    use TaskState as S;
    matches!(
        state,
        S::TaskFinished | S::TaskFailed | S::TaskKilled | S::TaskError | S::TaskLost | S::TaskDropped | S::TaskGone | S::TaskGoneByOperator
    )
}

/// Whether a framework has said that it understands something.
pub fn has_capability(framework: &FrameworkInfo, capability: framework_info::capability::Type) -> bool {
    framework.capabilities.iter().any(|it| it.r#type == Some(capability as i32))
}

/// What a framework calls a task that never ran: those that know of partitions hear a word of its own.
pub fn dropped(framework: &FrameworkInfo) -> TaskState {
    if has_capability(framework, framework_info::capability::Type::PartitionAware) { TaskState::TaskDropped } else { TaskState::TaskLost }
}

/// The same for one that ran and is no more.
pub fn gone(framework: &FrameworkInfo) -> TaskState {
    if has_capability(framework, framework_info::capability::Type::PartitionAware) { TaskState::TaskGone } else { TaskState::TaskLost }
}

/// Sum of the scalar resources of this name, whatever their role.
pub fn scalar(resources: &[Resource], name: &str) -> f64 {
    let values = resources.iter().filter(|it| it.name == name).filter_map(|it| it.scalar.as_ref()).map(|it| it.value);
    // `sum` of nothing is -0.0, and people are shown it.
    let sum = values.fold(0.0, |sum, it| sum + it);
    // Mesos counts in thousandths.
    (sum * 1000.0).round() / 1000.0
}

/// All ranges of the resources of this name.
pub fn ranges(resources: &[Resource], name: &str) -> Vec<(u64, u64)> {
    let of_name = resources.iter().filter(|it| it.name == name).filter_map(|it| it.ranges.as_ref());
    of_name.flat_map(|it| it.range.iter().map(|it| (it.begin, it.end))).collect()
}

/// A scalar resource of the default role.
pub fn scalar_resource(name: &str, value: f64) -> Resource {
    Resource { name: name.to_owned(), r#type: value::Type::Scalar as i32, scalar: Some(value::Scalar { value }), ..Resource::default() }
}

/// A resource of ranges of the default role.
pub fn ranges_resource(name: &str, ranges: impl IntoIterator<Item = (u64, u64)>) -> Resource {
    let range = ranges.into_iter().map(|(begin, end)| value::Range { begin, end }).collect();
    let ranges = Some(value::Ranges { range });
    Resource { name: name.to_owned(), r#type: value::Type::Ranges as i32, ranges, ..Resource::default() }
}

/// A duration as Mesos prints it: the largest unit that gives at least one, without trailing zeros. Clients parse exactly these suffixes.
pub fn render_duration(duration: Duration) -> String {
    const UNITS: [(&str, u128); 8] = [
        ("weeks", 604_800_000_000_000),
        ("days", 86_400_000_000_000),
        ("hrs", 3_600_000_000_000),
        ("mins", 60_000_000_000),
        ("secs", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    let nanos = duration.as_nanos();
    let (unit, size) = UNITS.into_iter().find(|(_, size)| nanos >= *size).unwrap_or(("ns", 1));
    if nanos.is_multiple_of(size) {
        return format!("{}{unit}", nanos / size);
    }
    #[expect(clippy::cast_precision_loss, reason = "printed for people and clients that read a few digits")]
    let value = nanos as f64 / size as f64;
    format!("{value}{unit}")
}

/// A duration as Mesos's flags have it, such as `15mins` or `2.5secs`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|it: char| it.is_ascii_alphabetic()).ok_or_else(|| "has no unit, such as 5secs or 15mins".to_owned())?;
    let (value, unit) = text.split_at(unit_at);
    let value: f64 = value.trim().parse().map_err(|_| "not a number with a unit, such as 5secs".to_owned())?;
    let seconds = match unit {
        "ns" => value * 1e-9,
        "us" => value * 1e-6,
        "ms" => value * 1e-3,
        "secs" | "s" => value,
        "mins" | "m" => value * 60.0,
        "hrs" | "h" => value * 3600.0,
        "days" | "d" => value * 86_400.0,
        "weeks" => value * 604_800.0,
        _ => return Err("there are the units ns, us, ms, secs, mins, hrs, days and weeks".to_owned()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| "negative or too long".to_owned())
}

/// The time of a message of Mesos; what is negative is nothing.
pub fn nanoseconds(value: i64) -> Duration {
    Duration::from_nanos(u64::try_from(value).unwrap_or(0))
}

/// A uuid as text.
pub fn render_uuid(bytes: &[u8; 16]) -> String {
    use std::fmt::Write as _;

    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Where new ids come from.
pub trait Ids: Send + Sync {
    /// A random uuid, version 4.
    fn uuid(&mut self) -> [u8; 16];
}

/// Ids from the system's random source.
#[derive(Debug, Default)]
pub struct SystemIds;

impl Ids for SystemIds {
    fn uuid(&mut self) -> [u8; 16] {
        use std::io::Read as _;

        let mut bytes = [0; 16];
        let read = std::fs::File::open("/dev/urandom").and_then(|mut it| it.read_exact(&mut bytes));
        if read.is_err() {
            // Without a random source: still unique on this host.
            let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |it| it.as_nanos());
            bytes = (nanos ^ (u128::from(std::process::id()) << 96)).to_be_bytes();
        }
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_spelled_as_mesos_does() {
        let spelled = [(0, "0ns"), (1_500, "1.5secs"), (2_000, "2secs"), (900_000, "15mins"), (604_800_000, "1weeks"), (5, "5ms")];
        for (millis, text) in spelled {
            assert_eq!(render_duration(Duration::from_millis(millis)), text);
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)));
        }
        for wrong in ["", "5", "secs", "5parsecs", "-3secs", "1e400secs"] {
            parse_duration(wrong).unwrap_err();
        }
    }

    #[test]
    fn container_ids_of_clients_cannot_be_paths() {
        let id = |value: &str, parent: Option<&str>| mesos_proto::v1::ContainerId {
            value: value.to_owned(),
            parent: parent.map(|it| Box::new(mesos_proto::v1::ContainerId { value: it.to_owned(), parent: None })),
        };
        let key = ContainerKey::from_message(&id("child", Some("root"))).unwrap();
        assert_eq!(
            (key.as_str(), key.own_id(), key.parent(), key.outermost().as_str()),
            ("root.child", "child", Some(ContainerKey::root("root")), "root")
        );
        assert_eq!(key.to_message(), id("child", Some("root")));
        for hostile in ["", "..", "a/b", "a.b", "a\0", " "] {
            assert_eq!(ContainerKey::from_message(&id(hostile, None)), None);
        }
    }
}
