use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A role: `*`, or a path like `eng/web`. Shared rather than copied.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Role(Arc<str>);

impl Role {
    /// The role of what nobody reserved.
    pub fn star() -> Role {
        Role("*".into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `*`.
    pub fn is_star(&self) -> bool {
        &*self.0 == "*"
    }

    /// The first component: what quota is set for.
    pub fn top_level(&self) -> &str {
        self.0.split('/').next().unwrap_or(&self.0)
    }

    /// Whether this is strictly below `ancestor`.
    pub fn is_below(&self, ancestor: &str) -> bool {
        self.0.strip_prefix(ancestor).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Whether a framework in this role may use what is reserved for `reserved`: the role itself and those above it.
    pub fn may_use(&self, reserved: &str) -> bool {
        &*self.0 == reserved || self.is_below(reserved)
    }

    /// What is wrong with a role's name, in Mesos's words; `None` when nothing is.
    pub fn error(role: &str) -> Option<String> {
        if role == "*" {
            return None;
        }
        if role.is_empty() {
            return Some("Role names cannot be the empty string".into());
        }
        if role.starts_with('/') {
            return Some(format!("Role '{role}' cannot start with a slash"));
        }
        if role.ends_with('/') {
            return Some(format!("Role '{role}' cannot end with a slash"));
        }
        if role.contains("//") {
            return Some(format!("Role '{role}' cannot contain two adjacent slashes"));
        }
        role.split('/').find_map(|component| match component {
            "." | ".." | "*" => Some(format!("Role '{role}' cannot include '{component}' as a component")),
            _ if component.starts_with('-') => Some(format!("Role component '{component}' is invalid because it starts with a dash")),
            _ if component.contains([' ', '\t', '\n', '\r', '\x0b', '\x0c', '\x08']) => {
                Some(format!("Role component '{component}' is invalid because it contains backspace or whitespace"))
            }
            _ => None,
        })
    }
}

impl From<&str> for Role {
    fn from(role: &str) -> Self {
        Role(role.into())
    }
}

impl Borrow<str> for Role {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Deref for Role {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_roles() {
        for good in ["*", "a", "a/b", "eng.web", "a-b", "...", "a/*b"] {
            assert_eq!(Role::error(good), None, "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "a/*", ".", "a/..", "-a", "a/-b", "a b", "a\tb", "a\x08b"] {
            assert!(Role::error(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn a_role_may_use_what_is_above_it() {
        let role = Role::from("eng/web");
        assert!(role.may_use("eng/web") && role.may_use("eng"));
        assert!(!role.may_use("en") && !role.may_use("eng/web/x") && !role.may_use("*"));
        assert_eq!(role.top_level(), "eng");
    }
}
