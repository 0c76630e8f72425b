//! The providers: by which words of the firmware each is known, what its service is asked, and what its answers mean. Pure.

use proto::probe::v1::host::Cloud;
use serde::Deserialize;

use crate::host::cloud::http::Answer;

/// Longest word of an answer that is believed.
const WORD_MAX: usize = 128;

/// Who rents out the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Provider {
    Aws,
    Gcp,
    Azure,
    Openstack,
    DigitalOcean,
    Hetzner,
    Oracle,
}

/// One question.
#[derive(Clone, Copy)]
pub(super) struct Question {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) headers: &'static [(&'static str, &'static str)],
    /// Header in which the token goes out.
    pub(super) token_header: Option<&'static str>,
    /// Takes in the answer. What is not understood is left out.
    pub(super) take: fn(&[u8], &mut Cloud),
}

const fn get(path: &'static str, headers: &'static [(&'static str, &'static str)], take: fn(&[u8], &mut Cloud)) -> Question {
    Question { method: "GET", path, headers, token_header: None, take }
}

const GOOGLE: &[(&str, &str)] = &[("metadata-flavor", "Google")];
const ORACLE: &[(&str, &str)] = &[("authorization", "Bearer Oracle")];

/// Instance metadata service, version 2: a token first, which a request forged through some web application could not get.
const AWS_TOKEN: Question = Question {
    method: "PUT",
    path: "/latest/api/token",
    headers: &[("x-aws-ec2-metadata-token-ttl-seconds", "60")],
    token_header: None,
    take: |_, _| {},
};
const AWS: &[Question] = &[Question {
    method: "GET",
    path: "/latest/dynamic/instance-identity/document",
    headers: &[],
    token_header: Some("x-aws-ec2-metadata-token"),
    take: aws,
}];

// One word each: the whole of an instance has its access tokens in it.
const GCP: &[Question] = &[
    get("/computeMetadata/v1/instance/id", GOOGLE, |body, cloud| cloud.instance_id = word(body)),
    get("/computeMetadata/v1/instance/zone", GOOGLE, gcp_zone),
    get("/computeMetadata/v1/instance/machine-type", GOOGLE, |body, cloud| cloud.instance_type = word(last_part(body))),
];

const AZURE: &[Question] = &[get("/metadata/instance/compute?api-version=2021-02-01&format=json", &[("metadata", "true")], azure)];

const OPENSTACK: &[Question] = &[
    get("/openstack/latest/meta_data.json", &[], openstack),
    get("/latest/meta-data/instance-type", &[], |body, cloud| cloud.instance_type = word(body)),
];

const DIGITAL_OCEAN: &[Question] = &[
    get("/metadata/v1/id", &[], |body, cloud| cloud.instance_id = word(body)),
    get("/metadata/v1/region", &[], |body, cloud| cloud.region = word(body)),
];

const HETZNER: &[Question] = &[
    get("/hetzner/v1/metadata/instance-id", &[], |body, cloud| cloud.instance_id = word(body)),
    get("/hetzner/v1/metadata/region", &[], |body, cloud| cloud.region = word(body)),
    get("/hetzner/v1/metadata/availability-zone", &[], |body, cloud| cloud.zone = word(body)),
];

const ORACLE_CLOUD: &[Question] = &[
    get("/opc/v2/instance/id", ORACLE, |body, cloud| cloud.instance_id = word(body)),
    get("/opc/v2/instance/canonicalRegionName", ORACLE, |body, cloud| cloud.region = word(body)),
    get("/opc/v2/instance/availabilityDomain", ORACLE, |body, cloud| cloud.zone = word(body)),
    get("/opc/v2/instance/shape", ORACLE, |body, cloud| cloud.instance_type = word(body)),
];

impl Provider {
    /// Knows a provider by the words that its machines' firmware says; `read` reads a file of `/sys/class/dmi/id`.
    pub(super) fn of(read: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let says = |file: &str| read(file).unwrap_or_default();
        let (vendor, product, tag) = (says("sys_vendor"), says("product_name"), says("chassis_asset_tag"));
        // Nitro says it itself, Xen in the version of its firmware ("4.11.amazon").
        if vendor == "Amazon EC2" || says("bios_vendor") == "Amazon EC2" || says("bios_version").ends_with(".amazon") {
            return Some(Provider::Aws);
        }
        // Google makes notebooks, too.
        if vendor == "Google" && product.starts_with("Google") {
            return Some(Provider::Gcp);
        }
        // Any Hyper-V says "Microsoft Corporation"; the tag is Azure's alone.
        if tag == "7783-7084-3265-9085-8269-3286-77" {
            return Some(Provider::Azure);
        }
        if tag == "OracleCloud.com" {
            return Some(Provider::Oracle);
        }
        match vendor.as_str() {
            "DigitalOcean" => return Some(Provider::DigitalOcean),
            "Hetzner" => return Some(Provider::Hetzner),
            _ => {}
        }
        let of_openstack = vendor == "OpenStack Foundation"
            || matches!(product.as_str(), "OpenStack Nova" | "OpenStack Compute")
            || matches!(tag.as_str(), "OpenTelekomCloud" | "SAP CCloud VM" | "HUAWEICLOUD" | "Samsung Cloud Platform");
        of_openstack.then_some(Provider::Openstack)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Provider::Aws => "aws",
            Provider::Gcp => "gcp",
            Provider::Azure => "azure",
            Provider::Openstack => "openstack",
            Provider::DigitalOcean => "digitalocean",
            Provider::Hetzner => "hetzner",
            Provider::Oracle => "oracle",
        }
    }

    /// What has to be asked before anything else.
    pub(super) fn token_question(self) -> Option<Question> {
        (self == Provider::Aws).then_some(AWS_TOKEN)
    }

    pub(super) fn questions(self) -> &'static [Question] {
        match self {
            Provider::Aws => AWS,
            Provider::Gcp => GCP,
            Provider::Azure => AZURE,
            Provider::Openstack => OPENSTACK,
            Provider::DigitalOcean => DIGITAL_OCEAN,
            Provider::Hetzner => HETZNER,
            Provider::Oracle => ORACLE_CLOUD,
        }
    }

    /// Whether an answer is the service's own. Google asks its clients to look.
    pub(super) fn vouches_for(self, answer: &Answer) -> bool {
        self != Provider::Gcp || answer.flavor.as_deref() == Some("Google")
    }
}

/// The session token, which goes back in a header.
pub(super) fn token(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.trim();
    (!text.is_empty() && text.len() <= 512 && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.to_owned())
}

/// A word of an answer; empty when it is none that could be shown: a page of HTML is not the name of a zone.
fn word(text: &[u8]) -> String {
    let text = text.trim_ascii();
    let is_word = text.len() <= WORD_MAX && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._:/".contains(byte));
    if is_word { String::from_utf8_lossy(text).into_owned() } else { String::new() }
}

fn last_part(text: &[u8]) -> &[u8] {
    text.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AwsDocument {
    region: Option<String>,
    availability_zone: Option<String>,
    instance_id: Option<String>,
    instance_type: Option<String>,
}

fn aws(body: &[u8], cloud: &mut Cloud) {
    let it: AwsDocument = serde_json::from_slice(body).unwrap_or_default();
    (cloud.region, cloud.zone) = (text(it.region), text(it.availability_zone));
    (cloud.instance_id, cloud.instance_type) = (text(it.instance_id), text(it.instance_type));
}

/// "projects/123/zones/europe-west1-b": the zone, and the region that it is in.
fn gcp_zone(body: &[u8], cloud: &mut Cloud) {
    cloud.zone = word(last_part(body));
    cloud.region = cloud.zone.rsplit_once('-').map(|(region, _)| region.to_owned()).unwrap_or_default();
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AzureCompute {
    location: Option<String>,
    zone: Option<String>,
    vm_id: Option<String>,
    vm_size: Option<String>,
}

fn azure(body: &[u8], cloud: &mut Cloud) {
    let it: AzureCompute = serde_json::from_slice(body).unwrap_or_default();
    (cloud.region, cloud.zone) = (text(it.location), text(it.zone));
    (cloud.instance_id, cloud.instance_type) = (text(it.vm_id), text(it.vm_size));
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OpenstackMetadata {
    uuid: Option<String>,
    availability_zone: Option<String>,
}

fn openstack(body: &[u8], cloud: &mut Cloud) {
    let it: OpenstackMetadata = serde_json::from_slice(body).unwrap_or_default();
    (cloud.instance_id, cloud.zone) = (text(it.uuid), text(it.availability_zone));
}

fn text(value: Option<String>) -> String {
    value.map(|it| word(it.as_bytes())).unwrap_or_default()
}
