"""MAML's meta-step in Gram space by hand, in numpy: how much is algebra, how much is kernels.

    pip install -r benches/peers/numpy/requirements.txt
    python benches/peers/numpy/peer.py CASE --variant gram
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import common
import numpy as np


def relu(z):
    return np.maximum(z, 0)


def forward(head, z):
    """Outputs of every layer before its ReLU, from the first layer's on."""
    zs = [z]
    for w, b in head:
        zs.append(relu(zs[-1]) @ w.swapaxes(-1, -2) + b[..., None, :])
    return zs


def softmax(z):
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def backward(head, zs, dz):
    """Gradients by the outputs of every layer, and by the head, of a loss with gradient dz by the last outputs."""
    dzs, grads = [dz], []
    for (w, _), z in zip(reversed(head), reversed(zs[:-1])):
        grads.insert(0, (dz.swapaxes(-1, -2) @ relu(z), dz.sum(-2)))
        dz = (dz @ w) * (z > 0)
        dzs.insert(0, dz)
    return dzs, grads


def hvp(head, zs, dzs, p, rz, rhead):
    """R-operator of `backward`, in direction rz of the first outputs and rhead of the head."""
    rzs = [rz]
    for (w, _), (rw, rb), z in zip(head, rhead, zs):
        r = rzs[-1] * (z > 0)
        rzs.append(r @ w.swapaxes(-1, -2) + relu(z) @ rw.swapaxes(-1, -2) + rb[..., None, :])
    last = p * (rzs[-1] - (p * rzs[-1]).sum(-1, keepdims=True)) / np.float32(p.shape[-2])
    out = []
    for l in reversed(range(len(head))):
        (w, _), (rw, _), z, dz = head[l], rhead[l], zs[l], dzs[l + 1]
        mask = z > 0
        out.insert(0, (last.swapaxes(-1, -2) @ relu(z) + dz.swapaxes(-1, -2) @ (rzs[l] * mask), last.sum(-2)))
        last = (last @ w + dz @ rw) * mask
    return last, out


def gram(case, _device):
    xs, xq, lr = case.xs, case.xq, np.float32(case.lr)
    tasks, n, m = xs.shape[0], xs.shape[1], xq.shape[1]
    hot = lambda y: np.eye(case.theta[-1][1].shape[0], dtype=np.float32)[y]
    ts, tq = hot(case.ys), hot(case.yq)

    def step():
        (w, b), *head = case.theta
        z0 = (xs.reshape(-1, xs.shape[2]) @ w.T + b).reshape(tasks, n, -1)
        zq0 = (xq.reshape(-1, xq.shape[2]) @ w.T + b).reshape(tasks, m, -1)
        g, gq = xs @ xs.swapaxes(1, 2) + 1, xq @ xs.swapaxes(1, 2) + 1
        phi = [(np.broadcast_to(w, (tasks, *w.shape)), np.broadcast_to(b, (tasks, *b.shape))) for w, b in head]
        c, saved = np.zeros_like(z0), []
        for k in range(case.steps):
            zs = forward(phi, z0 - g @ c if k else z0)
            p = softmax(zs[-1])
            dzs, grads = backward(phi, zs, (p - ts) / np.float32(n))
            saved.append((phi, zs, dzs, p))
            c = c + lr * dzs[0]
            phi = [(w - lr * gw, b - lr * gb) for (w, b), (gw, gb) in zip(phi, grads)]
        zs = forward(phi, zq0 - gq @ c)
        dzs, adjoint = backward(phi, zs, (softmax(zs[-1]) - tq) / np.float32(m * tasks))
        dq, ds, dc = dzs[0], np.zeros_like(z0), -(gq.swapaxes(1, 2) @ dzs[0])
        for phi, zs, dzs, p in reversed(saved):
            rz, rhead = hvp(phi, zs, dzs, p, lr * dc, [(-lr * w, -lr * b) for w, b in adjoint])
            adjoint = [(w + rw, b + rb) for (w, b), (rw, rb) in zip(adjoint, rhead)]
            ds, dc = ds + rz, dc - g @ rz
        first = ds.reshape(tasks * n, -1).T @ xs.reshape(tasks * n, -1)
        first += dq.reshape(tasks * m, -1).T @ xq.reshape(tasks * m, -1)
        return [(first, ds.sum((0, 1)) + dq.sum((0, 1)))] + [(w.sum(0), b.sum(0)) for w, b in adjoint]

    return step


if __name__ == "__main__":
    common.run({"gram": gram})
