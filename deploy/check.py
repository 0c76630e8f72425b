#!/usr/bin/env python3
"""Checks everything in this directory that can be checked without a cluster.

    python3 -m venv v && v/bin/pip install -r deploy/requirements-check.txt && v/bin/python deploy/check.py

Each check prints `ok`, `FAIL` with what is wrong, or `NOT RUN` with what is missing; a defect makes the exit status 1, and with CI set so does a
check that was not run. --source DIR compares flags and metrics with the programs of another checkout; --crds DIR has the definitions of custom
resources (rollout, analysis template, application, project, rule, monitor) as their projects publish them; --promtool FILE names promtool.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

try:
    import yaml
except ImportError:
    sys.exit("PyYAML is missing: pip install -r deploy/requirements-check.txt")

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
ENVIRONMENTS = ("dev", "staging", "prod")
KUBERNETES = "1.34"
# Metrics of other programs, each with whose it is.
FOREIGN = {
    "container_cpu_usage_seconds_total": "cAdvisor",
    "container_memory_working_set_bytes": "cAdvisor",
    "container_network_receive_bytes_total": "cAdvisor",
    "kube_pod_container_status_restarts_total": "kube-state-metrics",
    "synced_followers": "ZooKeeper",
    "outstanding_requests": "ZooKeeper",
    "num_alive_connections": "ZooKeeper",
    "rollout_info": "Argo Rollouts",
    "rollout_info_replicas_desired": "Argo Rollouts",
    "rollout_info_replicas_updated": "Argo Rollouts",
    "rollout_info_replicas_available": "Argo Rollouts",
    "analysis_run_info": "Argo Rollouts",
    "nginx_ingress_controller_requests": "ingress-nginx",
}


class Missing(Exception):
    """What a check needs and this machine has not."""


def run(*command, cwd=None):
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def kustomize(directory):
    """The objects of a kustomization."""
    if not shutil.which("kubectl"):
        raise Missing("kubectl")
    done = run("kubectl", "kustomize", str(directory))
    if done.returncode:
        raise AssertionError(done.stderr.strip())
    return [it for it in yaml.safe_load_all(done.stdout) if it]


def name_of(thing):
    return f"{thing['kind']}/{thing['metadata'].get('namespace', '')}/{thing['metadata']['name']}"


def containers(thing):
    pod = thing.get("spec", {}).get("template", {}).get("spec", {}) if isinstance(thing.get("spec"), dict) else {}
    return pod.get("initContainers", []) + pod.get("containers", [])


def chart(environment, values=None):
    """The objects of the Helm chart, with the values of an environment or others."""
    try:
        import helm_python
    except ImportError:
        raise Missing("helm-python-sdk") from None
    directory = HERE / "helm" / "orchestrator"
    loaded = helm_python.Chart.load(str(directory))
    if environment:
        values = yaml.safe_load((directory / f"values-{environment}.yaml").read_text()) or {}
    rendered = loaded.render(values, name="orchestrator", namespace="orchestrator")
    texts = rendered.values() if isinstance(rendered, dict) else [rendered]
    return [it for text in texts for it in yaml.safe_load_all(text) if it]


def others():
    """Objects of the directories that are neither overlays nor the chart."""
    for directory in ("argocd", "rollouts"):
        for path in sorted((HERE / directory).rglob("*.yaml")):
            for thing in yaml.safe_load_all(path.read_text()):
                if isinstance(thing, dict) and "apiVersion" in thing and thing["kind"] != "Kustomization":
                    yield thing


def check_kustomize(_):
    """Every overlay is rendered, and its references lead somewhere."""
    found = []
    for environment in ENVIRONMENTS:
        found += references(kustomize(HERE / "k8s" / "overlays" / environment), environment)
    kustomize(HERE / "monitoring")
    return found + references(kustomize(HERE / "rollouts"), "rollouts")


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
    for environment in ENVIRONMENTS:
        project = yaml.safe_load((root / environment / "project.yaml").read_text())
        projects_of[environment] = project
        rooted = yaml.safe_load((root / "root" / f"{environment}.yaml").read_text())
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
            things = chart(environment) if "helm" in spec["source"] else kustomize(source)
            namespaces = {it["namespace"] for it in allowed["destinations"]}
            for thing in things:
                group = thing["apiVersion"].split("/")[0] if "/" in thing["apiVersion"] else ""
                namespace = thing["metadata"].get("namespace")
                listed = allowed["namespaceResourceWhitelist" if namespace else "clusterResourceWhitelist"]
                if {"group": group, "kind": thing["kind"]} not in listed or namespace and namespace not in namespaces:
                    found.append(f"{path.relative_to(ROOT)}: the project does not allow {name_of(thing)}")
    return found


def check_systemd(_):
    """systemd-analyze knows every key of the units."""
    if not shutil.which("systemd-analyze"):
        raise Missing("systemd-analyze")
    found = []
    with tempfile.TemporaryDirectory() as directory:
        for path in sorted((HERE / "systemd").glob("*.service")):
            # The programs are not installed here; another one stands in for them.
            at = pathlib.Path(directory) / path.name
            at.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", path.read_text(), flags=re.M))
            done = run("systemd-analyze", "verify", "--man=no", str(at))
            found += [line for line in (done.stdout + done.stderr).splitlines() if path.name in line]
    return found


def check_chart(_):
    """The chart renders the same objects as kustomize, and refuses values that cannot be."""
    found = []
    for environment in ENVIRONMENTS:
        with_kustomize = {name_of(it): it for it in kustomize(HERE / "k8s/overlays" / environment)}
        with_helm = {name_of(it): it for it in chart(environment)}
        found += [f"{environment}: only {side} has {it}" for side, these, those in (("kustomize", with_kustomize, with_helm), ("the chart", with_helm, with_kustomize)) for it in these.keys() - those.keys()]
        for name in with_kustomize.keys() & with_helm.keys():
            found += [f"{environment}: {name}: {it}" for it in differences(with_kustomize[name], with_helm[name])]
    for values, problem in (
        ({"controlPlane": {"replicas": 3}, "zookeeper": {"enabled": False}}, "embedded store"),
        ({"controlPlane": {"replica": 3}}, "replica"),
        ({"images": {"control": {"name": "x", "digest": "sha256:short"}}}, "digest"),
    ):
        try:
            chart(None, values)
            found.append(f"the chart takes {values}")
        except Missing:
            raise
        except Exception as error:  # noqa: BLE001: whatever the library raises, its text counts
            if problem not in str(error):
                found.append(f"{values} are refused with {str(error)[:200]!r}, which does not say why")
    return found


def differences(one, other, path=""):
    """Where kustomize's object and the chart's are not the same."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from differences(one.get(key), other.get(key), f"{path}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for at, (left, right) in enumerate(zip(one, other)):
            yield from differences(left, right, f"{path}[{at}]")
    elif one != other:
        yield f"{path}: {str(one)[:120]!r} and in the chart {str(other)[:120]!r}"


def references(things, where):
    """Services and policies select pods, config maps exist, ports have names."""
    found = []
    pods = [(it["metadata"]["namespace"], it["spec"]["template"]) for it in things if containers(it)]
    maps = {(it["metadata"]["namespace"], it["metadata"]["name"]) for it in things if it["kind"] == "ConfigMap"}

    def selected(namespace, labels):
        return [it for at, it in pods if at == namespace and labels.items() <= it["metadata"]["labels"].items()]

    for thing in things:
        namespace, spec = thing["metadata"].get("namespace"), thing.get("spec", {})
        if thing["kind"] == "Service":
            chosen = selected(namespace, spec["selector"])
            if not chosen:
                found.append(f"{where}: {name_of(thing)} selects no pod")
            names = {port["name"] for it in chosen for one in it["spec"]["containers"] for port in one.get("ports", [])}
            found += [f"{where}: {name_of(thing)}: no port {it['targetPort']}" for it in spec["ports"] if isinstance(it.get("targetPort"), str) and it["targetPort"] not in names]
        if thing["kind"] in ("NetworkPolicy", "PodDisruptionBudget", "PodMonitor"):
            selector = spec.get("podSelector", spec.get("selector"))
            if selector.get("matchLabels") and not selected(namespace, selector["matchLabels"]):
                found.append(f"{where}: {name_of(thing)} selects no pod")
        if containers(thing):
            pod = spec["template"]
            if not spec["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items():
                found.append(f"{where}: {name_of(thing)} does not select its own pods")
            claims = {it["metadata"]["name"] for it in spec.get("volumeClaimTemplates", [])}
            volumes = {it["name"] for it in pod["spec"].get("volumes", [])} | claims
            for volume in pod["spec"].get("volumes", []):
                if "configMap" in volume and (namespace, volume["configMap"]["name"]) not in maps:
                    found.append(f"{where}: {name_of(thing)}: there is no config map {volume['configMap']['name']}")
            for one in containers(thing):
                found += [f"{where}: {name_of(thing)}: no volume {it['name']}" for it in one.get("volumeMounts", []) if it["name"] not in volumes]
                own = {it["name"] for it in one.get("ports", [])}
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    port = one.get(probe, {}).get("httpGet", {}).get("port")
                    if isinstance(port, str) and port not in own:
                        found.append(f"{where}: {name_of(thing)}: {probe} asks port {port}, which has no number")
    return found


def known_flags(source):
    """Flags of both programs, and those that take no value."""
    flags = {}
    for program, files in {
        "orchestrator-control": ["control-plane/src/config.rs"],
        "orchestrator-probe": ["probe-user/src/config.rs", "probe-user/src/config/agent.rs", "probe-user/src/config/cluster.rs"],
    }.items():
        flags[program] = {}
        for file in files:
            path = source / file
            text = path.read_text() if path.exists() else ""
            for attributes, name, kind in re.findall(r"#\[arg\(([^\]]*)\)\]\s+(?:pub )?(\w+): ([\w<>:]+)", text):
                if re.search(r"\blong\b", attributes):
                    given = re.search(r'long = "([^"]+)"', attributes)
                    flags[program][given[1] if given else name.replace("_", "-")] = kind != "bool"
        if len(flags[program]) < 15:
            raise AssertionError(f"{program}: only {len(flags[program])} flags were found in {source}; has config.rs another shape?")
    return flags


def known_services(source):
    """Words that parse_services and parse_roles take."""
    text = (source / "control-plane/src/config.rs").read_text()
    return set(re.findall(r'"(\w+)" => Ok\(Service::', text))


def commands():
    """Where, program and arguments of everything that starts one of ours."""
    for environment in ENVIRONMENTS:
        sources = [("kustomize", lambda: kustomize(HERE / "k8s" / "overlays" / environment))]
        if (HERE / "helm").exists():
            sources.append(("helm", lambda: chart(environment)))
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
                    for program in ("orchestrator-control", "orchestrator-probe"):
                        if re.search(rf"(^|/){program}(?=[:@]|$)", one["image"]):
                            yield f"{environment} {kind} {name_of(thing)}", program, one.get("args", []), {it["containerPort"] for it in one.get("ports", [])}
    for thing in kustomize(HERE / "rollouts") if (HERE / "rollouts").exists() else []:
        for one in containers(thing) if thing["kind"] == "Rollout" else []:
            yield name_of(thing), "orchestrator-control", one.get("args", []), {it["containerPort"] for it in one.get("ports", [])}
    for path in sorted((HERE / "systemd").glob("*.service")):
        text = path.read_text().replace("\\\n", " ")
        for line in re.findall(r"^ExecStart=(.+)$", text, re.M):
            words = line.split()
            yield str(path.relative_to(ROOT)), words[0].split("/")[-1], words[1:], None


def check_flags(options):
    """Every argument is a flag that the program has, and every listener has its port."""
    known, services, found, seen = known_flags(options.source), known_services(options.source), [], 0
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


def check_policies(_):
    """Who may talk to whom, on which ports of the control plane."""
    found = []
    for environment in ENVIRONMENTS:
        policies = [it for it in kustomize(HERE / "k8s/overlays" / environment) if it["kind"] == "NetworkPolicy"]
        own = next(it["spec"] for it in policies if it["metadata"]["name"] == "control-plane")
        for direction, key in (("ingress", "from"), ("egress", "to")):
            ports = set()
            for rule in own[direction]:
                for peer in rule[key]:
                    if peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/component") == "control-plane":
                        ports |= {it["port"] for it in rule["ports"]}
            if ports != {4044}:
                found.append(f"{environment}: between control planes, {direction}: {sorted(ports)} instead of 4044")
        denied = {it["metadata"]["namespace"] for it in policies if it["metadata"]["name"] == "deny-all"}
        if denied != {"orchestrator", "orchestrator-node"}:
            found.append(f"{environment}: only {sorted(denied)} deny what is not allowed")
    return found


def check_schemas(_):
    """Every object of Kubernetes' own kinds is valid, with no unknown field."""
    try:
        import kubernetes_validate
    except ImportError:
        raise Missing("kubernetes-validate") from None
    found = []
    sets = [(it, kustomize(HERE / "k8s/overlays" / it)) for it in ENVIRONMENTS]
    sets += [("monitoring", kustomize(HERE / "monitoring")), ("others", list(others()))]
    sets.append(("controls", [it for it in yaml.safe_load_all((HERE / "k8s/collector-controls.yaml").read_text()) if it]))
    for where, things in sets:
        for thing in things:
            group = thing["apiVersion"].split("/")[0]
            if "." in group and not group.endswith(".k8s.io"):
                continue
            try:
                kubernetes_validate.validate(thing, KUBERNETES, strict=True)
            except Exception as error:  # noqa: BLE001: each version of the library has its own
                found.append(f"{where}: {name_of(thing)}: {str(error).splitlines()[0]}")
    return found


def strict(schema):
    """A schema of a custom resource that knows no other fields than those it names."""
    if isinstance(schema, list):
        return [strict(it) for it in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    # Of a map the keys are names of fields or of properties, whose values are schemas.
    closed = {key: {name: strict(it) for name, it in value.items()} if key == "properties" else strict(value) for key, value in schema.items() if key != "default"}
    if "properties" in closed and not closed.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed


def check_custom(options):
    """Every custom resource is valid by the definition that its project publishes."""
    if not options.crds:
        raise Missing("--crds")
    try:
        import jsonschema
    except ImportError:
        raise Missing("jsonschema") from None
    known = {}
    for path in pathlib.Path(options.crds).glob("*.yaml"):
        for definition in yaml.safe_load_all(path.read_text()):
            spec = (definition or {}).get("spec", {})
            for version in spec.get("versions", []):
                whole = strict(version["schema"]["openAPIV3Schema"])
                whole["properties"]["metadata"] = {"type": "object"}
                known[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = jsonschema.Draft7Validator(whole)
    things = [it for environment in ENVIRONMENTS for it in kustomize(HERE / "k8s/overlays" / environment)]
    things += kustomize(HERE / "monitoring") + kustomize(HERE / "rollouts") + list(others())
    found, unknown = [], set()
    for thing in things:
        group = thing["apiVersion"].split("/")[0]
        if "." not in group or group.endswith(".k8s.io"):
            continue
        validator = known.get((thing["apiVersion"], thing["kind"]))
        if validator is None:
            unknown.add(thing["kind"])
            continue
        found += [f"{name_of(thing)}: {'/'.join(map(str, it.absolute_path))}: {it.message[:200]}" for it in validator.iter_errors(thing)]
    if unknown:
        found.append(f"{options.crds} has no definition of {', '.join(sorted(unknown))}")
    return found


def own_metrics(source):
    """Names of all metrics that the programs' code has. Those of histograms without their endings."""
    names = set()
    for file in ("control-plane/src/telemetry/metrics.rs", "control-plane/zksync-service/src/metrics.rs", "probe-user/src/telemetry/metrics.rs", "probe-user/src/telemetry/metrics/kubernetes.rs"):
        names |= set(re.findall(r'"((?:orchestrator|monitoring_app|probe|zk|scope)_[a-z0-9_]+)"', (source / file).read_text()))
    mesos = (source / "control-plane/edge-mesos/src/view/metrics.rs").read_text()
    keys = set(re.findall(r'"((?:master|allocator|registrar)/[a-z0-9_/]+)"', mesos)) | {f"master/{it}" for it in re.findall(r'put\("([a-z_]+)",', mesos)}
    live = re.search(r"const LIVE.*?\];", mesos, re.S)[0]
    keys |= {f"master/tasks_{it}" for it in re.findall(r'"([a-z]+)"', live)}
    totals = re.search(r'= \[("cpus"[^\]]+)\]', mesos)[1]
    keys |= {f"master/{it}_{end}" for it in re.findall(r'"([a-z]+)"', totals) for end in re.findall(r'"master/\{name\}\{suffix\}_([a-z]+)"', mesos)}
    names |= {"mesos_" + re.sub(r"[^a-zA-Z0-9]", "_", it) for it in keys}
    marathon = source / "control-plane/edge-marathon/src/http/system.rs"
    if marathon.exists():
        text = marathon.read_text()
        keys = set(re.findall(r'\("([a-z.-]+\.(?:counter|gauge)(?:\.[a-z]+)?)"\.into\(\)', text))
        keys |= {f"http.responses.{it}xx.rate.meter" for it in range(1, 6) if "http.responses.{class}xx.rate.meter" in text}
        states = re.findall(r'"(TASK_[A-Z_]+)"', "".join(it.read_text() for it in (source / "control-plane/core").rglob("*.rs")))
        keys |= {f"mesos.task-updates.{it.lower().replace('_', '-')}.counter" for it in states if "mesos.task-updates.{}.counter" in text}
        names |= {"marathon_" + re.sub(r"[.-]", "_", it) for it in keys}
    return names


WORDS = set("sum by rate max min count topk le and on or without increase changes absent vector time histogram_quantile bool ignoring group_left unless".split())


def metrics_of(expression):
    """Names of metrics in an expression."""
    bare = re.sub(r"\{\{.*?\}\}", "x", expression)
    bare = re.sub(r"\"[^\"]*\"", '""', bare)
    bare = re.sub(r"\{[^{}]*\}", "", bare)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(by|on|without|ignoring)\s*\([^)]*\)", "", bare)
    names = set(re.findall(r"(?<![\w:$])([a-z_][a-zA-Z0-9_:]*)", bare)) - WORDS
    return {it for it in names if ":" not in it}


def expressions():
    """Where and what of every expression for Prometheus."""
    for path in sorted((HERE / "monitoring/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{path.name}: {panel['title']}", target["expr"]
    for group in rules()["groups"]:
        for rule in group["rules"]:
            yield rule.get("alert", rule.get("record")), rule["expr"]
    for thing in others():
        for metric in thing.get("spec", {}).get("metrics", []) if thing["kind"] in ("AnalysisTemplate", "ClusterAnalysisTemplate") else []:
            yield f"{name_of(thing)} {metric['name']}", metric["provider"]["prometheus"]["query"]


def rules():
    return yaml.safe_load((HERE / "monitoring/rules/orchestrator.yaml").read_text())["spec"]


def check_metrics(options):
    """Every metric that is asked for is one that the programs have, or another program's by name."""
    known, found, seen = own_metrics(options.source), [], 0
    for where, expression in expressions():
        for name in metrics_of(expression):
            seen += 1
            plain = re.sub(r"_(bucket|count|sum)$", "", name)
            if name not in known and plain not in known and name not in FOREIGN:
                found.append(f"{where}: there is no metric {name}")
    recorded = {it["record"] for group in rules()["groups"] for it in group["rules"] if "record" in it}
    for where, expression in expressions():
        found += [f"{where}: nothing records {it}" for it in re.findall(r"\b[a-z]+:[a-z_]+:[a-z0-9]+", expression) if it not in recorded]
    if seen < 50:
        found.append(f"only {seen} names were found")
    return found


def check_dashboards(_):
    """What is committed is what the script makes; names are unique; panels do not overlap; no expression is empty."""
    done = run(sys.executable, str(HERE / "monitoring/dashboards.py"), "--check")
    found = [done.stderr.strip()] if done.returncode else []
    uids = []
    for path in sorted((HERE / "monitoring/dashboards").glob("*.json")):
        if path.stat().st_size > 1_000_000:
            found.append(f"{path.name} does not fit into a config map")
        whole = json.loads(path.read_text())
        uids.append(whole["uid"])
        taken = set()
        for panel in whole["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            if cells & taken or at["x"] + at["w"] > 24:
                found.append(f"{path.name}: {panel['title']} has no place of its own")
            taken |= cells
            if not panel["targets"] or panel["datasource"]["uid"] != "${datasource}":
                found.append(f"{path.name}: {panel['title']} asks nothing")
    if len(set(uids)) != len(uids) or len(uids) < 5:
        found.append(f"uids: {uids}")
    return found


def check_rules(options):
    """promtool: the rules are sound, every alert fires with reason and is quiet without; every one has a page."""
    found = []
    tested = {}
    for test in yaml.safe_load((HERE / "monitoring/rules/tests.yaml").read_text())["tests"]:
        for one in test["alert_rule_test"]:
            tested.setdefault(one["alertname"], set()).add(bool(one["exp_alerts"]))
    for group in rules()["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                if not (ROOT / "docs/runbooks" / f"{rule['alert']}.md").exists() or not rule["annotations"]["runbook_url"].endswith(f"/{rule['alert']}.md"):
                    found.append(f"{rule['alert']} has no page in docs/runbooks")
                if tested.get(rule["alert"]) != {True, False}:
                    found.append(f"{rule['alert']} is not tested both ways")
    tool = options.promtool or shutil.which("promtool")
    if not tool:
        raise Missing("promtool")
    with tempfile.TemporaryDirectory() as directory:
        at = pathlib.Path(directory)
        (at / "orchestrator.rules.yaml").write_text(yaml.safe_dump(rules()))
        # Expressions of dashboards and analyses as rules: promtool then reads them as well.
        asked = []
        for number, (_, expression) in enumerate(expressions()):
            text = re.sub(r"\{\{[^}]*\}\}", "x", expression)
            text = text.replace("$__rate_interval", "5m").replace("$namespace", ".*").replace("$canary", "x").replace("$stable", "y")
            asked.append({"record": f"asked:{number}", "expr": text})
        (at / "asked.yaml").write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": asked}]}))
        for path in sorted((HERE / "monitoring/rules").glob("tests*.yaml")):
            shutil.copy(path, at)
        gate = HERE / "rollouts/tests.yaml"
        if gate.exists():
            shutil.copy(gate, at / "tests-gate.yaml")
            gates = [{"record": f"gate:{it['name'].replace('-', '_')}", "expr": it["provider"]["prometheus"]["query"].replace("{{args.canary-hash}}", "new").replace("{{args.namespace}}", "o")}
                     for thing in others() if thing["kind"] == "AnalysisTemplate" for it in thing["spec"]["metrics"]]
            (at / "gate.rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "gate", "rules": list({it["record"]: it for it in gates}.values())}]}))
        calls = [("check", "rules", it.name) for it in sorted(at.glob("*.yaml")) if not it.name.startswith("tests")]
        calls += [("test", "rules", it.name) for it in sorted(at.glob("tests*.yaml"))]
        for call in calls:
            done = run(tool, *call, cwd=directory)
            if done.returncode:
                found.append(f"promtool {' '.join(call)}: {(done.stdout + done.stderr).strip()}")
    return found


CHECKS = [check_kustomize, check_chart, check_flags, check_policies, check_schemas, check_custom, check_canary, check_metrics, check_dashboards, check_rules, check_argocd, check_systemd]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=pathlib.Path, default=ROOT)
    parser.add_argument("--crds")
    parser.add_argument("--promtool")
    options = parser.parse_args()
    failed, not_run = 0, []
    for check in CHECKS:
        title = check.__name__.removeprefix("check_")
        try:
            found = check(options)
        except Missing as what:
            not_run.append(f"{title} ({what})")
            print(f"NOT RUN {title}: {what} is missing")
            continue
        except AssertionError as error:
            found = [str(error)]
        failed += bool(found)
        print(f"{'FAIL   ' if found else 'ok     '} {title}: {check.__doc__.strip()}")
        for it in dict.fromkeys(found):
            print(f"        {it}")
    print("Not checked without a cluster: admission, image pulls, syncing by Argo CD, weights of Nginx, aborts on live metrics, scrapes, quotas.")
    if failed or (not_run and os.environ.get("CI")):
        sys.exit(1)


if __name__ == "__main__":
    main()
