"""The objects for Kubernetes: rendered twice, compared, and held against the schemas of their kinds."""

import concurrent.futures
import hashlib
import itertools
import json
import re
import sys

import yaml

from .common import ENVIRONMENTS, EVERYTHING, HERE, KUBERNETES, OPTIONAL, Missing, chart, containers, kustomize, name_of, others, run


def check_kustomize(_):
    """Every overlay is rendered, and its references lead somewhere."""
    found = []
    directories = (*(f"k8s/overlays/{it}" for it in ENVIRONMENTS), "rollouts", *OPTIONAL)
    # Most of the time is kubectl's, and what it said is remembered.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for _ in pool.map(lambda it: kustomize(HERE / it), ("monitoring", *directories)):
            pass
    for directory in directories:
        found += references(kustomize(HERE / directory), directory)
    return found


# Directories of kustomize, and the values by which the chart must render the same.
VARIANTS = [(f"k8s/overlays/{it}", it, {}) for it in ENVIRONMENTS] + [
    ("rollouts", "prod", {"canary": {"enabled": True}}),
    ("k8s/examples/mtls", "prod", {"tls": {"enabled": True}}),
    ("k8s/examples/vault-agent", "prod", {"vault": {"mode": "agent"}}),
    ("k8s/examples/vault-csi", "prod", {"vault": {"mode": "csi", "path": "secret/data/orchestrator/control"}}),
    ("k8s/examples/confined", "prod", {"confinement": {"enabled": True}}),
    ("k8s/examples/node-addresses", "prod", {"network": {"nodes": ["10.0.0.0/16"], "ensembles": ["10.1.0.0/24"]}}),
    ("k8s/examples/framework-addresses", "prod", {"network": {"frameworks": ["10.2.0.0/24"]}}),
    ("k8s/examples/selinux", "prod", {"confinement": {"seLinuxType": "spc_t"}}),
    ("k8s/examples/preflight", "prod", {"preflight": {"enabled": True}}),
    ("k8s/examples/combined", "prod", {"tls": {"enabled": True}, "vault": {"mode": "agent"}, "confinement": {"enabled": True}, "network": {"nodes": ["10.0.0.0/16"], "ensembles": ["10.1.0.0/24"]}}),
    ("k8s/examples/dev-mtls", "dev", {"tls": {"enabled": True}}),
    ("k8s/examples/dns", "prod", {"dns": {"enabled": True}, "network": {"nodes": ["10.0.0.0/16"], "ensembles": ["10.1.0.0/24"]}}),
    ("k8s/examples/staging-mtls", "staging", {"tls": {"enabled": True}}),
    ("k8s/examples/canary", "prod", {"canary": {"enabled": True}, "tls": {"enabled": True}, "vault": {"mode": "csi", "path": "secret/data/orchestrator/control"}, "dns": {"enabled": True}, "network": {"nodes": ["10.0.0.0/16"], "ensembles": ["10.1.0.0/24"]}}),
    ("k8s/examples/dev-storage", "dev", {"controlPlane": {"storage": {"size": "10Gi"}}}),
    ("k8s/examples/microk8s", "dev", {"probe": {"criSocket": "/var/snap/microk8s/common/run/containerd.sock"}}),
    ("k8s/examples/host-shell", "prod", {"probe": {"hostShell": True}}),
    ("k8s/examples/kind", "dev", {"images": {it: {"name": f"orchestrator-{it}", "tag": "dev", "digest": ""} for it in ("control", "probe", "agent")}, "imagePullPolicy": "IfNotPresent"}),
]
# Which listener has which port, by the words of --tls-listeners.
LISTENERS = {"4040": "http", "4041": "grpc", "5050": "mesos", "8080": "marathon"}


def check_chart(_):
    """The chart renders the same objects as kustomize, for each environment and each option."""
    found = []
    for directory, environment, values in VARIANTS:
        where = f"{directory} {values or ''}"
        with_kustomize = {name_of(it): it for it in kustomize(HERE / directory)}
        rendered = chart(environment, values)
        # Before a sync, and before an installation or an upgrade, are the same for Argo CD.
        before = [{name_of(it): it for it in things if when in it["metadata"].get("annotations", {}).values()} for things, when in ((with_kustomize.values(), "PreSync"), (rendered, "pre-install,pre-upgrade"))]
        for name in before[0].keys() | before[1].keys():
            found += [f"{where}: {name}: {it}" for it in differences(before[0].get(name), before[1].get(name)) if not it.startswith(".metadata.annotations.")]
        with_kustomize = {name: it for name, it in with_kustomize.items() if name not in before[0]}
        rendered = [it for it in rendered if name_of(it) not in before[1]]
        hooks = [it for it in rendered if "helm.sh/hook" in it["metadata"].get("annotations", {})]
        with_helm = {name_of(it): it for it in rendered if it not in hooks}
        # Helm alone is told what it must not remove.
        kept = {name for name, it in with_helm.items() if it["metadata"].get("annotations", {}).pop("helm.sh/resource-policy", None) == "keep"}
        if kept != {name for name, it in with_helm.items() if it["kind"] in ("Namespace", "StatefulSet", "PersistentVolumeClaim") or name.startswith(("Service/orchestrator/zookeeper", "ConfigMap/orchestrator/zookeeper")) or name == "PriorityClass//orchestrator-store"}:
            found.append(f"{where}: helm uninstall leaves {sorted(kept)}")
        for it in with_helm.values():
            if it["metadata"].get("annotations") == {}:
                del it["metadata"]["annotations"]
        if {it["metadata"]["annotations"]["helm.sh/hook"] for it in hooks} != {"test"}:
            found.append(f"{where}: helm test has nothing to run")
        found += [f"{where}: only {side} has {it}" for side, these, those in (("kustomize", with_kustomize, with_helm), ("the chart", with_helm, with_kustomize)) for it in these.keys() - those.keys()]
        for name in with_kustomize.keys() & with_helm.keys():
            found += [f"{where}: {name}: {it}" for it in differences(with_kustomize[name], with_helm[name])]
    for version, words in (("v1.30.0", ""), ("v1.29.9", "Kubernetes 1.30 or newer is needed, and this is v1.29.9")):
        # What a guard says comes to the standard error of Helm's own code.
        script = "import helm_python, json, sys; r = helm_python.lint(sys.argv[1], strict=True, kube_version=sys.argv[2]); print([m['error'] for m in r['messages'] if m['severity'] > 1] + r['errors'])"
        done = run(sys.executable, "-c", script, str(HERE / "helm/orchestrator"), version)
        if done.returncode or done.stdout.strip() != "[]" or (words not in done.stderr if words else done.stderr):
            found.append(f"helm lint for Kubernetes {version}: {done.stdout}{done.stderr}")
    for name in ("service", "analysis"):
        if (HERE / f"helm/orchestrator/files/{name}.yaml").read_text() != (HERE / f"rollouts/{name}.yaml").read_text():
            found.append(f"files/{name}.yaml of the chart is not the one of rollouts: cp deploy/rollouts/{name}.yaml deploy/helm/orchestrator/files/")
    return found


def check_combinations(_):
    """Options of the chart go together: whatever is chosen, references lead somewhere, and what speaks TLS is asked by TLS."""
    found = []
    for tls, mode, confined, canary, operator, zookeeper in itertools.product((False, True), ("none", "agent", "csi"), (False, True), (False, True), (False, True), (False, True)):
        if canary and not (operator and zookeeper) or mode != "none" and not zookeeper:
            continue
        values = {"tls": {"enabled": tls}, "vault": {"mode": mode}, "confinement": {"enabled": confined}, "canary": {"enabled": canary},
                  "monitoring": {"operator": operator}, "zookeeper": {"enabled": zookeeper}, "controlPlane": {"replicas": 3} if zookeeper else {"replicas": 1, "storage": {"size": "10Gi"}}}
        things = chart("prod", values)
        where = ", ".join(name for name, it in (("tls", tls), (f"vault {mode}", True), ("confined", confined), ("canary", canary), ("operator", operator), ("zookeeper", zookeeper)) if it)
        found += references([it for it in things if "helm.sh/hook" not in it["metadata"].get("annotations", {})], where)
        named = {name_of(it): it for it in things}
        pod = next(it for name, it in named.items() if name.endswith("/orchestrator-control") and containers(it))["spec"]["template"]
        asked, encrypted = json.dumps(named["Pod/orchestrator/orchestrator-test"]), listeners_with_tls(pod)
        for scheme, port in re.findall(r"(https?)://[\w.-]+:(\d+)", asked):
            if (scheme == "https") != (LISTENERS[port] in encrypted):
                found.append(f"{where}: helm test asks port {port} by {scheme}")
        # Who does not lead sends clients there by the address of the leader's pod, and no certificate is for that.
        if "mesos" in encrypted and "--advertise=$(POD_IP)" in pod["spec"]["containers"][0]["args"]:
            found.append(f"{where}: 5050 speaks TLS, and clients are sent to addresses that no certificate has")
        schemes = {
            "the kubelet": pod["spec"]["containers"][0]["readinessProbe"]["httpGet"].get("scheme", "HTTP").lower(),
            "Prometheus": named["PodMonitor/orchestrator/orchestrator-control"]["spec"]["podMetricsEndpoints"][0].get("scheme", "http") if operator else pod["metadata"]["annotations"].get("prometheus.io/scheme", "http"),
            "the Ingress": named["Ingress/orchestrator/orchestrator-control"]["metadata"]["annotations"].get("nginx.ingress.kubernetes.io/backend-protocol", "http").lower(),
        }
        found += [f"{where}: {who} asks by {it}" for who, it in schemes.items() if (it == "https") != tls]
        if not operator and pod["metadata"]["annotations"].get("prometheus.io/scrape") != "true":
            found.append(f"{where}: nothing tells Prometheus to scrape")
    return found


def listeners_with_tls(pod):
    """Listeners of a control plane that speak TLS."""
    given = dict(it.partition("=")[::2] for it in pod["spec"]["containers"][0]["args"])
    return set(given.get("--tls-listeners", "http,grpc,mesos,marathon").split(",")) if "--tls-certificate" in given else set()


def check_options(_):
    """Each value of the chart that no overlay sets comes to where it belongs, and rules and dashboards are those of deploy/monitoring."""
    things = {name_of(it): it for it in chart("prod", EVERYTHING)}
    found = references([it for it in things.values() if "helm.sh/hook" not in it["metadata"].get("annotations", {})], "everything")
    for granted in (it for it in yaml.safe_load_all((HERE / "k8s/collector-controls.yaml").read_text()) if it):
        for part in ("rules", "roleRef", "subjects"):
            if things.get(name_of(granted), {}).get(part) != granted.get(part):
                found.append(f"{name_of(granted)}: the chart has other {part} than k8s/collector-controls.yaml")
    workloads = {name.split("/")[-1].removeprefix("orchestrator-"): it["spec"]["template"]["spec"] for name, it in things.items() if containers(it)}
    arguments = {name: it["containers"][0].get("args", []) for name, it in workloads.items()}
    for name, words in (
        ("control", ("--mesos-flags=--authenticate_agents --credentials=/agent-credential/credentials --cluster=main --offer_timeout=1mins", "--marathon-flags=--framework_name=web", "--users-file=/users/users")),
        ("control", ("--max-probes=5000", "--history-size=3GiB")),
        ("probe", ("--container-env", "--mask=^pin$", "--host-shell", "--cri-socket=/var/snap/microk8s/common/run/containerd.sock")),
        ("agent", ("--resources=cpus:4;mem:8192;ports:[31000-32000]", "--attributes=rack:a;zone:b", "--gc-delay=1days")),
        ("collector", ("--kubernetes=main", "--kubernetes-namespaces=shop,bank")),
    ):
        found += [f"{name} is not told {it}" for it in words if it not in arguments[name]]
    for name, pod in workloads.items():
        if pod.get("imagePullSecrets") != [{"name": "registry"}] or pod["nodeSelector"].get("pool") != "orchestrator" or pod["tolerations"][0]["key"] != "pool":
            found.append(f"{name} is not where it was put")
    unasked = {it["metadata"]["name"]: it["spec"]["template"]["spec"] for it in chart("prod", {"agent": {"authenticate": False}}) if containers(it)}
    found += [f"{name} has the agents' credential, and nobody asks for it" for name, it in unasked.items() if "agent-credential" in json.dumps(it)]
    for name, cidrs, ports in (("collector", ["192.0.2.0/24"], [6443]), ("control-plane-to-ensembles", ["10.1.0.0/24"], [2182]), ("control-plane-to-hooks", ["10.3.0.0/24"], [8443])):
        rule = things[f"NetworkPolicy/orchestrator/{name}"]["spec"]["egress"][-1]
        if rule != {"to": [{"ipBlock": {"cidr": it}} for it in cidrs], "ports": [{"port": it} for it in ports]}:
            found.append(f"the policy {name} lets {rule} through")
    # Prometheus and the Ingress are where the values say, and nowhere else.
    let_in = json.dumps([it for it in things.values() if it["kind"] == "NetworkPolicy"])
    if '"monitoring"' in let_in or '"ingress-nginx"' in let_in or let_in.count('"observability"') != 4 or '"kubernetes.io/metadata.name": "kube-system"}}}], "ports": [{"port": 4040}, {"port": 8080}]' not in let_in:
        found.append("another namespace is let in than that of Prometheus, or of the Ingress")
    pod = workloads["control"]
    mounted = {it["mountPath"]: next(one["secret"]["secretName"] for one in pod["volumes"] if one["name"] == it["name"]) for it in pod["containers"][0]["volumeMounts"] if it["mountPath"].startswith("/secrets/")}
    if mounted != {"/secrets/zksync": "zksync", "/secrets/master.acls": "master.acls"}:
        found.append(f"secrets of the control plane are mounted as {mounted}")
    claims = {it["metadata"]["name"]: (it["spec"]["storageClassName"], it["spec"]["resources"]["requests"]["storage"]) for it in things["StatefulSet/orchestrator/zookeeper"]["spec"]["volumeClaimTemplates"]}
    if claims != {"data": ("fast", "20Gi"), "datalog": ("fast", "30Gi")}:
        found.append(f"ZooKeeper has the volumes {claims}")
    ingress = things["Ingress/orchestrator/orchestrator-control"]["spec"]
    if ingress["ingressClassName"] != "internal" or ingress["tls"][0]["secretName"] != "page":
        found.append("the Ingress has another class or certificate")
    # One that somebody brings, or that a public issuer makes, is not asked of the cluster's own.
    if things["Ingress/orchestrator/orchestrator-control"]["metadata"]["annotations"].get("cert-manager.io/cluster-issuer") != "public":
        found.append("the page's certificate is of another issuer than the one that was named")
    brought = {name_of(it): it for it in chart("prod", {"tls": {"enabled": True}, "ingress": {"tlsSecret": "page"}, "preflight": {"enabled": True}})}
    if any("issuer" in it for it in brought["Ingress/orchestrator/orchestrator-control"]["metadata"]["annotations"]) or "/secrets/page " not in json.dumps(brought["Job/orchestrator/orchestrator-preflight"]):
        found.append("a certificate of one's own is made by cert-manager, or not looked for")
    before = {name_of(it): it for it in chart("prod", {"preflight": {"enabled": True}, "controlPlane": {"secrets": ["zksync"], "usersSecret": "users"}})}
    for name in ("zksync", "users"):
        # Looked for, and allowed to be.
        if f"/namespaces/orchestrator/secrets/{name} " not in json.dumps(before["Job/orchestrator/orchestrator-preflight"]) or name not in before["Role/orchestrator/orchestrator-preflight"]["rules"][0]["resourceNames"]:
            found.append(f"the Secret {name} is mounted, and not looked for before")
    monitors = [it for it in things.values() if it["kind"] in ("PodMonitor", "PrometheusRule")]
    found += [f"{name_of(it)} is not labelled for its Prometheus" for it in monitors if it["metadata"]["labels"].pop("release", None) != "monitoring"]
    for thing in kustomize(HERE / "monitoring"):
        name = name_of(thing).replace("/monitoring/", "/observability/")
        found += [f"{name}: {it}" for it in differences(thing, things.get(name)) if not it.startswith(".metadata.namespace:")]
    elsewhere = {name_of(it): it for it in chart("prod", {"canary": {"enabled": True}, "monitoring": {"namespace": "observability"}})}
    if json.dumps(elsewhere["Rollout/orchestrator/orchestrator-control"]).count("http://prometheus-operated.observability.svc:9090") != 6:
        found.append("gates ask another Prometheus than the one that may scrape")
    rest = {name_of(it) for it in chart("prod")} - {name_of(it) for it in chart("prod", {"agent": {"enabled": False}})}
    if rest != {"DaemonSet/orchestrator-node/orchestrator-agent"}:
        found.append(f"without the agent there is no {sorted(rest)}")
    if (HERE / "helm/orchestrator/files/rules.yaml").read_text() != (HERE / "monitoring/rules/orchestrator.yaml").read_text():
        found.append("files/rules.yaml of the chart is another: cp deploy/monitoring/rules/orchestrator.yaml deploy/helm/orchestrator/files/rules.yaml")
    return found


# Values that must be refused, and words of the sentence that says why.
WRONG = [
    ({"controlPlane": {"replicas": 3}, "zookeeper": {"enabled": False}}, ["embedded store belongs to one process"]),
    ({"controlPlane": {"replica": 3}}, ["replica", "not allowed"]),
    ({"controlPlane": {"replicas": "three"}}, ["/controlPlane/replicas", "want integer"]),
    ({"controlPlane": {"replicas": 0}}, ["/controlPlane/replicas", "minimum"]),
    ({"controlPlane": {"resources": {"limits": {"memory": 2}}}}, ["/controlPlane/resources/limits/memory", "want string"]),
    ({"images": {"control": {"name": "x", "digest": "sha256:short"}}}, ["images.control.digest is", "no digest"]),
    ({"images": {"control": {"name": "x", "tag": "", "digest": ""}}}, ["images.control has neither a tag nor a digest"]),
    ({"environment": "production"}, ["/environment", "'dev', 'staging', 'prod'"]),
    ({"ingress": {"enabled": "yes"}}, ["/ingress/enabled", "want boolean"]),
    ({"ingress": {"host": ""}}, ["ingress.host is", "no name of a host"]),
    ({"canary": {"enabled": True}, "ingress": {"enabled": False}}, ["canary.enabled needs ingress.enabled"]),
    ({"canary": {"enabled": True}, "monitoring": {"operator": False}}, ["canary.enabled needs monitoring.operator"]),
    ({"canary": {"enabled": True}, "controlPlane": {"replicas": 1}}, ["canary.enabled needs controlPlane.replicas of 2 or more"]),
    ({"canary": {"enabled": True}, "controlPlane": {"replicas": 1}, "zookeeper": {"enabled": False}}, ["canary.enabled needs zookeeper.enabled"]),
    ({"canary": {"prometheus": "prometheus:9090"}}, ["canary.prometheus is", "no URL"]),
    ({"vault": {"mode": "yes"}}, ["/vault/mode", "'none', 'agent', 'csi'"]),
    ({"vault": {"mode": "csi"}, "zookeeper": {"enabled": False}, "controlPlane": {"replicas": 1}}, ["vault.mode is about the password of the ensemble"]),
    ({"network": {"nodes": ["10.0.0.1"]}}, ["one of network.nodes is", "10.0.0.1/32 is one machine"]),
    ({"network": {"nodes": "10.0.0.0/8"}}, ["/network/nodes", "want array"]),
    ({"network": {"taskPorts": ["all"]}}, ["one of network.taskPorts is", "no ports"]),
    ({"network": {"ensemblePorts": ["2181"]}}, ["/network/ensemblePorts/0", "want integer"]),
    ({"network": {"apiServer": {"cidrs": ["10.0.0.1"]}}}, ["one of network.apiServer.cidrs is", "no range of addresses"]),
    ({"network": {"apiServer": {"ports": []}}}, ["/network/apiServer/ports", "minItems"]),
    ({"ingress": {"tlsSecret": ""}}, ["ingress.enabled in prod needs a certificate", "ingress.tlsSecret", "tls.enabled"]),
    ({"imagePullPolicy": "always"}, ["/imagePullPolicy", "'Always', 'IfNotPresent', 'Never'"]),
    ({"dns": {"enabled": 1}}, ["/dns/enabled", "want boolean"]),
    ({"tls": {"enabled": "true"}}, ["/tls/enabled", "want boolean"]),
    ({"zookeper": {}}, ["zookeper", "not allowed"]),
    ({"monitoring": {"rules": True, "operator": False}}, ["monitoring.rules needs monitoring.operator"]),
    ({"controlPlane": {"usersSecret": "users"}, "monitoring": {"operator": False}}, ["controlPlane.usersSecret needs monitoring.operator"]),
    ({"controlPlane": {"mesosFlags": "cluster=main"}}, ["controlPlane.mesosFlags is", "no list of flags"]),
    ({"zookeeper": {"storage": {"data": "10"}}}, ["zookeeper.storage.data is", "no size of a volume"]),
    ({"agent": {"offers": "4 cpus"}}, ["agent.offers is", "no list of resources"]),
    ({"agent": {"enabled": "no"}}, ["/agent/enabled", "want boolean"]),
    ({"agent": {"tolerations": [{"operator": "Always"}]}}, ["/agent/tolerations/0/operator", "'Exists', 'Equal'"]),
    ({"imagePullSecrets": "registry"}, ["/imagePullSecrets", "want array"]),
    ({"collector": {"cluster": ""}}, ["/collector/cluster", "minLength"]),
    ({"confinement": {"seLinuxType": "spc"}}, ["confinement.seLinuxType is", "end with _t"]),
    ({"zookeeper": {"enabled": False}, "controlPlane": {"replicas": 1}}, ["zookeeper.enabled is false in prod", "controlPlane.storage.size"]),
    ({"controlPlane": {"storage": {"size": "10Gi"}}}, ["controlPlane.storage.size", "replicas cannot share a volume"]),
    ({"controlPlane": {"storage": {"size": "10"}}}, ["controlPlane.storage.size is", "no size of a volume"]),
    ({"controlPlane": {"resources": {"limits": {"memory": "2gigs"}}}}, ["controlPlane.resources.limits.memory is", "no amount of memory"]),
    ({"probe": {"resources": {"requests": {"cpu": "half"}}}}, ["probe.resources.requests.cpu is", "no number of processors"]),
    ({"controlPlane": {"flags": "--max-probes=5000"}}, ["/controlPlane/flags", "want array"]),
    ({"controlPlane": {"flags": ["--max-probes", "5000"]}}, ["controlPlane.flags has --max-probes, which takes a value"]),
    ({"controlPlane": {"flags": ["--http-address=0.0.0.0:80"]}}, ["controlPlane.flags has --http-address=0.0.0.0:80, which the chart sets itself"]),
    ({"probe": {"flags": ["--host-shell"]}}, ["probe.flags has --host-shell", "a value of its own"]),
    ({"probe": {"hostShell": True}, "confinement": {"enabled": True}}, ["probe.hostShell needs confinement.enabled=false"]),
    ({"controlPlane": None}, ["missing property 'controlPlane'"]),
    ({"ingress": {"annotations": None}}, ["/ingress", "missing property 'annotations'"]),
    ({"controlPlane": {"resources": {"requests": {"memory": "4Gi"}, "limits": {"memory": "2048Mi"}}}}, ["controlPlane.resources asks for 4Gi of memory, more than its limit of 2048Mi"]),
    ({"zookeeper": {"jvmFlags": "-Xms1g -Xmx4g"}}, ["a heap of -Xmx4G", "zookeeper.resources.limits.memory is 2Gi"]),
    ({"zookeeper": {"jvmFlags": "Xmx1g"}}, ["zookeeper.jvmFlags is", "no list of flags of a JVM"]),
    ({"network": {"taskPorts": ["32000-31000"]}}, ["network.taskPorts has 32000-31000"]),
    ({"network": {"taskPorts": ["70000"]}}, ["network.taskPorts has 70000"]),
    ({"network": {"nodes": ["10.0.0.0/99"]}}, ["one of network.nodes is", "10.0.0.1/32 is one machine"]),
    ({"network": {"ensembles": ["300.0.0.0/8"]}}, ["one of network.ensembles is", "no range of addresses"]),
    ({"tls": {"issuer": "My Issuer"}}, ["tls.issuer is", "no name in Kubernetes"]),
    ({"probe": {"criSocket": "containerd.sock"}}, ["probe.criSocket is", "no socket"]),
    ({"ingress": {"host": "https://map.example.com/"}}, ["ingress.host is", "no name of a host"]),
    ({"ingress": {"annotations": {"a": True}}}, ["/ingress/annotations/a", "want string"]),
    ({"images": {"probe": {"name": "registry.example/probe:1.0", "tag": "main"}}}, ["images.probe.name is", "without a tag"]),
    ({"images": {"probe": {"name": "registry.example:5000/probe", "tag": "a b"}}}, ["images.probe.tag is", "no tag"]),
    ({"controlPlane": {"flags": ["--nonsense=1"]}}, ["controlPlane.flags has --nonsense, which orchestrator-control does not know"]),
    ({"controlPlane": {"flags": ["max-probes=5000"]}}, ["one of controlPlane.flags is", "no flag"]),
    ({"collector": {"flags": ["--once=yes"]}}, ["collector.flags has --once=yes, which takes no value"]),
    ({"controlPlane": {"mesosFlags": "--cluster=main  --nonsense=1"}}, ["controlPlane.mesosFlags has --nonsense"]),
    ({"controlPlane": {"mesosFlags": "--quorum=2"}}, ["controlPlane.mesosFlags has --quorum", "flags of the control plane"]),
    ({"controlPlane": {"marathonFlags": "--nonsense=1"}}, ["controlPlane.marathonFlags has --nonsense, which is no flag of Marathon"]),
    ({"controlPlane": {"secrets": ["A b"]}}, ["one of controlPlane.secrets is", "no name in Kubernetes"]),
    ({"agent": {"offers": "cpus:four"}}, ["agent.offers is", "numbers, ranges and sets"]),
    ({"monitoring": {"labels": {"a b": "c"}}}, ["a name in monitoring.labels is", "no name of a label"]),
    ({"monitoring": {"namespace": "Monitoring"}}, ["monitoring.namespace is", "no name of a namespace"]),
    ({"network": {"frameworks": ["10.0.0.0/33"]}}, ["one of network.frameworks is", "no range of addresses"]),
    ({"ingress": {"className": "traefik"}}, ["ingress.className is traefik", "would let everybody in", "controlPlane.usersSecret"]),
]


def check_values(_):
    """Wrong values of the chart are refused, with a sentence that names them."""
    found = []
    for values, words in WRONG:
        try:
            chart(None, values)
            found.append(f"the chart takes {values}")
        except Missing:
            raise
        except Exception as error:  # noqa: BLE001: whatever the library raises, its text counts
            found += [f"{values} are refused with {str(error)[:300]!r}, without {it!r}" for it in words if it not in str(error)]
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
        if thing["kind"] == "Ingress":
            hosts, encrypted = {it["host"] for it in spec["rules"]}, {it for one in spec.get("tls", []) for it in one["hosts"]}
            if thing["metadata"]["labels"].get("app.kubernetes.io/instance") == "prod" and not hosts <= encrypted:
                found.append(f"{where}: {name_of(thing)}: passwords for {sorted(hosts - encrypted)} go out in the clear")
        # A job chooses its own.
        if containers(thing) and thing["kind"] != "Job":
            pod = spec["template"]
            if not spec["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items():
                found.append(f"{where}: {name_of(thing)} does not select its own pods")
            # What pods are kept apart from is themselves.
            apart = pod["spec"].get("affinity", {}).get("podAntiAffinity", {})
            terms = apart.get("requiredDuringSchedulingIgnoredDuringExecution", []) + [it["podAffinityTerm"] for it in apart.get("preferredDuringSchedulingIgnoredDuringExecution", [])]
            for term in terms + pod["spec"].get("topologySpreadConstraints", []):
                if pod not in selected(namespace, term["labelSelector"]["matchLabels"]):
                    found.append(f"{where}: {name_of(thing)}: {term['topologyKey']}: it is not kept apart from pods of its own")
            claims = {it["metadata"]["name"] for it in spec.get("volumeClaimTemplates", [])}
            # The API server says both of each, and Argo CD compares.
            found += [f"{where}: {name_of(thing)}: {it['metadata']['name']} has no version and kind: it is never in sync" for it in spec.get("volumeClaimTemplates", []) if (it.get("apiVersion"), it.get("kind")) != ("v1", "PersistentVolumeClaim")]
            volumes = {it["name"] for it in pod["spec"].get("volumes", [])} | claims
            for volume in pod["spec"].get("volumes", []):
                read = next((it["data"] for it in things if it["kind"] == "ConfigMap" and it["metadata"]["name"] == volume.get("configMap", {}).get("name")), None)
                if read is not None:
                    number = hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:16]
                    if pod["metadata"]["labels"].get("orchestrator.io/config") != number:
                        found.append(f"{where}: {name_of(thing)}: a change of its config map restarts nothing; orchestrator.io/config is to be {number}")
                if "hostPath" in volume and not volume["hostPath"].get("type"):
                    found.append(f"{where}: {name_of(thing)}: {volume['name']} has no type: where {volume['hostPath']['path']} is not there, a directory would be made")
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


def check_schemas(_):
    """Every object of Kubernetes' own kinds is valid, with no unknown field."""
    try:
        import kubernetes_validate
    except ImportError:
        raise Missing("kubernetes-validate") from None
    found = []
    sets = [(it, kustomize(HERE / "k8s/overlays" / it)) for it in ENVIRONMENTS]
    sets += [(it, kustomize(HERE / it)) for it in ("monitoring", "rollouts", *OPTIONAL)] + [("others", list(others()))]
    sets.append(("everything", chart("prod", EVERYTHING)))
    sets.append(("controls", [it for it in yaml.safe_load_all((HERE / "k8s/collector-controls.yaml").read_text()) if it]))
    looked_at = set()
    for where, things in sets:
        for thing in things:
            group = thing["apiVersion"].split("/")[0]
            text = json.dumps(thing, sort_keys=True)
            # Most objects are the same in most sets.
            if "." in group and not group.endswith(".k8s.io") or text in looked_at:
                continue
            looked_at.add(text)
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


def definitions(directory):
    """Schemas of custom resources by version and kind: as their projects publish them, or as crds/make.py keeps them."""
    known = {}
    for path in sorted(directory.glob("*.yaml")):
        for definition in yaml.safe_load_all(path.read_text()):
            spec = (definition or {}).get("spec", {})
            for version in spec.get("versions", []):
                known[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = version["schema"]["openAPIV3Schema"]
    for path in sorted(directory.glob("*.json")):
        kept = json.loads(path.read_text())
        for version, schema in kept["versions"].items():
            known[f"{kept['group']}/{version}", kept["kind"]] = schema
    return known


def check_custom(options):
    """Every custom resource is valid by the definition that its project publishes, with no unknown field."""
    try:
        import jsonschema
    except ImportError:
        raise Missing("jsonschema") from None
    known = {}
    for key, schema in definitions(options.crds).items():
        whole = strict(schema)
        whole["properties"]["metadata"] = {"type": "object"}
        known[key] = jsonschema.Draft7Validator(whole)
    things = [it for environment in ENVIRONMENTS for it in kustomize(HERE / "k8s/overlays" / environment)]
    for directory in ("monitoring", "rollouts", *OPTIONAL):
        things += kustomize(HERE / directory)
    things += list(others()) + chart("prod", EVERYTHING)
    found, unknown = [], set()
    for thing in things:
        group = thing["apiVersion"].split("/")[0]
        if "." not in group or group.endswith(".k8s.io") and group != "secrets-store.csi.x-k8s.io":
            continue
        validator = known.get((thing["apiVersion"], thing["kind"]))
        if validator is None:
            unknown.add(f"{thing['apiVersion']} {thing['kind']}")
            continue
        found += [f"{name_of(thing)}: {'/'.join(map(str, it.absolute_path))}: {it.message[:200]}" for it in validator.iter_errors(thing)]
    if unknown:
        found.append(f"{options.crds} has no definition of {', '.join(sorted(unknown))}")
    return found
