"""What stands in the notebooks of the course: its cells, texts and code, with and without holes."""

from __future__ import annotations

from dataclasses import dataclass

from sgdstudy.language import to_say


@dataclass(frozen=True)
class Text:
    """A cell of text: its title, paragraphs and formulas (which begin with $)."""

    parts: tuple[str, ...]
    solution: bool = False  # only there


@dataclass(frozen=True)
class Code:
    """A cell of code: as the solution has it, and with its hole; None: only the solution has it."""

    solution: str
    student: str | None


def text(*parts: str) -> Text:
    """Return a cell of text of both notebooks."""
    return Text(parts)


def same(code: str) -> Code:
    """Return a cell of code that both notebooks have."""
    return Code(code, code)


HEAD = """import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import sgdstudy as ss"""
DATA = """def f(w, x):
    return w[0] * x * x + w[1] * x + w[2]


wt = [0.3, -1.7, 2.5]
xtrain = np.arange(-10, 10, 0.01, dtype="f")
ytrain = f(wt, xtrain)
points = torch.tensor(np.stack([xtrain, ytrain], axis=1))
plt.plot(xtrain, ytrain)
points"""
SHOW = """print(w0)
print(f"distance {torch.norm(torch.tensor(wt) - w0).item():.4f}")"""
EX1 = """def sgd(f, w, t, eta=0.0001, epsilon=0.01, nepoch=20):
    x, y = t[:, 0], t[:, 1]
    for epoch in range(1, nepoch + 1):
        loss = torch.mean((y - f(w, x)) ** 2)
        loss.backward()
        w.data.sub_(eta * w.grad)
        w.grad.zero_()
        if loss.item() < epsilon:
            print(f"epoch {epoch}")
            break"""
EX1_HOLE = """def sgd(f, w, t, eta=0.0001, epsilon=0.01, nepoch=20):
    x, y = t[:, 0], t[:, 1]
    for epoch in range(1, nepoch + 1):
        ..."""
RUN1 = f"""w0 = torch.zeros(3, requires_grad=True)
sgd(f, w0, points, eta=0.0002, epsilon=0.1, nepoch=10000)
{SHOW}"""
EX2 = EX1.replace("    x, y =", "    criterion = torch.nn.MSELoss()\n    x, y =").replace(
    "torch.mean((y - f(w, x)) ** 2)", "criterion(f(w, x), y)"
)
EX2_HOLE = EX1_HOLE.replace("    x, y =", "    criterion = torch.nn.MSELoss()\n    x, y =")
LOADER = """torch.manual_seed(0)
trainloader = torch.utils.data.DataLoader(points, batch_size=10, shuffle=True)"""
EX3 = """def enumerate_batches(trainloader):
    for i, data in enumerate(trainloader):
        for j, (x, y) in enumerate(data):
            print(f"batch {i}, sample {j}: x = {x.item():f}, y = {y.item():f}")"""
EX3_HOLE = """def enumerate_batches(trainloader):
    ..."""
EX4 = """def sgd(f, w, t, eta=0.0001, epsilon=0.01, nepoch=200, minibatch=10):
    criterion = torch.nn.MSELoss()
    trainloader = torch.utils.data.DataLoader(t, batch_size=minibatch, shuffle=True)
    for epoch in range(1, nepoch + 1):
        running_loss = 0.0
        for data in trainloader:
            x, y = data[:, 0], data[:, 1]
            loss = criterion(f(w, x), y)
            loss.backward()
            w.data.sub_(eta * w.grad)
            w.grad.zero_()
            running_loss += loss.item() * len(data)
        running_loss /= len(t)
        if running_loss < epsilon:
            print(f"epoch {epoch}")
            break"""
EX4_HOLE = """def sgd(f, w, t, eta=0.0001, epsilon=0.01, nepoch=200, minibatch=10):
    criterion = torch.nn.MSELoss()
    trainloader = torch.utils.data.DataLoader(t, batch_size=minibatch, shuffle=True)
    for epoch in range(1, nepoch + 1):
        running_loss = 0.0
        for data in trainloader:
            ..."""
RUN4 = f"""torch.manual_seed(0)
w0 = torch.zeros(3, requires_grad=True)
sgd(f, w0, points, eta=0.0002, epsilon=0.1, nepoch=50)
{SHOW}"""
EX5 = """def sgd(f, w, t, lr=0.01, epsilon=0.01, nepoch=200, minibatch=10):
    optimizer = torch.optim.RMSprop([w], lr=lr)
    criterion = torch.nn.MSELoss()
    trainloader = torch.utils.data.DataLoader(t, batch_size=minibatch, shuffle=True)
    for epoch in range(1, nepoch + 1):
        for data in trainloader:
            optimizer.zero_grad()
            x, y = data[:, 0], data[:, 1]
            loss = criterion(f(w, x), y)
            loss.backward()
            optimizer.step()
        if loss.item() < epsilon:
            print(f"epoch {epoch}")
            break"""
EX5_HOLE = """def sgd(f, w, t, lr=0.01, epsilon=0.01, nepoch=200, minibatch=10):
    optimizer = ...
    criterion = torch.nn.MSELoss()
    trainloader = torch.utils.data.DataLoader(t, batch_size=minibatch, shuffle=True)
    for epoch in range(1, nepoch + 1):
        for data in trainloader:
            ..."""
RUN5 = f"""torch.manual_seed(0)
w0 = torch.zeros(3, requires_grad=True)
sgd(f, w0, points, epsilon=1e-7, nepoch=50)
{SHOW}"""
LAW5 = """curve = ss.problems.curve()
many = ss.train(
    curve, optimizer="RMSprop", lr=0.01, batch_size=10, epochs=50,
    stop=("last_batch", 1e-7), seeds=range(64),
)
stops = pd.Series(np.where(many.stop_reason == "converged", many.stop_epoch, np.inf))
print(f"stopped by epoch 23: {(stops <= 23).mean():.0%}")
stops.describe(percentiles=[0.1, 0.5, 0.9])"""
EX6 = """curve = ss.problems.curve()
course = {"optimizer": "notebook", "lr": 2e-4, "batch_size": 10, "epochs": 50}
runs = {
    order: ss.train(curve, order=order, **course)
    for order in ("shuffle", "sequential", "strided")
}
pd.DataFrame({order: run.epochs.set_index("epoch").running_loss for order, run in runs.items()})"""
EX6_HOLE = """..."""
FULL6 = """pd.DataFrame({
    order: run.epochs.set_index("epoch").full_loss for order, run in runs.items()
})"""
PICTURE6 = (
    """ss.figures.within_epoch({order: runs[order] for order in ("shuffle", "sequential")})"""
)
FIXED7 = """t, w = points.double(), torch.tensor([0.0, -1.0, 1.0], dtype=torch.float64)
rows = []
for batch in t.split(15):
    r = f(w, batch[:, 0]) - batch[:, 1]
    rows.append({"size": len(batch), "loss": (r**2).mean().item()})
table = pd.DataFrame(rows)
everything = ((f(w, t[:, 0]) - t[:, 1]) ** 2).mean().item()
weighted = (table["size"] * table["loss"]).sum() / table["size"].sum()
print(f"all {everything:.4f}, weighted mean {weighted:.4f}")
print(f"mean {table.loss.mean():.4f}, sum {table.loss.sum():.1f}")"""
MOVING7 = """history = runs["shuffle"]
losses = history.epochs.set_index("epoch")[["running_loss", "full_loss"]]
losses.plot(logy=True)
losses.iloc[[0, 1, 9, 49]]"""
NORMS7 = """norms = history.steps.groupby("epoch")[["grad_norm", "full_grad_norm"]].mean()
norms.plot(logy=True)
norms.iloc[[0, 1, 9, 49]]"""

CELLS: list[Text | Code] = [
    text(
        to_say("# Stochastic gradient descent"),
        to_say("A cost is often a sum over the samples, or their mean:"),
        r"$$Q(w) = \frac{1}{d} \sum_{i=1}^{d} Q_i(w)$$",
        to_say(
            "Gradient descent goes a small step against its gradient. Stochastic gradient descent "
            "takes the gradient of a few samples only, which costs less, and is right on average."
        ),
        r"$$w_{t+1} = w_t - \eta \, \nabla Q(w_t)$$",
        to_say(
            "In this notebook you write both, for a parabola whose three coefficients are to be "
            "found again. Where a cell has `...`, the code is yours. After each exercise "
            "`ss.check` runs your function on small data of its own and says what is wrong, one "
            "line for each fault, or that it is correct; while the hole is empty it says that f "
            "is never called."
        ),
    ),
    same(HEAD),
    text(to_say("## The data"), to_say("2000 points of a parabola, each a row of x and y.")),
    same(DATA),
    text(
        to_say("## Exercise 1"),
        to_say(
            "Complete the descent. In each epoch: the mean of the squared differences over all "
            "points, its gradient by `backward()`, the step on w in place, the gradient set back "
            "to zero; stop once the loss is below `epsilon`, and print the epoch."
        ),
    ),
    Code(EX1, EX1_HOLE),
    same(RUN1),
    same('ss.check(sgd, "ex1")'),
    Text(
        (
            to_say(
                "It stops at epoch 9340, at a distance of 0.4743 from the true coefficients. The "
                "loss is flat in one direction, the constant term: there the step is far too "
                "small, and along the steepest direction it could not be three times larger."
            ),
        ),
        True,
    ),
    text(
        to_say("## Exercise 2"), to_say("The same with the ready-made cost `torch.nn.MSELoss()`.")
    ),
    Code(EX2, EX2_HOLE),
    same(RUN1),
    same('ss.check(sgd, "ex2")'),
    text(
        to_say("## Exercise 3"),
        to_say(
            "A `DataLoader` deals the points out in batches. Write a function that prints a line "
            "for every sample of every batch: the number of the batch, that of the sample in it, "
            "x and y."
        ),
    ),
    same(LOADER),
    Code(EX3, EX3_HOLE),
    same('ss.check(enumerate_batches, "ex3")'),
    text(
        to_say("## Exercise 4"),
        to_say(
            "Mini-batches: one update for each batch. The cost of an epoch has to be gathered from "
            "those of its batches. Which weight does each get, when the last batch may be smaller?"
        ),
    ),
    Code(EX4, EX4_HOLE),
    same(RUN4),
    same('ss.check(sgd, "ex4")'),
    Text(
        (
            to_say(
                "It stops at epoch 48, at a distance near 0.4525. An epoch has 200 updates, so "
                "that these are as many steps as the first descent takes: 48 × 200 is 9600. Each "
                "costs a 200th. A loss is the mean over its batch, so it is multiplied by the size "
                "of the batch before it is added up, and the sum is divided by the number of "
                "samples."
            ),
        ),
        True,
    ),
    text(
        to_say("## Exercise 5"),
        to_say(
            "Now with an optimiser of `torch.optim`: RMSprop. It changes w by itself, in "
            "`optimizer.step()`; the gradient is set back to zero by `optimizer.zero_grad()`. Stop "
            "once the loss of the last batch is below `epsilon`."
        ),
    ),
    Code(EX5, EX5_HOLE),
    same(RUN5),
    same('ss.check(sgd, "ex5")'),
    Text(
        (
            to_say(
                "At which epoch it stops is drawn by lot: the last batch decides, and another "
                "order of the samples has another last batch. The course's 23 is one draw; here "
                "are 64."
            ),
        ),
        True,
    ),
    Code(LAW5, None),
    text(
        to_say("## Exercise 6"),
        to_say(
            "Try Exercise 4 again with `shuffle=False`. What do you see, within the first epoch "
            "and from epoch to epoch, and why? `ss.train` runs it with every step recorded: the "
            'order `"sequential"` is that of `shuffle=False`.'
        ),
    ),
    Code(EX6, EX6_HOLE),
    Code(FULL6, None),
    Code(PICTURE6, None),
    Text(
        (
            to_say(
                "Neighbouring points make batches that are all steep in the same direction. At the "
                "ends of the interval the step is too large for them, and the loss is multiplied "
                "from batch to batch; in the middle it comes down again: at the end of the first "
                "epoch the loss of all points is millions of times below the running loss."
            ),
            to_say(
                'The missing chance is not the fault: the order `"strided"` is as fixed, but each '
                "of its batches is spread over the curve, and it works as well as shuffling."
            ),
        ),
        True,
    ),
    text(
        to_say("## Exercise 7"),
        to_say(
            "Compare the loss of all the points with the sum of the losses of the batches; then "
            "the norm of the whole gradient with those of the batches. Where does the difference "
            "come from, and does it matter? Think of the triangle inequality."
        ),
    ),
    Code(FIXED7, EX6_HOLE),
    Text(
        (
            to_say(
                "At fixed parameters the mean of the batch losses, weighted by size, is the loss "
                "of all the points, exactly. The plain mean gives the last, smaller batch too much "
                "weight, and the sum is another scale."
            ),
            to_say(
                "In a descent the two differ, because w moves while the batches go by: the running "
                "loss looks back, the loss of all points is that of where the epoch ends."
            ),
        ),
        True,
    ),
    Code(MOVING7, None),
    Text(
        (
            to_say(
                "Gradients of batches are vectors, and cancel each other: by the triangle "
                "inequality the norm of their mean is at most the mean of their norms."
            ),
            r"$$\|\nabla L\| \le \sum_b \frac{n_b}{d} \|\nabla L_b\|$$",
            to_say(
                "Near the minimum the whole gradient vanishes, and each batch still pulls its own "
                "way: the norms of the batches say how noisy the steps are, not how far it is."
            ),
        ),
        True,
    ),
    Code(NORMS7, None),
]
