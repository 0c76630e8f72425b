#!/bin/sh
# Lays out the root of the agent's image: agent.sh, what that needs to bring the agent into the node's root (a shell with cp, mkdir, chroot and mount, of
# Debian's static busybox; and nsenter, of util-linux, because busybox's enters no cgroup namespace), and the agent with a loader of its own.
#
#   deploy/images/agent-root.sh ROOT ARCHITECTURE DIRECTORY
#
# ROOT is what pack.sh made of the probe for ARCHITECTURE (amd64, arm64), and DIRECTORY is written. For this machine's architecture the tools are this
# machine's own; those for another one come out of its packages in Debian's archive, unpacked and not installed. Needs patchelf.
set -eu

if [ $# != 3 ]; then
  echo "$0: which root, for which architecture, and where to?" >&2
  exit 1
fi
here=$(dirname "$0")
root=$1 architecture=$2 to=$3
# Where it will be when it is started.
place=$(sed -n 's/^program=//p' "$here/agent.sh")
case $(uname -m) in
  x86_64) own=amd64 ;;
  aarch64) own=arm64 ;;
  *) own=$(uname -m) ;;
esac

if [ "$architecture" = "$own" ]; then
  busybox=$(command -v busybox) || { echo "$0: busybox is missing (Debian's package busybox-static)" >&2; exit 1; }
  nsenter=$(command -v nsenter) || { echo "$0: nsenter is missing (Debian's package util-linux)" >&2; exit 1; }
else
  command -v apt-get > /dev/null || { echo "$0: tools for $architecture come from Debian's archive, and there is no apt here" >&2; exit 1; }
  from=$to.tools
  rm -rf "$from"
  mkdir -p "$from/apt/lists/partial" "$from/apt/archives/partial"
  : > "$from/apt/status"
  from=$(cd "$from" && pwd)
  # An index of its own: what is installed here, and for which architectures, is left alone.
  apt() {
    apt-get -q -o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture" -o APT::Sandbox::User=root -o "Dir::State=$from/apt" \
      -o "Dir::State::status=$from/apt/status" -o "Dir::Cache=$from/apt" "$@" >&2
  }
  apt update
  (cd "$from" && apt download busybox-static util-linux libselinux1 libpcre2-8-0)
  for package in "$from"/*.deb; do
    dpkg-deb --extract "$package" "$from"
    # shellcheck disable=SC2016 # the names are dpkg's
    dpkg-deb --show --showformat '${Package} ${Version} ${Architecture}\n' "$package" >> "$from/packages"
  done
  rm -r "$from/apt" "$from"/*.deb
  busybox=$from/bin/busybox nsenter=$from/usr/bin/nsenter
  export PACK_FROM="$from"
fi
"$here/pack.sh" "$busybox" "$nsenter" "$to"
mkdir -p "$to/bin"
mv "$to/busybox" "$to/nsenter" "$to/bin/"
for name in sh cp mkdir chroot mount; do
  ln -s busybox "$to/bin/$name"
done
cp "$here/agent.sh" "$to/start"
chmod 755 "$to/start"
"$here/portable.sh" "$root" orchestrator-probe "$to/agent" "$place"
# The agent's own libraries are the probe's.
cat "$root.packages" >> "$to.packages"
sort -u -o "$to.packages" "$to.packages"
if [ -d "$root/var/lib/dpkg/status.d" ]; then
  cp "$root"/var/lib/dpkg/status.d/* "$to/var/lib/dpkg/status.d/"
fi
rm -rf "$to.tools"
