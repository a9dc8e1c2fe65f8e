# ruff: noqa: B018, D100, D101, D102, D103, E402, F811
# The same cells are docs/own_work.ipynb; after a change: python tests/test_own_work.py

# %% [markdown]
# # Your own work with sgdstudy
#
# From an `nn.Module`, a loss and an optimiser of your own to tracked runs, a sweep, and back to a
# module. It takes under a minute, and writes into a temporary folder only. Each step says what to
# see; the settings are in `help(ss.TrainConfig)`, the fine print in `docs/training.md`.

# %%
import contextlib
import io
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

import sgdstudy as ss
from sgdstudy.cli.main import main

warnings.filterwarnings("ignore", message="IProgress")
os.chdir(tempfile.mkdtemp())
Path("mlruns").mkdir()  # the store of this folder

# %% [markdown]
# ## 1. Your own parts
#
# A module, a loss, an optimiser and a measure, as you would write them for plain torch. They go
# into a file, so that a script can use them too. Three things to know:
#
# - a loss returns one value per sample, `(B,)`, from predictions and targets of any shapes;
# - an optimiser is a `torch.optim.Optimizer`; one that evaluates the loss again in `step(closure)`
#   gets a closure;
# - a measure returns one number; of those called `accuracy` or `score` more is better.

# %% mine.py
import torch
from torch import nn


class Gated(nn.Module):
    """One hidden layer, each of its values times a gate."""

    def __init__(self, width):
        super().__init__()
        self.value, self.gate = nn.Linear(64, width), nn.Linear(64, width)
        self.out = nn.Linear(width, 10)

    def forward(self, x):
        return self.out(self.value(x) * torch.sigmoid(self.gate(x)))


def smoothed(logits, y):
    """Cross-entropy where the classes share a tenth of the target."""
    return nn.functional.cross_entropy(logits, y, reduction="none", label_smoothing=0.1)


def right_score(logits, y):
    """Share of the samples whose class has the largest logit."""
    return (logits.argmax(1) == y).float().mean()


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimisation (Foret et al. 2021), as it is mostly written."""

    def __init__(self, params, lr=0.1, rho=0.05):
        super().__init__(params, {"lr": lr, "rho": rho})

    @torch.no_grad()
    def first_step(self):
        """Go up, to w + rho g / |g|."""
        params = [p for group in self.param_groups for p in group["params"]]
        norm = torch.sqrt(sum((p.grad**2).sum() for p in params)) + 1e-12
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["up"] = group["rho"] / norm * p.grad
                p += self.state[p]["up"]

    @torch.no_grad()
    def second_step(self):
        """Go back, and down the gradient found above."""
        for group in self.param_groups:
            for p in group["params"]:
                p -= self.state[p]["up"] + group["lr"] * p.grad

    def step(self, closure=None):
        if closure is None:
            raise ValueError("SAM needs a closure")
        self.first_step()
        closure()
        self.second_step()


# %% [markdown]
# ## 2. A problem
#
# `init="default"`: seed s starts from what the module's layers draw themselves after
# `torch.manual_seed(s)`. To see: 1280 samples, 2250 parameters.

# %%
from mine import SAM, Gated, right_score, smoothed

digits = load_digits()
x, y = (digits.data / 16).astype("f"), digits.target
problem = ss.Problem(
    x[:1280],
    y[:1280],
    Gated(16),
    loss=smoothed,
    init="default",
    test=(x[1280:], y[1280:]),
    name="digits",
)
problem

# %% [markdown]
# ## 3. An optimiser that evaluates again
#
# SAM needs two gradients of each batch. Its `step(closure)` is called as in torch: the gradient at
# w is there already, and the closure gives loss and gradient of the same batch wherever the
# parameters are by then. What is recorded of a step is the loss and the gradient at w.
#
# To see: SAM looks at the norm of all parameters at once, which would mix seeds that train side by
# side. So each seed gets an optimiser of its own, and one line says so.

# %%
settings = {
    "optimizer": SAM,
    "lr": 0.5,
    "options": {"rho": 0.1},
    "batch_size": 32,
    "diagnostics": "off",
}
one = ss.train(problem, epochs=1, seeds=range(2), **settings)
one

# %% [markdown]
# Is it right? The textbook's loop, from the same start, over the same batches. To see: the two
# agree to the rounding of float32.

# %%
still = ss.train(problem, optimizer="none", epochs=1, seeds=[0])
net = still.module(0)  # where seed 0 starts
batches = ss.orders.listing(problem, ss.TrainConfig(epochs=1, seeds=[0], **settings))
params = list(net.parameters())


def gradients(indices):
    """Return the gradients of the mean loss of a batch."""
    loss = smoothed(net(problem.x[indices]), problem.y[indices]).mean()
    return torch.autograd.grad(loss, params)


for _, batch in batches.groupby("batch"):
    indices = batch["index"].tolist()
    slopes = gradients(indices)
    norm = torch.sqrt(sum((g**2).sum() for g in slopes))
    with torch.no_grad():
        for p, g in zip(params, slopes, strict=True):
            p += 0.1 * g / norm
    above = gradients(indices)
    with torch.no_grad():
        for p, g, up in zip(params, slopes, above, strict=True):
            p -= 0.1 * g / norm + 0.5 * up
mine = torch.nn.utils.parameters_to_vector(net.parameters()).detach().numpy()
print("largest difference:", "below 1e-5" if np.abs(mine - one.w[0]).max() < 1e-5 else "MORE")

# %% [markdown]
# ## 4. Your own measure, and when to stop
#
# `measures` are computed of all the data at the end of every epoch, and of the test data too.
# `stop` looks there as well, at any column: here until 87 % of the test data are right at the end
# of two epochs in a row. `stop=("test_right_score", None), patience=5` would stop where five epochs
# brought nothing better. To see: each seed stops by itself.

# %%
history = ss.train(
    problem,
    epochs=40,
    seeds=range(4),
    stop=("test_right_score", 0.87),
    patience=2,
    measures={"right_score": right_score},
    **settings,
)
print(dict(zip(history.config.seeds, history.stop_epoch.tolist(), strict=True)))
history.epochs.groupby("seed")[["epoch", "full_loss", "right_score", "test_right_score"]].last()

# %%
ss.figures.by_epoch({"SAM": history}, "test_right_score")

# %% [markdown]
# ## 5. Back to a module
#
# To see: torch alone finds what the table says of seed 3.

# %%
module = history.module(3)
right_score(module(torch.tensor(x[1280:])), torch.tensor(y[1280:]))

# %% [markdown]
# A history is a file, without pickle; functions are not in it, and are given again.

# %%
history.save("sam.sgdstudy")
again = ss.load_history("sam.sgdstudy", problem, **settings, measures={"right_score": right_score})
again.epochs.equals(history.epochs), np.array_equal(again.w, history.w)

# %% [markdown]
# ## 6. A study of it
#
# A script declares a question, its options, and the arms that differ. `rho` is an option of its
# own.

# %% sam_study.py
"""Does sharpness-aware minimisation help on digits?"""

from mine import SAM, Gated, right_score, smoothed
from sklearn.datasets import load_digits

import sgdstudy as ss


class Options(ss.Options):
    seeds: int = 2
    rho: float = 0.1
    """how far up"""


def arms(o):
    digits = load_digits()
    x, y = (digits.data / 16).astype("f"), digits.target
    test = (x[1280:], y[1280:])
    problem = ss.Problem(
        x[:1280], y[:1280], Gated(16), loss=smoothed, init="default", test=test, name="digits"
    )
    sam = ss.Arm(
        problem,
        optimizer=SAM,
        lr=0.5,
        options={"rho": o.rho},
        batch_size=32,
        epochs=5,
        seeds=o.seed_range(),
        measures={"right_score": right_score},
        diagnostics="off",
    )
    yield "SAM", sam
    yield "SGD", sam.but(options={"rho": 0.0})


def claims(o, runs):
    for arm, run in runs.items():
        yield ss.Claim("test_right_score", arm, run.at("test_right_score", 5))


def answer(o, runs, claims):
    for arm in runs:
        yield f"{arm} has {claims['test_right_score', arm]:.1%} of the test data right."


STUDY = ss.study(__name__)

if __name__ == "__main__":
    STUDY.main()

# %% [markdown]
# `ss.run` trains the arms and tracks them in MLflow; `sgdstudy ui` shows them. A number of several
# seeds is their median, a measured value: of two middle ones the lower.

# %%
result = ss.run("sam_study.py")
runs = ss.load_runs("sam_study")
runs[["arm", "lr", "full_loss", "right_score", "test_right_score", "status"]]

# %% [markdown]
# ## 7. A sweep over your own option, and going on with it
#
# The command is `sgdstudy sweep sam_study.py --grid rho=0,0.1`. To see: another number for each
# rho: the median over the seeds, which of two is the lower value. What makes a run another one are
# the script's options, its code, and all that its functions hold, wherever it is read.

# %%
quiet = {"progress": False}  # no bar in this page
first = ss.sweep("sam_study.py", {"rho": [0, 0.1]}, seeds=2, **quiet)
first[["rho", "status", "full_loss", "test_right_score"]]

# %% [markdown]
# A third value, `resume=True`: to see, only what is new runs. After Ctrl-C it is the same call; a
# study goes on with `ss.run("sam_study.py", resume=True)`. `by` ranks: the best comes first.

# %%
grid = {"rho": [0, 0.1, 0.4]}
swept = ss.sweep("sam_study.py", grid, seeds=2, resume=True, by="test_right_score", **quiet)
print(set(first["run_id"]) <= set(swept["run_id"]))
swept[["rho", "full_loss", "test_right_score"]]

# %%
runs_of_sweep = ss.load_runs("sam_study_sweep")  # options of a script of your own: option.<name>
runs_of_sweep[["option.rho", "lr", "epochs", "test_right_score"]]

# %% [markdown]
# Without a script: a function that returns an arm. Its parameters are options; `lr` is a setting
# that any arm has. To see: a row for each of the four. `jobs=2` would train two at a time.


# %%
def gated(width=16, rho=0.1):
    """SAM, on a layer of any width."""
    own = problem.replace(model=Gated(width))
    given = {key: settings[key] for key in ("optimizer", "batch_size", "diagnostics")}
    measures = {"right_score": right_score}
    return ss.Arm(own, lr=0.5, options={"rho": rho}, epochs=3, measures=measures, **given)


table = ss.sweep(gated, {"width": [4, 16], "lr": [0.1, 0.5]}, by="test_right_score", **quiet)
table[["width", "lr", "full_loss", "test_right_score"]]

# %% [markdown]
# ## 8. The same again, bit by bit
#
# Of a script's runs. To see: `identical`. After a change of the script, of `mine.py` or of the data
# it would say what is not as it was, and the first number that differs. In a notebook:
# `!sgdstudy rerun RUN_ID --script sam_study.py`.


# %%
def sgdstudy(*words):
    """Return what a command says: called from here it need not start anew."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            main(words)
        except SystemExit as end:
            if end.code:
                raise RuntimeError(said.getvalue()) from None
    return said.getvalue().replace(os.getcwd(), ".")


sam_run = runs.set_index("arm")["run_id"]["SAM"]
print(sgdstudy("rerun", sam_run, "--script", "sam_study.py"))
