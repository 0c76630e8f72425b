#!/bin/sh
# Makes the root of an image that has nothing but one program and what it needs to run: the C library that it was linked against, certificates of
# public authorities, and names of two users. Works for a program of another machine than this one.
#
#   deploy/images/pack.sh PROGRAM... DIRECTORY
#
# Beside the directory, DIRECTORY.packages lists whose files were taken, for the bill of materials: name, version, architecture. In it, the same stands
# where those look who scan images for known defects: one file for each package in /var/lib/dpkg/status.d, and the name of the distribution.
#
# PACK_FROM, where it is set, is a directory with unpacked packages: libraries that are there go before this machine's, and its file `packages` has their
# names, versions and architectures.
set -eu

die() {
  echo "$0: $1" >&2
  exit 1
}

[ $# -ge 2 ] || die "which programs, and where to?"
for last do :; done
root=$last
packages=$root.packages
rm -rf "$root" "$packages"
mkdir -p "$root/etc/ssl/certs" "$root/tmp"
chmod 1777 "$root/tmp"
: > "$packages"

read_elf=readelf
command -v "$read_elf" > /dev/null || die "readelf is missing (Debian's package binutils)"

# Where the libraries of the program's machine are, on this one.
places() {
  case $1 in
    *X86-64*) echo "/lib/x86_64-linux-gnu /usr/lib/x86_64-linux-gnu /lib64 /usr/x86_64-linux-gnu/lib" ;;
    *AArch64*) echo "/lib/aarch64-linux-gnu /usr/lib/aarch64-linux-gnu /usr/aarch64-linux-gnu/lib" ;;
    *) die "no idea where the libraries of a program for '$1' are" ;;
  esac
}

library() {
  for from in ${PACK_FROM:+"$PACK_FROM"} ""; do
    for place in $libraries; do
      if [ -e "$from$place/$1" ]; then
        readlink -f "$from$place/$1"
        return
      fi
    done
  done
  die "$1 is not in $libraries"
}

# The package of a file, where there is dpkg.
owner() {
  command -v dpkg-query > /dev/null || return 0
  # Since /usr was merged, dpkg knows some files by the other of their two names.
  for name in "$1" "${1#/usr}"; do
    if package=$(dpkg-query --search "$name" 2> /dev/null); then
      dpkg-query --show --showformat '${Package} ${Version} ${Architecture}\n' "${package%%: *}" >> "$packages"
      return 0
    fi
  done
}

take() {
  if [ -e "$root$2" ]; then return; fi
  mkdir -p "$root$(dirname "$2")"
  cp "$1" "$root$2"
  chmod 755 "$root$2"
  owner "$1"
}

needed() {
  "$read_elf" --dynamic "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'
}

while [ $# -gt 1 ]; do
  program=$1
  shift
  machine=$("$read_elf" --file-header "$program" | sed -n 's/ *Machine: *//p')
  libraries=$(places "$machine")
  name=$(basename "$program")
  strip="strip"
  case $machine in
    *AArch64*) [ "$(uname -m)" = aarch64 ] || strip=aarch64-linux-gnu-strip ;;
    *X86-64*) [ "$(uname -m)" = x86_64 ] || strip=x86_64-linux-gnu-strip ;;
  esac
  # Names of functions are for panics; those are in the debug information that a release keeps beside the image.
  "$strip" --strip-all -o "$root/$name" "$program"
  chmod 755 "$root/$name"
  owner "$(readlink -f "$program")"
  loader=$("$read_elf" --program-headers "$program" | sed -n 's/.*program interpreter: \(.*\)\]/\1/p')
  [ -n "$loader" ] || continue # static
  take "$(library "$(basename "$loader")")" "$loader"
  todo=$(needed "$program")
  while [ -n "$todo" ]; do
    next=
    for one in $todo; do
      [ "$one" != "$(basename "$loader")" ] || continue
      # The loader looks here without being told.
      at=/lib/$one
      [ ! -e "$root$at" ] || continue
      file=$(library "$one")
      take "$file" "$at"
      next="$next $(needed "$file")"
    done
    todo=$(echo "$next" | tr -s ' \n' ' ' | sed 's/^ $//')
  done
done

authorities=/etc/ssl/certs/ca-certificates.crt
[ -r "$authorities" ] || die "$authorities is missing (package ca-certificates)"
cp "$authorities" "$root$authorities"
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
printf 'root:x:0:0:root:/:/none\norchestrator:x:65532:65532:orchestrator:/data:/none\n' > "$root/etc/passwd"
printf 'root:x:0:\norchestrator:x:65532:\n' > "$root/etc/group"
if [ -n "${PACK_FROM:-}" ]; then cat "$PACK_FROM/packages" >> "$packages"; fi
sort -u -o "$packages" "$packages"
if [ -s "$packages" ]; then
  mkdir -p "$root/var/lib/dpkg/status.d"
  cp /etc/debian_version "$root/etc/debian_version"
  cp -L /etc/os-release "$root/etc/os-release"
  while read -r name version architecture; do
    # A cross compiler's library is Debian's, under another name.
    case $name in
      *-arm64-cross) name=${name%-arm64-cross} version=${version%cross*} architecture=arm64 ;;
      *-amd64-cross) name=${name%-amd64-cross} version=${version%cross*} architecture=amd64 ;;
    esac
    # Defects are known by the source.
    case $name in
      libc6) source=glibc ;;
      libgcc-s1) source=gcc-${version%%.*} ;;
      busybox-static) source=busybox ;;
      libselinux1) source=libselinux ;;
      libpcre2-8-0) source=pcre2 ;;
      *) source=$name ;;
    esac
    printf 'Package: %s\nStatus: install ok installed\nArchitecture: %s\nSource: %s\nVersion: %s\nMaintainer: Debian\n' \
      "$name" "$architecture" "$source" "$version" > "$root/var/lib/dpkg/status.d/$name"
  done < "$packages"
fi
