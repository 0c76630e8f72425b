"""What every check stands on: where things are, how they are rendered, and how a check says that it could not run."""

import functools
import json
import pathlib
import shutil
import subprocess

try:
    import yaml
except ImportError:
    raise SystemExit("PyYAML is missing: cargo xtask deploy-check gets it, or pip install -r deploy/requirements-check.txt") from None


# The directory `deploy`, and the tree that it is part of.
HERE = pathlib.Path(__file__).resolve().parent.parent
ROOT = HERE.parent
CHART = HERE / "helm/orchestrator"
ENVIRONMENTS = ("dev", "staging", "prod")
# The version whose schemas hold.
KUBERNETES = "1.34"
# An overlay with something more each: what is there for those who want it.
OPTIONAL = tuple(f"k8s/examples/{it}" for it in ("mtls", "vault-agent", "vault-csi", "confined", "node-addresses", "framework-addresses", "selinux", "preflight", "combined", "dev-mtls", "dns", "kind", "staging-mtls", "canary", "dev-storage", "microk8s", "host-shell"))


# Values that set what no overlay and no example sets.
_PLACE = {"nodeSelector": {"pool": "orchestrator"}, "tolerations": [{"key": "pool", "operator": "Equal", "value": "orchestrator", "effect": "NoSchedule"}]}
EVERYTHING = {
    "imagePullSecrets": ["registry"],
    "controlPlane": {"flags": ["--max-probes=5000", "--history-size=3GiB"], "mesosFlags": "--cluster=main --offer_timeout=1mins", "marathonFlags": "--framework_name=web", "usersSecret": "users", "secrets": ["zksync", "master.acls"], **_PLACE},
    "zookeeper": {"storage": {"className": "fast", "data": "20Gi", "log": "30Gi"}, **_PLACE},
    "probe": {"flags": ["--container-env", "--mask=^pin$"], "criSocket": "/var/snap/microk8s/common/run/containerd.sock", "hostShell": True, "resources": {"limits": {"memory": "512Mi"}}, **_PLACE},
    "agent": {"offers": "cpus:4;mem:8192;ports:[31000-32000]", "attributes": "rack:a;zone:b", "flags": ["--gc-delay=1days"], "resources": {"limits": {"memory": "1Gi"}}, **_PLACE},
    "collector": {"cluster": "main", "controls": True, "flags": ["--kubernetes-namespaces=shop,bank"], **_PLACE},
    "monitoring": {"rules": True, "labels": {"release": "monitoring"}, "namespace": "observability"},
    "ingress": {"className": "internal", "namespace": "kube-system", "tlsSecret": "page", "annotations": {"cert-manager.io/cluster-issuer": "public"}},
    "confinement": {"seLinuxType": "spc_t"},
    "tls": {"enabled": True},
    "network": {"nodes": ["10.0.0.0/16"], "taskPorts": ["31000-32000", "8000"], "ensembles": ["10.1.0.0/24"], "ensemblePorts": [2182], "apiServer": {"cidrs": ["192.0.2.0/24"], "ports": [6443]}, "frameworks": ["10.2.0.0/24"], "hooks": {"cidrs": ["10.3.0.0/24"], "ports": [8443]}},
    "dns": {"enabled": True},
}


# The loader in C, where it is there: several times as fast.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Missing(Exception):
    """What a check needs and this machine has not."""


def run(*command, cwd=None, env=None):
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, check=False)


def unpacked(options, name, *places):
    """A program out of an unpacked package, or of the machine's own."""
    for place in places if options.unpacked else ():
        if (options.unpacked / place / name).exists():
            return str((options.unpacked / place / name).resolve())
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if not found:
        raise Missing(name)
    return found


@functools.cache
def _kustomized(directory):
    done = run("kubectl", "kustomize", directory)
    if done.returncode:
        raise AssertionError(done.stderr.strip())
    return done.stdout


def kustomize(directory):
    """The objects of a kustomization."""
    if not shutil.which("kubectl"):
        raise Missing("kubectl")
    return parsed(_kustomized(str(directory)))


def parsed(text):
    """The objects in a text of several documents."""
    return [it for it in yaml.load_all(text, Loader=LOADER) if it]


def name_of(thing):
    return f"{thing['kind']}/{thing['metadata'].get('namespace', '')}/{thing['metadata']['name']}"


def containers(thing):
    pod = thing.get("spec", {}).get("template", {}).get("spec", {}) if isinstance(thing.get("spec"), dict) else {}
    return pod.get("initContainers", []) + pod.get("containers", [])


def merged(one, other):
    """Values of a chart, the latter over the former."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return other
    return {key: merged(one[key], other[key]) if key in one and key in other else other.get(key, one.get(key)) for key in one.keys() | other.keys()}


@functools.cache
def _charted(values):
    import helm_python

    rendered = helm_python.Chart.load(str(CHART)).render(json.loads(values), name="orchestrator", namespace="orchestrator")
    return "\n---\n".join(text for name, text in rendered.items() if not name.endswith(".txt")) if isinstance(rendered, dict) else rendered


def chart(environment, values=None):
    """The objects of the Helm chart, with the values of an environment, others over them."""
    try:
        import helm_python  # noqa: F401: whether it is there
    except ImportError:
        raise Missing("helm-python-sdk") from None
    of_environment = (yaml.safe_load((CHART / f"values-{environment}.yaml").read_text()) or {}) if environment else {}
    return parsed(_charted(json.dumps(merged(of_environment, values or {}), sort_keys=True)))


def others():
    """Objects of the directories that are neither overlays nor the chart."""
    for directory in ("argocd", "rollouts"):
        for path in sorted((HERE / directory).rglob("*.yaml")):
            for thing in yaml.safe_load_all(path.read_text()):
                if isinstance(thing, dict) and "apiVersion" in thing and thing["kind"] != "Kustomization":
                    yield thing
