#!/usr/bin/env bash
# Builds learn2learn 0.2.0 into the active Python, which has what requirements.txt names: its C files were made for older
# Pythons, so Cython makes them anew; and what it names as needed forbids this numpy, so what it imports is named here.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python -m pip install -q cython==3.3.1 setuptools wheel gym==0.26.2 torchvision==0.29.2 requests tqdm scipy
python -m pip download -q --no-binary :all: --no-deps --no-build-isolation --dest "$folder" learn2learn==0.2.0
tar xzf "$folder"/learn2learn-0.2.0.tar.gz -C "$folder"
cd "$folder/learn2learn-0.2.0"
python -m cython -3 learn2learn/data/*.pyx
python -m pip install -q --no-build-isolation --no-deps .
