"""The programs, running: dashboards against their metrics, documents against what their commands do.

Everything runs in a network namespace of its own, so the ports that documents name are free, and nothing outside is reached:

    unshare --net python -m checks.live --binaries target/debug       # from deploy/, as root

prints what was found as one JSON object.
"""

import argparse
import contextlib
import glob
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

from . import documents
from .common import HERE, ROOT, Missing, kustomize
from .monitoring import FOREIGN, closed_labels, expressions, metrics_of

# Metrics that are there only once something has happened which cannot be made to happen here; check_metrics finds them in the sources.
LATER = {
    "orchestrator_loop_panics_total": "after a panic",
    "probe_loop_panics_total": "after a panic",
    "orchestrator_probe_streams_refused_total": "after a probe was refused",
    "probe_runtime_failures_total": "after a container runtime has failed",
    "probe_kubernetes_objects": "in a cluster",
    "orchestrator_controls_total": "after a control was called",
    "orchestrator_pipe_bytes_total": "after something went through a pipe",
    "orchestrator_websocket_ended_total": "after a page was closed",
    "monitoring_app_grpc_call_seconds_bucket": "after a call of the gRPC API",
    "zk_conflict_count_total": "after a conflict of two ensembles",
    "zk_sync_transaction_seconds_bucket": "after a change that a link carries",
}
JARS = ("/usr/share/java/*", "/usr/share/java/zookeeper.jar")
# Seconds within which a program must answer.
PATIENCE = 120
# Seconds that one block of a document may take.
BLOCK_PATIENCE = 120


class Programs:
    """Processes that end with this value."""

    def __init__(self, directory):
        self.directory, self.running = directory, []

    def start(self, name, *command, env=None):
        log = (self.directory / f"{name}.log").open("wb")
        process = subprocess.Popen([str(it) for it in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        self.running.append((name, process))

    def until(self, what, holds):
        begun = time.monotonic()
        while not holds():
            for name, process in self.running:
                if process.poll() is not None:
                    raise AssertionError(f"{name} ended with {process.returncode}: {self.tail(name)}")
            if time.monotonic() - begun > PATIENCE:
                raise AssertionError(f"not within {PATIENCE} s: {what}; {' '.join(self.tail(name) for name, _ in self.running)}")
            time.sleep(0.1)

    def tail(self, name):
        return (self.directory / f"{name}.log").read_text(errors="replace")[-800:]

    def stop(self):
        for _, process in reversed(self.running):
            process.send_signal(signal.SIGTERM)
        for _, process in self.running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            process.kill()
        # Tasks outlive their agent. Nobody else is in this namespace.
        own = os.readlink("/proc/self/ns/net")
        for place in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(place / "ns/net") == own and int(place.name) != os.getpid():
                    os.kill(int(place.name), signal.SIGKILL)


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return None


def families(text):
    """Names of the metrics in an exposition."""
    return set(re.findall(r"^# TYPE (\S+)", text, re.M)) | set(re.findall(r"^([a-zA-Z_:][\w:]*)", text, re.M))


def label_values(text):
    """Values in an exposition by metric and label."""
    values = {}
    for name, labels in re.findall(r"^([a-zA-Z_:][\w:]*)\{(.*)\} ", text, re.M):
        for label, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels):
            values.setdefault((name, label), set()).add(value)
    return values


def start(programs, binaries, directory):
    """Two ensembles of one server each, a control plane, and a probe that runs tasks, too; on the ports that documents name."""
    java = shutil.which("java")
    if not java or not pathlib.Path(JARS[1]).exists():
        raise Missing("zookeeper, default-jre-headless")
    for port in (2181, 2182):
        data = directory / f"zookeeper-{port}"
        data.mkdir()
        config = directory / f"zoo-{port}.cfg"
        config.write_text(f"tickTime=2000\ndataDir={data}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n4lw.commands.whitelist=*\n")
        programs.start(f"zookeeper-{port}", java, "-Xmx128m", "-cp", ":".join(JARS), "org.apache.zookeeper.server.quorum.QuorumPeerMain", config)
    programs.start("control", binaries / "orchestrator-control", "--data-dir", directory / "data")
    programs.until("the control plane is ready", lambda: get("http://127.0.0.1:4040/ready"))
    resources = "cpus:2;mem:1024;disk:1024;ports:[31000-31100]"
    programs.start("probe", binaries / "orchestrator-probe", "--roles=observe,run", f"--resources={resources}", "--state-dir", directory / "state", "--work-dir", directory / "work", "--runtime-dir", directory / "runtime", "--no-cloud-metadata")
    programs.until("the probe is ready", lambda: get("http://127.0.0.1:4042/ready"))
    programs.until("the agent is registered", lambda: '"active":true' in (get("http://127.0.0.1:5050/slaves") or "").replace(" ", ""))


def negotiated(port, asked):
    """The session timeout that a server grants, in ms."""
    request = struct.pack(">iqiqi16s?", 0, 0, asked, 0, 16, bytes(16), False)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = connection.recv(12)
    return struct.unpack(">iii", answer)[2]


def ensemble(programs, directory):
    """The manifests' zoo.cfg and scripts, with real servers: what they grant, and when they are said to be alive and to serve."""
    found = []
    config = next(it["data"] for it in kustomize(HERE / "k8s/overlays/prod") if it["kind"] == "ConfigMap" and it["metadata"]["name"] == "zookeeper")
    for name in ("alive.sh", "serves.sh"):
        (directory / name).write_text(config[name])
    # One that is alone, and the first of three that has no others: it lives, and must not be sent clients.
    for name, port, others in (("alone", 2191, ""), ("lonely", 2192, "".join(f"server.{it}=127.0.0.1:{12887 + it}:{13887 + it}\n" for it in (1, 2, 3)))):
        data = directory / name
        data.mkdir()
        (data / "myid").write_text("1")
        text = re.sub(r"^(server\..*|metricsProvider\..*)\n?", "", config["zoo.cfg"], flags=re.M)
        text = text.replace("dataDir=/data\n", f"dataDir={data}\n").replace("dataLogDir=/datalog\n", f"dataLogDir={data}\n").replace("clientPort=2181\n", f"clientPort={port}\n")
        at = directory / f"{name}.cfg"
        at.write_text(text + "\n" + others)
        programs.start(name, shutil.which("java"), "-Xmx128m", "-cp", ":".join(JARS), "org.apache.zookeeper.server.quorum.QuorumPeerMain", at)

    def says(script, port):
        return subprocess.run(["bash", str(directory / script), str(port)], capture_output=True, check=False, timeout=20).returncode == 0

    programs.until("both servers live", lambda: says("alive.sh", 2191) and says("alive.sh", 2192))
    programs.until("the one that is alone is said to serve", lambda: says("serves.sh", 2191))
    if says("serves.sh", 2192):
        found.append("serves.sh: a server without a quorum is said to serve")
    # Of its own name a server may know another address than its pod's: it listens on all of them.
    try:
        socket.create_connection(("127.0.0.2", 13888), timeout=5).close()
    except OSError as error:
        found.append(f"a server listens for the others at the address of its own name alone: {error}")
    if says("alive.sh", 2193) or says("serves.sh", 2193):
        found.append("a server that is not there is said to live, or to serve")
    if negotiated(2191, 60_000) != 60_000:
        found.append(f"a client that asks for 60 s gets {negotiated(2191, 60_000)} ms")
    return found


def run_documents(binaries, directory):
    """Every block that says so, in the order of its page, in one directory for each page."""
    found, count = [], 0
    for page, _, these in documents.blocks():
        at = directory / "pages" / re.sub(r"\W+", "-", str(page))
        at.mkdir(parents=True)
        for block in these:
            if not block.tested:
                continue
            count += 1
            env = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}:/usr/sbin:/sbin", "REPOSITORY": str(ROOT)}
            try:
                done = subprocess.run(["bash", "-euo", "pipefail", "-c", block.text], cwd=at, env=env, capture_output=True, text=True, timeout=BLOCK_PATIENCE, check=False)
                said, status = done.stdout + done.stderr, done.returncode
            except subprocess.TimeoutExpired as late:
                said, status = str(late.stdout or ""), f"no end within {BLOCK_PATIENCE} s"
            if status:
                found.append(f"{page}:{block.line}: {status}: {said.strip()[-800:]}")
            for line in block.expected:
                if line not in said:
                    found.append(f"{page}:{block.line}: {line!r} is not in what it prints: {said.strip()[-800:]}")
    return found, count


# One request at least of each kind that panels, rules, gates and their tests tell from others.
ASKED = ("4040/health", "4040/ready", "4040/api/topology", "8080/ping", "8080/v2/apps", "5050/state")


def check_metrics_are_there(source):
    """Every metric of a panel or a rule is on /metrics of the programs, and so is every value that is written out of a label whose values are ours."""
    there, values = set(), {}
    for it in ASKED:
        get(f"http://127.0.0.1:{it}")
    for url in ("http://127.0.0.1:4040/metrics", "http://127.0.0.1:4042/metrics"):
        # Twice: what counts requests counts the first one.
        get(url)
        text = get(url) or ""
        there |= families(text)
        for key, these in label_values(text).items():
            values.setdefault(key, set()).update(these)
    found = set()
    for where, name, label, value in closed_labels():
        # What has not happened yet has no series: then the word is looked for in the sources.
        if value not in values[name, label] if (name, label) in values else f'"{value}"' not in source:
            found.add(f'{where}: no {name} has {label}="{value}", only {sorted(values.get((name, label), []))}')
    routes = values.get(("orchestrator_http_request_duration_seconds_count", "route"), set())
    # What the Ingress sends to Marathon's port is among what gates and alerts measure.
    found |= {f"requests to {it} are not measured" for it in ("marathon", "mesos") if it not in routes}
    for where, expression in expressions():
        for name in metrics_of(expression):
            plain = re.sub(r"_(bucket|count|sum)$", "", name)
            if name not in there and plain not in there and name not in FOREIGN and name not in LATER:
                found.add(f"{where}: {name} is not on /metrics")
    return sorted(found), len(there)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", type=pathlib.Path, required=True)
    options = parser.parse_args()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    answer = {"missing": None, "documents": [], "metrics": []}
    with tempfile.TemporaryDirectory(prefix="orchestrator-live-") as directory:
        directory = pathlib.Path(directory)
        programs = Programs(directory)
        try:
            start(programs, options.binaries.resolve(), directory)
            answer["ensemble"] = ensemble(programs, directory)
            answer["documents"], answer["blocks"] = run_documents(options.binaries.resolve(), directory)
            answer["openapi"] = json.loads(get("http://127.0.0.1:4040/api/openapi.json") or "null")
            answer["metrics"], answer["families"] = check_metrics_are_there("".join(it.read_text() for it in sorted((ROOT / "control-plane").rglob("*.rs"))))
        except Missing as what:
            answer["missing"] = str(what)
        except AssertionError as error:
            answer["documents"] = [str(error)]
        finally:
            programs.stop()
            # What tasks left mounted would keep the directory.
            for line in sorted(glob.glob(str(directory / "work" / "**" / "*"), recursive=True), key=len, reverse=True):
                if os.path.ismount(line):
                    subprocess.run(["umount", "--lazy", line], check=False)
    json.dump(answer, sys.stdout)


_answers = {}


def _answer(options):
    """What the process in the other namespace found; it is asked once."""
    if not options.binaries:
        raise Missing("--binaries")
    if os.geteuid() != 0:
        raise Missing("root")
    for program in ("unshare", "ip"):
        if not shutil.which(program):
            raise Missing(program)
    if not _answers:
        done = subprocess.run(["unshare", "--net", sys.executable, "-m", "checks.live", "--binaries", str(options.binaries.resolve())], cwd=HERE, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(done.stderr.strip()[-2000:])
        _answers.update(json.loads(done.stdout))
    if _answers["missing"]:
        raise Missing(_answers["missing"])
    return _answers


def check_generated(options):
    """What the book says of settings and paths is what the programs say of themselves."""

    def openapi(options):
        description = _answer(options).get("openapi")
        if not description:
            raise AssertionError("the control plane describes no API")
        return description

    return documents.check_generated(options, openapi)


def check_ensemble(options):
    """ZooKeeper with the manifests' own configuration grants a session of 60 s, and its probes tell a server that serves from one that only lives."""
    return _answer(options).get("ensemble", ["the servers were not tried"])


def check_documents_run(options):
    """Every command in the documents that is marked as tested does what stands there, against programs that run."""
    answer = _answer(options)
    return answer["documents"] if answer.get("blocks", 0) > 10 or answer["documents"] else ["hardly any command was run"]


def check_live_metrics(options):
    """Every metric of a panel, a rule or a gate is on /metrics of the programs as they run, and so are the values of labels that they ask for."""
    answer = _answer(options)
    return answer["metrics"] if answer.get("families", 0) > 100 else [*answer["metrics"], f"only {answer.get('families')} metrics are there"]


if __name__ == "__main__":
    main()
