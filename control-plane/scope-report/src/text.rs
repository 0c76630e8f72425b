//! Node ids and the texts in them.

use std::sync::Arc;

/// An id, a key or a value of a report.
pub type Text = Arc<str>;

/// `value;<tag>` without the tag.
pub(crate) fn untagged<'a>(id: &'a str, tag: &str) -> Option<&'a str> {
    let (value, found) = id.split_once(';')?;
    (found.strip_prefix('<')?.strip_suffix('>')? == tag).then_some(value)
}

/// Scope, address and port of an endpoint's id.
pub(crate) fn endpoint_parts(id: &str) -> Option<(&str, &str, &str)> {
    let (scope, rest) = id.split_once(';')?;
    let (address, port) = rest.split_once(';')?;
    Some((scope, address, port))
}

/// The image's name without registry and tag.
pub(crate) fn image_without_tag(name: &str) -> &str {
    let mut parts = name.splitn(3, '/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(registry), Some(_), Some(_)) => &name[registry.len() + 1..],
        _ => name,
    };
    name.split_once(':').map_or(name, |(name, _)| name)
}

/// Whether an image does nothing but hold a pod's namespaces. The last one is not in Scope's list, but is where Kubernetes publishes it now.
pub(crate) fn is_pause_image(name: &str) -> bool {
    ["google_containers/pause", "k8s.gcr.io/pause", "eks/pause", "registry.k8s.io/pause"].iter().any(|pause| name.contains(pause))
}

/// A name of a service that Scope gave a node of its own.
pub(crate) fn is_known_service(name: &str) -> bool {
    const KNOWN: [&str; 10] = [
        "amazonaws.com",
        "googleapis.com",
        "weave.works",
        "core.windows.net",
        "servicebus.windows.net",
        "azure-api.net",
        "onmicrosoft.com",
        "cloudapp.azure.com",
        "database.windows.net",
        "documents.azure.com",
    ];
    let is_below = |suffix: &&str| name.strip_suffix(*suffix).is_some_and(|front| front.len() > 1 && front.ends_with('.'));
    // Machines of EC2 have names, too, and each would be a node.
    KNOWN.iter().any(is_below) && !(name.starts_with("ec2") && name.ends_with(".amazonaws.com"))
}

/// `1 pod`, `0 pods`.
pub(crate) fn plural(count: u64, one: &str, many: &str) -> Text {
    format!("{count} {}", if count == 1 { one } else { many }).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_names_lose_registry_and_tag() {
        for (name, short) in [
            ("nginx", "nginx"),
            ("nginx:1.9", "nginx"),
            ("weaveworks/scope:latest", "weaveworks/scope"),
            ("quay.io/weaveworks/scope:1.13", "weaveworks/scope"),
            ("localhost:5000/a/b:c", "a/b"),
            // Scope's own mistake, which ids in bookmarks have.
            ("localhost:5000/app", "localhost"),
            ("", ""),
        ] {
            assert_eq!(image_without_tag(name), short, "{name}");
        }
    }

    #[test]
    fn known_services_are_known_by_their_domain() {
        assert!(is_known_service("s3.amazonaws.com"));
        assert!(is_known_service("a.b.googleapis.com"));
        assert!(!is_known_service("amazonaws.com"));
        assert!(!is_known_service(".amazonaws.com"));
        assert!(!is_known_service("ec2-1-2-3-4.compute.amazonaws.com"));
        assert!(!is_known_service("notamazonaws.com"));
    }

    #[test]
    fn ids_come_apart() {
        assert_eq!(untagged("web-1;<host>", "host"), Some("web-1"));
        assert_eq!(untagged("web-1;<host", "host"), None);
        assert_eq!(endpoint_parts(";10.0.0.1;80"), Some(("", "10.0.0.1", "80")));
        assert_eq!(endpoint_parts("10.0.0.1;80"), None);
    }
}
