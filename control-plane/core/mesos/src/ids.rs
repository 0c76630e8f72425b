use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// An id that is shared rather than copied.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $proto:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// As the wire's message.
            pub fn to_proto(&self) -> $proto {
                $proto { value: self.0.to_string() }
            }
        }

        impl From<&str> for $name {
            fn from(value: &str) -> Self {
                $name(value.into())
            }
        }

        impl From<String> for $name {
            fn from(value: String) -> Self {
                $name(value.into())
            }
        }

        impl From<&$proto> for $name {
            fn from(id: &$proto) -> Self {
                $name(id.value.as_str().into())
            }
        }

        impl From<$proto> for $name {
            fn from(id: $proto) -> Self {
                $name(id.value.into())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

id!(
    /// `<master-id>-S<n>`
    AgentId,
    mesos_proto::v1::AgentId
);
id!(
    /// `<master-id>-NNNN`
    FrameworkId,
    mesos_proto::v1::FrameworkId
);
id!(
    /// Chosen by the framework; unique among its live tasks.
    TaskId,
    mesos_proto::v1::TaskId
);
id!(
    /// Chosen by the framework; unique among its executors on one agent.
    ExecutorId,
    mesos_proto::v1::ExecutorId
);
id!(
    /// `<master-id>-O<n>`, of offers and inverse offers.
    OfferId,
    mesos_proto::v1::OfferId
);
id!(
    /// Chosen by the framework, for feedback on an offer operation.
    OperationId,
    mesos_proto::v1::OperationId
);

/// What is wrong with an id that a client chose, in Mesos's words; `None` when nothing is.
///
/// Ids become names of directories: at most 255 bytes, no separator, no control character, not `.` or `..`.
pub fn id_error(id: &str) -> Option<String> {
    if id.is_empty() {
        return Some("ID must not be empty".into());
    }
    if id.len() > 255 {
        return Some("ID must not be greater than 255 characters".into());
    }
    if id == "." || id == ".." {
        return Some(format!("'{id}' is disallowed"));
    }
    if id.bytes().any(|byte| byte.is_ascii_control() || byte == b'/' || byte == b'\\') {
        return Some(format!("'{id}' contains invalid characters"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_directory_name() {
        for good in ["a", "app.1.instance-2", "..a", "ü", &"x".repeat(255)] {
            assert_eq!(id_error(good), None, "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a\\b", "a\nb", "\0", &"x".repeat(256)] {
            assert!(id_error(bad).is_some(), "{bad:?}");
        }
    }
}
