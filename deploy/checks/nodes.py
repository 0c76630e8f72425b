"""What runs on nodes: the agent in the node's root, and the probe."""

import json
import re

from .common import ENVIRONMENTS, HERE, OPTIONAL, ROOT, containers, kustomize, name_of, parsed, run


def check_agent(_):
    """The agent is in the node's root, its image has what brings it there, and nobody uses its API without saying who they are."""
    found, script = [], (HERE / "images/agent.sh").read_text()
    node, program = (re.search(rf"^{it}=(\S+)$", script, re.M)[1] for it in ("node", "program"))
    dockerfile = (ROOT / "Dockerfile.probe").read_text()
    made = {(it["metadata"]["namespace"], it["metadata"]["name"]): it["stringData"] for it in parsed(run("sh", str(HERE / "secrets.sh")).stdout) if it["kind"] == "Secret"}
    # A shell, and what the script calls, are what brings it there.
    made_by = (HERE / "images/agent-root.sh").read_text()
    called = set(re.findall(r"^ *(?:exec |if ! )?(?:/bin/)?(cp|mkdir|chroot|mount|nsenter|mv|ln|umount|unshare)\b", script, re.M)) | set(re.findall(r"\$\((\w+)", script))
    brought = set(re.search(r"^for name in (.+); do$", made_by, re.M)[1].split()) | {"nsenter"}
    if missing := called - brought:
        found.append(f"images/agent-root.sh: agent.sh calls {sorted(missing)}, which the image has not")
    for target in ("agent", "agent-prebuilt"):
        if not re.search(rf"^FROM agent-base AS {target}$", dockerfile, re.M):
            found.append(f"Dockerfile.probe: there is no target {target}")
    if f"program={program}\n" not in script or "sed -n 's/^program=//p'" not in made_by:
        found.append("images/agent-root.sh: the agent is laid out for another place than agent.sh starts it at")
    for directory in (*(f"k8s/overlays/{it}" for it in ENVIRONMENTS), "rollouts", *OPTIONAL):
        things = {name_of(it): it for it in kustomize(HERE / directory)}
        pod = things["DaemonSet/orchestrator-node/orchestrator-agent"]["spec"]["template"]["spec"]
        one = pod["containers"][0]
        if not re.match(r"(.*/)?orchestrator-agent[:@]", one["image"]) or not (pod["hostPID"] and pod["hostNetwork"] and one["securityContext"]["privileged"]):
            found.append(f"{directory}: the agent's pod is not one that could enter the node's root")
        mounts = {it["mountPath"]: it for it in one["volumeMounts"]}
        if mounts.get(node, {}).get("mountPropagation") != "HostToContainer":
            found.append(f"{directory}: the node's root is not at {node}, or what is mounted below it would come to the node")
        given = dict(it.partition("=")[::2] for it in one["args"])
        for flag in ("--work-dir", "--runtime-dir", "--http-credentials", "--jwt-secret-key", "--credential", *(it for it in given if it.startswith("--tls-"))):
            if not any(f"{node}{given[flag]}".startswith(it) for it in mounts if it != node):
                found.append(f"{directory}: {flag}={given[flag]} is not mounted below {node}")
        found += [f"{directory}: the agent has no {it}" for it in ("--authenticate-http-readonly", "--authenticate-http-readwrite", "--authenticate-http-executors") if it not in given]
        if not any(it.get("key") == "orchestrator.io/agent" for it in pod.get("tolerations", [])):
            found.append(f"{directory}: a node that is kept for agents has none")
        control = next(it for name, it in things.items() if name.endswith("/orchestrator-control") and containers(it))
        leading = control["spec"]["template"]["spec"]
        arguments = leading["containers"][0]["args"]
        if not any(it.startswith("--agent-login-file=") for it in arguments):
            found.append(f"{directory}: the control plane has nothing to show agents")
        # A file of the master's credentials, and of the agent's own, is a key of a secret that secrets.sh makes.
        asked = next((it.partition("=")[2].split() for it in arguments if it.startswith("--mesos-flags=")), [])
        told = next((it.partition("=")[2] for it in asked if it.startswith("--credentials=")), None)
        if "--authenticate_agents" not in asked or told is None:
            found.append(f"{directory}: anybody can register an agent")
            continue
        for whose, spec, file, below in (("orchestrator", leading, told, ""), ("orchestrator-node", pod, given.get("--credential", ""), node)):
            volumes = {it["name"]: it.get("secret", {}).get("secretName") for it in spec["volumes"]}
            secret = next((volumes[it["name"]] for it in spec["containers"][0]["volumeMounts"] if f"{below}{file}".rpartition("/")[0] == it["mountPath"]), None)
            if file.rpartition("/")[2] not in made.get((whose, secret), {}):
                found.append(f"{directory}: deploy/secrets.sh makes no {file} for {whose}")
    shown = json.loads(made["orchestrator-node", "orchestrator-agent-credential"]["credential"])
    if json.loads(made["orchestrator", "orchestrator-agent-credential"]["credentials"])["credentials"] != [shown]:
        found.append("deploy/secrets.sh: what agents show is not what they are asked for")
    return found


def check_probe(_):
    """The probe starts on nodes that have no machine id, is the same after a restart, and reaches every runtime's socket and the node's shell where it is told to."""
    found, config = [], (ROOT / "probe-user/src/config.rs").read_text()
    # Where it looks for runtimes by itself: below what every overlay mounts, or what a component adds.
    usual = re.findall(r'"(/[^"]+\.sock)"', re.search(r"SOCKETS: .*?\];", (ROOT / "probe-user/src/cri.rs").read_text(), re.S)[0])
    reached = set()
    kept = re.search(r'\(STATE_DIR, "([^"]+)"\)', config)[1]
    for directory in (*(f"k8s/overlays/{it}" for it in ENVIRONMENTS), *OPTIONAL):
        pod = next(it for it in kustomize(HERE / directory) if it["kind"] == "DaemonSet" and it["metadata"]["name"] == "orchestrator-probe")["spec"]["template"]["spec"]
        volumes = {it["name"]: it.get("hostPath", {}) for it in pod["volumes"]}
        mounts = {it["mountPath"]: it for it in pod["containers"][0]["volumeMounts"]}
        arguments, rights = pod["containers"][0]["args"], pod["containers"][0]["securityContext"]["capabilities"]["add"]
        told = next((it.partition("=")[2].split(",") for it in arguments if it.startswith("--cri-socket=")), [])
        there = {it for it in (*usual, *told) if any(it.startswith(f"{at}/") for at in mounts)}
        reached |= there
        found += [f"{directory}: the directory of {it} is not mounted" for it in told if it not in there]
        # As controls/src/host.rs says when one is missing.
        if "--host-shell" in arguments and not (pod["hostPID"] and {"SYS_PTRACE", "SYS_ADMIN", "SYS_CHROOT"} <= set(rights)):
            found.append(f"{directory}: a shell on the node is offered, and cannot be had")
        if ("--host-shell" in arguments) != ("SYS_CHROOT" in rights):
            found.append(f"{directory}: SYS_CHROOT is for the node's shell alone")
        if volumes[mounts["/etc/machine-id"]["name"]].get("type") != "FileOrCreate":
            found.append(f"{directory}: a node without /etc/machine-id, as those of k3d, has no probe, or gets a directory of this name")
        state = mounts.get(kept)
        if not state or state.get("readOnly") or volumes[state["name"]] != {"path": kept, "type": "DirectoryOrCreate"}:
            found.append(f"{directory}: the id that a probe makes is not kept on its node, in {kept}")
    found += [f"{it} is looked for, and neither an overlay nor a component mounts its directory" for it in usual if it not in reached]
    return found
