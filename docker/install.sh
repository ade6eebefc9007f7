#!/usr/bin/env bash
# The steps of both images' builds. A step leaves no cache behind: what it downloads lies in the build's cache mounts.
#   install.sh system PACKAGE...    from the distribution
#   install.sh python LOCK          uv, and /opt/venv exactly as requirements/LOCK.txt says
#   install.sh source LOCK          on top: what is compiled here against the torch that is installed
#   install.sh user UID GID         the user, and the folders that a run reads and writes
set -euo pipefail

# A certificate of yours (make image CA_BUNDLE=...) is a secret of the build, and no part of the image.
if [[ -s /run/secrets/ca ]]; then
    export SSL_CERT_FILE=/run/secrets/ca PIP_CERT=/run/secrets/ca
fi
export UV_LINK_MODE=copy UV_PYTHON=/opt/venv/bin/python
export UV_CACHE_DIR=/var/cache/python/uv PIP_CACHE_DIR=/var/cache/python/pip

step=$1
shift
case $step in
system)
    export DEBIAN_FRONTEND=noninteractive
    rm -f /etc/apt/apt.conf.d/docker-clean # it would empty the cache mount
    apt-get update -qq
    apt-get install -qq --yes --no-install-recommends "$@"
    ;;
python)
    python3 -m venv /opt/uv
    /opt/uv/bin/pip install --quiet --require-hashes --requirement /requirements/uv.txt
    python3 -m venv --without-pip /opt/venv
    /opt/uv/bin/uv pip sync --compile-bytecode --require-hashes "/requirements/$1.txt"
    ;;
source)
    /opt/uv/bin/uv pip install --compile-bytecode --require-hashes --no-deps --no-build-isolation \
        --requirement "/requirements/$1.txt"
    ;;
user)
    # A base may have a user of that number already.
    getent group "$2" >/dev/null || groupadd --gid "$2" vase
    useradd --non-unique --uid "$1" --gid "$2" --no-create-home --home-dir /tmp vase
    mkdir -p /workspace/data /workspace/models /workspace/output /cache
    # In /workspace everything lies as in a checkout; what the filter reads and writes belongs to the data.
    ln -s /kit/{Makefile,eval,filter,model,plugin} /workspace/
    for name in images images2 images3 filtered_vases best_image_quality_model.pth; do
        ln -s "data/$name" "/workspace/$name"
    done
    # Any user may be given at run time (--user), so that what is written belongs to who started it.
    chown vase: /workspace/data /workspace/models /workspace/output /cache
    chmod 1777 /workspace/data /workspace/models /workspace/output /cache
    ;;
*)
    echo "error: install.sh $step: steps are system, python, source, user" >&2
    exit 2
    ;;
esac
