"""MAML's meta-step through an embedding table in PyTorch: bags of 60 tokens, exact second order, the table adapted too.

    pip install -r benches/peers/torch/requirements.txt
    benches/peers/torch/learn2learn.sh
    python benches/peers/torch/bag.py --variant learn2learn --vocabulary 1000000 --tasks 2
    metaglot bench meta --bag --vocabulary 1000000 --hidden 256 --tasks 2

Random bags of the same sizes as metaglot's, not the same bags, as for jax. The meta-gradient of the table, of all its rows, is
computed once untimed and once timed. Limit its memory with `ulimit -d`: what does not fit is reported.
"""

import argparse
import json
import resource
import time
import types

import torch
from peer import LIBRARIES
from torch.func import functional_call, grad, vmap
from torch.nn import functional


class Net(torch.nn.Module):
    """The sum of a bag's rows of the table, ReLU, five outputs."""

    def __init__(self, vocabulary, hidden):
        super().__init__()
        self.table = torch.nn.Parameter(0.1 * torch.randn(vocabulary, hidden))
        self.bias = torch.nn.Parameter(0.1 * torch.randn(hidden))
        self.head = torch.nn.Linear(hidden, 5)

    def forward(self, tokens):
        return self.head(torch.relu(self.table[tokens].sum(1) / 60**0.5 + self.bias))


def of_functions(net, case, over_tasks):
    """A step by torch.func; `over_tasks(task, theta, data)` gives the losses of all tasks."""
    theta = {name: p.detach() for name, p in net.named_parameters()}

    def loss(theta, x, y):
        return functional.cross_entropy(functional_call(net, theta, (x,)), y)

    def task(theta, xs, ys, xq, yq):
        for _ in range(case.steps):
            g = grad(loss)(theta, xs, ys)
            theta = {name: p - case.lr * g[name] for name, p in theta.items()}
        return loss(theta, xq, yq)

    return lambda data: over_tasks(task, theta, data)


def by_vmap(task, theta, data):
    return grad(lambda theta: vmap(task, (None, 0, 0, 0, 0))(theta, *data).mean())(theta)


def by_loop(task, theta, data):
    total = None
    for t in zip(*data):
        g = grad(task)(theta, *t)
        total = g if total is None else {name: total[name].add_(g[name]) for name in g}
    return {name: g.div_(len(data[0])) for name, g in total.items()}


def of_library(net, case, library):
    query_loss = library(net, case)

    def step(data):
        net.zero_grad()
        for xs, ys, xq, yq in zip(*data):
            query_loss(xs, ys, xq, yq, 1 / len(data[0]))

    return step


FUNCTIONS = {"vmap": by_vmap, "loop": by_loop}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=[*FUNCTIONS, *LIBRARIES], required=True)
    parser.add_argument("--vocabulary", type=int, default=1_000_000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--tasks", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    case = types.SimpleNamespace(steps=5, lr=0.01)
    draw = lambda rows: torch.randint(args.vocabulary, (args.tasks, rows, 60))
    label = lambda rows: torch.randint(5, (args.tasks, rows))
    data = draw(25), label(25), draw(75), label(75)
    net = Net(args.vocabulary, args.hidden)
    found = {"variant": args.variant, "tasks": args.tasks}
    try:
        if args.variant in FUNCTIONS:
            step = of_functions(net, case, FUNCTIONS[args.variant])
        else:
            step = of_library(net, case, LIBRARIES[args.variant])
        step(data)
        start = time.perf_counter()
        step(data)
        seconds = time.perf_counter() - start
        found |= {"seconds": seconds, "seconds_a_task": seconds / args.tasks}
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        found["failed"] = "out of memory"
    found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(found))


if __name__ == "__main__":
    main()
