"""MAML's meta-step through an embedding table in JAX: bags of 60 tokens, exact second order, the table adapted too.

    pip install -r benches/peers/jax/requirements.txt
    python benches/peers/jax/bag.py --vocabulary 1000000 --tasks 2
    metaglot bench meta --bag --vocabulary 1000000 --hidden 256 --tasks 2

Tasks by lax.map, so that the copies of one task's table are in memory at a time. Random bags of the same sizes as
metaglot's, not the same bags: at V = 10000 and above no product is large enough for that to matter. One repetition after
one to compile. Limit its memory with `ulimit -v`.
"""

import argparse
import json
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from peer import descend, head_loss


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=1_000_000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--tasks", type=int, default=32)
    parser.add_argument("--device", default="cpu", help="cpu, gpu or cuda")
    args = parser.parse_args()
    jax.config.update("jax_default_device", jax.devices(args.device)[0])
    rng = np.random.default_rng(1)
    draw = lambda rows: jnp.asarray(rng.integers(0, args.vocabulary, (args.tasks, rows, 60), np.int32))
    label = lambda rows: jnp.asarray(rng.integers(0, 5, (args.tasks, rows)))
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape, np.float32) * 0.1)
    table, bias = normal(args.vocabulary, args.hidden), normal(args.hidden)
    theta = (table, bias, [(normal(5, args.hidden), normal(5))])

    def loss(theta, tokens, y):
        table, bias, head = theta
        return head_loss(head, table[tokens].sum(1) / np.float32(60**0.5) + bias, y)

    def task(theta, data):
        xs, ys, xq, yq = data
        return loss(descend(lambda t: jax.grad(loss)(t, xs, ys), theta, 5, 0.01), xq, yq)

    data = draw(25), label(25), draw(75), label(75)
    step = jax.jit(jax.grad(lambda theta, data: jnp.mean(lax.map(lambda d: task(theta, d), data))))
    jax.block_until_ready(step(theta, data))
    start = time.perf_counter()
    jax.block_until_ready(step(theta, data))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "tasks": args.tasks, "seconds_a_task": seconds / args.tasks, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
