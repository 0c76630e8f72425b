//! `metadata`, without managed fields and annotations.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::kind::Kind;
use crate::objects::Uid;

/// Longest uid that is taken for one. The API's are 36 characters, hashes 32.
const UID_MAX: usize = 128;

/// What is read of `metadata`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    pub(super) name: Option<String>,
    pub(super) namespace: Option<String>,
    uid: Option<String>,
    pub(super) resource_version: Option<String>,
    pub(super) creation_timestamp: Option<String>,
    deletion_timestamp: Option<String>,
    pub(super) labels: Option<BTreeMap<String, Option<String>>>,
    annotations: Option<Annotations>,
    pub(super) owner_references: Option<Vec<OwnerReference>>,
}

/// The two annotations that say something.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "kubernetes.io/config.hash")]
    config_hash: Option<String>,
    #[serde(rename = "volume.beta.kubernetes.io/storage-class")]
    storage_class: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct OwnerReference {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) uid: String,
}

impl Metadata {
    /// The id on the stream. The kubelet labels the containers of a static pod with the hash of its file; the uid that the API gave to its
    /// mirror is known to nobody else. A hash has no hyphen and a uid has some, so nobody's annotation can take another object's id.
    pub(super) fn stream_uid(&self, kind: Kind) -> Option<Uid> {
        let usable = |id: &&str| is_uid(id);
        let hash = self.annotations.as_ref().and_then(|annotations| annotations.config_hash.as_deref());
        let hash = hash.filter(|hash| kind == Kind::Pod && hash.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        hash.filter(usable).or(self.uid.as_deref().filter(usable)).map(Uid::from)
    }

    /// Somebody has asked for its end.
    pub(super) fn is_terminating(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    /// The class of a claim from before there was a field for it.
    pub(super) fn take_storage_class(&mut self) -> Option<String> {
        self.annotations.as_mut().and_then(|annotations| annotations.storage_class.take())
    }
}

/// Whether the stream takes this for an id.
pub(super) fn is_uid(id: &str) -> bool {
    !id.is_empty() && id.len() <= UID_MAX && !id.chars().any(char::is_control)
}

/// Unix nanoseconds of an RFC 3339 time; 0 when there is none, or none that can be read.
pub(super) fn unix_nanos(time: Option<&str>) -> u64 {
    time.and_then(|time| time.parse::<jiff::Timestamp>().ok()).and_then(|time| u64::try_from(time.as_nanosecond()).ok()).unwrap_or(0)
}
