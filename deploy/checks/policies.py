"""Who may talk to whom: network policies, asked of every connection."""

import ipaddress

from .common import HERE, containers, kustomize


# Ends of connections: a pod is its component, another namespace its name or its label, what is at an address that address.
NAMESPACES = {"ingress-nginx": {"kubernetes.io/metadata.name": "ingress-nginx"}, "monitoring": {"kubernetes.io/metadata.name": "monitoring"},
              "frameworks": {"orchestrator.io/frameworks": "true"}, "scope-probes": {"orchestrator.io/probes": "true"}, "elsewhere": {}}
# Pods of Kubernetes: who knows names.
SYSTEM = {"cluster's DNS": {"k8s-app": "kube-dns"}, "node's DNS": {"k8s-app": "node-local-dns"}}
# NodeLocal DNSCache is at an address that is good on its node alone, by default 169.254.20.10, and beside what clouds tell of the machine.
ADDRESSES = {"node": "10.0.5.6", "other ensemble": "10.1.0.9", "scheduler": "10.2.0.7", "API server": "192.0.2.1", "API server of IPv6": "2001:db8::1",
             "node's cache": "169.254.25.10", "cloud": "169.254.169.254"}
# Of kubeadm and k3s, clouds, minikube and MicroK8s.
API_PORTS = (443, 6443, 8443, 16443)
OURS = ("probe", "collector", "control-plane", "zookeeper", "preflight")
# Every connection that the programs make, and whether the base has it or a component adds it. What is not here must not be.
CONNECTIONS = {
    **{(pod, names, 53): "base" for pod in OURS for names in (*SYSTEM, "node's cache")},
    **{(pod, "API server", port): "base" for pod in ("collector", "preflight") for port in API_PORTS},
    ("probe", "control-plane", 4041): "base",
    ("collector", "control-plane", 4041): "base",
    ("node", "control-plane", 4041): "node-addresses",
    ("control-plane", "control-plane", 4044): "base",
    ("control-plane", "zookeeper", 2181): "base",
    ("zookeeper", "zookeeper", 2888): "base",
    ("zookeeper", "zookeeper", 3888): "base",
    ("control-plane", "node", 5051): "node-addresses",
    ("control-plane", "node", 31000): "node-addresses",
    ("control-plane", "node", 32000): "node-addresses",
    ("control-plane", "other ensemble", 2181): "node-addresses",
    ("control-plane", "other ensemble", 2281): "node-addresses",
    ("ingress-nginx", "control-plane", 4040): "base",
    ("ingress-nginx", "control-plane", 8080): "base",
    ("frameworks", "control-plane", 5050): "base",
    ("frameworks", "control-plane", 8080): "base",
    ("frameworks", "zookeeper", 2181): "base",
    ("scheduler", "control-plane", 5050): "framework-addresses",
    ("scheduler", "control-plane", 8080): "framework-addresses",
    ("scheduler", "zookeeper", 2181): "framework-addresses",
    ("scope-probes", "control-plane", 4040): "base",
    ("monitoring", "control-plane", 4040): "base",
    ("monitoring", "probe", 4042): "base",
    ("monitoring", "collector", 4042): "base",
    ("monitoring", "zookeeper", 7000): "base",
    **{(end, "control-plane", 8053): "dns" for end in ("frameworks", "node", *SYSTEM)},
    # Who does not lead asks the leader for the names.
    ("control-plane", "control-plane", 5050): "dns",
}
# What is asked, and which components it has.
ASKED = [(f"k8s/{it}", {"base"}) for it in ("overlays/dev", "overlays/staging", "overlays/prod", "examples/preflight")]
ASKED += [("k8s/examples/node-addresses", {"base", "node-addresses"}), ("k8s/examples/framework-addresses", {"base", "framework-addresses"}), ("k8s/examples/dns", {"base", "node-addresses", "dns"})]


def allowed(things, source, target, port):
    """Whether the policies let a connection through. An end without pods of ours has no policy here."""
    pods = {it["metadata"]["labels"]["app.kubernetes.io/component"]: (it["metadata"]["namespace"], it["spec"]["template"]["metadata"]["labels"]) for it in things if containers(it)}

    def labels_of(end):
        """Labels of its namespace, and of its pod."""
        if end in pods:
            return {"kubernetes.io/metadata.name": pods[end][0]}, pods[end][1]
        if end in SYSTEM:
            return {"kubernetes.io/metadata.name": "kube-system"}, SYSTEM[end]
        return NAMESPACES.get(end), {}

    def is_peer(peer, end, namespace):
        if "ipBlock" in peer:
            at = ipaddress.ip_address(ADDRESSES[end]) if end in ADDRESSES else None
            return at is not None and at in ipaddress.ip_network(peer["ipBlock"]["cidr"]) and not any(at in ipaddress.ip_network(it) for it in peer["ipBlock"].get("except", []))
        if end in ADDRESSES:
            return False
        around, own = labels_of(end)
        wanted = peer.get("namespaceSelector", {"matchLabels": {"kubernetes.io/metadata.name": namespace}}).get("matchLabels", {})
        return wanted.items() <= around.items() and peer.get("podSelector", {}).get("matchLabels", {}).items() <= own.items()

    def passes(end, other, direction, key):
        if end not in pods:
            return True
        namespace, labels = pods[end]
        rules = [rule for it in things if it["kind"] == "NetworkPolicy" and it["metadata"]["namespace"] == namespace and direction.capitalize() in it["spec"]["policyTypes"]
                 and it["spec"]["podSelector"].get("matchLabels", {}).items() <= labels.items() for rule in it["spec"].get(direction, [])]
        return any(any(int(at["port"]) <= port <= int(at.get("endPort", at["port"])) for at in rule["ports"]) and any(is_peer(peer, other, namespace) for peer in rule[key]) for rule in rules)

    return passes(source, target, "egress", "to") and passes(target, source, "ingress", "from")


def check_policies(_):
    """Who may talk to whom: every connection that the programs need goes through, and no other."""
    found = []
    ports = {port for _, _, port in CONNECTIONS}
    for directory, components in ASKED:
        things = kustomize(HERE / directory)
        there = {it["metadata"]["labels"]["app.kubernetes.io/component"] for it in things if containers(it)}
        denied = {it["metadata"]["namespace"] for it in things if it["kind"] == "NetworkPolicy" and it["metadata"]["name"] == "deny-all"}
        if denied != {"orchestrator", "orchestrator-node"}:
            found.append(f"{directory}: only {sorted(denied)} deny what is not allowed")
        for source in (*OURS, *NAMESPACES, *SYSTEM, *ADDRESSES):
            for target in (*OURS, *SYSTEM, *ADDRESSES):
                if {source, target} & set(OURS) - there or not {source, target} & set(OURS):
                    continue
                for port in ports:
                    # Kubernetes' own server may be at any address, on its ports.
                    needed = CONNECTIONS.get((source, target, port)) in components or source in ("collector", "preflight") and target in ADDRESSES and port in API_PORTS
                    if allowed(things, source, target, port) != needed:
                        found.append(f"{directory}: from {source} to {target} on {port}: {'not let through' if needed else 'let through, and nothing needs it'}")
    return found
