"""What students hand in, as small source texts, and the verdict that each should get.

A row: exercise, source, and the lines of the verdict, each by a piece of it; none: it is right.
"""

import textwrap

EX1 = """
import torch

def sgd(f, w, t, eta=0.0001, epsilon=0.01, nepoch=20):
    x = t[:, 0]
    y = t[:, 1]
    epoch = 0
    while epoch < nepoch:
        loss = torch.mean(torch.pow(y - f(w, x), 2))
        loss.backward()
        w.data.sub_(eta * w.grad)
        w.grad.data.zero_()
        epoch += 1
        if loss < epsilon:
            break
"""
EX4 = """
import torch

def sgd(f, w, t, eta=0.0001, epsilon=0.01, nepoch=200, minibatch=10):
    criterion = torch.nn.MSELoss()
    loader = torch.utils.data.DataLoader(t, batch_size=minibatch, shuffle=True)
    epoch = 0
    while epoch < nepoch:
        running = 0.0
        for data in loader:
            x, y = data[:, 0], data[:, 1]
            loss = criterion(f(w, x), y)
            loss.backward()
            w.data.sub_(eta * w.grad)
            w.grad.data.zero_()
            running += loss.item() * len(data)
        running = running / len(t)
        epoch += 1
        if running < epsilon:
            print("converged after %i epochs" % epoch)
            break
"""
EX5 = """
import torch

def sgd(f, w, t, lr=0.01, epsilon=0.01, nepoch=200, minibatch=10):
    optimizer = torch.optim.RMSprop([w], lr=lr)
    criterion = torch.nn.MSELoss()
    loader = torch.utils.data.DataLoader(t, batch_size=minibatch, shuffle=True)
    for epoch in range(nepoch):
        running = 0.0
        for data in loader:
            optimizer.zero_grad()
            x, y = data[:, 0], data[:, 1]
            loss = criterion(f(w, x), y)
            loss.backward()
            optimizer.step()
            running += loss.item() * len(data)
        if running / len(t) < epsilon:
            break
"""
EX3 = """
def enumerate_batches(trainloader):
    for i, data in enumerate(trainloader):
        for j, (x, y) in enumerate(data):
            print("batch %i, sample %i : x = %f, y = %f" % (i, j, x.item(), y.item()))
"""
# one epoch is one update: the losses are added up inside the loop, all else comes after it
SUMMED = """
import torch

def sgd(f, w, t, eta, epsilon, nepoch, minibatch):
    loader = torch.utils.data.DataLoader(t, batch_size=minibatch, shuffle=True)
    for epoch in range(nepoch):
        total = 0
        for data in loader:
            total = total + ((f(w, data[:, 0]) - data[:, 1]) ** 2).mean()
        total.backward()
        w.data.sub_(eta * w.grad)
        w.grad.zero_()
        if total.item() / len(loader) < epsilon:
            break
"""
OUTSIDE = """
import torch

def sgd(f, w, t, eta, epsilon, nepoch, minibatch):
    loader = torch.utils.data.DataLoader(t, batch_size=minibatch, shuffle=True)
    for epoch in range(nepoch):
        running = 0.0
        for data in loader:
            loss = ((f(w, data[:, 0]) - data[:, 1]) ** 2).mean()
            loss.backward()
            running += loss.item() * len(data)
        w.data.sub_(eta * w.grad)
        w.grad.zero_()
        if running / len(t) < epsilon:
            break
"""
BY_HAND = """
import torch

def sgd(f, w, t, eta, epsilon, nepoch):
    x, y = t[:, 0], t[:, 1]
    for epoch in range(nepoch):
        with torch.no_grad():
            r = f(w, x) - y
            g = torch.stack([2 * (r * x * x).mean(), 2 * (r * x).mean(), 2 * r.mean()])
            w -= eta * g
            if (r ** 2).mean() < epsilon:
                return
"""
BY_HAND_4 = """
import torch

def sgd(f, w, t, eta, epsilon, nepoch, minibatch):
    for epoch in range(nepoch):
        order, total = torch.randperm(len(t)), 0.0
        for k in range(0, len(t), minibatch):
            x, y = t[order[k:k + minibatch]].T
            r = (f(w, x) - y).detach()
            total += (r ** 2).sum().item()
            w.data -= eta * 2 / len(x) * torch.stack([r @ (x * x), r @ x, r.sum()])
        if total / len(t) < epsilon:
            break
"""


def but(text, *changes):
    """A source with some pieces changed: old, new, old, new."""
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert text.count(old) == 1, (old, text)
        text = text.replace(old, new)
    return text


def steps(*lines):
    """A descent of Exercise 1 whose epoch consists of these lines."""
    body = textwrap.indent("\n".join(lines), 8 * " ")
    head = "import torch\nfrom torch import nn\n\ndef sgd(f, w, t, eta, epsilon, nepoch):\n"
    return f"{head}    x, y = t[:, 0], t[:, 1]\n    for epoch in range(nepoch):\n{body}\n"


BACKWARD = "            loss.backward()\n"
UPDATE = "            w.data.sub_(eta * w.grad)\n"
ZERO = "            w.grad.data.zero_()\n"
RUNNING = "            running += loss.item() * len(data)\n"
LOSS = "criterion(f(w, x), y)"
LOSS1 = "loss = ((f(w, x) - y) ** 2).mean()"
STOP1 = "if loss < epsilon: break"
LOADER = "loader = torch.utils.data.DataLoader(t, batch_size=minibatch, shuffle=True)"
UPDATE1, ZERO1 = "w.data -= eta * w.grad", "w.grad.zero_()"

ONE_BACKWARD = "backward() is called once an epoch"
ONE_UPDATE = "w is updated once an epoch"
MEANS_BY_D = "sum of the batch losses, divided by the number of samples"
RAGGED = "loss.item() * minibatch"
FIXED = "the batches are the same in every epoch"
LEAF = "torch follows w"
REBOUND = "w is rebound"
NOT_ZEROED = "the gradient is not zeroed: each update uses the sum of all"
SUM = "the sum over the batch, not the mean"
ENDLESS = "it does not end: it was stopped"
NEPOCH = "it does not end at nepoch"
NORM, RMSE = "that of the norm of y - f(w, x)", "the root of the mean square"
SWAPPED = "f is called as f(x, w)"

RIGHT = {
    "as the notebook has it": ("ex1", EX1),
    "MSELoss": (
        "ex2",
        but(EX1, "torch.mean(torch.pow(y - f(w, x), 2))", "torch.nn.MSELoss()(f(w, x), y)"),
    ),
    "mse_loss": (
        "ex2",
        steps(
            "loss = nn.functional.mse_loss(f(w, x), y)", "loss.backward()", UPDATE1, ZERO1, STOP1
        ),
    ),
    "no_grad": (
        "ex1",
        steps(
            LOSS1, "loss.backward()", "with torch.no_grad():", "    w -= eta * w.grad", ZERO1, STOP1
        ),
    ),
    "grad = None": ("ex1", steps(LOSS1, "w.grad = None", "loss.backward()", UPDATE1, STOP1)),
    "autograd.grad": (
        "ex1",
        steps(LOSS1, "g, = torch.autograd.grad(loss, w)", "w.data -= eta * g", STOP1),
    ),
    "the stop before the update": ("ex1", steps(LOSS1, STOP1, "loss.backward()", UPDATE1, ZERO1)),
    "the loss again, after the update": (
        "ex1",
        steps(LOSS1, "loss.backward()", UPDATE1, ZERO1, LOSS1, STOP1),
    ),
    "square by hand": (
        "ex1",
        steps(
            "r = f(w, x) - y",
            "loss = (r * r).sum() / len(r)",
            "loss.backward()",
            UPDATE1,
            ZERO1,
            STOP1,
        ),
    ),
    "dot": (
        "ex1",
        steps(
            "r = f(w, x) - y", "loss = r @ r / r.numel()", "loss.backward()", UPDATE1, ZERO1, STOP1
        ),
    ),
    "squared norm": (
        "ex1",
        steps(
            "loss = torch.norm(f(w, x) - y) ** 2 / len(x)", "loss.backward()", UPDATE1, ZERO1, STOP1
        ),
    ),
    "torch.optim": (
        "ex1",
        steps(
            LOSS1,
            "o = torch.optim.SGD([w], lr=eta)",
            "o.zero_grad()",
            "loss.backward()",
            "o.step()",
            STOP1,
        ),
    ),
    "one sample after the other, one update": (
        "ex1",
        steps(
            "total = 0",
            "for a, b in t:",
            "    total = total + (f(w, a) - b) ** 2",
            "loss = total / len(t)",
            "loss.backward()",
            UPDATE1,
            ZERO1,
            STOP1,
        ),
    ),
    "accumulated backward of all samples": (
        "ex1",
        steps(
            "s = 0.0",
            "for a, b in t:",
            "    l = (f(w, a) - b) ** 2 / len(t)",
            "    l.backward()",
            "    s += l.item()",
            UPDATE1,
            ZERO1,
            "if s < epsilon: return w",
        ),
    ),
    "add_ with alpha": (
        "ex1",
        steps(LOSS1, "loss.backward()", "w.data.add_(w.grad, alpha=-eta)", ZERO1, STOP1),
    ),
    "copy_": (
        "ex1",
        steps(
            LOSS1,
            "loss.backward()",
            "with torch.no_grad():",
            "    w.copy_(w - eta * w.grad)",
            ZERO1,
            STOP1,
        ),
    ),
    "w.data is assigned": (
        "ex1",
        steps(LOSS1, "loss.backward()", "w.data = w.data - eta * w.grad.data", ZERO1, STOP1),
    ),
    "by hand": ("ex1", BY_HAND),
    "by hand, with numpy": (
        "ex1",
        steps(
            "a, b = x.numpy(), y.numpy()",
            "r = f(w.detach().numpy(), a) - b",
            "g = [2 * (r * a ** 2).mean(), 2 * (r * a).mean(), 2 * r.mean()]",
            "w.data -= eta * torch.tensor(g)",
            "if (r ** 2).mean() < epsilon: break",
        ),
    ),
    "by hand, one coordinate after the other": (
        "ex2",
        steps(
            "r = (f(w, x) - y).detach()",
            "g = [(2 * r * p).mean() for p in (x ** 2, x, 1 + 0 * x)]",
            "for k in range(3):",
            "    w.data[k] -= eta * g[k]",
            "if (r ** 2).mean() < epsilon: break",
        ),
    ),
    "by hand, the loss looked at afterwards": (
        "ex1",
        but(BY_HAND, "if (r ** 2).mean()", "if ((f(w, x) - y) ** 2).mean()"),
    ),
    "by hand, into w.grad": (
        "ex1",
        steps(
            "r = (f(w, x) - y).detach()",
            "w.grad = torch.stack([(2 * r * p).mean() for p in (x ** 2, x, 1 + 0 * x)])",
            UPDATE1,
            "if (r ** 2).mean() < epsilon: break",
        ),
    ),
    "by hand, in batches": ("ex4", BY_HAND_4),
    "by hand, in batches, and a look at all": (
        "ex4",
        but(
            BY_HAND_4,
            "        if total / len(t)",
            "        print(((f(w, t[:, 0]) - t[:, 1]) ** 2).mean())\n        if total / len(t)",
        ),
    ),
    "by hand, sample by sample": (
        "ex4",
        but(
            BY_HAND_4,
            "r = (f(w, x) - y).detach()",
            "r = torch.stack([(f(w, a) - b).detach() for a, b in zip(x, y)])",
        ),
    ),
    "mini-batches": ("ex4", EX4),
    "mean of squares": ("ex4", but(EX4, LOSS, "torch.mean((y - f(w, x)) ** 2)")),
    "zeroed first": (
        "ex4",
        but(
            EX4,
            ZERO,
            "",
            BACKWARD,
            "            if w.grad is not None: w.grad.zero_()\n" + BACKWARD,
        ),
    ),
    "SGD of torch.optim": (
        "ex4",
        but(
            EX4,
            UPDATE + ZERO,
            "            o.step()\n            o.zero_grad()\n",
            "    epoch = 0\n",
            "    epoch = 0\n    o = torch.optim.SGD([w], eta)\n",
        ),
    ),
    "the sum of squares is added up": (
        "ex4",
        but(
            EX4,
            RUNNING,
            "",
            BACKWARD,
            "            running += ((f(w, x) - y) ** 2).sum().item()\n" + BACKWARD,
        ),
    ),
    "a list of losses": (
        "ex4",
        but(
            EX4,
            "running = 0.0",
            "ls, ns = [], []",
            RUNNING,
            "            ls.append(loss.item())\n            ns.append(len(x))\n",
            "running / len(t)",
            "sum(l * n for l, n in zip(ls, ns)) / sum(ns)",
        ),
    ),
    "randperm and split": (
        "ex4",
        but(EX4, LOADER, "pass", "in loader", "in t[torch.randperm(len(t))].split(minibatch)"),
    ),
    "shuffled in place": (
        "ex4",
        but(
            EX4,
            LOADER,
            "t = t[torch.randperm(len(t))]",
            "        running = 0.0\n",
            "        running = 0.0\n        t = t[torch.randperm(len(t))]\n",
            "in loader",
            "in torch.split(t, minibatch)",
        ),
    ),
    "a new loader in each epoch": (
        "ex4",
        but(
            EX4,
            f"    {LOADER}\n",
            "",
            "        running = 0.0\n",
            f"        running = 0.0\n        {LOADER}\n",
        ),
    ),
    "TensorDataset": (
        "ex4",
        but(
            EX4,
            "DataLoader(t,",
            "DataLoader(torch.utils.data.TensorDataset(t[:, 0], t[:, 1]),",
            "for data in loader",
            "for x, y in loader",
            "            x, y = data[:, 0], data[:, 1]\n",
            "            data = x\n",
        ),
    ),
    "columns": ("ex4", but(EX4, "data[:, 0], data[:, 1]", "data[:, :1], data[:, 1:]")),
    "unbind": ("ex4", but(EX4, "x, y = data[:, 0], data[:, 1]", "x, y = data.unbind(1)")),
    "range and return": (
        "ex4",
        but(
            EX4,
            "    epoch = 0\n    while epoch < nepoch",
            "    for epoch in range(nepoch)",
            "        epoch += 1\n",
            "",
            "            break\n",
            "            return w\n",
        ),
    ),
    "at most epsilon": ("ex4", but(EX4, "running < epsilon", "running <= epsilon")),
    "French names, other order of lines": (
        "ex4",
        (
            "import torch\n"
            "def descente(modele, poids, donnees, pas, seuil, epoques, taille):\n"
            "    for e in range(epoques):\n"
            "        lots = torch.utils.data.DataLoader(donnees, taille, shuffle=True)\n"
            "        cout = 0\n        for lot in lots:\n"
            "            perte = (modele(poids, lot[:, 0]) - lot[:, 1]).pow(2).mean()\n"
            "            cout += float(perte) * len(lot) / len(donnees)\n"
            "            perte.backward()\n            with torch.no_grad():\n"
            "                poids -= pas * poids.grad\n                poids.grad = None\n"
            "        if cout < seuil:\n            return poids\n"
        ),
    ),
    "sums divided by len": ("ex4", but(EX4, LOSS, "((f(w, x) - y) ** 2).sum() / len(x)")),
    "sample by sample within a batch": (
        "ex4",
        but(
            EX4,
            f"            loss = {LOSS}\n{BACKWARD}",
            (
                "            loss = 0\n"
                "            for a, b in data: loss = loss + (f(w, a) - b) ** 2 / len(data)\n"
            )
            + BACKWARD,
        ),
    ),
    "a class": (
        "ex4",
        EX4.replace("def sgd(f", "class Sgd:\n  def __call__(self, f").replace("\n    ", "\n      ")
        + "\nsgd = Sgd()\n",
    ),
    "RMSprop": ("ex5", EX5),
    "RMSprop, the last batch decides, as in the notebook": (
        "ex5",
        but(EX5, "running / len(t) < epsilon", "loss.item() < epsilon"),
    ),
    "RMSprop, zeroed afterwards": (
        "ex5",
        but(
            EX5,
            "            optimizer.zero_grad()\n",
            "",
            "            optimizer.step()\n",
            "            optimizer.step()\n            optimizer.zero_grad()\n",
        ),
    ),
    "RMSprop by hand": (
        "ex5",
        but(
            EX5,
            "    optimizer = torch.optim.RMSprop([w], lr=lr)\n",
            "    v = torch.zeros(3)\n",
            "            optimizer.zero_grad()\n",
            "",
            "            optimizer.step()\n",
            (
                "            g = w.grad.clone()\n            v = 0.99 * v + 0.01 * g ** 2\n"
                "            w.data -= lr * g / (v.sqrt() + 1e-8)\n            w.grad.zero_()\n"
            ),
        ),
    ),
    "RMSprop, eta": ("ex5", but(EX5, "lr=0.01", "eta=0.01", "lr=lr", "lr=eta")),
    "enumerate twice": ("ex3", EX3),
    "range and f-string, counted from 1": (
        "ex3",
        (
            "def show(loader):\n    n = 0\n    for data in loader:\n        n += 1\n"
            "        for k in range(len(data)):\n            x, y = data[k]\n"
            '            print(f"lot {n}, point {k + 1}: x={x:.6f} y={y:.6f}")\n'
        ),
    ),
    "columns and zip": (
        "ex3",
        (
            "def show(loader):\n    for i, d in enumerate(loader):\n"
            "        for j, (x, y) in enumerate(zip(d[:, 0].tolist(), d[:, 1].tolist())):\n"
            '            print("batch", i, "sample", j, "x =", x, "y =", y)\n'
        ),
    ),
    "a list, a blank line between batches": (
        "ex3",
        (
            "def show(loader):\n    for i, d in enumerate(list(loader)):\n"
            "        for j in range(d.shape[0]):\n"
            "            print(i, j, d[j, 0].item(), d[j, 1].item())\n        print()\n"
        ),
    ),
}

WRONG = {
    # the losses of all batches, and one backward an epoch
    "one backward": ("ex4", SUMMED, ONE_BACKWARD, "plain mean"),
    "one backward, of the mean of the losses": (
        "ex4",
        but(
            SUMMED,
            "total.backward()",
            "total = total / len(loader)\n        total.backward()",
            "total.item() / len(loader)",
            "total.item()",
        ),
        ONE_BACKWARD,
        "plain mean",
    ),
    "one backward, weighted": (
        "ex4",
        but(
            SUMMED,
            ".mean()\n",
            ".mean() * len(data)\n",
            "total.item() / len(loader)",
            "total.item() / len(t)",
        ),
        ONE_BACKWARD,
    ),
    "one backward, weighted and divided": (
        "ex4",
        but(
            SUMMED,
            ".mean()\n",
            ".sum()\n",
            "total.backward()",
            "total = total / len(t)\n        total.backward()",
            "total.item() / len(loader)",
            "total.item()",
        ),
        ONE_BACKWARD,
    ),
    "one backward, a list of losses": (
        "ex4",
        but(
            SUMMED,
            "total = 0\n",
            "losses = []\n",
            "total = total + ((f(w, data[:, 0]) - data[:, 1]) ** 2).mean()",
            "losses.append(((f(w, data[:, 0]) - data[:, 1]) ** 2).mean() * len(data) / len(t))",
            "total.backward()",
            "total = sum(losses)\n        total.backward()",
            "total.item() / len(loader)",
            "total.item()",
        ),
        ONE_BACKWARD,
    ),
    "one backward, with an optimizer": (
        "ex5",
        but(
            EX5,
            "running = 0.0",
            "running = 0",
            "            optimizer.zero_grad()\n",
            "",
            (
                "            loss.backward()\n            optimizer.step()\n"
                "            running += loss.item() * len(data)\n"
            ),
            (
                "            running = running + loss * len(data) / len(t)\n"
                "        optimizer.zero_grad()\n        running.backward()\n"
                "        optimizer.step()\n"
            ),
            "running / len(t)",
            "running",
        ),
        ONE_BACKWARD,
    ),
    # the update after the loop
    "update after the loop": ("ex4", OUTSIDE, ONE_UPDATE),
    "update after the loop, with while": (
        "ex4",
        but(
            EX4,
            UPDATE + ZERO,
            "",
            "        running = running / len(t)\n",
            (UPDATE + ZERO).replace("            ", "        ")
            + "        running = running / len(t)\n",
        ),
        ONE_UPDATE,
    ),
    "update after the loop, zeroed inside": (
        "ex4",
        but(
            OUTSIDE,
            "            loss.backward()\n",
            "            w.grad = None\n            loss.backward()\n",
            "        w.grad.zero_()\n",
            "",
        ),
        ONE_UPDATE,
    ),
    "update after the loop, autograd.grad": (
        "ex4",
        but(
            OUTSIDE,
            "running = 0.0",
            "running, g = 0.0, 0.0",
            "            loss.backward()\n",
            "            g = g + torch.autograd.grad(loss, w)[0]\n",
            "eta * w.grad",
            "eta * g",
            "        w.grad.zero_()\n",
            "",
        ),
        ONE_UPDATE,
    ),
    "step after the loop": (
        "ex5",
        but(
            EX5,
            "            optimizer.zero_grad()\n",
            "",
            "            optimizer.step()\n",
            "",
            "        if running",
            "        optimizer.step()\n        optimizer.zero_grad()\n        if running",
        ),
        ONE_UPDATE,
    ),
    "update after the loop, never zeroed": (
        "ex4",
        but(OUTSIDE, "        w.grad.zero_()\n", ""),
        ONE_UPDATE,
        NOT_ZEROED,
    ),
    # s += loss.item(), then / len(t)
    "s += loss.item(), / len(t)": ("ex4", but(EX4, " * len(data)", ""), MEANS_BY_D),
    "s = s + loss.data, / len(t)": (
        "ex4",
        but(EX4, "running += loss.item() * len(data)", "running = running + loss.data"),
        MEANS_BY_D,
    ),
    "mean losses / len(t), in a list": (
        "ex4",
        but(
            EX4,
            "running = 0.0",
            "ls = []",
            RUNNING,
            "            ls.append(loss.item())\n",
            "running / len(t)",
            "sum(ls) / t.shape[0]",
        ),
        MEANS_BY_D,
    ),
    "s += loss.item() / len(t)": (
        "ex4",
        but(EX4, "* len(data)", "/ len(t)", "        running = running / len(t)\n", ""),
        MEANS_BY_D,
    ),
    "s += loss.item(), / len(t), with an optimizer": (
        "ex5",
        but(EX5, " * len(data)", ""),
        MEANS_BY_D,
    ),
    # loss * minibatch
    "loss * minibatch": ("ex4", but(EX4, "* len(data)", "* minibatch"), RAGGED),
    "loss * minibatch, divided in place": (
        "ex4",
        but(EX4, "* len(data)", "* minibatch / len(t)", "        running = running / len(t)\n", ""),
        RAGGED,
    ),
    "loss * batch_size of the loader": (
        "ex4",
        but(EX4, "* len(data)", "* loader.batch_size"),
        RAGGED,
    ),
    "loss * minibatch, with an optimizer": ("ex5", but(EX5, "* len(data)", "* minibatch"), RAGGED),
    # other stops
    "plain mean": (
        "ex4",
        but(EX4, " * len(data)", "", "running / len(t)", "running / len(loader)"),
        "plain mean",
    ),
    "plain mean, np.mean": (
        "ex4",
        but(
            EX4,
            "running = 0.0",
            "ls = []",
            RUNNING,
            "            ls.append(loss.item())\n",
            "running / len(t)",
            "sum(ls) / len(ls)",
        ),
        "plain mean",
    ),
    "weighted, / len(loader)": (
        "ex4",
        but(EX4, "running / len(t)", "running / len(loader)"),
        "divided by the number of batches",
    ),
    "weighted, / number of batches": (
        "ex4",
        but(EX4, "running / len(t)", "running / (1 + (len(t) - 1) // minibatch)"),
        "divided by the number of batches",
    ),
    "never divided": ("ex4", but(EX4, "running / len(t)", "running"), "sum over the samples"),
    "never divided, unweighted": (
        "ex4",
        but(EX4, " * len(data)", "", "running / len(t)", "running"),
        "the stop looks at the sum of the batch losses: ",
    ),
    "the last batch decides": (
        "ex4",
        but(EX4, "running < epsilon", "loss.item() < epsilon"),
        "the last batch's loss alone",
    ),
    "running never reset": (
        "ex4",
        but(
            EX4,
            "        running = 0.0\n",
            "",
            "    epoch = 0\n",
            "    epoch = 0\n    running = 0.0\n",
        ),
        "goes on from epoch to epoch",
    ),
    "the full loss decides": (
        "ex4",
        but(EX4, "running < epsilon", "criterion(f(w, t[:, 0]), t[:, 1]) < epsilon"),
        "the loss of all samples after the epoch",
    ),
    "no stop": (
        "ex4",
        but(
            EX4,
            (
                "        if running < epsilon:\n"
                '            print("converged after %i epochs" % epoch)\n            break\n'
            ),
            "",
        ),
        "epsilon is never looked at",
    ),
    "no stop, ex1": (
        "ex1",
        but(EX1, "        if loss < epsilon:\n            break\n", ""),
        "epsilon is never looked at",
    ),
    "stop inside the epoch": (
        "ex4",
        but(EX4, RUNNING, RUNNING + "            if loss.item() < epsilon: return\n"),
        "inside an epoch",
    ),
    "stops above": ("ex1", but(EX1, "loss < epsilon", "loss > epsilon"), "after epoch 1, though"),
    "return in the loop": (
        "ex4",
        but(EX4, "            break\n", "            break\n        return w\n"),
        "after epoch 1, though",
    ),
    # norm instead of square
    "norm": (
        "ex1",
        but(EX1, "torch.mean(torch.pow(y - f(w, x), 2))", "torch.norm(y - f(w, x))"),
        NORM,
    ),
    "norm in batches": ("ex4", but(EX4, LOSS, "torch.norm(y - f(w, x))"), NORM),
    "linalg.norm": ("ex4", but(EX4, LOSS, "torch.linalg.vector_norm(f(w, x) - y)"), NORM),
    "norm / len": ("ex4", but(EX4, LOSS, "torch.norm(y - f(w, x)) / len(x)"), NORM),
    "root of the sum": ("ex4", but(EX4, LOSS, "((y - f(w, x)) ** 2).sum().sqrt()"), NORM),
    "root of the mean": ("ex4", but(EX4, LOSS, "((y - f(w, x)) ** 2).mean().sqrt()"), RMSE),
    "root of MSELoss": (
        "ex2",
        but(
            EX1,
            "torch.mean(torch.pow(y - f(w, x), 2))",
            "torch.sqrt(torch.nn.MSELoss()(f(w, x), y))",
        ),
        RMSE,
    ),
    "norm, RMSprop": ("ex5", but(EX5, LOSS, "torch.norm(y - f(w, x))"), NORM),
    "L1Loss": ("ex4", but(EX4, "MSELoss", "L1Loss"), "square the differences"),
    "abs": (
        "ex1",
        but(EX1, "torch.pow(y - f(w, x), 2)", "torch.abs(y - f(w, x))"),
        "square the differences",
    ),
    # neighbouring batches
    "batches cut once, in random order": (
        "ex4",
        but(
            EX4,
            LOADER,
            "loader = list(t.split(minibatch))",
            "        running = 0.0\n",
            "        running = 0.0\n        __import__('random').shuffle(loader)\n",
        ),
        FIXED,
    ),
    "random starts of sorted batches": (
        "ex4",
        but(
            EX4,
            f"    {LOADER}\n",
            "",
            "for data in loader",
            "for k in (torch.randperm(6) * 4)",
            "            x, y",
            "            data = t[k:k + minibatch]\n            x, y",
        ),
        FIXED,
    ),
    "list of a loader, in random order": (
        "ex4",
        but(
            EX4,
            LOADER,
            "loader = list(torch.utils.data.DataLoader(t, minibatch))",
            "for data in loader",
            "for k in torch.randperm(len(loader)).tolist()",
            "            x, y",
            "            data = loader[k]\n            x, y",
        ),
        FIXED,
    ),
    "batches drawn once, in random order": (
        "ex4",
        but(
            EX4,
            LOADER,
            "loader = list(torch.utils.data.DataLoader(t, minibatch, shuffle=True))",
            "for data in loader",
            "for k in torch.randperm(len(loader)).tolist()",
            "            x, y",
            "            data = loader[k]\n            x, y",
        ),
        FIXED,
    ),
    "shuffle=False": (
        "ex4",
        but(EX4, "shuffle=True", "shuffle=False"),
        "the order is the same in every epoch",
    ),
    "shuffled once": (
        "ex4",
        but(EX4, LOADER, "loader = list(torch.utils.data.DataLoader(t, minibatch, shuffle=True))"),
        "the order is the same in every epoch",
    ),
    "drop_last": ("ex4", but(EX4, "shuffle=True", "shuffle=True, drop_last=True"), "drop_last"),
    "minibatch ignored": (
        "ex4",
        but(EX4, "batch_size=minibatch", "batch_size=10"),
        "the batches have 10 samples",
    ),
    "batch_size left out": (
        "ex4",
        but(EX4, "batch_size=minibatch, ", ""),
        "the batches have 1 sample where",
    ),
    "shuffle=False, RMSprop": (
        "ex5",
        but(EX5, "shuffle=True", "shuffle=False"),
        "the order is the same in every epoch",
    ),
    # in-place updates of a leaf, and rebinding
    "w -= in place": (
        "ex1",
        steps(LOSS1, "loss.backward()", "w -= eta * w.grad", ZERO1, STOP1),
        LEAF,
    ),
    "w.sub_": ("ex4", but(EX4, "w.data.sub_(", "w.sub_("), LEAF),
    "w[0] -=": ("ex1", steps(LOSS1, "loss.backward()", "w[0] -= eta * w.grad[0]"), LEAF),
    "w[:] =": ("ex1", steps(LOSS1, "loss.backward()", "w[:] = w - eta * w.grad"), LEAF),
    "w = w - ...": (
        "ex1",
        steps(LOSS1, "loss.backward()", "w = w - eta * w.grad", ZERO1, STOP1),
        REBOUND,
    ),
    "w = w - ..., in batches": (
        "ex4",
        but(EX4, "w.data.sub_(eta * w.grad)", "w = w - eta * w.grad", ZERO, ""),
        REBOUND,
    ),
    "w = w - ... without gradient": (
        "ex1",
        steps(LOSS1, "loss.backward()", "with torch.no_grad():", "    w = w - eta * w.grad", STOP1),
        REBOUND,
    ),
    "w = (...).requires_grad_()": (
        "ex4",
        but(EX4, UPDATE + ZERO, "            w = (w - eta * w.grad).detach().requires_grad_()\n"),
        REBOUND,
    ),
    "w = w.data - ...": (
        "ex1",
        steps(LOSS1, "loss.backward()", "w = w.data - eta * w.grad", STOP1),
        REBOUND,
    ),
    "w = torch.tensor(...)": (
        "ex1",
        steps(
            LOSS1,
            "loss.backward()",
            "w = torch.tensor((w - eta * w.grad).tolist(), requires_grad=True)",
            STOP1,
        ),
        REBOUND,
    ),
    "a copy of w": (
        "ex1",
        but(EX1, "    epoch = 0\n", "    epoch = 0\n    w = w.clone().detach().requires_grad_()\n"),
        REBOUND,
    ),
    "its own w": (
        "ex1",
        but(EX1, "    epoch = 0\n", "    epoch = 0\n    w = torch.zeros(3, requires_grad=True)\n"),
        "does not start at the w",
    ),
    # arguments in another order
    "f(x, w)": ("ex1", but(EX1, "f(w, x)", "f(x, w)"), SWAPPED),
    "f(x, w), in batches": ("ex4", but(EX4, "f(w, x)", "f(x, w)"), SWAPPED),
    "f(x, w), RMSprop": ("ex5", but(EX5, "f(w, x)", "f(x, w)"), SWAPPED),
    "x and y swapped": (
        "ex1",
        but(EX1, "x = t[:, 0]\n    y = t[:, 1]", "y = t[:, 0]\n    x = t[:, 1]"),
        "x and y are swapped",
    ),
    "x and y swapped, in batches": (
        "ex4",
        but(EX4, "x, y = data", "y, x = data"),
        "x and y are swapped",
    ),
    "sgd(w, f, ...)": (
        "ex1",
        but(
            EX1,
            "sgd(f, w, t,",
            "descent(w, f, data,",
            "t[:, 0]",
            "data[:, 0]",
            "t[:, 1]",
            "data[:, 1]",
        ),
        "another order",
    ),
    "sgd(model, data, ...)": (
        "ex1",
        but(
            EX1,
            "sgd(f, w, t,",
            "descent(f, t, weights,",
            "f(w, x)",
            "f(weights, x)",
            "w.data.sub_(eta * w.grad)",
            "weights.data.sub_(eta * weights.grad)",
            "w.grad.data.zero_()",
            "weights.grad.data.zero_()",
        ),
        "another order",
    ),
    # endless loops
    "the epoch is not counted": ("ex1", but(EX1, "        epoch += 1\n", ""), NEPOCH),
    "the epoch is not counted, in batches": ("ex4", but(EX4, "        epoch += 1\n", ""), NEPOCH),
    "while True": ("ex1", but(EX1, "while epoch < nepoch", "while True"), NEPOCH),
    "a loop that does nothing": ("ex1", steps("while epoch < nepoch: pass"), ENDLESS),
    "a loop that holds on to errors": (
        "ex1",
        steps(
            "while True:",
            "    try:",
            "        f(w, x).sum().backward()",
            "    except:",
            "        pass",
        ),
        ENDLESS,
    ),
    "a sleep": ("ex1", steps("__import__('time').sleep(1000)"), ENDLESS),
    "a loop over the loss of the first epoch": (
        "ex1",
        steps(LOSS1, "while loss > epsilon:", "    pass"),
        ENDLESS,
    ),
    # gradients
    "never zeroed": ("ex4", but(EX4, ZERO, ""), NOT_ZEROED),
    "never zeroed, ex1": ("ex1", but(EX1, "        w.grad.data.zero_()\n", ""), NOT_ZEROED),
    "never zeroed, RMSprop": (
        "ex5",
        but(EX5, "            optimizer.zero_grad()\n", ""),
        NOT_ZEROED,
    ),
    "zeroed once an epoch": (
        "ex4",
        but(
            EX4,
            ZERO,
            "",
            "        running = running / len(t)\n",
            "        running = running / len(t)\n        w.grad.zero_()\n",
        ),
        "of the epoch's gradients so far",
    ),
    "zeroed too early": (
        "ex5",
        but(
            EX5,
            "            optimizer.zero_grad()\n",
            "",
            "            optimizer.step()\n",
            "            optimizer.zero_grad()\n            optimizer.step()\n",
        ),
        "w never moves",
    ),
    "uphill": ("ex4", but(EX4, "sub_", "add_"), "uphill"),
    "sum": ("ex4", but(EX4, "MSELoss()", "MSELoss(reduction='sum')", " * len(data)", ""), SUM),
    "sum, ex1": ("ex1", but(EX1, "torch.mean(", "torch.sum("), SUM),
    "half": ("ex1", but(EX1, "torch.mean(", "0.5 * torch.mean("), "1/2 in the loss"),
    "by hand, without the 2": (
        "ex1",
        but(
            BY_HAND,
            "2 * (r * x * x)",
            "(r * x * x)",
            "2 * (r * x)",
            "(r * x)",
            "2 * r.mean()",
            "r.mean()",
        ),
        "2 times too small",
    ),
    "by hand, uphill": ("ex4", but(BY_HAND_4, "-= eta", "+= eta"), "uphill"),
    "eta ignored": ("ex4", but(EX4, "eta * w.grad", "0.0001 * w.grad"), "eta is ignored"),
    "lr ignored": ("ex5", but(EX5, "lr=lr", "lr=0.01"), "lr is ignored"),
    "shapes": ("ex4", but(EX4, "f(w, x), y", "f(w, x.unsqueeze(1)), y"), "differ in shape"),
    "nepoch ignored": ("ex1", but(EX1, "epoch < nepoch", "epoch < 20"), "it runs 20 epochs"),
    "one too many": ("ex4", but(EX4, "epoch < nepoch", "epoch <= nepoch"), "it runs 13 epochs"),
    # errors of torch's, and their mends
    "backward twice": (
        "ex4",
        but(
            EX4,
            BACKWARD,
            "            running = running + loss\n            running.backward()\n",
            RUNNING,
            "",
        ),
        "add up loss.item()",
    ),
    "backward of a number": (
        "ex1",
        but(EX1, "loss.backward()", "loss.item().backward()"),
        "plain number",
    ),
    "backward of many": (
        "ex1",
        but(EX1, "torch.mean(torch.pow(y - f(w, x), 2))", "(y - f(w, x)) ** 2"),
        "one number for each sample",
    ),
    "no gradient in no_grad": (
        "ex1",
        steps("with torch.no_grad():", "    " + LOSS1, "loss.backward()"),
        "torch does not know how this loss depends on w",
    ),
    "zeroed before there is a gradient": (
        "ex1",
        steps(ZERO1, LOSS1, "loss.backward()", UPDATE1, STOP1),
        "w.grad is None until",
    ),
    "the update before backward": (
        "ex1",
        steps(LOSS1, UPDATE1, "loss.backward()", ZERO1, STOP1),
        "w.grad is None until",
    ),
    "unpacked": (
        "ex4",
        but(EX4, "for data in loader", "for x, y in loader"),
        "a batch is one table",
    ),
    "all y with a batch": (
        "ex4",
        but(EX4, "f(w, x), y", "f(w, x), t[:, 1]"),
        "the y of the same batch",
    ),
    "w.zero_grad": (
        "ex1",
        but(EX1, "w.grad.data.zero_()", "w.zero_grad()"),
        "only an optimizer has zero_grad()",
    ),
    "a name that is not there": (
        "ex1",
        but(EX1, "eta * w.grad", "lr * w.grad"),
        "it raises NameError: name 'lr' is not defined",
    ),
    "two arguments": ("ex4", "def sgd(f, w):\n    pass\n", "expected sgd(f, w, t, eta, epsilon"),
    "nothing": ("ex1", "def sgd(f, w, t, eta, epsilon, nepoch):\n    pass\n", "f is never called"),
    "no backward": ("ex1", steps(LOSS1, STOP1), "no gradient is taken"),
    # the rule
    "Adam": (
        "ex5",
        but(EX5, "RMSprop", "Adam"),
        "those of Adam: the exercise asks for torch.optim.RMSprop",
    ),
    "SGD": (
        "ex5",
        but(EX5, "RMSprop", "SGD"),
        "those of SGD: the exercise asks for torch.optim.RMSprop",
    ),
    "Adagrad": ("ex5", but(EX5, "RMSprop", "Adagrad"), "those of Adagrad"),
    "RMSprop in Exercise 4": (
        "ex4",
        but(
            EX4,
            UPDATE + ZERO,
            "            o.step()\n            o.zero_grad()\n",
            "    epoch = 0\n",
            "    epoch = 0\n    o = torch.optim.RMSprop([w], eta)\n",
        ),
        "those of RMSprop: the exercise asks for w - eta",
    ),
    "a new optimizer in each epoch": (
        "ex5",
        but(
            EX5,
            "    optimizer = torch.optim.RMSprop([w], lr=lr)\n",
            "",
            "        running = 0.0\n",
            "        running = 0.0\n        optimizer = torch.optim.RMSprop([w], lr=lr)\n",
        ),
        "forgets what it has seen",
    ),
    "a new optimizer in each step": (
        "ex5",
        but(
            EX5,
            "    optimizer = torch.optim.RMSprop([w], lr=lr)\n",
            "",
            "            optimizer.zero_grad()\n",
            (
                "            optimizer = torch.optim.RMSprop([w], lr=lr)\n"
                "            optimizer.zero_grad()\n"
            ),
        ),
        "forgets what it has seen",
    ),
    # Exercise 3
    "the first batch alone": ("ex3", EX3 + "        break\n", "4 lines are printed"),
    "one line for each batch": (
        "ex3",
        (
            "def show(loader):\n    for i, d in enumerate(loader):\n"
            '        print("batch", i, d[0, 0].item(), 0, d[0, 1].item())\n'
        ),
        "6 lines are printed",
    ),
    "nothing is printed": (
        "ex3",
        "def show(loader):\n    return list(loader)\n",
        "nothing is printed",
    ),
    "x and y exchanged": ("ex3", but(EX3, "(x, y)", "(y, x)"), "x and y are swapped"),
    "sample and batch exchanged": ("ex3", but(EX3, "(i, j, ", "(j, i, "), "are exchanged"),
    "numbered through": (
        "ex3",
        but(EX3, "(i, j, ", "(i, 4 * i + j, "),
        "goes on from batch to batch",
    ),
    "next(iter(...))": (
        "ex3",
        (
            "def show(loader):\n    for i in range(6):\n        d = next(iter(loader))\n"
            "        for j, (x, y) in enumerate(d):\n"
            "            print(i, j, x.item(), y.item())\n"
        ),
        "started more than once",
    ),
    "columns instead of rows": (
        "ex3",
        "def show(loader):\n    for i, (x, y) in enumerate(loader):\n        print(i, x, y)\n",
        "a batch is one table",
    ),
    "two numbers": (
        "ex3",
        (
            "def show(loader):\n    for i, d in enumerate(loader):\n"
            "        for x, y in d: print(x.item(), y.item())\n"
        ),
        "fewer than four numbers",
    ),
    "the data, not the loader": (
        "ex3",
        (
            "def show(loader):\n    for j, (x, y) in enumerate(loader.dataset):\n"
            "        print(j // 4, j % 4, x.item(), y.item())\n"
        ),
        "never gone through",
    ),
    "endless": ("ex3", "def show(loader):\n    while True:\n        pass\n", ENDLESS),
}

SUBMISSIONS = {name: (*row, ()) for name, row in RIGHT.items()} | {
    f"{name} (wrong)": (exercise, text, lines) for name, (exercise, text, *lines) in WRONG.items()
}
