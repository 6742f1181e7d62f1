"""MAML's meta-step in JAX: plain, over tasks by vmap or by lax.map, and with the Gram-space form written by hand.

    pip install -r benches/peers/jax/requirements.txt
    python benches/peers/jax/peer.py CASE --variant vmap
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import common
import jax
import jax.numpy as jnp
from jax import lax


def head_loss(head, z, y):
    """Of first-layer outputs z before their ReLU."""
    for w, b in head:
        z = jnp.where(z > 0, z, 0) @ w.T + b
    return jnp.mean(jax.nn.logsumexp(z, axis=1) - jnp.take_along_axis(z, y[:, None], 1)[:, 0])


def loss(theta, x, y):
    (w, b), *head = theta
    return head_loss(head, x @ w.T + b, y)


def descend(f, start, steps, lr):
    """steps of start - lr * f(start): unrolled where they are few, as XLA fuses them then."""
    step = lambda p: jax.tree.map(lambda p, g: p - lr * g, p, f(p))
    if steps > 10:
        return lax.scan(lambda p, _: (step(p), None), start, None, steps)[0]
    for _ in range(steps):
        start = step(start)
    return start


def over_tasks(f, how):
    """Mean of f over tasks."""
    if how == "vmap":
        return lambda *args: jnp.mean(jax.vmap(f)(*args))
    return lambda *args: jnp.mean(lax.map(lambda a: f(*a), args))


def plain(case, how):
    def meta(theta, xs, ys, xq, yq):
        def task(xs, ys, xq, yq):
            return loss(descend(lambda t: jax.grad(loss)(t, xs, ys), theta, case.steps, case.lr), xq, yq)

        return over_tasks(task, how)(xs, ys, xq, yq)

    return meta


def gram(case, how):
    """Z_k = Z_0 - G C_k with C_k the rate times the sum of the loss's gradients by Z; derivatives by JAX."""

    def meta(theta, xs, ys, xq, yq):
        (w, b), *head = theta

        def task(zs, zq, g, gq, ys, yq):
            def gradient(state):
                c, head = state
                dz, dhead = jax.grad(lambda z, h: head_loss(h, z, ys), (0, 1))(zs - g @ c, head)
                return -dz, dhead

            c, adapted = descend(gradient, (jnp.zeros_like(zs), head), case.steps, case.lr)
            return head_loss(adapted, zq - gq @ c, yq)

        g, gq = xs @ xs.transpose(0, 2, 1) + 1, xq @ xs.transpose(0, 2, 1) + 1
        return over_tasks(task, how)(xs @ w.T + b, xq @ w.T + b, g, gq, ys, yq)

    return meta


def variant(form, how):
    def make(case, device):
        device = jax.devices(device)[0]
        put = lambda x: jax.device_put(x, device)
        theta, data = put(case.theta), [put(x) for x in (case.xs, case.ys, case.xq, case.yq)]
        step = jax.jit(jax.grad(form(case, how)))
        return lambda: jax.block_until_ready(step(theta, *data))

    return make


if __name__ == "__main__":
    common.run({
        "vmap": variant(plain, "vmap"),
        "map": variant(plain, "map"),
        "gram-vmap": variant(gram, "vmap"),
        "gram-map": variant(gram, "map"),
    })
