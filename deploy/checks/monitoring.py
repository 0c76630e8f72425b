"""Dashboards, rules and gates: every metric exists, every alert fires with reason and is quiet without."""

import concurrent.futures
import json
import pathlib
import re
import shutil
import sys
import tempfile

import yaml

from .common import HERE, ROOT, name_of, others, run, unpacked


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
    "certmanager_certificate_expiration_timestamp_seconds": "cert-manager",
    "argocd_app_info": "Argo CD",
    "kubelet_volume_stats_available_bytes": "the kubelet",
    "kubelet_volume_stats_capacity_bytes": "the kubelet",
    "nginx_ingress_controller_requests": "ingress-nginx",
}


def own_metrics(source):
    """Names of all metrics that the programs' code has. Those of histograms without their endings."""
    names = set()
    for part in ("control-plane", "probe-user"):
        for path in {*(source / part).glob("**/telemetry/**/*.rs"), *(source / part).glob("**/metrics*.rs")}:
            names |= set(re.findall(r'"((?:orchestrator|monitoring_app|probe|zk|scope)_[a-z0-9_]+)"', path.read_text()))
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


WORDS = set("sum by rate max min count topk le and on or without increase changes absent vector time histogram_quantile max_over_time bool ignoring group_left unless".split())


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


# Labels whose values the programs choose from a few of their own.
CLOSED = ("route", "state", "reason")


def closed_labels():
    """Where, metric, label and value of what is written out of such labels: in expressions, and in the series by which rules and gates are tested."""
    texts = [(where, re.sub(r"\{\{.*?\}\}", "", expression)) for where, expression in expressions()]
    for path in (HERE / "monitoring/rules/tests.yaml", HERE / "rollouts/tests.yaml"):
        for test in yaml.safe_load(path.read_text())["tests"]:
            texts += [(f"{path.relative_to(HERE)}: {test['name']}", it["series"]) for it in test["input_series"]]
    for where, text in texts:
        for name, labels in re.findall(r"([a-zA-Z_:][\w:]*)\{([^{}]*)\}", text):
            for label, operator, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', labels):
                if label in CLOSED and name not in FOREIGN:
                    yield from ((where, name, label, it) for it in (value.split("|") if "~" in operator else [value]))


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
    # What a page tells people to look at.
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for name in sorted(set(re.findall(r"`((?:orchestrator|monitoring_app|probe|zk|mesos_master|marathon)_[a-z0-9_]+)`", page.read_text()))):
            if name not in known and re.sub(r"_(bucket|count|sum)$", "", name) not in known:
                found.append(f"{page.relative_to(ROOT)}: there is no metric {name}")
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
    tool = unpacked(options, "promtool", "usr/bin")
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
        # A test evaluates every rule that it is given: each alert gets its own, and what is recorded.
        tests = yaml.safe_load((HERE / "monitoring/rules/tests.yaml").read_text())
        recorded = [it for it in rules()["groups"] if all("record" in one for one in it["rules"])]
        for rule in (one for group in rules()["groups"] for one in group["rules"] if "alert" in one):
            name = rule["alert"]
            own = [test for test in tests["tests"] if {it["alertname"] for it in test["alert_rule_test"]} == {name}]
            groups = [*(recorded if re.search(r"\w:\w", re.sub(r"\[[^\]]*\]", "", rule["expr"])) else []), {"name": name, "rules": [rule]}]
            (at / f"alert-{name}.rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
            (at / f"tests-{name}.yaml").write_text(yaml.safe_dump({**tests, "rule_files": [f"alert-{name}.rules.yaml"], "tests": own}))
        if mixed := [test["name"] for test in tests["tests"] if len({it["alertname"] for it in test["alert_rule_test"]}) != 1]:
            found.append(f"tests of more alerts than one, which are not run: {mixed}")
        gate = HERE / "rollouts/tests.yaml"
        if gate.exists():
            shutil.copy(gate, at / "tests-gate.yaml")
            gates = [{"record": f"gate:{it['name'].replace('-', '_')}", "expr": it["provider"]["prometheus"]["query"].replace("{{args.canary-hash}}", "new").replace("{{args.namespace}}", "o")}
                     for thing in others() if thing["kind"] == "AnalysisTemplate" for it in thing["spec"]["metrics"]]
            (at / "gate.rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "gate", "rules": list({it["record"]: it for it in gates}.values())}]}))
        calls = [("check", "rules", it.name) for it in sorted(at.glob("*.yaml")) if not it.name.startswith(("tests", "alert-"))]
        calls += [("test", "rules", it.name) for it in sorted(at.glob("tests*.yaml"))]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for call, done in zip(calls, pool.map(lambda it: run(tool, *it, cwd=directory), calls), strict=True):
                if done.returncode:
                    found.append(f"promtool {' '.join(call)}: {(done.stdout + done.stderr).strip()}")
    return found
