"""Command lines in manifests and units, against the programs."""

import os
import pathlib
import re
import shutil
import tempfile

from .common import ENVIRONMENTS, EVERYTHING, HERE, OPTIONAL, ROOT, Missing, chart, containers, kustomize, name_of, run


def known_flags(source):
    """Flags of both programs, and those that take no value."""
    flags = {}
    for program, directory in {"orchestrator-control": "control-plane/src", "orchestrator-probe": "probe-user/src"}.items():
        flags[program] = {}
        for path in [source / directory / "config.rs", *sorted((source / directory / "config").rglob("*.rs"))]:
            text = path.read_text()
            for attributes, name, kind in re.findall(r"#\[arg\(([^\]]*)\)\]\s+(?:pub(?:\(super\))? )?(\w+): ([\w<>:]+)", text):
                if re.search(r"\blong\b", attributes):
                    given = re.search(r'long = "([^"]+)"', attributes)
                    flags[program][given[1] if given else name.replace("_", "-")] = kind != "bool"
        if len(flags[program]) < 15:
            raise AssertionError(f"{program}: only {len(flags[program])} flags were found in {source}; has config.rs another shape?")
    return flags


def known_services(source):
    """Words that parse_services and parse_roles take."""
    text = (source / "control-plane/src/config/parse.rs").read_text()
    return set(re.findall(r'"(\w+)" => Ok\(Service::', text))


def program_in(image):
    """Which program of ours an image starts."""
    name = re.split("[:@]", image.split("/")[-1])[0]
    # The agent is the probe's program in another image.
    return {"orchestrator-control": "orchestrator-control", "orchestrator-probe": "orchestrator-probe", "orchestrator-agent": "orchestrator-probe"}.get(name)


def commands():
    """Where, program and arguments of everything that starts one of ours."""
    for environment in ENVIRONMENTS:
        sources = [("kustomize", lambda: kustomize(HERE / "k8s" / "overlays" / environment))]
        if (HERE / "helm").exists():
            sources.append(("helm", lambda: chart(environment)))
            if environment == "prod":
                sources.append(("helm with everything", lambda: chart(environment, EVERYTHING)))
        for kind, things in sources:
            try:
                things = things()
            except Missing as what:
                if kind == "kustomize":
                    raise
                print(f"     NOT COMPARED: the chart for {environment}: {what} is missing")
                continue
            for thing in things:
                for one in containers(thing):
                    if program := program_in(one["image"]):
                        yield f"{environment} {kind} {name_of(thing)}", program, one.get("args", []), {it["containerPort"] for it in one.get("ports", [])}
    for directory in ("rollouts", *OPTIONAL):
        for thing in kustomize(HERE / directory):
            for one in containers(thing):
                if program := program_in(one["image"]):
                    yield f"{directory} {name_of(thing)}", program, one.get("args", []), {it["containerPort"] for it in one.get("ports", [])}
    for path in sorted((HERE / "systemd").glob("*.service")):
        text = path.read_text().replace("\\\n", " ")
        for line in re.findall(r"^ExecStart=(.+)$", text, re.M):
            words = line.split()
            yield str(path.relative_to(ROOT)), words[0].split("/")[-1], words[1:], None


def inner_flags(source):
    """Names of the flags of Mesos' master and of Marathon that the control plane takes."""
    mesos = (source / "control-plane/edge-mesos/src/flags.rs").read_text()

    def table(name):
        return re.search(rf"const {name}: [^=]+= *\n? *&\[(.*?)\];", mesos, re.S)[1]

    taken = set(re.findall(r'\("(\w+)",', table("DEFAULTS") + table("ALIASES"))) | set(re.findall(r'"(\w+)",', table("WITHOUT_DEFAULT")))
    elsewhere = set(re.findall(r'\("(\w+)",', table("ELSEWHERE")))
    marathon = (source / "control-plane/edge-marathon/src/settings/flags.rs").read_text()
    idle = set(re.findall(r'"(\w+)",', re.search(r"const WITHOUT_EFFECT: [^=]+= &\[(.*?)\];", marathon, re.S)[1]))
    set_by = set(re.findall(r'^            "(\w+)" => ', marathon, re.M))
    if min(len(taken), len(idle), len(set_by)) < 25:
        raise AssertionError(f"only {len(taken)} flags of Mesos and {len(idle)} and {len(set_by)} of Marathon were found: have their tables another shape?")
    return {"marathon": idle | set_by | {f"disable_{it}" for it in idle}, "mesos": taken - elsewhere}


def flags_for_chart(known, inner):
    """The chart's list of flags, by which it refuses others: true where one takes a value."""
    lines = ["# Flags of the programs, and whether each takes a value; of Mesos and Marathon the names alone. cargo xtask deploy-check --bless writes it."]
    for program, names in sorted(inner.items()):
        lines += [f"{program}:", *(f"- {name}" for name in sorted(names))]
    for program, flags in sorted(known.items()):
        lines += [f"{program}:", *(f"  {name}: {str(takes).lower()}" for name, takes in sorted(flags.items()))]
    return "\n".join(lines) + "\n"


def check_flags(options):
    """Every argument is a flag that the program has, and every listener has its port; the chart knows all flags."""
    known, services, found, seen = known_flags(options.source), known_services(options.source), [], 0
    listed = HERE / "helm/orchestrator/files/flags.yaml"
    if options.bless:
        listed.write_text(flags_for_chart(known, inner_flags(options.source)))
    if not listed.exists() or listed.read_text() != flags_for_chart(known, inner_flags(options.source)):
        found.append("files/flags.yaml of the chart is not what the programs know; cargo xtask deploy-check --bless writes it anew")
    for where, program, arguments, ports in commands():
        seen += 1
        for argument in arguments:
            matched = re.fullmatch(r"--([a-z-]+)(=.*)?", argument)
            if not matched or matched[1] not in known[program]:
                found.append(f"{where}: {program} has no {argument.split('=')[0]}")
            elif known[program][matched[1]] != bool(matched[2]):
                found.append(f"{where}: {argument}: {'no value' if known[program][matched[1]] else 'it takes none'}")
            elif matched[1] == "services":
                found += [f"{where}: there is no service {it}" for it in matched[2][1:].split(",") if it not in services]
            elif matched[1] == "roles":
                found += [f"{where}: there is no role {it}" for it in matched[2][1:].split(",") if it not in ("observe", "run", "kubernetes")]
            elif matched[1].endswith("-address") and ports is not None:
                if not argument.startswith(f"--{matched[1]}=0.0.0.0:"):
                    found.append(f"{where}: {argument} is not reached from another pod")
                elif int(argument.rsplit(":", 1)[1]) not in ports:
                    found.append(f"{where}: {argument}: the container names no such port")
        if program == "orchestrator-control" and ports is not None:
            with_ensemble, replica = (any(it.startswith(f"--{name}=") for it in arguments) for name in ("zk", "replica-address"))
            if with_ensemble and not replica:
                found.append(f"{where}: --zk without --replica-address: followers could carry nothing")
    if not seen:
        found.append("nothing was looked at")
    return found


def check_systemd(_):
    """systemd-analyze knows every key of the units and of the drop-in that the book has, and the control plane may have the ports that documents give it."""
    if not shutil.which("systemd-analyze"):
        raise Missing("systemd-analyze")
    found = []
    control = (HERE / "systemd/orchestrator-control.service").read_text()
    for key in ("AmbientCapabilities", "CapabilityBoundingSet"):
        # It is no root there, and --dns-address is port 53.
        if f"\n{key}=CAP_NET_BIND_SERVICE\n" not in control:
            found.append(f"orchestrator-control.service: {key} lets it have no port below 1024, or more than that")
    with tempfile.TemporaryDirectory() as directory:
        for path in sorted((HERE / "systemd").glob("*.service")):
            # The programs are not installed here; another one stands in for them.
            at = pathlib.Path(directory) / path.name
            at.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", path.read_text(), flags=re.M))
            done = run("systemd-analyze", "verify", "--man=no", str(at))
            found += [line for line in (done.stdout + done.stderr).splitlines() if path.name in line]
        # Secrets of the control plane, which is no root: the lines in the unit to be uncommented, and the book's.
        book = (HERE.parent / "docs/install/systemd.md").read_text()
        drop_ins = re.findall(r"^```ini\n(.*?)^```", book, flags=re.M | re.S)
        if not drop_ins:
            found.append("docs/install/systemd.md: no drop-in with LoadCredential")
        offered = "\n".join(re.findall(r"^#((?:LoadCredential|Environment)=.*)$", control, flags=re.M))
        for number, text in enumerate([f"[Service]\n{offered}\n", *drop_ins]):
            given = set(re.findall(r"^LoadCredential=([^:\s]+):", text, flags=re.M))
            used = set(re.findall(r"%d/(\S+)", text))
            if not given or given != used:
                found.append(f"drop-in {number}: credentials {sorted(given)} are loaded and {sorted(used)} are used")
            at = pathlib.Path(directory) / f"orchestrator-drop-in-{number}.service"
            at.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", control, flags=re.M) + "\n" + text)
            done = run("systemd-analyze", "verify", "--man=no", str(at))
            found += [line for line in (done.stdout + done.stderr).splitlines() if at.name in line]
    return found


# A pod like the agent's, out of this machine's own files: its root, with a resolver of its own, and the node's root below it. $1 is a directory.
POD = r"""
set -eu
cd "$1"
mkdir root program run
if [ "$2" = noexec ]; then
  mount -t tmpfs -o noexec node program
fi
mount -t tmpfs pod root
for at in /*; do
  if [ -L "$at" ]; then
    cp -P "$at" "root$at"
  elif [ -d "$at" ] && [ "$at" != /tmp ] && [ "$at" != /host ]; then
    mkdir "root$at" && mount --rbind "$at" "root$at"
  fi
done
mkdir -p root/host root/old root/agent
mount --rbind / root/host
echo "nameserver 192.0.2.53" > resolver
resolver=$(readlink -m /etc/resolv.conf)
mount --bind resolver "root$resolver"
cp start root/start
cp told root/agent/orchestrator-probe
cp loader root/agent/ld-test.so
mount --make-private root
cd root
pivot_root . old
umount --lazy /old
# As a runtime leaves it that was asked for mounts in both directions.
mount --make-shared /
exec /start --one "--two=with blanks"
"""
# Stands in for the agent: says where it is, and does as tasks with an image do.
TOLD = r"""#!/bin/sh
echo "arguments: $*"
echo "resolver: $(cat /etc/resolv.conf)"
echo "here: $(ls "$(dirname "$0")/../start")"
mkdir -p "$(dirname "$0")/../image"
cd "$(dirname "$0")/../image"
unshare --mount --propagation slave sh -c 'mount --bind . . && cd "$PWD" && pivot_root . . && echo "an image is a root"'
"""


def check_agent_start(_):
    """The agent's image brings it into the node's root, with the cluster's names and with nothing that the node notices; where nothing runs, it says so."""
    if os.geteuid() != 0:
        raise Missing("root")
    for program in ("unshare", "nsenter", "pivot_root"):
        if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin"):
            raise Missing(program)
    with tempfile.TemporaryDirectory() as directory:
        at = pathlib.Path(directory)
        script = (HERE / "images/agent.sh").read_text()
        (at / "start").write_text(re.sub(r"^program=.*$", f"program={at}/program", script, flags=re.M))
        (at / "told").write_text(TOLD)
        # Stands in for the loader that comes with it.
        (at / "loader").write_text("#!/bin/sh\necho version\n")
        for it in ("start", "told", "loader"):
            (at / it).chmod(0o755)
        before = pathlib.Path("/etc/resolv.conf").read_text() if pathlib.Path("/etc/resolv.conf").exists() else None
        enter = ("unshare", "--mount", "--propagation=slave", "--pid", "--fork", "--mount-proc", "--net", "sh", "-c", POD, "sh", directory)
        done = run(*enter, "as it is")
        after = pathlib.Path("/etc/resolv.conf").read_text() if before is not None else None
    said = done.stdout + done.stderr
    wanted = ["arguments: --one --two=with blanks", f"here: {directory}/program/../start", "an image is a root"]
    wanted += ["resolver: nameserver 192.0.2.53"] if before is not None else []
    found = [f"{it!r} is not in what it says: {said.strip()[-800:]}" for it in wanted if it not in said]
    with tempfile.TemporaryDirectory() as directory:
        at = pathlib.Path(directory)
        (at / "start").write_text(re.sub(r"^program=.*$", f"program={at}/program", script, flags=re.M))
        (at / "told").write_text(TOLD)
        (at / "loader").write_text("#!/bin/sh\necho version\n")
        for it in ("start", "told", "loader"):
            (at / it).chmod(0o755)
        done = run(*enter[:-1], directory, "noexec")
    if done.returncode != 1 or "mounted noexec" not in done.stderr or "arguments:" in done.stdout:
        found.append(f"where nothing can be run: {done.returncode}: {(done.stdout + done.stderr).strip()[-800:]}")
    return found + (["the node has another resolver now"] if before != after else [])
