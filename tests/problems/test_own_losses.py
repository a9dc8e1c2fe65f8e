"""Losses of one's own whose predictions and targets have different shapes."""

import copy
import functools
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import literal, one_line
from torch import nn

import sgdstudy as ss

FEW = {"batch_size": 7, "epochs": 2}
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(60, 3))
IDS = DRAW.integers(0, 4, 60)
WORDS = DRAW.integers(0, 4, (60, 5))
Y = X[:, 0] + 0.1 * DRAW.normal(size=60)


class Words(nn.Module):
    """Logits of five words, `(B, 5, 4)`."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(3, 20)

    def forward(self, x):
        return self.line(x).reshape(-1, 5, 4)


def gaussian(f, y):
    return F.gaussian_nll_loss(f[:, 0], y, f[:, 1].exp(), reduction="none")


def gaussian_by_hand(f, y):
    return ((f[:, 0] - y) ** 2 / f[:, 1].exp() + f[:, 1]) / 2


def by_words(f, y):
    return F.cross_entropy(f.transpose(1, 2), y, reduction="none").mean(1)


def by_hand(f, y):
    return -torch.log_softmax(f, 1).gather(1, y[:, None])[:, 0]


def padded(f, y):
    """Class 0 is padding, written as torch does."""
    return F.cross_entropy(f, y - 100 * (y == 0), reduction="none", ignore_index=-100)


def margin(f, y):
    return F.multi_margin_loss(f, y, reduction="none")


def column(f, y):
    return (f.squeeze(1) - y) ** 2


smoothed = functools.partial(F.cross_entropy, reduction="none", label_smoothing=0.1)

# outputs of the model, targets, the loss, and what torch takes for a batch
LOSSES = {
    "smoothed": (lambda: nn.Linear(3, 4), IDS, smoothed, smoothed),
    "module": (
        lambda: nn.Linear(3, 4),
        IDS,
        nn.CrossEntropyLoss(reduction="none"),
        F.cross_entropy,
    ),
    "by hand": (lambda: nn.Linear(3, 4), IDS, by_hand, F.cross_entropy),
    "floats that are classes": (
        lambda: nn.Linear(3, 4),
        IDS.astype(float),
        by_hand,
        F.cross_entropy,
    ),
    "padded": (lambda: nn.Linear(3, 4), IDS, padded, padded),
    "margin": (lambda: nn.Linear(3, 4), IDS, margin, F.multi_margin_loss),
    "gaussian": (lambda: nn.Linear(3, 2), Y, gaussian, gaussian),
    "gaussian by hand": (lambda: nn.Linear(3, 2), Y, gaussian_by_hand, gaussian),
    "words": (Words, WORDS, by_words, by_words),
    "column": (lambda: nn.Linear(3, 1), Y, column, column),
}


def made(name):
    module, y, loss, _ = LOSSES[name]
    torch.manual_seed(0)
    return ss.Problem(X, y, module(), loss=loss, test=(X[:20], y[:20]))


@pytest.mark.parametrize("engine", ["eager", "auto"])
@pytest.mark.parametrize("name", LOSSES)
def test_it_trains_as_the_loop_in_torch(name, engine):
    problem = made(name)
    history = ss.train(problem, lr=0.1, seeds=[3, 4], engine=engine, **FEW)
    of_batch = LOSSES[name][3]
    for r, seed in enumerate((3, 4)):
        model = copy.deepcopy(problem.source)
        loop = literal(
            model, list(model.parameters()), problem.x, torch.as_tensor(problem.y),
            lr=0.1, seed=seed, loss=lambda f, y: of_batch(f, y).mean(), **FEW,
        )  # fmt: skip
        assert np.allclose(history.w[r], loop.w, rtol=1e-9, atol=1e-12)  # float64, sums reordered
        rows = history.steps[history.steps.seed == seed]
        assert np.allclose(rows["loss"], loop.losses, rtol=1e-9)
        with torch.no_grad():
            whole = of_batch(model(problem.x), problem.y).mean()
            held = of_batch(model(problem.x[:20]), problem.y[:20]).mean()
        ends = history.epochs[history.epochs.seed == seed].iloc[-1]
        assert ends["full_loss"] == pytest.approx(float(whole), rel=1e-9)
        assert ends["test_loss"] == pytest.approx(float(held), rel=1e-9)


@pytest.mark.parametrize("name", ["smoothed", "gaussian by hand", "words"])
def test_long_runs_are_compiled_to_the_same(name):
    given = {"lr": 0.1, "seeds": [3, 4], **FEW}
    compiled, eager = (ss.train(made(name), engine=e, **given) for e in ("compiled", "eager"))
    assert compiled.engine == "compiled"
    assert np.allclose(compiled.w, eager.w, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_whole_targets_stay_whole_only_where_the_loss_needs_it(name):
    whole = LOSSES[name][1].dtype.kind == "i" or name == "floats that are classes"
    problem = made(name)
    assert (problem.y.dtype == torch.int64) == whole
    assert (problem.test[1].dtype == torch.int64) == whole


def test_whole_targets_of_a_loss_of_floats_are_floats_as_before():
    def square(f, y):
        return ((f - y) ** 2).sum(1)

    problem = ss.Problem(X, IDS[:, None], nn.Linear(3, 1), loss=square)
    assert problem.y.dtype == torch.float64
    assert problem.least_squares is not None


def test_it_is_pickled_moved_and_made_again():
    problem = ss.Problem(X, WORDS, Words(), loss=by_words)
    again = pickle.loads(pickle.dumps(problem))
    assert again.y.dtype == torch.int64
    assert again.digest == problem.digest
    assert problem.to(torch.float32, "cpu").y.dtype == torch.int64
    other = ss.Problem(X, IDS, nn.Linear(3, 4), loss="cross_entropy").replace(loss=by_hand)
    assert other.y.dtype == torch.int64


@pytest.mark.parametrize("name", ["smoothed", "words", "gaussian by hand"])
def test_diagnostics_go_through_it(name):
    given = {"lr": 0.1, **FEW}
    steps = ss.train(made(name), diagnostics=["trace_sigma", "hess_trace"], **given).steps
    assert np.isfinite(steps["trace_sigma"].dropna()).all()
    assert len(steps["trace_sigma"].dropna())


def test_diagnostics_that_cannot_go_through_it_say_so():
    with pytest.raises(ss.InputError, match="cannot go through this model") as error:
        ss.train(made("gaussian"), diagnostics=["trace_sigma"], lr=0.1, **FEW)
    assert one_line(error)
    assert ".." not in str(error.value)


def test_a_stream_of_classes():
    def stream(y):
        def blocks(generator):
            while True:
                chosen = torch.randint(0, 60, (30,), generator=generator)
                yield torch.as_tensor(X)[chosen], torch.as_tensor(y)[chosen]

        return blocks

    def problem(y):
        return ss.Problem(X, IDS, nn.Linear(3, 4), loss=by_hand, stream=stream(y))

    history = ss.train(problem(IDS), order="stream", lr=0.1, seeds=[0, 1], **FEW)
    assert np.isfinite(history.w).all()
    with pytest.raises(ss.InputError, match="does not hold"):
        ss.train(problem(IDS + 0.5), order="stream", lr=0.1, **FEW)


# ---- losses that see a sample beside others --------------------------------------------------


def apart(f, y):
    """Reads no target."""
    return (f.unsqueeze(0) - f.unsqueeze(1)).pow(2).reshape(len(f), -1).mean(1)


def shared(f, y):
    return by_hand(f, y) / f.shape[0]


def centred(f, y):
    return by_hand(f - f.mean(0), y)


def alike(f, y):
    """Reads the targets of others."""
    off = (f.unsqueeze(0) - f.unsqueeze(1)).pow(2).mean(2)
    return (off * (y.unsqueeze(0) == y.unsqueeze(1))).mean(1)


@pytest.mark.parametrize("loss", [apart, shared, centred, alike])
def test_a_loss_may_see_a_sample_beside_others_where_nothing_broadcasts(loss):
    problem = ss.Problem(X, IDS, nn.Linear(3, 4), loss=loss)
    w, x, y = problem.initial([0]), problem.x, problem.y
    expected = loss(problem.model(w[0], x), y).mean()
    found = ss.train(problem, lr=0.1, batch_size=None, epochs=1).steps["loss"][0]
    assert np.isclose(found, float(expected), rtol=1e-5)


def test_what_broadcasts_perhaps_is_taken_to_one_shape():
    module = nn.Linear(3, 1)
    with pytest.raises(ss.InputError, match=r"\(B, 1\) and targets \(B,\) broadcast") as error:
        ss.Problem(X, Y, module, loss=apart)
    assert one_line(error)
    assert ss.Problem(X, Y, nn.Sequential(module, nn.Flatten(0)), loss=apart).p == 4


# ---- what is refused -------------------------------------------------------------------------

SIGNS = np.where(np.arange(60) % 2, 1.0, -1.0)  # at w = 0 their squares are one


def broadcast(f, y):
    return ((f - y) ** 2).mean(1)


REFUSED = [
    (Y, 1, broadcast, r"predictions \(B, 1\) and targets \(B,\) broadcast"),
    (SIGNS, 1, broadcast, "not the mean of what each has alone"),
    (np.sort(IDS), 1, broadcast, "not the mean of what each has alone"),
    (Y, 1, lambda f, y: ((f - y) ** 2).mean(0), "not the mean of what each has alone"),
    (Y[:, None], 2, lambda f, y: (f - y.T).mean(1) ** 2, "returned shape|must match the size"),
    (Y, 2, lambda f, y: ((f - y) ** 2).mean(1), "must match the size"),  # of two samples it fits
    (Y, 1, lambda f, y: (f - y) ** 2, r"returned shape \(2, 2\)"),
    (WORDS, 4, lambda f, y: F.cross_entropy(f, y, reduction="none"), "cross_entropy|failed"),
    (IDS, 3, smoothed, "out of bounds"),
    (np.where(np.arange(60) == 50, -1, IDS), 4, smoothed, "out of bounds"),
    (np.where(np.arange(60) == 50, 7, IDS), 4, smoothed, "out of bounds"),
    (IDS, 4, F.cross_entropy, "or loss='cross_entropy'"),
    (IDS, 4, nn.CrossEntropyLoss(), "or loss='cross_entropy'"),
    (IDS, 1, nn.BCEWithLogitsLoss(reduction="none"), "Target size"),
]


@pytest.mark.parametrize(("y", "outputs", "loss", "says"), REFUSED)
def test_what_does_not_fit_is_one_line(y, outputs, loss, says):
    module = nn.Linear(3, outputs)
    for p in module.parameters():
        nn.init.zeros_(p)
    with pytest.raises(ss.InputError, match=says) as error:
        ss.Problem(X, y, module, loss=loss)
    assert one_line(error)
