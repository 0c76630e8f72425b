use proptest::prelude::*;

use super::*;

const ID: &str = "2299a2ca59dfd821f367e689d5869c4e568272c2305701761888e1d79d7a6f51";
const OTHER: &str = "00000000000000000000000000000000000000000000000000000000000000aa";
const UUID: &str = "5a61dbc8-3b5c-4bd3-a8e2-6c8f2a1f0b33";

#[test]
fn full_ids_are_read_from_the_paths_of_every_runtime() {
    let paths = [
        (format!("/docker/{ID}"), "docker"),
        (format!("/system.slice/docker-{ID}.scope"), "docker"),
        (format!("/docker/{ID}/init.scope"), "docker"),
        (format!("/ecs/0123456789abcdef/{ID}"), "docker"),
        (format!("/kubepods/besteffort/pod{UUID}/{ID}"), "cgroup"),
        (
            format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod5a61dbc8_3b5c.slice/cri-containerd-{ID}.scope"),
            "containerd",
        ),
        (format!("/system.slice/containerd.service/kubepods-pod5a61.slice:cri-containerd:{ID}"), "containerd"),
        (format!("/kubepods.slice/kubepods-pod5a61dbc8_3b5c.slice/crio-{ID}.scope"), "cri-o"),
        (format!("/kubepods/pod{UUID}/crio-{ID}"), "cri-o"),
        (format!("/k8s.io/{ID}"), "containerd"),
        (format!("/default/{ID}"), "containerd"),
        (format!("/user.slice/user-1000.slice/user@1000.service/user.slice/nerdctl-{ID}.scope"), "containerd"),
        (format!("/machine.slice/libpod-{ID}.scope"), "podman"),
        (format!("/machine.slice/libpod-{ID}.scope/container"), "podman"),
        (format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container"), "podman"),
        (format!("/libpod_parent/libpod-{ID}"), "podman"),
        (format!("/somewhere/else/{ID}"), "cgroup"),
    ];
    for (path, runtime) in paths {
        let found = named(&path).unwrap_or_else(|| panic!("{path}"));
        assert_eq!((found.id, found.runtime, found.name.as_str()), (Some(ID), runtime, &ID[..12]), "{path}");
        assert!(path.starts_with(found.root) && found.root.trim_end_matches(".scope").ends_with(ID), "{path}");
    }
}

#[test]
fn containers_without_an_id_are_known_by_their_name() {
    let paths = [
        ("/lxc.payload.web/system.slice/ssh.service", "lxc", "web", "/lxc.payload.web"),
        ("/lxc/web/ns", "lxc", "web", "/lxc/web"),
        ("/lxc.payload/web", "lxc", "web", "/lxc.payload/web"),
        ("/lxc.payload.project_web", "lxc", "project_web", "/lxc.payload.project_web"),
        ("/machine.slice/machine-web.scope/init.scope", "systemd-nspawn", "web", "/machine.slice/machine-web.scope"),
        (r"/machine.slice/machine-debian\x2d12.scope", "systemd-nspawn", "debian-12", r"/machine.slice/machine-debian\x2d12.scope"),
        (r"/machine.slice/systemd-nspawn@a\x2db.service/payload", "systemd-nspawn", "a-b", r"/machine.slice/systemd-nspawn@a\x2db.service"),
        (r"/machine.slice/machine-lxc\x2d4711\x2dold.scope", "lxc", "old", r"/machine.slice/machine-lxc\x2d4711\x2dold.scope"),
        (
            "/docker/buildkit/k2v5xw1q0z8c7n6m4b3a2s1d9f",
            "cgroup",
            "buildkit k2v5xw1q0z8c7n6m4b3a2s1d9f",
            "/docker/buildkit/k2v5xw1q0z8c7n6m4b3a2s1d9f",
        ),
        ("/system.slice/garden/1a2b3c4d", "cgroup", "garden 1a2b3c4d", "/system.slice/garden/1a2b3c4d"),
    ];
    for (path, runtime, name, root) in paths {
        assert_eq!(named(path), Some(Named { id: None, name: name.to_owned(), runtime, root }), "{path}");
    }
    let nomad = format!("/nomad.slice/share.slice/{UUID}.redis.scope");
    assert_eq!(named(&nomad).map(|it| (it.name, it.runtime)), Some(("redis".to_owned(), "cgroup")));
    let mesos = format!("/mesos/{OTHER}/x/mesos/{UUID}");
    assert_eq!(named(&mesos).map(|it| it.name), Some(UUID.to_owned()));
}

#[test]
fn a_container_inside_a_container_is_the_inner_one() {
    assert_eq!(named(&format!("/docker/{OTHER}/docker/{ID}")).and_then(|it| it.id), Some(ID));
    assert_eq!(named(&format!("/docker/{OTHER}/kubepods/pod1/{ID}/system.slice")).and_then(|it| it.id), Some(ID));
    assert_eq!(named(&format!("/lxc.payload.web/docker/{ID}/init")).and_then(|it| it.id), Some(ID));
    assert_eq!(named(&format!("/docker/{OTHER}/machine.slice/libpod-conmon-{ID}.scope")).and_then(|it| it.id), Some(OTHER));
}

#[test]
fn services_slices_monitors_and_virtual_machines_are_no_containers() {
    let paths = [
        "",
        "/",
        "/system.slice/ssh.service",
        "/user.slice/user-1000.slice/session-3.scope",
        "/kubepods.slice",
        "/kubepods/besteffort/pod5a61dbc8",
        "/docker",
        "/docker/abc",
        "/lxc",
        "/lxc.payload",
        "/lxc.monitor.web",
        "/lxc.pivot",
        "/machine.slice",
        r"/machine.slice/machine-qemu\x2d1\x2dvm.scope",
        r"/machine.slice/machine-qemu\x2d1\x2dvm.scope/emulator",
        "/machine.slice/other.scope",
        "/machine.slice/machine-.scope",
        "/system.slice/machine-web.scope",
        "/garden",
        "/nomad.slice/share.slice",
        "no slash",
    ];
    for path in paths {
        assert_eq!(named(path), None, "{path}");
    }
    assert_eq!(named(&format!("/machine.slice/libpod-conmon-{ID}.scope")), None);
    assert_eq!(named(&format!("/system.slice/crio-conmon-{ID}.scope")), None);
    assert_eq!(named(&format!("/docker/{}", ID.to_uppercase())), None);
    assert_eq!(named(&format!("/system.slice/{UUID}.redis.scope")), None);
}

#[test]
fn a_derived_id_is_the_same_again_and_another_elsewhere() {
    let id = derived_id("host", "/lxc/web");
    assert_eq!(
        id, "0e7b4c58394f58c7ba70a97df1e082d9367a0fb5aa1fdab35126195132c83d15",
        "the id is part of the contract: it may not change with a version"
    );
    assert_eq!(derived_id("host", "/lxc/web"), id);
    for (host, root) in [("host", "/lxc/wec"), ("host2", "/lxc/web"), ("host/", "lxc/web"), ("", "host/lxc/web")] {
        assert_ne!(derived_id(host, root), id);
    }
}

proptest! {
    #[test]
    fn arbitrary_paths_do_no_harm(path in "(/?[a-z0-9.:@\\\\x_-]{0,70}|/lxc|/docker|/machine.slice|/machine-|\\PC{0,10}){0,8}") {
        if let Some(found) = named(&path) {
            prop_assert!(path.starts_with(found.root));
            prop_assert!(!found.name.is_empty() && found.name.len() <= NAME_MAX && !found.name.chars().any(char::is_control));
        }
    }
}
