"""Products of metaglot beside the crates gemm, faer, matrixmultiply and OpenBLAS (numpy): one thread, pinned to one CPU.

    pip install -r benches/peers/gemm/requirements.txt
    cargo build --release --manifest-path benches/peers/gemm/Cargo.toml
    python benches/peers/gemm/run.py --out benches/record/<machine>/<date>-gemm

The Rust program times the crates in turn, and numpy, in a process of its own with the same operands, when its turn comes: each finds
its operands as the others' calls left the caches. Results are compared. Writes OUT.csv and OUT.md: percent of the multiply-add peak
measured in the same run.
"""

import argparse
import csv
import json
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent


def kernel():
    """The kernels OpenBLAS took."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "not told"
    return [f"{i['internal_api']} {i['version']} {i['architecture']}" for i in threadpool_info()][0]


def numpy_part():
    """Answers each line of standard input by one: `kernel`; `load FILE`, a product and its result; `run N` by the seconds of N calls."""
    import numpy as np

    for line in sys.stdin:
        order, *words = line.split(maxsplit=1)
        if order == "kernel":
            answer = kernel()
        elif order == "load":
            path = pathlib.Path(words[0].strip())
            form, sizes = path.stem.split("_")
            m, n, k = map(int, sizes.split("x"))
            data = np.fromfile(path, np.float32)
            a = data[: m * k].reshape((k, m) if form == "tn" else (m, k))
            b = data[m * k : m * k + n * k].reshape((n, k) if form == "nt" else (k, n))
            left, right, c = a.T if form == "tn" else a, b.T if form == "nt" else b, np.empty((m, n), np.float32)
            np.matmul(left, right, out=c)
            answer = "equal" if np.abs(c - data[m * k + n * k :].reshape(m, n)).max() <= 1e-5 * k else "different"
        else:
            start = time.perf_counter()
            for _ in range(int(words[0])):
                np.matmul(left, right, out=c)
            answer = time.perf_counter() - start
        print(answer, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="OUT.csv and OUT.md are written")
    parser.add_argument("--cpu", default="0", help="the CPU to run on")
    parser.add_argument("--numpy-part", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.numpy_part:
        return numpy_part()
    env = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    env |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    pin = ["taskset", "-c", args.cpu]
    program = [HERE / "target/release/metaglot-peers-gemm", sys.executable, __file__, "--numpy-part"]
    out = subprocess.run([*pin, *map(str, program)], env=env, check=True, text=True, stdout=subprocess.PIPE).stdout
    first, *rows = [json.loads(line) for line in out.splitlines()]
    columns = ["metaglot", "gemm", "faer", "matrixmultiply", "openblas"]
    for row in rows:
        row["best"] = max(columns, key=lambda c: row[c])
    lines = [f"OpenBLAS: {first['kernel']}. Percent of the multiply-add peak measured before each row.", ""]
    lines += ["| form, m x n x k | peak, G/s | " + " | ".join(columns) + " | fastest |", "|---" * (len(columns) + 3) + "|"]
    for row in rows:
        values = " | ".join(f"{row[c]:.0f}" for c in columns)
        lines.append("| {form} {m}x{n}x{k} | {peak_gflops:.0f} | ".format(**row) + f"{values} | {row['best']} |")
    print("\n".join(lines))
    if args.out:
        pathlib.Path(args.out + ".md").write_text("\n".join(lines) + "\n")
        with open(args.out + ".csv", "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
