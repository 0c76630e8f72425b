#!/bin/bash
# Puts the images of the architectures together under one name, and signs the whole, without a key, as the workflow that runs this.
#
#   deploy/images/publish.sh REGISTRY COMPONENT TAG DIRECTORY
#
# DIRECTORY has the bill of materials of each image, named by the digest under which that was pushed. It is attested, for whoever asks
# `cosign verify-attestation --type cyclonedx`, to the digest under which the whole has the image. Prints the digest of the whole. Needs docker buildx,
# jq and cosign.
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
whole=$(docker buildx imagetools inspect --raw "$image@$digest")
# The digest, never a name: a name can be moved.
cosign sign --yes --recursive "$image@$digest" >&2
for file in "$4"/*; do
  # What was pushed is an index, too: of the image, and of what BuildKit attests. The whole has what is in both, and not the two themselves.
  part=$(docker buildx imagetools inspect --raw "$image@sha256:${file##*/}" |
    jq --raw-output '[.manifests[]? | select(.platform.architecture != "unknown").digest] | if length == 1 then .[0] else error("\(length) images") end')
  jq --exit-status --arg part "$part" 'any(.manifests[]; .digest == $part)' <<< "$whole" > /dev/null || {
    echo "$image@$digest has no $part" >&2
    exit 1
  }
  cosign attest --yes --type cyclonedx --predicate "$file" "$image@$part" >&2
done
echo "$digest"
