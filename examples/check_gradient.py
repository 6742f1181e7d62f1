"""Compares `metaglot grad` with JAX's automatic differentiation in float64.

    pip install jax numpy safetensors
    metaglot case problem.safetensors --dims 7,17,3,6
    python examples/check_gradient.py problem.safetensors --metaglot target/release/metaglot

Exits with 1 if a tensor differs by more than 1e-10 (f64) or 1e-4 (f32): largest difference over largest value.
"""

import argparse
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

jax.config.update("jax_enable_x64", True)
PATHS = {"metasgd": ["dense"], "hvp": ["dense"]}


def forward(theta, x):
    for layer, (w, b) in enumerate(theta):
        x = x @ w.T + b
        if layer + 1 < len(theta):
            x = jnp.where(x > 0, x, 0)
    return x


def loss(theta, x, y):
    z = forward(theta, x)
    return jnp.mean(jax.nn.logsumexp(z, axis=1) - z[jnp.arange(len(y)), y])


def add(a, b, scale):
    return jax.tree.map(lambda a, b: a + scale * b, a, b)


def dot(a, b):
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def adapt(theta, x, y, steps, rates, last_only=False, lam=0.0):
    phi = theta
    for _ in range(steps):
        g = jax.grad(loss)(phi, x, y)
        if last_only:
            g = [jax.tree.map(jnp.zeros_like, layer) for layer in g[:-1]] + [g[-1]]
        g = jax.tree.map(lambda g, p, t: g + lam * (p - t), g, phi, theta)
        phi = jax.tree.map(lambda p, r, g: p - r * g, phi, rates, g)
    return phi


def solve(theta, x, y, b, lam):
    """(I + H / lam) g = b by a dense solve."""
    flat, back = jax.flatten_util.ravel_pytree(theta)
    h = jax.hessian(lambda t: loss(back(t), x, y))(flat)
    return back(jnp.linalg.solve(jnp.eye(len(flat)) + h / lam, jax.flatten_util.ravel_pytree(b)[0]))


def wanted(algorithm, theta, case, meta):
    """Mean gradient over the tasks (and that of Meta-SGD's rates), and each task's loss."""
    steps, lr = int(meta["inner_steps"]), float(meta["inner_lr"])
    same = jax.tree.map(lambda t: jnp.full_like(t, lr), theta)
    grads, alphas, losses = [], [], []
    for xs, ys, xq, yq in zip(*(case[k] for k in ("x_support", "y_support", "x_query", "y_query"))):
        def adapted(t, r=same, last=False):
            return loss(adapt(t, xs, ys, steps, r, last), xq, yq)

        if algorithm in ("maml", "anil"):
            value, g = jax.value_and_grad(lambda t: adapted(t, last=algorithm == "anil"))(theta)
        elif algorithm == "metasgd":
            rates = layers(case, "alpha")
            value, (g, a) = jax.value_and_grad(adapted, argnums=(0, 1))(theta, rates)
            alphas.append(a)
        elif algorithm == "hvp":
            value, g = loss(theta, xs, ys), jax.jvp(lambda t: jax.grad(loss)(t, xs, ys), (theta,), (layers(case, "v"),))[1]
        elif algorithm == "imaml":
            lam, rate = float(meta["imaml_lambda"]), float(meta["imaml_lr"])
            rates = jax.tree.map(lambda t: jnp.full_like(t, rate), theta)
            phi = adapt(theta, xs, ys, int(meta["imaml_steps"]), rates, lam=lam)
            value, b = jax.value_and_grad(loss)(phi, xq, yq)
            g = solve(phi, xs, ys, b, lam)
        else:
            phi = adapt(theta, xs, ys, steps, same)
            value, g = jax.value_and_grad(loss)(phi, xq, yq)
            if algorithm == "reptile":
                g = add(theta, phi, -1.0)
        grads.append(g)
        losses.append(value)
    mean = lambda gs: jax.tree.map(lambda *g: sum(g) / len(g), *gs)
    return mean(grads), mean(alphas) if alphas else None, np.array(losses)


def layers(case, name):
    n = sum(key.startswith("theta.") and key.endswith(".weight") for key in case)
    return [(jnp.array(case[f"{name}.{l}.weight"], dtype=jnp.float64), jnp.array(case[f"{name}.{l}.bias"], dtype=jnp.float64)) for l in range(n)]


def error(found, wanted):
    return float(np.max(np.abs(found - np.asarray(wanted))) / np.max(np.abs(wanted)))


def compare(found, names, trees, losses, losses_name):
    worst = error(found[losses_name], losses)
    for name, tree in zip(names, trees):
        if tree is not None:
            for l, (w, b) in enumerate(tree):
                worst = max(worst, error(found[f"{name}.{l}.weight"], w), error(found[f"{name}.{l}.bias"], b))
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case")
    parser.add_argument("--metaglot", default="metaglot", help="the program")
    args = parser.parse_args()
    case = load_file(args.case)
    with safe_open(args.case, "np") as f:
        meta = f.metadata()
    theta, failed = layers(case, "theta"), False
    for algorithm in ("maml", "fomaml", "anil", "reptile", "imaml", "metasgd", "hvp"):
        g, alpha, losses = wanted(algorithm, theta, case, meta)
        names = ["hvp"] if algorithm == "hvp" else ["grad", "grad_alpha"]
        for dtype, bound in (("f64", 1e-10), ("f32", 1e-4)):
            for path in PATHS.get(algorithm, ["gram", "dense"]):
                with tempfile.NamedTemporaryFile(suffix=".safetensors") as out:
                    command = [args.metaglot, "grad", args.case, "--algorithm", algorithm, "--out", out.name]
                    subprocess.run([*command, "--dtype", dtype, "--path", path], check=True, stdout=subprocess.DEVNULL)
                    found = load_file(out.name)
                name = "support_loss" if algorithm == "hvp" else "query_loss"
                worst = compare(found, names, [g, alpha], losses, name)
                failed |= not worst < bound
                print(f"{algorithm:8} {dtype} {path:5} {worst:.1e} {'ok' if worst < bound else 'FAILED'}")
    sys.exit(failed)


if __name__ == "__main__":
    import jax.flatten_util

    main()
