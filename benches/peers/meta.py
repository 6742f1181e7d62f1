"""The exact second-order meta-step of metaglot beside its peers: the same cases, in turn, each in a process of its own.

    cargo build --release
    pip install -r benches/peers/jax/requirements.txt -r benches/peers/numpy/requirements.txt
    pip install -r benches/peers/torch/requirements.txt && benches/peers/torch/learn2learn.sh
    python benches/peers/meta.py --out benches/record/<machine>/<date>-meta

`--python torch=/path/to/python` gives a peer an interpreter of its own, `--rows 0,3` only some shapes (`--rows ""` none:
the table again), `--peers` only some peers. One thread: pinned to one CPU; two: the fastest peer again, and metaglot, on two. A peer's gradient may differ from
metaglot's by 1e-2 of its largest value, because a unit near ReLU's kink may flip; small cases that do not are compared to
1e-10 by examples/check_gradient.py. Adds to OUT.csv and writes OUT.md from all of it, of several runs of a program on a row the one
with the smallest median: on a machine shared with others, run it again at other times, all programs as often.
"""

import argparse
import csv
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from safetensors.numpy import load_file

HERE = pathlib.Path(__file__).resolve().parent
# dims, support, query, tasks, steps, rate
SHAPES = [
    ("64,64,5", 25, 75, 32, 5, 0.01),
    ("256,128,5", 25, 75, 32, 5, 0.01),
    ("256,128,5", 25, 75, 8, 50, 0.01),
    ("512,512,20", 100, 100, 16, 5, 0.01),
    ("256,256,256,256,10", 50, 50, 16, 5, 0.01),
    ("1024,2048,64", 256, 256, 8, 3, 0.01),
    ("8192,256,5", 25, 75, 16, 5, 0.001),
]
PEERS = ["jax/vmap", "jax/map", "jax/gram-vmap", "jax/gram-map", "numpy/gram", "torch/vmap", "torch/loop"]
PEERS += ["torch/higher", "torch/torchopt", "torch/learn2learn"]
FIELDS = ["row", "shape", "program", "threads", "median_ms", "min_ms", "max_ms", "reps", "difference", "peak_gflops", "operations"]


def name(row):
    dims, support, query, tasks, steps, _ = SHAPES[row]
    first, *hidden, last = dims.split(",")
    return f"{first}-[{','.join(hidden)}]-{last}, {support}/{query}, {tasks} tasks, {steps} steps"


def call(command, cpus, threads):
    limits = {v: str(threads) for v in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    env = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")} | limits
    done = subprocess.run(["taskset", "-c", cpus, *map(str, command)], env=env, text=True, capture_output=True)
    if done.returncode:
        print(done.stderr.strip().splitlines()[-1:], file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def difference(found, wanted):
    found, wanted = load_file(found), load_file(wanted)
    names = [n for n in wanted if n.startswith("grad.")]
    return max(float(np.abs(found[n] - wanted[n]).max() / np.abs(wanted[n]).max()) for n in names)


class Row:
    def __init__(self, row, args, folder):
        self.row, self.args, self.results = row, args, []
        self.case, self.grad, self.other = (f"{folder}/{n}.safetensors" for n in ("case", "grad", "other"))
        dims, support, query, tasks, steps, lr = SHAPES[row]
        sizes = f"--dims {dims} --support {support} --query {query} --tasks {tasks} --inner-steps {steps} --inner-lr {lr}"
        subprocess.run([args.metaglot, "case", self.case, *sizes.split()], check=True, stdout=subprocess.DEVNULL)
        grad = f"--algorithm maml --dtype f32 --threads 1 --out {self.grad}"
        subprocess.run([args.metaglot, "grad", self.case, *grad.split()], check=True, stdout=subprocess.DEVNULL)

    def add(self, program, threads, found, off=""):
        if found is None:
            return
        ms = {f"{k}_ms": round(found[f"{k}_s"] * 1e3, 3) for k in ("median", "min", "max")}
        more = {k: found.get(k, "") for k in ("peak_gflops", "operations")}
        result = {"row": self.row, "shape": name(self.row), "program": program, "threads": threads, "difference": off}
        self.results.append(result | ms | more | {"reps": found["reps"]})
        print(f"{name(self.row)}: {program}, {threads} threads: {ms['median_ms']} ms, {off}", flush=True)

    def metaglot(self, threads):
        command = [self.args.metaglot, "bench", "meta", "--case", self.case, "--threads", threads, "--json"]
        self.add("metaglot", threads, call(command, self.args.cpus[: 2 * threads - 1], threads))

    def peer(self, peer, threads):
        folder, variant = peer.split("/")
        python = self.args.python.get(folder, sys.executable)
        command = [python, HERE / folder / "peer.py", self.case, "--variant", variant, "--out", self.other]
        found = call([*command, "--device", self.args.device], self.args.cpus[: 2 * threads - 1], threads)
        off = difference(self.other, self.grad) if found else ""
        if found and not off < 1e-2:
            sys.exit(f"{name(self.row)}: {peer} differs from metaglot by {off:.1e}")
        self.add(peer, threads, found, f"{off:.1e}" if found else "")

    def run(self):
        self.metaglot(1)
        for peer in self.args.peers:
            self.peer(peer, 1)
        self.metaglot(2)
        peers = [r for r in self.results if r["program"] != "metaglot"]
        if peers:
            self.peer(min(peers, key=lambda r: r["median_ms"])["program"], 2)
        return self.results


def table(results):
    """Milliseconds of one thread, and of two behind a slash; the ratios are those of one thread."""
    at = {}
    for r in sorted(results, key=lambda r: float(r["median_ms"]), reverse=True):
        at[int(r["row"]), r["program"], int(r["threads"])] = r
    programs = [p for p in PEERS if any(key[1] == p for key in at)]
    head = ["shape", "metaglot 1 / 2 threads", "floor", "metaglot / floor", *programs, "fastest library / metaglot", "fastest by hand / metaglot"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in sorted({key[0] for key in at}):
        ms = lambda program, threads: float(at[row, program, threads]["median_ms"]) if (row, program, threads) in at else None
        show = lambda x: "" if x is None else f"{x:.1f}"
        one, two = ms("metaglot", 1), ms("metaglot", 2)
        own = at[row, "metaglot", 1]
        floor = float(own["operations"]) / float(own["peak_gflops"]) / 1e6
        both = lambda p: show(ms(p, 1)) + (f" / {show(ms(p, 2))}" if ms(p, 2) else "")
        by_hand = lambda p: "gram" in p
        kinds = [[ms(p, 1) for p in programs if by_hand(p) == hand and ms(p, 1)] for hand in (False, True)]
        ratios = [f"{min(kind) / one:.1f}" if kind else "" for kind in kinds]
        cells = [name(row), f"{show(one)} / {show(two)}", show(floor), f"{one / floor:.2f}", *map(both, programs), *ratios]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--metaglot", default="target/release/metaglot")
    parser.add_argument("--out", required=True)
    parser.add_argument("--rows", type=lambda s: [int(r) for r in s.split(",") if r], default=list(range(len(SHAPES))))
    parser.add_argument("--peers", type=lambda s: [p for p in s.split(",") if p], default=PEERS)
    parser.add_argument("--python", type=lambda s: s.split("="), action="append", default=[])
    parser.add_argument("--cpus", default="0,1", help="two CPUs of one digit")
    parser.add_argument("--device", default="cpu", help="of jax and torch")
    args = parser.parse_args()
    args.python = dict(args.python)
    path = pathlib.Path(args.out + ".csv")
    results = list(csv.DictReader(path.open())) if path.exists() else []
    for row in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            results += Row(row, args, folder).run()
        write(args.out, results)
    write(args.out, results)


def write(out, results):
    with open(out + ".csv", "w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(results)
    pathlib.Path(out + ".md").write_text(table(results))


if __name__ == "__main__":
    main()
