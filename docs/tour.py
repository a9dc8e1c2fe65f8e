# ruff: noqa: B018, D100
# The same cells are docs/tour.ipynb; after a change: python tests/test_tour.py

# %% [markdown]
# # A tour of sgdstudy
#
# The course's notebook on stochastic gradient descent, told again with this package: first its
# functions as they are, then many seeds at once, then what theory says, then pandas on every step.
# It takes half a minute. Tracked runs go to the nearest `mlruns/`.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import sgdstudy as ss

# %% [markdown]
# ## The data
#
# 2000 points of a parabola, in float32. Its three coefficients are to be found again.

# %%
curve = ss.problems.curve()
points = torch.stack([curve.x, curve.y], dim=1)
print(points)
ss.figures.data(curve)

# %% [markdown]
# ## Exercise 1: all the points in each step
#
# `ss.sgd` takes the arguments of the course and changes `w` in place. Without mini-batches it needs
# 9340 epochs, as the notebook prints.


# %%
def f(w, x):
    """Return the parabola with coefficients w."""
    return w[0] * x * x + w[1] * x + w[2]


w = torch.zeros(3, requires_grad=True)
full_batch = ss.sgd(f, w, points, eta=2e-4, epsilon=0.1, nepoch=10_000, minibatch=None)
print(f"stops at epoch {full_batch.stop_epoch[0]}:", w.detach().numpy().round(4))

# %% [markdown]
# ## Exercise 4: mini-batches
#
# Ten points in each step, in a new order every epoch: 48 epochs. The notebook's cell says
# `eta=0.2`; with that the loss overflows within the first epoch, so its output must be that of
# 2e-4.

# %%
w = torch.zeros(3, requires_grad=True)
mini_batch = ss.sgd(f, w, points, eta=2e-4, epsilon=0.1, nepoch=50, minibatch=10)
print(f"stops at epoch {mini_batch.stop_epoch[0]}:", w.detach().numpy().round(4))

w = torch.zeros(3, requires_grad=True)
printed = ss.sgd(f, w, points, eta=0.2, epsilon=0.1, nepoch=50, minibatch=10)
print(f"with eta=0.2: {printed.stop_reason[0]} after {printed.n_steps[0]} batches")

# %% [markdown]
# ## Exercise 6: `shuffle=False`
#
# `ss.train` is the trainer behind `ss.sgd`; here the order of the points is a setting. In sorted
# order the running loss explodes, while the loss of all the points, read at the end of each epoch,
# goes down.

# %%
course = {"optimizer": "notebook", "lr": 2e-4, "batch_size": 10}
in_order = ss.train(curve, order="sequential", epochs=120, stop=("full", 0.1), **course)
in_order.epochs[["epoch", "running_loss", "full_loss"]].iloc[[0, 1, 10, 50, -1]]

# %% [markdown]
# Inside the first epoch: neighbouring points make a steep batch, and steep batches follow each
# other.

# %%
ss.figures.within_epoch({"sorted": in_order, "shuffled": mini_batch})

# %% [markdown]
# ## One run is an anecdote
#
# 64 seeds, that is 64 orders of the points, train side by side; each gives what it would give
# alone.

# %%
history = ss.train(curve, epochs=50, stop=("running", 0.1), seeds=range(64), **course)
print(pd.Series(history.stop_epoch).value_counts().to_dict())
history.plot()

# %% [markdown]
# Every step of every seed is there, as pandas.

# %%
history.steps.tail()

# %% [markdown]
# ## What theory expects
#
# The loss is quadratic in `w`, so most of this can be known before anything runs: the largest
# stable step, the epoch at which full batches stop, and the expected losses of random batches.

# %%
ls = ss.theory.moments(curve)
zero = np.zeros(3)
running, full = ss.theory.expected_losses(ls, zero, curve.d, 10, 2e-4, 50)
expected = {
    "full batch: largest stable step": ss.theory.lr_limit(ls),
    "full batch: stop epoch": ss.theory.descent_stop(ls, zero, 2e-4, 0.1),
    "mini-batches: stop epoch": ss.theory.first_below(running, 0.1),
}
pd.Series(expected)

# %% [markdown]
# ## Your own descent, checked
#
# `ss.check` runs a function written for one of the Exercises 1 to 5 and names its faults.


# %%
def forgetful(f, w, t, eta=1e-4, epsilon=0.01, nepoch=200, minibatch=10):
    """Descend, but forget what the exercise warns of."""
    loader = torch.utils.data.DataLoader(t, batch_size=minibatch, shuffle=True)
    for _ in range(nepoch):
        total = 0.0
        for batch in loader:
            loss = ((f(w, batch[:, 0]) - batch[:, 1]) ** 2).mean()
            loss.backward()
            w.data -= eta * w.grad
            total += loss.item() * len(batch)
        if total / len(t) < epsilon:
            break


report = ss.check(forgetful, "ex4")
print(report)

# %% [markdown]
# ## A tracked exercise
#
# The scripts in `experiments/` declare arms and claims. `ss.run` trains the arms, tracks them in
# MLflow (look with `sgdstudy ui`), and compares what came out with what was expected.

# %%
result = ss.run("ex4_minibatch")
result

# %% [markdown]
# ## Analysis in pandas
#
# Days later, in another session: what was tracked is read back by the study's name.

# %%
runs = ss.load_runs("ex4_minibatch")
runs[["arm", "lr", "stop_epoch", "predicted_stop_epoch", "claim_stop_epoch_holds", "stop_reason"]]

# %% [markdown]
# Only what is asked for is read: here three columns, of one arm, in its first epoch.

# %%
first_epoch = ss.load_steps(
    "ex4_minibatch", arms="descent", columns=["seed", "step", "loss"], steps=slice(0, 200)
)
bands = first_epoch.groupby("step")["loss"].quantile([0.1, 0.5, 0.9]).unstack()

figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
axes.fill_between(bands.index, bands[0.1], bands[0.9], alpha=0.3, label="10 % to 90 % of the seeds")
axes.plot(bands.index, bands[0.5], label="median")
axes.set(xlabel="step", ylabel="loss of the batch", yscale="log", title="The first epoch")
_ = axes.legend()
# %% [markdown]
# ## How long until ...?
#
# A seed that never gets there is *censored*: its time is infinite, later than any other, not the
# last epoch of the run.

# %%
times = ss.time_to_target("descent", 1.0, study="ex4_minibatch")
steps = ss.time_to_target("descent", 1.0, over="step", study="ex4_minibatch")
never = ss.time_to_target("eta 0.2", 1.0, study="ex4_minibatch")
for name, found in {"epochs": times, "steps": steps, "epochs at eta 0.2": never}.items():
    print(f"{name:<18} {ss.summary(found)}")

# %% [markdown]
# ## Does momentum help?
#
# The same 64 seeds once more, with momentum: the same orders of the points, so seeds can be paired.
# With momentum 0.5 each gradient counts twice in the end (1 + 1/2 + 1/4 + ...), so it should take
# half the epochs.

# %%
faster = ss.train(
    curve,
    optimizer="SGD",
    options={"momentum": 0.5},
    lr=2e-4,
    batch_size=10,
    epochs=50,
    stop=("running", 0.1),
    seeds=range(64),
)
comparison = ss.compare(history, faster)
print(comparison)
