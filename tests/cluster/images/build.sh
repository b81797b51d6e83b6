#!/usr/bin/env bash
# The images that tests of upgrades need besides a release: build.sh NAME:TAG makes NAME:TAG-next, -bad and -broken from it.
set -euo pipefail
cd "$(dirname "$0")"
release=${1:?usage: build.sh NAME:TAG}
for tool in podman docker buildah ""; do
    if [ -z "$tool" ]; then
        echo "build.sh: expected podman, docker or buildah on the PATH" >&2
        exit 1
    fi
    if command -v "$tool" >/dev/null && "$tool" info >/dev/null 2>&1; then break; fi
done
build=(build)
[ "$tool" = buildah ] && build=(bud)
[ "$tool" = docker ] || build+=(--pull=never --format docker)
for kind in next bad broken; do
    "$tool" "${build[@]}" --quiet --target "$kind" --build-arg "RELEASE=$release" --tag "$release-$kind" . > /dev/null
    echo "$release-$kind"
done
