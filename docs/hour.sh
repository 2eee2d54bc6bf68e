#!/usr/bin/env bash
# One command for somebody's accelerator: calibrate, soak, proof on six models, links if several; a folder back.
#   docs/hour.sh [DEVICE] [FOLDER] [OPTION...]      about six minutes on one GPU
# DEVICE and OPTION are those of `ersatz calibrate`: auto; --as h20 where the driver's name does not tell.
# Killed or failed, the same command goes on: what is finished stands in FOLDER and is not done again, and of
# the calibration no finished kernel is lost.
set -euo pipefail
device=${1:-auto}
folder=${2:-ersatz-device}
shift $(($# > 2 ? 2 : $#)) # what is left are options
minutes=${ERSATZ_MINUTES:-2}
python=${PYTHON:-python}
mkdir -p "$folder"
ersatz() { "$python" -m ersatz.sim "$@"; }
step() { # NAME COMMAND...: runs until it has succeeded once; its output is kept
    local name=$1
    shift
    if [ -e "$folder/$name.done" ]; then
        echo "$name: done before"
        return 0
    fi
    echo "$name ..."
    "$@" 2>&1 | tee "$folder/$name.txt" || return
    touch "$folder/$name.done"
}
failed=0
step kernels ersatz calibrate --device "$device" --minutes "$minutes" --out "$folder/device.yaml" \
    --json "$folder/kernels.json" "$@" || exit
step proof ersatz calibrate --device "$device" --minutes "$minutes" --out "$folder/device.yaml" --prove --models 6 \
    --json "$folder/proof.json" "$@" || failed=$?
count=$("$python" -c 'import contextlib, torch
with contextlib.suppress(ImportError):
    import torch_npu
print(max(getattr(torch, k).device_count() for k in ("cuda", "npu") if hasattr(torch, k)))')
if [ "$count" -gt 1 ] && [ "$device" != cpu ] && [[ "$device" != *:* ]]; then # cuda:1 is one alone
    step links "$python" -m torch.distributed.run --standalone --nproc-per-node "$count" \
        -m ersatz.sim calibrate --links --device "$device" --out "$folder/network.yaml" \
        --json "$folder/links.json" "$@" ||
        failed=$?
fi
if [ "$failed" != 0 ]; then
    echo "Not all of it went well: see $folder/*.txt; the same command tries the rest again."
    exit "$failed"
fi
echo "Done. Send back the folder $folder: it holds measurements, versions and names of the device, nothing else."
