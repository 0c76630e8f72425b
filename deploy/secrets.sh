#!/bin/sh
# Prints what must be in a cluster before anything else is: the namespaces, and secrets with values that are new each time.
#
#   deploy/secrets.sh | kubectl create -f -
#
# `create`, which leaves alone what is there: the key of the agents' tokens must stay as long as executors run. The password of the page, for the name
# admin, is said once, on standard error. Whoever has a vault makes the same secrets from there.
set -eu

random() {
  openssl rand -hex "$1"
}

secret() {
  printf -- '---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\n  namespace: %s\ntype: Opaque\nstringData:\n' "$1" "$2"
}

cat "$(dirname "$0")/k8s/base/namespaces.yaml"
# What agents ask of the control plane, and what it shows them.
login=$(random 24)
secret orchestrator-agent-login orchestrator
printf '  login: "control-plane:%s"\n' "$login"
secret orchestrator-agent-login orchestrator-node
printf '  credentials: |\n    {"credentials": [{"principal": "control-plane", "secret": "%s"}]}\n' "$login"
printf '  jwt-key: "%s"\n' "$(random 32)"
# What the master asks of agents, and what they show it.
credential=$(random 24)
secret orchestrator-agent-credential orchestrator
printf '  credentials: |\n    {"credentials": [{"principal": "agent", "secret": "%s"}]}\n' "$credential"
secret orchestrator-agent-credential orchestrator-node
printf '  credential: |\n    {"principal": "agent", "secret": "%s"}\n' "$credential"
# What the Ingress asks of people.
password=$(random 12)
secret orchestrator-login orchestrator
printf '  auth: "admin:%s"\n' "$(printf '%s' "$password" | openssl passwd -apr1 -stdin)"
echo "the page: admin, $password" >&2
