#!/bin/sh
# Starts the agent out of its image in the node's own root. What tasks are there they are on a machine without Kubernetes, too: they run the node's programs
# and see its directories; and they go on when the pod is gone and its image removed, since they have nothing of either.
#
# The node's root is mounted at /host, and what the pod mounts for the agent is mounted below that. The program comes with its own loader and C library
# (portable.sh), so the node's may be older.
set -eu

node=/host
# As portable.sh was told.
program=/var/lib/orchestrator-agent/program

if ! chroot "$node" /bin/sh -c :; then
  echo "there is no shell in the node's root, which should be mounted at $node: tasks that are commands could not run" >&2
  exit 1
fi
mkdir -p "$node$program"
# A program that runs is not written to: its name is given to a new one.
cp -r --remove-destination /agent/. "$node$program/"
# The loader says its version and does nothing else.
for loader in "$node$program"/ld-*; do
  if ! chroot "$node" "$program/${loader##*/}" --version > /dev/null; then
    echo "the node runs nothing that is in $program: is it mounted noexec, as /var is on Container-Optimized OS of GKE? Agents need a node whose system runs programs there (GKE: Ubuntu), or that directory mounted with exec" >&2
    exit 1
  fi
done
# The cluster's services have names for the pod's resolver alone. The node does not see what is mounted here: its root comes in one direction.
resolver=$(chroot "$node" /bin/sh -c 'readlink -f /etc/resolv.conf' || :)
if [ -n "$resolver" ] && [ -e "$node$resolver" ]; then
  mount --bind /etc/resolv.conf "$node$resolver"
fi
# Tasks with an image take its root in place of the node's, which the kernel refuses below a mount that is shared.
mount --make-private /
# By its path: a busybox that is the shell would take its own, which knows no cgroup namespaces.
exec /bin/nsenter --target=1 --cgroup --ipc --uts chroot "$node" "$program/orchestrator-probe" "$@"
