"""The columns of `steps` and `epochs`: what each is called, shows and means, written once.

Settings, chart points, chart views and the labels of figures are read off this table;
`docs/tracking.md` and `docs/diagnostics.md` say the same (a test compares them).
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from sgdstudy.language import say, to_say

PREFIX = {"steps": "batch", "epochs": "epoch"}  # of a column's name, in MLflow
WHICH = re.compile("p10|p90|seed[0-9]+")
SCORE = re.compile("(^|_)(accuracy|score)$")
OF_EPOCH = "epoch/"  # before a metric of `epochs`
CLOCK = "elapsed_seconds"  # `..._seconds` is measured: `rerun` leaves it out

SAMPLES, SECONDS = to_say("samples"), to_say("seconds")  # units


class Column(NamedTuple):
    """A column of recorded rows.

    Attributes:
        name: in Parquet, and after `batch/` or `epoch/` in MLflow.
        doc: what it is.
        label: on an axis, or over a chart; "" the name.
        unit: "" where it has none of its own.
        charted: whether MLflow gets its points, unless others are asked for.
        section: of the prepared view that charts it; "" in none.
        linear: whether its axis is linear, since it may be negative; others are logarithmic.
        more_is_better: whether more of it is better; of others, less is.
    """

    name: str
    doc: str
    label: str = ""
    unit: str = ""
    charted: bool = False
    section: str = ""
    linear: bool = False
    more_is_better: bool = False

    @property
    def title(self) -> str:
        """The label with its unit, in the present language."""
        label = say(self.label) if self.label else self.name
        return say("{label}, in {unit}", label=label, unit=say(self.unit)) if self.unit else label


_LOSSES = to_say("Losses, by epoch")
_BATCHES = to_say("Batches, by step")
_GRADIENTS = to_say("Gradients, by step")
_DIAGNOSTICS = to_say("Diagnostics, by step")
_BATCH = "of the batch, before the update"
_FULL = (
    "of all the data, before the update: exact at every step for least squares, else at the first "
    "step of each epoch"
)
_END = "of all the data, at the end of the epoch"
_KNOWN = "at the end of the epoch, where known"
_SHARE = "share of samples whose class has the largest logit (`cross_entropy`)"
_CLOCK = (
    "time since training began, where `clock` asks for it; of a run that was resumed, the parts "
    "that it trained. The steps of a chunk (256 at first, of quick compiled ones up to 4096) "
    "share its time evenly"
)
_AVERAGE = (
    "of the mean of the parameters after every step since `average` began; before that, of the "
    "parameters themselves"
)

_EMA = (
    "of the moving average of the parameters (`ema`), at the end of the epoch; it starts at those "
    "after the first step"
)

# what tells the rows of a run from one another
INDEX = (
    Column(
        "seed", "of the order of the samples (and of the initial parameters, where they are drawn)"
    ),
    Column("epoch", "from 1"),
    Column("batch", "from 0, within the epoch"),
    Column("step", "from 0, overall"),
    Column("size", "samples in the batch", unit=SAMPLES),
)

# of every run's steps
OF_STEPS = (
    Column("loss", _BATCH, "loss of the batch", "", True, _BATCHES),
    Column("grad_norm", _BATCH, "gradient norm of the batch", "", True, _GRADIENTS),
    Column("full_loss", _FULL, "loss of all the data", "", True, _BATCHES),
    Column("full_grad_norm", _FULL, "gradient norm of all the data", "", True, _GRADIENTS),
    Column("update_norm", "length of the step that was taken", "length of the step"),
)

# of the steps of runs that ask for them, or have them
OF_SOME_STEPS = (
    Column(
        "distance",
        "how far from the parameters that made the data",
        "distance to the true parameters",
        "",
        True,
        _BATCHES,
    ),
    Column("lr", "step size of this step, where there is a schedule", "step size", "", True),
    Column(CLOCK, _CLOCK, "time since training began", SECONDS),
    Column(
        "noise_scale",
        "batch size at which noise equals signal; |g|^2 holds noise too, so seldom much above B",
        "gradient noise scale of the batch",
        SAMPLES,
        True,
        _DIAGNOSTICS,
    ),
    Column(
        "lr_sharpness",
        "above 2 descent on this batch alone would grow",
        "lr x top eigenvalue of the batch's Hessian",
        "",
        True,
        _DIAGNOSTICS,
    ),
    Column(
        "alpha",
        "where the step lands on the batch loss: -1 nowhere, 0 at the minimum, 1 at equal height "
        "beyond; below -1 the loss bends down",
        "step over the parabola's minimum",
        "",
        True,
        _DIAGNOSTICS,
        linear=True,
    ),
    Column("distance_start", "how far it has come", "distance to the initial parameters"),
    Column("grad_cosine", "whether the batch points where all the data do", linear=True),
    Column("trace_sigma", "noise of one sample's gradient"),
    Column(
        "noise_scale_two_batch",
        "the same without that bias (sizes 1 and B); NaN where the signal is not seen",
        unit=SAMPLES,
    ),
    Column("norm_test", "relative standard error of g: above about 1 the batch is too small"),
    Column("inner_test", "its part along g; inner^2 + ortho^2 = norm^2"),
    Column("ortho_test", "its part across g"),
    Column("gsnr", "signal to noise, by parameter"),
    Column("early_stopping", "above 0 the gradient is noise: stop", linear=True),
    Column(
        "cabs",
        "batch size proposed for this step size, where the least loss is near 0",
        unit=SAMPLES,
    ),
    Column("tic", "noise against curvature"),
    Column("hess_max_eig", "sharpness of the batch loss"),
    Column("hess_trace", "mean curvature times p"),
    Column("full_trace_sigma", "the noise itself (`theory.trace_sigma`)"),
    Column("full_noise_scale", "the noise scale itself (`theory.noise_scale`)", unit=SAMPLES),
    Column("full_hess_max_eig", "sharpness"),
    Column("full_hess_trace", ""),
    Column("grad_histogram", "shape of the noise", linear=True),
)

# of every run's epochs
OF_EPOCHS = (
    Column(
        "running_loss",
        "size-weighted mean of the epoch's batch losses, as the parameters move",
        "running loss of the epoch",
        "",
        True,
        _LOSSES,
    ),
    Column("full_loss", _END, "loss of all the data", "", True, _LOSSES),
    Column("full_grad_norm", _END, "gradient norm of all the data"),
    Column("last_loss", "of the epoch's last batch", "loss of the last batch"),
    Column("sum_loss", "sum of the batch losses", "sum of the batch losses"),
    Column("mean_loss", "unweighted mean of the batch losses", "mean of the batch losses"),
    Column(
        "mean_grad_norm",
        "size-weighted mean of the norms of the batch gradients",
        "mean norm of the batch gradients",
    ),
    Column(
        "norm_mean_grad",
        "norm of the size-weighted mean of the batch gradients",
        "norm of the mean of the batch gradients",
    ),
)

OF_BATCHES = tuple(column.name for column in OF_EPOCHS if not column.name.startswith("full_"))

# of the epochs of runs that have them
OF_SOME_EPOCHS = (
    Column("distance", _KNOWN, "distance to the true parameters", "", True),
    Column(CLOCK, _CLOCK, "time since training began", SECONDS, True),
    Column("test_loss", _KNOWN, "loss of the test data"),
    Column("accuracy", _SHARE, "accuracy on the training data", more_is_better=True),
    Column("test_accuracy", _SHARE, "accuracy on the test data", more_is_better=True),
    Column("average_loss", _AVERAGE, "loss of all the data, at the mean of the parameters"),
    Column("average_distance", _AVERAGE, "distance of their mean to the true parameters"),
    Column("ema_loss", _EMA, "loss of all the data, at the moving average"),
    Column("ema_distance", _EMA, "distance of the moving average to the true parameters"),
    Column("ema_test_loss", _EMA, "loss of the test data, at the moving average"),
    Column(
        "ema_test_accuracy",
        _EMA,
        "accuracy on the test data, at the moving average",
        more_is_better=True,
    ),
)

STEPS = {column.name: column for column in (*OF_STEPS, *OF_SOME_STEPS)}
EPOCHS = {column.name: column for column in (*OF_EPOCHS, *OF_SOME_EPOCHS)}
TABLES = {"steps": STEPS, "epochs": EPOCHS}


def title(kind: str, name: str) -> str:
    """Return what stands on the axis of a column of `steps` or `epochs`; of others, their name.

    >>> title("steps", "noise_scale"), title("steps", "my_own")
    ('gradient noise scale of the batch, in samples', 'my_own')
    """
    table = TABLES[kind]
    return table[name].title if name in table else name


def of_parameters(p: int) -> list[str]:
    """Return the columns of p parameters: w0, w1, ..."""
    return [f"w{i}" for i in range(p)]


def more_is_better(name: str) -> bool:
    """Return whether more of a column is better; of those not in the table, less is.

    But for own measures that are called accuracy or score.

    >>> more_is_better("test_f1_score"), more_is_better("error")
    (True, False)
    """
    if any(name in table and table[name].more_is_better for table in TABLES.values()):
        return True
    return bool(SCORE.search(str(name)))  # a name that is none is refused where it is looked up


def worst(name: str) -> float:
    """Return what a seed that diverged counts as in a column: worse than any.

    >>> worst("full_loss"), worst("test_accuracy")
    (inf, -inf)
    """
    return -math.inf if more_is_better(name) else math.inf


def line(name: str) -> tuple[str, str, str]:
    """Return what a metric shows: `steps` or `epochs`, the column, and of which seeds.

    Of which: "" the median over the live seeds, `p10` or `p90`, `seed3` of that seed alone.

    >>> line("loss"), line("epoch/full_loss_p90"), line("grad_norm_seed3")
    (('steps', 'loss', ''), ('epochs', 'full_loss', 'p90'), ('steps', 'grad_norm', 'seed3'))
    """
    rest = name.removeprefix(OF_EPOCH)
    column, between, which = rest.rpartition("_")
    kind = "steps" if rest == name else "epochs"
    return (kind, column, which) if between and WHICH.fullmatch(which) else (kind, rest, "")


def setting(metric: str) -> str:
    """Return how `metrics` of a config names a metric of MLflow, see `line`.

    >>> setting("batch/loss_p10"), setting("epoch/full_loss")
    ('loss_p10', 'epoch/full_loss')
    """
    return metric.removeprefix(f"{PREFIX['steps']}/")


def charted(kind: str) -> tuple[str, ...]:
    """Return the columns that MLflow gets of `steps` or `epochs` unless others are asked for."""
    return tuple(name for name, column in TABLES[kind].items() if column.charted)


def sections() -> dict[str, list[tuple[str, Column]]]:
    """Return the kind of rows and the columns that each section of the prepared view charts."""
    found: dict[str, list[tuple[str, Column]]] = {}
    for kind in ("epochs", "steps"):
        for column in TABLES[kind].values():
            if column.section:
                found.setdefault(column.section, []).append((kind, column))
    return {name: found[name] for name in (_LOSSES, _BATCHES, _GRADIENTS, _DIAGNOSTICS)}
