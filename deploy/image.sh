#!/usr/bin/env bash
# Builds the image with the first of docker, podman and buildah that works here.
#   deploy/image.sh [cpu|gpu] [further build options, such as --build-arg BASE=...]
# BUILDER names one of the three; IMAGE is the tag, quietframe:cpu or quietframe:gpu unless set.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:-cpu}
[ $# -eq 0 ] || shift
case $target in cpu | gpu) ;; *)
    echo "error: $target is not a target; there are cpu and gpu" >&2
    exit 2
    ;;
esac

works() {
    case $1 in
    docker) docker version ;;
    podman) podman info ;;
    buildah) buildah version ;;
    esac &>/dev/null
}

if [ -z "${BUILDER:-}" ]; then
    for each in docker podman buildah; do
        if works "$each"; then
            BUILDER=$each
            break
        fi
    done
fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
options=(
    --file deploy/Dockerfile --target "$target" --tag "${IMAGE:-quietframe:$target}"
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision"
    --build-arg "CREATED=$(date -u +%Y-%m-%dT%H:%M:%SZ)"
    "$@" .
)
case ${BUILDER:-} in
docker) docker build "${options[@]}" ;;
# The OCI format has no HEALTHCHECK.
podman) podman build --format docker "${options[@]}" ;;
buildah) buildah build --format docker "${options[@]}" ;;
*)
    echo "error: none of docker, podman and buildah works here; install one, or set BUILDER" >&2
    exit 1
    ;;
esac
