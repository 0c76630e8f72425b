"""What a cluster lacks is named before anything is applied: preflight.sh against an API that a real kubectl talks to."""

import concurrent.futures
import contextlib
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading

import yaml

from .common import HERE, Missing, chart, kustomize, parsed

SCRIPT = HERE / "preflight.sh"


class Cluster(http.server.BaseHTTPRequestHandler):
    """As much of a Kubernetes API as looking around takes. `kinds` is (group/version, kind) → namespaced."""

    minor, kinds, secrets, namespaces, classes, default_storage = "34", {}, set(), set(), set(), True

    def log_message(self, *_):
        pass

    def do_GET(self):  # noqa: N802: the name is the library's
        path = self.path.partition("?")[0]
        answer = self.answer(path)
        body = json.dumps(answer or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": f"{path.split('/')[-1]} not found"}).encode()
        self.send_response(200 if answer else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer(self, path):
        parts = path.strip("/").split("/")
        if path == "/version":
            return {"major": "1", "minor": self.minor, "gitVersion": f"v1.{self.minor}.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups = {}
            for version, _ in self.kinds:
                if "/" in version:
                    groups.setdefault(version.split("/")[0], set()).add(version)
            listed = [{"name": name, "versions": [{"groupVersion": it, "version": it.split("/")[1]} for it in sorted(these)], "preferredVersion": {"groupVersion": min(these), "version": min(these).split("/")[1]}} for name, these in groups.items()]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        if parts[0] == "api" and parts[1:] == ["v1"] or parts[0] == "apis" and len(parts) == 3:
            version = "v1" if parts[0] == "api" else "/".join(parts[1:])
            resources = [{"name": f"{kind.lower()}{'es' if kind.endswith('s') else 's'}", "singularName": kind.lower(), "namespaced": namespaced, "kind": kind, "verbs": ["get", "list", "create"]} for (its, kind), namespaced in self.kinds.items() if its == version]
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources} if resources else None
        if parts[:3] == ["api", "v1", "namespaces"]:
            if len(parts) == 4 and parts[3] in self.namespaces:
                return {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": parts[3]}}
            if len(parts) == 6 and parts[4] == "secrets" and (parts[3], parts[5]) in self.secrets:
                return {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": parts[5], "namespace": parts[3]}}
        if path == "/apis/storage.k8s.io/v1/storageclasses":
            notes = {"storageclass.kubernetes.io/is-default-class": "true"} if self.default_storage else {}
            return {"kind": "StorageClassList", "apiVersion": "storage.k8s.io/v1", "items": [{"metadata": {"name": "standard", "annotations": notes}, "provisioner": "none"}]}
        if len(parts) == 5 and parts[3] in ("ingressclasses", "storageclasses") and parts[4] in self.classes:
            return {"kind": "IngressClass" if parts[3] == "ingressclasses" else "StorageClass", "apiVersion": "/".join(parts[1:3]), "metadata": {"name": parts[4]}}
        return None


@contextlib.contextmanager
def cluster(**what):
    """A cluster of this kind; yields the environment in which kubectl finds it."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Its", (Cluster,), what))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as directory:
        config = pathlib.Path(directory) / "kubeconfig"
        config.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": {}}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }))
        try:
            yield {**os.environ, "KUBECONFIG": str(config), "HOME": directory}
        finally:
            server.shutdown()


def asked(text, env):
    """What the script says of objects, and whether it is content."""
    done = subprocess.run(["sh", str(SCRIPT)], input=text, env=env, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def secrets_of(things):
    """Secrets that objects ask for and nobody here makes, with their namespaces."""
    wanted, made = set(), set()

    def walk(value, namespace):
        if isinstance(value, dict):
            for key, inner in value.items():
                if key == "secretName" and isinstance(inner, str):
                    wanted.add((namespace, inner))
                walk(inner, namespace)
        elif isinstance(value, list):
            for inner in value:
                walk(inner, namespace)

    for thing in things:
        namespace = thing["metadata"].get("namespace", "")
        if thing["kind"] in ("Certificate", "Secret"):
            made.add((namespace, thing["spec"]["secretName"] if thing["kind"] == "Certificate" else thing["metadata"]["name"]))
        elif not thing["kind"].endswith("Issuer"):
            walk(thing, namespace)
            login = thing["metadata"].get("annotations", {}).get("nginx.ingress.kubernetes.io/auth-secret")
            if login:
                wanted.add((namespace, login))
            # cert-manager makes the certificates of an Ingress that names an issuer.
            if any(it.startswith("cert-manager.io/") and it.endswith("issuer") for it in thing["metadata"].get("annotations", {})):
                made.update((namespace, it["secretName"]) for it in thing["spec"].get("tls", []))
    return wanted - made


def lacking_of(where):
    """What is said of clusters that lack what these objects need, each something else."""
    found = []
    things = kustomize(HERE / where)
    text = yaml.safe_dump_all(things)
    assert parsed(text) == things
    has = {
        "classes": {"nginx"},
        "kinds": {("v1", "Secret"): True, ("v1", "Namespace"): False, ("networking.k8s.io/v1", "IngressClass"): False, ("storage.k8s.io/v1", "StorageClass"): False} | {(it["apiVersion"], it["kind"]): "namespace" in it["metadata"] for it in things},
        "secrets": secrets_of(things),
        "namespaces": {it["metadata"]["namespace"] for it in things if "namespace" in it["metadata"]},
    }
    with cluster(**has) as env:
        status, said = asked(text, env)
        if status:
            found.append(f"{where}: a cluster that has everything is refused: {said}")
    with cluster(**{**has, "minor": "29"}) as env:
        status, said = asked(text, env)
        if not status or "1.29" not in said or "1.30" not in said:
            found.append(f"{where}: an old Kubernetes: {status}: {said}")
    for without, words, kind in (({"classes": set()}, "the IngressClass nginx", "Ingress"), ({"default_storage": False}, "a StorageClass", "StatefulSet"), ({"default_storage": False}, "a StorageClass", "PersistentVolumeClaim")):
        if where != "k8s/examples/mtls" and any(it["kind"] == kind for it in things):
            with cluster(**{**has, **without}) as env:
                status, said = asked(text, env)
                if not status or words not in said:
                    found.append(f"{where}: without {words}: {status}: {said}")
    lacking = [it for it in has["kinds"] if "." in it[0] and not it[0].split("/")[0].endswith(".k8s.io")]
    if lacking:
        kinds = {it: value for it, value in has["kinds"].items() if it != lacking[0]}
        with cluster(**{**has, "kinds": kinds}) as env:
            status, said = asked(text, env)
            if not status or lacking[0][1] not in said:
                found.append(f"{where}: without {lacking[0]}: {status}: {said}")
    if has["secrets"]:
        secret = sorted(has["secrets"])[0]
        with cluster(**{**has, "secrets": has["secrets"] - {secret}}) as env:
            status, said = asked(text, env)
            if not status or f"Secret {secret[1]}" not in said:
                found.append(f"{where}: without the secret {secret[1]}: {status}: {said}")
    return found


# Stands in for curl, in the job that looks before a sync: $STATUS is the answer, or nothing answers; what $LACKING matches is not there.
CURL = r"""#!/bin/sh
for url in "$@"; do :; done
case $url in *classes) [ "$STATUS" != 200 ] || echo '"storageclass.kubernetes.io/is-default-class": "true"' ;; esac
answer=$STATUS
if [ -n "$LACKING" ] && echo "$url" | grep -Eq "$LACKING"; then answer=404; fi
for it in "$@"; do
  if [ "$it" = --write-out ]; then printf '%s' "$answer"; fi
done
[ "$answer" != 000 ] || exit 7
"""
# What the job says it lacks.
UNREACHED = "the API server cannot be reached from here"


def check_before(_):
    """The job before a sync or an installation names every secret that objects ask for, and takes no silence of the API server for an answer."""
    found = []
    for where, things in (("k8s/examples/preflight", kustomize(HERE / "k8s/examples/preflight")), ("the chart", chart("prod", {"preflight": {"enabled": True}}))):
        job = next(it for it in things if it["kind"] == "Job" and it["metadata"]["name"] == "orchestrator-preflight")
        script = job["spec"]["template"]["spec"]["containers"][0]["command"][-1]
        wanted = secrets_of(things)
        may = {(it["metadata"]["namespace"], name) for it in things if it["kind"] == "Role" and it["metadata"]["name"] == "orchestrator-preflight" for rule in it["rules"] for name in rule["resourceNames"]}
        found += [f"{where}: the job may not look for {name} of {namespace}" for namespace, name in wanted - may]
        with tempfile.TemporaryDirectory() as directory:
            curl = pathlib.Path(directory) / "curl"
            curl.write_text(CURL)
            curl.chmod(0o755)
            cases = [("200", "", 0, ""), ("000", "", 1, UNREACHED), ("403", "", 1, "answers 403")]
            cases += [("200", f"/namespaces/{namespace}/secrets/{name}$|/apis/cert-manager.io/v1$", 1, f"missing: the Secret {name} in the namespace {namespace}") for namespace, name in sorted(wanted)]
            # What cert-manager may be asked for by the same sync is not missed.
            cases += [("200", "/secrets/orchestrator-page-tls$", 0, ""), ("200", "/ingressclasses/", 1, "missing: the IngressClass nginx")]
            for status, lacking, code, words in cases:
                env = {"PATH": f"{directory}:{os.environ['PATH']}", "STATUS": status, "LACKING": lacking}
                done = subprocess.run(["sh", "-euc", script], env=env, capture_output=True, text=True, check=False, timeout=60)
                if done.returncode != code or words not in done.stdout or code and words.startswith("missing") != ("missing:" in done.stdout):
                    found.append(f"{where}: {status}, without {lacking or 'nothing'}: {done.returncode}: {done.stdout.strip()[-300:]}")
    return found


def check_requirements(_):
    """An old Kubernetes, a missing definition, secret, namespace or class: each is named before anything is applied, and nothing else is."""
    if not shutil.which("kubectl"):
        raise Missing("kubectl")
    found = []
    # What secrets.sh makes is all that is asked for and nobody else makes, in every environment; but for the page's certificate, which is somebody's.
    made = subprocess.run(["sh", str(HERE / "secrets.sh")], capture_output=True, text=True, check=False)
    secrets = {(it["metadata"]["namespace"], it["metadata"]["name"]) for it in parsed(made.stdout) if it["kind"] == "Secret"}
    for where in ("k8s/overlays/dev", "k8s/overlays/prod", "rollouts"):
        found += [f"{where}: deploy/secrets.sh does not make {name} of {namespace}" for namespace, name in secrets_of(kustomize(HERE / where)) - secrets - {("orchestrator", "orchestrator-page-tls")}]
    # Most of the time is kubectl's.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for it in pool.map(lacking_of, ("k8s/examples/dev-storage", "rollouts", "k8s/examples/mtls")):
            found += it
    return found
