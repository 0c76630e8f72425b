#!/bin/bash
# Puts the images of the architectures together under one name, and signs the whole, without a key, as the workflow that runs this.
#
#   deploy/images/publish.sh REGISTRY COMPONENT TAG DIRECTORY
#
# DIRECTORY has the bill of materials of each image, by whose digest it is named. It is attested, for whoever asks `cosign verify-attestation
# --type cyclonedx`. Prints the digest of the whole. Needs docker buildx and cosign.
set -euo pipefail

image=$1/orchestrator-$2
parts=()
for file in "$4"/*; do
  parts+=("$image@sha256:${file##*/}")
done
if [ "${#parts[@]}" != 2 ]; then
  echo "two architectures are expected, and $4 has ${#parts[@]} digests" >&2
  exit 1
fi
docker buildx imagetools create --tag "$image:$3" --tag "$image:$GITHUB_SHA" "${parts[@]}" >&2
digest=$(docker buildx imagetools inspect --format '{{json .Manifest.Digest}}' "$image:$GITHUB_SHA" | tr -d '"')
# The digest, never a name: a name can be moved.
cosign sign --yes --recursive "$image@$digest" >&2
for file in "$4"/*; do
  cosign attest --yes --type cyclonedx --predicate "$file" "$image@sha256:${file##*/}" >&2
done
echo "$digest"
