#!/bin/sh
# Installs packages, upgrades, removes and purges them with the real dpkg, in a copy of this machine that is thrown away: an overlay over its root, with
# mounts of its own. What systemd would be told is written down instead. As root, where dpkg, unshare and overlays are.
#
#   deploy/debian/try.sh DIRECTORY
#
# DIRECTORY has the packages; for each of them a newer version is made out of the same files.
# Commands are for the shell inside.
# shellcheck disable=SC2016
set -eu

if [ "${2:-}" != inside ]; then
  [ $# = 1 ] || { echo "$0: where are the packages?" >&2; exit 2; }
  [ "$(id -u)" = 0 ] || { echo "$0: only root can mount" >&2; exit 2; }
  exec unshare --mount --pid --fork --propagation=private "$0" "$1" inside
fi

packages=$1
work=$(mktemp -d)
mount -t tmpfs try "$work"
mkdir "$work/upper" "$work/work" "$work/root" "$work/old" "$work/new"
# In files of their own, so that nothing of this machine's is read by the copy while it is written.
for package in orchestrator-control orchestrator-probe; do
  # The one that was made last.
  file=$(find "$packages" -maxdepth 1 -name "${package}_*.deb" -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
  [ -n "$file" ] || { echo "$0: there is no package $package in $packages" >&2; exit 2; }
  # Without the programs, which are large: what is tried is what happens around them. A newer version has another default of one setting, too.
  for version in old new; do
    at=$work/$version/$package
    dpkg-deb --raw-extract "$file" "$at"
    for program in "$at"/usr/bin/*; do
      printf '#!/bin/sh\necho "%s $0 $*" >> /run/told\n' "$version" > "$program"
      chmod 755 "$program"
    done
    rm -f "$at/DEBIAN/md5sums"
    # The libraries that programs need are not there in their place.
    sed -i '/^Depends:/d' "$at/DEBIAN/control"
  done
  sed -i 's/^Version: .*/&+newer/' "$work/new/$package/DEBIAN/control"
  printf '# A setting that is new.\n' >> "$work/new/$package/etc/default/$package"
  for version in old new; do
    dpkg-deb --build --root-owner-group -Znone "$work/$version/$package" "$work/$version/$package.deb" > /dev/null
  done
done
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$work/root"
root=$work/root
mkdir -p "$root/try"
mount --bind "$work" "$root/try"
mount -t proc proc "$root/proc"
mount -t tmpfs run "$root/run"
mount --rbind /dev "$root/dev"
# deb-systemd-invoke looks here for systemd, and then tells it by this program.
mkdir -p "$root/run/systemd/system"
for program in /usr/bin/systemctl /bin/systemctl; do
  rm -f "$root$program"
  cat > "$root$program" << 'EOF'
#!/bin/sh
echo "systemctl $*" >> /run/told
case "$*" in
  *is-enabled*) echo enabled ;;
  # A service that was started once runs, and only services of ours are asked about.
  *is-active*) exit 0 ;;
  *show*) echo "ActiveState=active" ;;
esac
exit 0
EOF
  chmod 755 "$root$program"
done
rm -f "$root/usr/sbin/policy-rc.d"

failed=0
# What went before, what must hold then, and a command that finds out.
holds() {
  what=$1
  shift
  if chroot "$root" sh -c "$*" > "$work/said" 2>&1; then
    echo "ok   $what"
  else
    echo "FAIL $what: $*" >&2
    cat "$work/said" "$root/run/told" >&2
    failed=1
  fi
}
act() {
  : > "$root/run/told"
  if ! chroot "$root" env DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold --force-unsafe-io "$@" > "$work/said" 2>&1; then
    echo "FAIL dpkg $*" >&2
    cat "$work/said" >&2
    failed=1
  fi
}

act --install /try/old/orchestrator-control.deb /try/old/orchestrator-probe.deb
holds "an installation starts the control plane and the probe" 'grep -Eq "(re)?start.* orchestrator-control.service" /run/told && grep -Eq "(re)?start.* orchestrator-probe.service" /run/told'
holds "the agent is not started until somebody says so" '! grep -Eq " start .*orchestrator-agent" /run/told'
# By links, or by asking systemd, as the version of init-system-helpers does it.
holds "services are enabled, the agent's is not" 'enabled() { test -e "/etc/systemd/system/multi-user.target.wants/$1.service" || grep -Eq "(enable|preset) $1.service" /run/told; }; enabled orchestrator-control && enabled orchestrator-probe && ! enabled orchestrator-agent'
# As an operator and the programs leave it.
chroot "$root" sh -c 'echo ORCHESTRATOR_HTTP_ADDRESS=0.0.0.0:4040 >> /etc/default/orchestrator-control; echo "metrics-interval = \"5s\"" >> /etc/orchestrator-probe.toml
  mkdir -p /var/lib/private/orchestrator /var/lib/orchestrator-probe /var/lib/orchestrator-agent /run/orchestrator-agent
  ln -sfn private/orchestrator /var/lib/orchestrator; for at in orchestrator orchestrator-probe orchestrator-agent; do echo kept > "/var/lib/$at/state"; done; systemctl enable orchestrator-agent'
act --install /try/new/orchestrator-control.deb /try/new/orchestrator-probe.deb
holds "an upgrade restarts the control plane and the probe" 'grep -Eq "restart.* orchestrator-control.service" /run/told && grep -Eq "restart.* orchestrator-probe.service" /run/told'
holds "an upgrade restarts an agent that somebody started" 'grep -Eq "restart.* orchestrator-agent.service" /run/told'
holds "an upgrade leaves kernel programs attached" '! grep -q detach /run/told'
holds "an upgrade keeps settings that were changed, and says what is new" 'grep -q 4040 /etc/default/orchestrator-control && test -e /etc/default/orchestrator-control.dpkg-dist && grep -q 5s /etc/orchestrator-probe.toml'
holds "an upgrade takes settings that nobody changed" 'grep -q "is new" /etc/default/orchestrator-probe'
holds "an upgrade keeps what was stored" 'for at in orchestrator orchestrator-probe orchestrator-agent; do grep -q kept "/var/lib/$at/state" || exit 1; done'
act --install /try/old/orchestrator-control.deb /try/old/orchestrator-probe.deb
holds "the version before can be gone back to" 'grep -q kept /var/lib/orchestrator/state && grep -Eq "restart.* orchestrator-control.service" /run/told'
act --remove orchestrator-control orchestrator-probe
holds "a removal stops the services" 'grep -Eq "stop.* orchestrator-control.service" /run/told && grep -Eq "stop.* orchestrator-probe.service" /run/told && grep -Eq "stop.* orchestrator-agent.service" /run/told'
holds "a removal takes the kernel programs away" 'grep -q "old .*orchestrator-probe.* detach" /run/told'
holds "a removal keeps settings and what was stored" 'grep -q 4040 /etc/default/orchestrator-control && grep -q kept /var/lib/orchestrator/state && ! test -e /usr/bin/orchestrator-control'
act --install /try/new/orchestrator-control.deb /try/new/orchestrator-probe.deb
holds "what was removed comes back with its settings" 'grep -q 4040 /etc/default/orchestrator-control && grep -q kept /var/lib/orchestrator/state && grep -Eq "(re)?start.* orchestrator-control.service" /run/told'
act --purge orchestrator-control orchestrator-probe
holds "a purge leaves nothing" '! ls -d /etc/default/orchestrator* /etc/orchestrator* /var/lib/orchestrator* /var/lib/private/orchestrator* /etc/systemd/system/*/orchestrator* /lib/systemd/system/orchestrator* 2> /dev/null'
exit "$failed"
