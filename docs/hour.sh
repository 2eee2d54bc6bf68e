#!/usr/bin/env bash
# One command for somebody's accelerator: calibrate, soak, links if several, proof on six models; a folder back.
#   docs/hour.sh [DEVICE] [FOLDER]      DEVICE as of `ersatz calibrate --device`; about six minutes on one GPU
# Killed or failed, the same command goes on: what is finished stands in FOLDER and is not done again.
set -euo pipefail
device=${1:-auto}
folder=${2:-ersatz-device}
minutes=${ERSATZ_MINUTES:-2}
mkdir -p "$folder"
python=${PYTHON:-python}
ersatz() { "$python" -m ersatz.sim "$@"; }
step() { # NAME COMMAND...: runs once; its output is kept
    local name=$1
    shift
    if [ -e "$folder/$name.done" ]; then
        echo "$name: done before"
        return
    fi
    echo "$name ..."
    "$@" | tee "$folder/$name.txt"
    touch "$folder/$name.done"
}
step kernels ersatz calibrate --device "$device" --minutes "$minutes" --out "$folder/device.yaml" \
    --json "$folder/kernels.json"
count=$("$python" -c 'import torch
print(next((getattr(torch, k).device_count() for k in ("cuda", "npu") if hasattr(torch, k)), 0))')
if [ "$count" -gt 1 ] && [ "$device" != cpu ]; then
    step links "$python" -m torch.distributed.run --standalone --nproc-per-node "$count" \
        -m ersatz.sim calibrate --links --device "$device" --out "$folder/network.yaml" --json "$folder/links.json"
fi
step proof ersatz calibrate --device "$device" --minutes "$minutes" --out "$folder/device.yaml" --prove --models 6 \
    --json "$folder/proof.json"
echo "Done. Send back the folder $folder: it holds measurements, versions and names of the device, nothing else."
