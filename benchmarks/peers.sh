#!/usr/bin/env bash
# Builds the environment of one peer, `benchmarks/peers.sh NAME`, below $UNIX_PEERS (default: peers/ in the temporary
# folder), and prints its Python. What is built already stays. Each peer has an environment of its own: their pins differ.
set -euo pipefail

name=${1:?usage: benchmarks/peers.sh NAME}
home=${UNIX_PEERS:-${TMPDIR:-/tmp}/unix-peers}
case $name in
curator) packages=(bespokelabs-curator==0.1.31) ;;
distilabel) packages=("distilabel[openai]==1.5.3" requests) ;;
img2dataset) packages=(img2dataset==1.47.0) ;;
webdataset) packages=(webdataset==1.0.2 numpy pillow) ;;
streaming) packages=(mosaicml-streaming==0.13.0) ;;
litdata) packages=(litdata==0.2.76) ;;
datasets) packages=(datasets==5.2.0 pillow) ;;
*)
    echo "error: no peer named $name" >&2
    exit 2
    ;;
esac

if [[ ! -e $home/$name/installed ]]; then
    mkdir -p "$home"
    "${PYTHON:-python3.11}" -m venv "$home/$name"
    "$home/$name/bin/python" -m pip install --quiet "${packages[@]}" >&2
    touch "$home/$name/installed"
fi
echo "$home/$name/bin/python"
