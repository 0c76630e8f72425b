#!/bin/sh
# Lays out a program of an image's root so that it runs from a directory of any other system, whatever C library that has.
#
#   deploy/images/portable.sh ROOT PROGRAM DIRECTORY PLACE
#
# ROOT is what pack.sh made, DIRECTORY is written, and PLACE is where that will be when the program is started. Needs patchelf.
set -eu

if [ $# != 4 ]; then
  echo "$0: which root and program, where to, and where will that be?" >&2
  exit 1
fi
root=$1 name=$2 to=$3 place=$4
rm -rf "$to"
mkdir -p "$to"
cp "$root"/lib/*.so* "$to/"
loader=$(patchelf --print-interpreter "$root/$name")
# Of one machine it is among the libraries already.
cp "$root$loader" "$to/"
# By a path that holds for libraries of libraries, too, and not by a variable, which tasks would get as well.
patchelf --set-interpreter "$place/$(basename "$loader")" --force-rpath --set-rpath "$place" --output "$to/$name" "$root/$name"
chmod 755 "$to/$name"
