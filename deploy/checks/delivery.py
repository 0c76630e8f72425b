"""What delivers: the canary's steps and gates, and the applications of Argo CD."""

import os
import pathlib
import re
import shutil
import sys
import tempfile

import yaml

from .common import CHART, ENVIRONMENTS, HERE, ROOT, Missing, chart, containers, kustomize, name_of, run
from .manifests import differences


def check_canary(_):
    """Shares of 10, 25, 50, 75 and 100 %, each with a pause longer than the window and a gate; thresholds 95 %, 1 s and 2 s."""
    things = {name_of(it): it for it in kustomize(HERE / "rollouts")}
    canary, found = things["Rollout/orchestrator/orchestrator-control"]["spec"]["strategy"]["canary"], []
    if [it["setWeight"] for it in canary["steps"] if "setWeight" in it] != [10, 25, 50, 75, 100]:
        found.append("the shares are others")
    if [next(iter(it)) for it in canary["steps"]] != ["setWeight", "pause", "analysis"] * 5:
        found.append("the steps are not share, pause, gate")
    if any(it["pause"]["duration"] != "3m" for it in canary["steps"] if "pause" in it):
        found.append("a pause is not 3m, which is longer than the window of 2m")
    for name in ("control-plane-gate", "control-plane-slo"):
        metrics = {it["name"]: it for it in things[f"AnalysisTemplate/orchestrator/{name}"]["spec"]["metrics"]}
        for metric, good, bad in (("success-rate", ">= 0.95", "< 0.95"), ("p95-latency-seconds", "<= 1.0", "> 1.0"), ("p99-latency-seconds", "<= 2.0", "> 2.0"), ("success-rate-at-nginx", ">= 0.95", "< 0.95")):
            for key, end in (("successCondition", good), ("failureCondition", bad)):
                if metrics[metric][key] != f"len(result) > 0 && !isNaN(result[0]) && result[0] {end}":
                    found.append(f"{name}: {metric}: {key} is another")
            if name == "control-plane-slo" and (metrics[metric].get("initialDelay") != "3m" or metrics[metric]["inconclusiveLimit"] < 30):
                found.append(f"{name}: {metric}: it gives up before there can be anything to measure")
            if "[2m]" not in metrics[metric]["provider"]["prometheus"]["query"]:
                found.append(f"{name}: {metric}: another window")
    services = {canary["stableService"], canary["canaryService"]}
    found += [f"there is no service {it}" for it in services if f"Service/orchestrator/{it}" not in things]
    ingress = things[f"Ingress/orchestrator/{canary['trafficRouting']['nginx']['stableIngress']}"]
    backends = {path["backend"]["service"]["name"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]}
    if backends != {canary["stableService"]} or ingress["spec"]["ingressClassName"] != "nginx":
        found.append("the ingress does not lead to the stable service through Nginx")
    return found


def check_argocd(_):
    """Applications lead to what there is, and their projects allow every object of it."""
    found, root = [], HERE / "argocd"
    projects_of = {}
    # Where the workflow puts digests is where they are taken from.
    job = yaml.safe_load((ROOT / ".github/workflows/deploy.yml").read_text())["jobs"]["promote"]
    bases = re.fullmatch(r"\$\{\{ inputs.environment == '(\w+)' && '(\w+)' \|\| '(\w+)' \}\}", job["env"]["BASE"])
    # Without, an application of applications does not wait for them, and their waves mean nothing.
    health = yaml.safe_load((root / "health.yaml").read_text())
    if list(health) != ["data"] or "return hs" not in health["data"].get("resource.customizations.health.argoproj.io_Application", ""):
        found.append("health.yaml does not tell Argo CD how applications are")
    for environment in ENVIRONMENTS:
        project = yaml.safe_load((root / environment / "project.yaml").read_text())
        projects_of[environment] = project
        rooted = yaml.safe_load((root / "root" / f"{environment}.yaml").read_text())
        base = bases[2] if environment == bases[1] else bases[3]
        if rooted["spec"]["source"]["targetRevision"] != base:
            found.append(f"root of {environment}: it follows {rooted['spec']['source']['targetRevision']}, and digests are put on {base}")
        if not (ROOT / rooted["spec"]["source"]["path"]).is_dir():
            found.append(f"root of {environment}: no {rooted['spec']['source']['path']}")
        for path in sorted((root / environment).glob("*.yaml")):
            application = yaml.safe_load(path.read_text())
            if application["kind"] != "Application":
                continue
            spec, allowed = application["spec"], project["spec"]
            source = ROOT / spec["source"]["path"]
            if spec["project"] != project["metadata"]["name"] or spec["source"]["repoURL"] not in allowed["sourceRepos"]:
                found.append(f"{path.relative_to(ROOT)}: not of its project")
            if spec["source"]["targetRevision"] != rooted["spec"]["source"]["targetRevision"]:
                found.append(f"{path.relative_to(ROOT)}: another revision than the root's")
            if not source.is_dir():
                found.append(f"{path.relative_to(ROOT)}: there is no {spec['source']['path']}")
                continue
            for file in spec["source"].get("helm", {}).get("valueFiles", []):
                if not (source / file).exists():
                    found.append(f"{path.relative_to(ROOT)}: there is no {file}")
            told = {it["name"]: it["value"] == "true" for it in spec["source"].get("helm", {}).get("parameters", [])}
            things = chart(environment, {"preflight": {"enabled": told.get("preflight.enabled", False)}}) if "helm" in spec["source"] else kustomize(source)
            for component in spec["source"].get("kustomize", {}).get("components", []):
                resources = yaml.safe_load((source / component / "kustomization.yaml").read_text())["resources"]
                things += [it for file in resources for it in yaml.safe_load_all((source / component / file).read_text())]
            # What values of the chart, and components, add may be wanted the next day. An ensemble's password takes an ensemble.
            if spec["source"]["path"] != "deploy/monitoring":
                alone = {"zookeeper": {"enabled": False}, "controlPlane": {"replicas": 1, "storage": {"size": "10Gi"}}}
                for values in ({"tls": {"enabled": True}}, {"dns": {"enabled": True}}, alone, *({"vault": {"mode": it}} for it in ("agent", "csi") if environment != "dev")):
                    things += chart(environment, values)
            namespaces = {it["namespace"] for it in allowed["destinations"]}
            if spec["source"]["path"] != "deploy/monitoring" and not any(it["kind"] == "Job" and it["metadata"]["name"] == "orchestrator-preflight" for it in things):
                found.append(f"{path.relative_to(ROOT)}: nothing looks before a sync whether the cluster has what is needed")
            for thing in (it for it in things if it["metadata"].get("annotations", {}).get("helm.sh/hook") != "test"):
                group = thing["apiVersion"].split("/")[0] if "/" in thing["apiVersion"] else ""
                namespace = thing["metadata"].get("namespace")
                listed = allowed["namespaceResourceWhitelist" if namespace else "clusterResourceWhitelist"]
                if {"group": group, "kind": thing["kind"]} not in listed or namespace and namespace not in namespaces:
                    found.append(f"{path.relative_to(ROOT)}: the project does not allow {name_of(thing)}")
    return found


def check_promotion(_):
    """promote.py puts digests into every environment, for kustomize and for the chart alike, and nothing else changes."""
    found, digests = [], {it: "sha256:" + letter * 64 for it, letter in (("control", "a"), ("probe", "b"), ("agent", "c"))}
    expected = {f"registry.example/orchestrator-{it}@{value}" for it, value in digests.items()}
    with tempfile.TemporaryDirectory() as directory:
        copy = pathlib.Path(directory) / "deploy"
        for part in ("k8s", "helm", "rollouts"):
            shutil.copytree(HERE / part, copy / part)
        for environment in (*ENVIRONMENTS, *ENVIRONMENTS):
            # Twice: what was promoted is promoted again.
            command = [sys.executable, HERE / "promote.py", environment, "--registry=registry.example", "--in", copy, *(f"--{it}={value}" for it, value in digests.items())]
            done = run(*map(str, command))
            if done.returncode:
                return [f"{environment}: {done.stderr.strip()}"]
        for environment in ENVIRONMENTS:
            overlay = f"k8s/overlays/{environment}"
            for what, things, before in (
                ("kustomize", kustomize(copy / overlay), kustomize(HERE / overlay)),
                ("the chart", chart(environment, yaml.safe_load((copy / f"helm/orchestrator/values-{environment}.yaml").read_text())), chart(environment)),
            ):
                images = {one["image"] for it in things for one in containers(it) if "orchestrator-" in one["image"]}
                if images != expected:
                    found.append(f"{environment}: {what} has {images}")
                for one, other in zip(things, before, strict=True):
                    wrong = [it for it in differences(one, other) if ".image:" not in it]
                    found += [f"{environment}: {what}: {it}" for it in wrong]
        wrong = run(sys.executable, str(HERE / "promote.py"), "dev", "--registry=r", "--control=latest", f"--probe={digests['probe']}", f"--agent={digests['agent']}", "--in", str(copy))
        if wrong.returncode == 0 or "'latest' is no digest" not in wrong.stderr:
            found.append(f"a tag is taken for a digest: {wrong.stderr}")
    return found


# Stands in for Docker and cosign: what they are asked, and an index of one image and one attestation under each digest that was pushed.
STAND_IN = r"""#!/bin/bash
echo "$(basename "$0") $*" >> "$LOG"
one() { printf '{"digest":"sha256:%s","platform":{"architecture":"%s"}},{"digest":"sha256:a%s","platform":{"architecture":"unknown"}}' "$1" "$2" "$1"; }
case "$*" in
  *"{{json .Manifest.Digest}}"*) echo '"sha256:whole"' ;;
  *"--raw "*@sha256:whole) echo "{\"manifests\":[$(one image-of-amd amd64),$(one image-of-arm arm64)]}" ;;
  *"--raw "*@sha256:pushed-amd) echo "{\"manifests\":[$(one image-of-amd amd64)]}" ;;
  *"--raw "*@sha256:pushed-arm) echo "{\"manifests\":[$(one "${ARM:-image-of-arm}" arm64)]}" ;;
esac
"""


def check_publication(_):
    """publish.sh signs the whole, and attests each bill of materials to an image that is in it."""
    if not shutil.which("jq"):
        raise Missing("jq")
    found = []
    with tempfile.TemporaryDirectory() as directory:
        at = pathlib.Path(directory)
        (at / "digests").mkdir()
        for name in ("docker", "cosign"):
            (at / name).write_text(STAND_IN)
            (at / name).chmod(0o755)
        for name in ("pushed-amd", "pushed-arm"):
            (at / "digests" / name).write_text("{}")
        env = {**os.environ, "PATH": f"{at}:{os.environ['PATH']}", "LOG": str(at / "log"), "GITHUB_SHA": "commit"}
        command = [str(HERE / "images/publish.sh"), "registry", "control", "main", str(at / "digests")]
        done = run(*command, env=env)
        asked = (at / "log").read_text() if (at / "log").exists() else ""
        if done.returncode or done.stdout.strip() != "sha256:whole":
            found.append(f"publish.sh: {done.stdout}{done.stderr}")
        for line in ("cosign sign --yes --recursive registry/orchestrator-control@sha256:whole", *(f"cosign attest --yes --type cyclonedx --predicate {at}/digests/pushed-{it} registry/orchestrator-control@sha256:image-of-{it}" for it in ("amd", "arm"))):
            if line not in asked.splitlines():
                found.append(f"publish.sh: not done: {line}")
        done = run(*command, env={**env, "ARM": "another"})
        if done.returncode == 0 or "has no sha256:another" not in done.stderr:
            found.append(f"publish.sh attests to what is not published: {done.stderr}")
    return found


def check_tags(_):
    """Images are asked for by the names and tags under which the workflow publishes them, a version without v or the branch, and a tag that moves each time."""
    found, version = [], yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    published = {f"ghcr.io/orchestrator/orchestrator-{it}" for it in ("control", "probe", "agent")}
    workflow = (ROOT / ".github/workflows/images.yml").read_text()
    if "github.ref_name" in workflow or workflow.count("${GITHUB_REF_NAME#v}") != 2:
        found.append("images.yml: tags are not the version without v")
    for environment, tag in (("dev", "main"), ("staging", "main"), ("prod", version)):
        for what, things in (("kustomize", kustomize(HERE / "k8s/overlays" / environment)), ("the chart", chart(environment))):
            for image, policy in {(one["image"], one.get("imagePullPolicy")) for it in things for one in containers(it) if "orchestrator-" in one["image"]}:
                if image.endswith(":main") and policy != "Always":
                    found.append(f"{environment}: {what} takes for {image} what a node happens to have")
                name, digest, _ = image.partition("@")
                name, _, its = (name, "", "") if digest else name.rpartition(":")
                if name not in published or not digest and its != tag:
                    found.append(f"{environment}: {what} asks for {image}, which is not published")
    # What was loaded into nodes is in no registry.
    local = {(one["image"], one.get("imagePullPolicy")) for it in kustomize(HERE / "k8s/examples/kind") for one in containers(it)}
    if local != {(f"orchestrator-{it}:dev", "IfNotPresent") for it in ("control", "probe", "agent")}:
        found.append(f"examples/kind asks for {sorted(local)}")
    return found
