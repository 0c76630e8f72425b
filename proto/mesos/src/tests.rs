use prost::Message as _;

use crate::v1;

#[test]
fn calls_are_announced_by_one_number_and_carried_in_the_field_of_another() {
    let call = v1::scheduler::Call {
        r#type: Some(v1::scheduler::call::Type::UpdateFramework.into()),
        update_framework: Some(v1::scheduler::call::UpdateFramework::default()),
        ..Default::default()
    };
    // Field 2 holds 17, field 19 holds the payload.
    assert_eq!(call.encode_to_vec()[..4], [0x10, 17, 0x9a, 0x01]);
}

#[test]
fn the_descriptors_hold_every_package() {
    let set = prost_types::FileDescriptorSet::decode(crate::FILE_DESCRIPTORS).unwrap();
    let mut packages: Vec<&str> = set.file.iter().map(|file| file.package()).filter(|package| package.starts_with("mesos")).collect();
    packages.sort_unstable();
    assert_eq!(
        packages,
        [
            "mesos.v1",
            "mesos.v1.agent",
            "mesos.v1.allocator",
            "mesos.v1.executor",
            "mesos.v1.maintenance",
            "mesos.v1.master",
            "mesos.v1.quota",
            "mesos.v1.scheduler"
        ]
    );
}
