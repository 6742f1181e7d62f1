"""MAML's meta-step in PyTorch: torch.func over tasks by vmap or a loop, and the libraries higher, TorchOpt and learn2learn.

    pip install -r benches/peers/torch/requirements.txt
    benches/peers/torch/learn2learn.sh
    python benches/peers/torch/peer.py CASE --variant vmap

learn2learn 0.2.0 is not built by pip on a Python newer than its C files: the script makes these anew.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import common
import torch
from torch.nn import functional
from torch.func import grad, vmap


def loss(theta, x, y):
    for l, (w, b) in enumerate(theta):
        x = functional.linear(x if l == 0 else torch.relu(x), w, b)
    return functional.cross_entropy(x, y)


def prepare(case, device):
    tensor = lambda x: torch.from_numpy(x).to(device)
    return [(tensor(w), tensor(b)) for w, b in case.theta], [tensor(x) for x in (case.xs, case.ys, case.xq, case.yq)]


def finish(gradient, device):
    if device != "cpu":
        torch.cuda.synchronize()
    return [(w.detach().cpu(), b.detach().cpu()) for w, b in gradient]


def task(case):
    def after(theta, xs, ys, xq, yq):
        for _ in range(case.steps):
            g = grad(loss)(theta, xs, ys)
            theta = [(w - case.lr * gw, b - case.lr * gb) for (w, b), (gw, gb) in zip(theta, g)]
        return loss(theta, xq, yq)

    return after


def by_vmap(case, device):
    theta, data = prepare(case, device)
    step = grad(lambda theta: vmap(task(case), (None, 0, 0, 0, 0))(theta, *data).mean())
    return lambda: finish(step(theta), device)


def by_loop(case, device):
    theta, data = prepare(case, device)
    one = grad(task(case))

    def step():
        total = None
        for t in zip(*data):
            g = one(theta, *t)
            total = g if total is None else [(w + v, b + c) for (w, b), (v, c) in zip(total, g)]
        return finish([(w / len(data[0]), b / len(data[0])) for w, b in total], device)

    return step


def modules(theta, device):
    """The same net as a module, and its linear layers."""
    linears, layers = [], []
    for w, b in theta:
        linear = torch.nn.Linear(w.shape[1], w.shape[0], device=device)
        linear.weight.data.copy_(w)
        linear.bias.data.copy_(b)
        linears.append(linear)
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1]), linears


def task_by_task(case, device, library):
    """A step that adds up the tasks' gradients in the module's `.grad`; `library(model, case)` gives the function of a task."""
    theta, data = prepare(case, device)
    model, linears = modules(theta, device)
    query_loss = library(model, case)

    def step():
        model.zero_grad()
        for xs, ys, xq, yq in zip(*data):
            query_loss(xs, ys, xq, yq, 1 / len(data[0]))
        return finish([(l.weight.grad, l.bias.grad) for l in linears], device)

    return step


def higher_task(model, case):
    import higher

    optimiser = torch.optim.SGD(model.parameters(), lr=case.lr)

    def query_loss(xs, ys, xq, yq, share):
        with higher.innerloop_ctx(model, optimiser, copy_initial_weights=False) as (net, inner):
            for _ in range(case.steps):
                inner.step(functional.cross_entropy(net(xs), ys))
            (functional.cross_entropy(net(xq), yq) * share).backward()

    return query_loss


def torchopt_task(model, case):
    import torchopt

    inner = torchopt.MetaSGD(model, lr=case.lr)
    start = torchopt.extract_state_dict(model), torchopt.extract_state_dict(inner)

    def query_loss(xs, ys, xq, yq, share):
        for _ in range(case.steps):
            inner.step(functional.cross_entropy(model(xs), ys))
        (functional.cross_entropy(model(xq), yq) * share).backward()
        torchopt.recover_state_dict(model, start[0])
        torchopt.recover_state_dict(inner, start[1])

    return query_loss


def learn2learn_task(model, case):
    import learn2learn

    maml = learn2learn.algorithms.MAML(model, lr=case.lr)

    def query_loss(xs, ys, xq, yq, share):
        net = maml.clone()
        for _ in range(case.steps):
            net.adapt(functional.cross_entropy(net(xs), ys))
        (functional.cross_entropy(net(xq), yq) * share).backward()

    return query_loss


LIBRARIES = {"higher": higher_task, "torchopt": torchopt_task, "learn2learn": learn2learn_task}


def of_library(library):
    return lambda case, device: task_by_task(case, device, library)


VARIANTS = {"vmap": by_vmap, "loop": by_loop} | {name: of_library(task) for name, task in LIBRARIES.items()}

if __name__ == "__main__":
    common.run(VARIANTS)
