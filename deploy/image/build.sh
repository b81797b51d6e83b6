#!/usr/bin/env bash
# The image from a clone: wheels (hashes checked), a list of what is in it (SBOM), one build. Called by `make image`.
#   IMAGE  name and tag                         default localhost/recupera:dev
#   BASE   image with Python 3.11               default as in the Dockerfile
set -euo pipefail
cd "$(dirname "$0")/../.."
image=${IMAGE:-localhost/recupera:dev}
bin=.venv/bin
context=.local/image
for tool in podman docker buildah ""; do
    if [ -z "$tool" ]; then
        echo "make image: expected podman, docker or buildah on the PATH" >&2
        exit 1
    fi
    # A docker client without an engine is no tool.
    if command -v "$tool" >/dev/null && "$tool" info >/dev/null 2>&1; then break; fi
done

echo "image: wheels of everything in requirements.txt, and our own"
rm -rf "$context/ours"
mkdir -p "$context/wheels" "$context/ours"
if ! cmp -s requirements.txt "$context/requirements.txt"; then
    rm -rf "$context/wheels"
    mkdir -p "$context/wheels"
    $bin/python -m pip wheel --quiet --disable-pip-version-check --require-hashes --no-deps \
        -r requirements.txt -w "$context/wheels"
    cp requirements.txt "$context/requirements.txt"
fi
rm -f "$context"/wheels/recupera-*.whl
$bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation . -w "$context/wheels"
(cd "$context/wheels" && ls ./*.whl | sed 's#^\./#/wheels/#' > wheels.txt)
$bin/cyclonedx-py requirements requirements.txt --output-reproducible --of JSON -o "$context/sbom.cdx.json"
cp deploy/image/Dockerfile "$context/Dockerfile"

version=$($bin/python -c 'import importlib.metadata; print(importlib.metadata.version("recupera"))')
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
build=(build)
[ "$tool" = buildah ] && build=(bud)
arguments=(--build-arg "VERSION=$version" --build-arg "REVISION=$revision" --tag "$image")
[ -n "${BASE:-}" ] && arguments+=(--build-arg "BASE=$BASE")
[ "$tool" = docker ] || arguments+=(--pull=missing --format docker)
echo "image: $image by $tool"
"$tool" "${build[@]}" --quiet "${arguments[@]}" "$context" > "$context/id"

if [ "$tool" = buildah ]; then
    echo "image: $image is built; podman or docker would also say how big it is"
    exit 0
fi
size=$("$tool" image inspect --format '{{.Size}}' "$image")
started=$(date +%s%N)
"$tool" run --rm --network none --read-only "$image" case_service --help > /dev/null
echo "image: $((size / 1000000)) MB; $(((($(date +%s%N) - started)) / 1000000)) ms until a command answers"
