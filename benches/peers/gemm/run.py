"""Products of metaglot beside the crates gemm, faer, matrixmultiply and OpenBLAS (numpy): one thread, pinned to one CPU.

    pip install -r benches/peers/gemm/requirements.txt
    cargo build --release --manifest-path benches/peers/gemm/Cargo.toml
    python benches/peers/gemm/run.py --out benches/record/<machine>/<date>-gemm

The Rust program times the crates in turn and leaves operands and results; numpy gets the same operands in a process of
its own and its results are compared. Writes OUT.csv and OUT.md: percent of the multiply-add peak measured in the same run.
"""

import argparse
import csv
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent


def numpy_part(folder):
    """Prints a JSON object: median seconds of each product file of a folder, and the kernel OpenBLAS took."""
    import numpy as np

    found = {}
    for path in sorted(pathlib.Path(folder).glob("*.f32")):
        form, sizes = path.stem.split("_")
        m, n, k = map(int, sizes.split("x"))
        data = np.fromfile(path, np.float32)
        a = data[: m * k].reshape((k, m) if form == "tn" else (m, k))
        b = data[m * k : m * k + n * k].reshape((n, k) if form == "nt" else (k, n))
        wanted = data[m * k + n * k :].reshape(m, n)
        left, right, c = a.T if form == "tn" else a, b.T if form == "nt" else b, np.empty((m, n), np.float32)
        calls = max(1, int(2e8 / (2 * m * n * k)))
        times = []
        for _ in range(17):
            start = time.perf_counter()
            for _ in range(calls):
                np.matmul(left, right, out=c)
            times.append((time.perf_counter() - start) / calls)
        if np.abs(c - wanted).max() > 1e-5 * k:
            sys.exit(f"{path.stem}: numpy differs from metaglot")
        found[path.stem] = statistics.median(times[2:])
    kernel = "not told"
    try:
        from threadpoolctl import threadpool_info

        kernel = [f"{i['internal_api']} {i['version']} {i['architecture']}" for i in threadpool_info()][0]
    except ImportError:
        pass
    print(json.dumps({"kernel": kernel, "times": found}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="OUT.csv and OUT.md are written")
    parser.add_argument("--cpu", default="0", help="the CPU to run on")
    parser.add_argument("--numpy-part", metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.numpy_part:
        return numpy_part(args.numpy_part)
    env = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    env |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    pin = ["taskset", "-c", args.cpu]
    with tempfile.TemporaryDirectory() as folder:
        call = lambda *c: subprocess.run([*pin, *map(str, c)], env=env, check=True, text=True, stdout=subprocess.PIPE).stdout
        rows = [json.loads(line) for line in call(HERE / "target/release/metaglot-peers-gemm", folder).splitlines()]
        other = json.loads(call(sys.executable, __file__, "--numpy-part", folder))
    columns = ["metaglot", "gemm", "faer", "matrixmultiply", "openblas"]
    for row in rows:
        seconds = other["times"]["{form}_{m}x{n}x{k}".format(**row)]
        row["openblas"] = round(2e-9 * row["m"] * row["n"] * row["k"] / seconds / row["peak_gflops"] * 100, 1)
        row["best"] = max(columns, key=lambda c: row[c])
    lines = [f"OpenBLAS: {other['kernel']}. Percent of the multiply-add peak measured before each row.", ""]
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
