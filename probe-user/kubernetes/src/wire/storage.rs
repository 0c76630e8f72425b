//! Persistent volumes, their claims and their classes.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::cut::Cut;
use super::{Metadata, Wire};
use crate::kind::Kind;
use crate::objects::{Details, StorageDetails};

/// The fields of a volume's spec that say where it is kept, but for those that name a driver of their own.
const SOURCES: [&str; 21] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "fc",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
    "ephemeral",
];

/// What is read of a volume.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PersistentVolume {
    metadata: Metadata,
    spec: VolumeSpec,
    status: Option<Status>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct VolumeSpec {
    storage_class_name: Option<String>,
    capacity: Option<BTreeMap<String, Quantity>>,
    access_modes: Option<Vec<String>>,
    claim_ref: Option<ClaimRef>,
    csi: Option<Driver>,
    flex_volume: Option<Driver>,
    /// Volumes are few: their other fields may be gone through by name.
    #[serde(flatten)]
    rest: BTreeMap<String, Option<IgnoredAny>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClaimRef {
    name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Driver {
    driver: Option<String>,
}

/// A quantity is a text to the API; a number is taken for one.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Quantity {
    Text(String),
    Number(f64),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    capacity: Option<BTreeMap<String, Quantity>>,
    access_modes: Option<Vec<String>>,
}

impl Wire for PersistentVolume {
    type Api = k8s_openapi::api::core::v1::PersistentVolume;
    const KIND: Kind = Kind::PersistentVolume;

    fn take_metadata(&mut self) -> Metadata {
        std::mem::take(&mut self.metadata)
    }

    fn details(self, _: &str, cut: &mut Cut) -> Details {
        let spec = self.spec;
        let named = spec.csi.or(spec.flex_volume).and_then(|source| source.driver);
        let in_tree = || SOURCES.iter().find(|&&source| matches!(spec.rest.get(source), Some(Some(_)))).map(|&source| source.to_owned());
        Details::Storage(Box::new(StorageDetails {
            status: cut.text(self.status.and_then(|status| status.phase)),
            storage_class: cut.text(spec.storage_class_name),
            storage_driver: cut.text(named.or_else(in_tree)),
            capacity: cut.text(storage(spec.capacity)),
            access_modes: cut.texts(spec.access_modes.unwrap_or_default().into_iter().map(Some)),
            bound_to: cut.text(spec.claim_ref.and_then(|claim| claim.name)),
        }))
    }
}

/// What is read of a claim.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PersistentVolumeClaim {
    metadata: Metadata,
    #[serde(skip)]
    old_class: Option<String>,
    spec: ClaimSpec,
    status: Option<Status>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ClaimSpec {
    storage_class_name: Option<String>,
    volume_name: Option<String>,
    access_modes: Option<Vec<String>>,
    resources: Option<Resources>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resources {
    requests: Option<BTreeMap<String, Quantity>>,
}

impl Wire for PersistentVolumeClaim {
    type Api = k8s_openapi::api::core::v1::PersistentVolumeClaim;
    const KIND: Kind = Kind::PersistentVolumeClaim;

    fn take_metadata(&mut self) -> Metadata {
        self.old_class = self.metadata.take_storage_class();
        std::mem::take(&mut self.metadata)
    }

    /// What it got, and until then what it asked for.
    fn details(self, _: &str, cut: &mut Cut) -> Details {
        let (spec, status) = (self.spec, self.status.unwrap_or_default());
        let asked = spec.resources.and_then(|resources| resources.requests);
        let modes = status.access_modes.filter(|modes| !modes.is_empty()).or(spec.access_modes);
        Details::Storage(Box::new(StorageDetails {
            status: cut.text(status.phase),
            storage_class: cut.text(spec.storage_class_name.or(self.old_class)),
            storage_driver: Box::default(),
            capacity: cut.text(storage(status.capacity).or_else(|| storage(asked))),
            access_modes: cut.texts(modes.unwrap_or_default().into_iter().map(Some)),
            bound_to: cut.text(spec.volume_name),
        }))
    }
}

/// What is read of a class.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct StorageClass {
    metadata: Metadata,
    provisioner: Option<String>,
}

impl Wire for StorageClass {
    type Api = k8s_openapi::api::storage::v1::StorageClass;
    const KIND: Kind = Kind::StorageClass;

    fn take_metadata(&mut self) -> Metadata {
        std::mem::take(&mut self.metadata)
    }

    fn details(self, _: &str, cut: &mut Cut) -> Details {
        Details::Storage(Box::new(StorageDetails { storage_driver: cut.text(self.provisioner), ..Default::default() }))
    }
}

fn storage(mut quantities: Option<BTreeMap<String, Quantity>>) -> Option<String> {
    quantities.as_mut().and_then(|quantities| quantities.remove("storage")).map(|quantity| match quantity {
        Quantity::Text(text) => text,
        Quantity::Number(number) => number.to_string(),
    })
}
