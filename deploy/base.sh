#!/usr/bin/env bash
# A base image out of Debian's packages, for machines that reach no image registry:
#   deploy/base.sh localhost/python-base && make image BASE=localhost/python-base
# Wants root, mmdebstrap and buildah. This machine's certificates come along, also those of its proxy.
set -euo pipefail
name=${1:?name of the image, such as localhost/python-base}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mmdebstrap --mode=root --variant=essential --include=python3,python3-venv,libstdc++6,ca-certificates \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='upload /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt' \
    "${SUITE:-trixie}" "$folder/base.tar"
container=$(buildah from scratch)
buildah add --quiet "$container" "$folder/base.tar" / >/dev/null
buildah commit --quiet --rm "$container" "$name"
