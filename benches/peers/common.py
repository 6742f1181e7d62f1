"""What every peer of the meta-step does alike: read a case, time the step, write the gradient.

A case is what `metaglot case` writes (layout: src/case/mod.rs). A peer takes a case and the name of a variant, and prints
a JSON object with the seconds of one meta-step.
"""

import argparse
import json
import statistics
import time

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

WARM_UPS, REPS, SECONDS = 2, 15, 4.0


class Case:
    def __init__(self, path):
        with safe_open(path, "numpy") as file:
            meta = file.metadata()
            get = lambda name, dtype=np.float32: file.get_tensor(name).astype(dtype)
            self.steps, self.lr = int(meta["inner_steps"]), float(meta["inner_lr"])
            self.layers = len(meta["dims"].split(",")) - 1
            self.xs, self.xq = get("x_support"), get("x_query")
            self.ys, self.yq = get("y_support", np.int64), get("y_query", np.int64)
            self.theta = [(get(f"theta.{l}.weight"), get(f"theta.{l}.bias")) for l in range(self.layers)]


def run(variants):
    """variants: name -> function of (case, device) that returns a step: () -> list of (weight, bias) gradients, finished."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case")
    parser.add_argument("--variant", choices=list(variants), required=True)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda (jax: gpu, cuda)")
    parser.add_argument("--out", help="the file for the gradient")
    args = parser.parse_args()
    step = variants[args.variant](Case(args.case), args.device)
    begin, times = time.perf_counter(), []
    for rep in range(WARM_UPS + REPS):
        start = time.perf_counter()
        gradient = step()
        if rep >= WARM_UPS:
            times.append(time.perf_counter() - start)
        if len(times) >= 3 and time.perf_counter() - begin > SECONDS:
            break
    if args.out:
        tensors = {}
        for l, (w, b) in enumerate(gradient):
            tensors[f"grad.{l}.weight"], tensors[f"grad.{l}.bias"] = np.array(w), np.array(b)
        save_file(tensors, args.out)
    print(json.dumps({"median_s": statistics.median(times), "min_s": min(times), "max_s": max(times), "reps": len(times)}))
