"""What becomes of the arrays that people give: whose memory, which dtype, which values."""

import re
import tempfile
from collections import deque
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from conftest import one_line
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import sgdstudy as ss
from sgdstudy.problems import data


def line(w, x):
    return w[0] * x + w[1]


def first(w, x):
    return w.sum() * x.reshape(len(x), -1)[:, 0]


def fit(x, y=None, **changes):
    given = {"model": line, "w_init": [0.0, 0.0]} | changes
    return ss.Problem(x, x if y is None else y, **given)


# ---- whose memory -------------------------------------------------------------------------------

POINTS = np.linspace(-1, 1, 30)
GIVEN = {
    "float32 array": POINTS.astype("f"),
    "float64 array": POINTS.copy(),
    "tensor": torch.linspace(-1, 1, 30),
    "double tensor": torch.linspace(-1, 1, 30).double(),
    "column of a table": np.stack([POINTS, POINTS], 1)[:, 0],
    "every other": np.repeat(POINTS, 2)[::2],
    "backwards": POINTS[::-1],
    "pandas": pd.Series(POINTS),
}


@pytest.mark.parametrize("x", GIVEN.values(), ids=GIVEN)
def test_what_the_caller_changes_later_changes_no_problem(x):
    start, y = np.array([0.5, 0.5]), (x.clone() if isinstance(x, torch.Tensor) else x.copy())
    problem = fit(x, y, test=(x, y), w_init=start, w_true=start)
    before = ss.train(problem, lr=0.1, batch_size=7, epochs=2)
    first = problem.digest
    for array in (x, y, start):
        if isinstance(array, pd.Series):
            array.iloc[:] = 3.0
        else:
            array[:] = 3.0
    after = ss.train(problem, lr=0.1, batch_size=7, epochs=2)
    assert before.steps.equals(after.steps)
    assert before.epochs.equals(after.epochs)
    assert problem.digest == first


def test_a_module_that_is_trained_on_later_changes_no_problem():
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(1), torch.nn.Linear(1, 1)).eval()
    x = torch.linspace(-1, 1, 30)[:, None]
    problem = ss.Problem(x, x, module)
    before = ss.train(problem, lr=0.1, epochs=2)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.fill_(2)
    module.train()
    after = ss.train(problem, lr=0.1, epochs=2)
    assert before.epochs.equals(after.epochs)


def writes_array(problem, x):
    x[4] = 7


def writes_through_numpy(problem, x):
    problem.x.numpy()[4] = 7


def writes_tensor(problem, x):
    problem.y[0] += 1


def writes_test(problem, x):
    problem.test[1][3] = 1


@pytest.mark.parametrize("write", [writes_array, writes_through_numpy, writes_tensor, writes_test])
def test_data_that_changed_are_seen_when_training_starts(write):
    with tempfile.TemporaryFile() as file:
        x = np.memmap(file, np.float32, "w+", shape=(30,))
        x[:] = POINTS
        problem = fit(x, test=(x, x))
        ss.train(problem, lr=0.1, epochs=1)
        write(problem, x)
        with pytest.raises(ss.InputError, match="changed since the problem was made") as error:
            ss.train(problem, lr=0.1, epochs=1)
        assert one_line(error)


def test_a_problem_in_another_dtype_is_trained_on_and_watched_too():
    problem = fit(POINTS.astype("f")).to(torch.float64, "cpu")
    assert ss.train(problem, lr=0.1, epochs=1).n_steps[0] == 1
    problem.x[3] = 4
    with pytest.raises(ss.InputError, match="changed"):
        ss.train(problem, lr=0.1, epochs=1)


def test_large_data_stay_where_they_are_and_a_sample_of_them_is_their_digest(monkeypatch):
    monkeypatch.setattr(data, "COPIED", 1000)
    monkeypatch.setattr(data, "READ_OF_MAPS", 2000)
    monkeypatch.setattr(data, "READ_AGAIN", 2000)
    x = np.linspace(-1, 1, 5000, dtype="f")
    problem = fit(x)
    assert np.shares_memory(problem.x.numpy(), x)
    assert np.shares_memory(problem.replace(loss="abs").x.numpy(), x)
    assert problem.digest.startswith("sample-")
    assert problem.digest == problem.replace(loss="abs").digest == fit(x.copy()).digest
    x[:] += 1
    with pytest.raises(ss.InputError, match="changed"):
        ss.train(problem, lr=0.1, epochs=1)
    assert fit(x).digest != problem.digest


def test_the_digest_of_what_is_copied_is_that_of_all_of_it():
    x = np.linspace(-1, 1, 400_000)
    problem, other = fit(x), x.copy()
    other[123_457] = 0.5
    assert not problem.digest.startswith("sample")
    assert fit(other).digest != problem.digest


# ---- which dtype --------------------------------------------------------------------------------

SECONDS = 1_700_000_000 + np.arange(2000)
NARROW = {
    "float32": POINTS.astype("f"),
    "small whole numbers": np.arange(30),
    "bytes": np.arange(30, dtype=np.uint8),
    "up to 2**24": np.arange(2**24 - 20, 2**24 + 1),
    "large whole numbers that float32 holds": 2**40 * np.arange(30),
    "the largest of uint32 that it holds": np.array([0, 2**32 - 2**8], np.uint32),
    "truth values": np.arange(30) % 2 == 0,
    "object column": np.array([1, 2.5, Fraction(1, 4), Decimal("0.75"), True], object),
}
WIDE = {
    "Unix seconds": SECONDS,
    "Unix seconds as int32": SECONDS.astype(np.int32),
    "Unix seconds as uint64": SECONDS.astype(np.uint64),
    "Unix seconds, a tensor": torch.as_tensor(SECONDS),
    "Unix seconds, a column": pd.Series(SECONDS, dtype="Int64"),
    "2**24 + 1": np.array([2**24 + 1, 0]),
    "1 - 2**53": np.array([1 - 2**53, 1]),
    "large and even": np.array([2**53 + 2, 1]),
    "2**62": np.array([2**62, 2**62 + 1024]),
    "2**63 and more": [2**63, 2**63 + 2048],
    "the largest": np.array([2**64 - 2**11, 2**63, 2**24 + 1], np.uint64),
    "the least": np.array([-(2**63), 2**24 + 1]),
    "float64": np.arange(4.0),
}


@pytest.mark.parametrize("x", NARROW.values(), ids=NARROW)
def test_float32_where_it_holds_every_value(x):
    problem = fit(x, np.arange(len(x)) % 3)
    floats = np.array([float(v) for v in x])
    assert problem.dtype == (torch.float64 if x.dtype == object else torch.float32)
    assert np.array_equal(problem.x.double().numpy(), floats)


@pytest.mark.parametrize("x", WIDE.values(), ids=WIDE)
def test_float64_where_float32_does_not_hold_them(x):
    problem = fit(x, np.arange(len(x)) % 3)
    assert problem.dtype == problem.x.dtype == problem.y.dtype == torch.float64
    assert problem.x.tolist() == [int(v) for v in x]


@pytest.mark.parametrize("y", [SECONDS, SECONDS / 7, np.full(2000, 1e300), np.full(2000, 1e-300)])
def test_targets_that_float32_does_not_hold_make_the_problem_float64(y):
    for x in (np.arange(2000), torch.linspace(-1, 1, 2000)):
        problem = fit(x, y)
        assert problem.x.dtype == problem.y.dtype == problem.dtype == torch.float64
        assert problem.y.tolist() == y.tolist()


def test_test_data_that_float32_does_not_hold_do_so_too():
    x = np.arange(10)
    problem = fit(x, test=(x, x + 0.1))
    assert {t.dtype for t in (problem.x, problem.y, *problem.test)} == {torch.float64}
    other = fit(x + 0.1, test=(x, x))
    assert {t.dtype for t in (other.x, other.y, *other.test)} == {torch.float64}
    classes = ss.Problem(
        x, x % 2, lambda w, x: torch.stack([w[0] * x, w[1] * x], 1), "cross_entropy", [0.0, 0.0],
        test=(SECONDS, SECONDS % 2),
    )  # fmt: skip
    assert [t.dtype for t in classes.test] == [torch.float64, torch.int64]
    assert classes.y.dtype == torch.int64


def test_unix_seconds_are_told_apart_by_the_model():
    def since(w, x):
        return w[0] * (x - 1_700_000_000) + w[1]

    problem = fit(SECONDS, (SECONDS - SECONDS[0]) / 2000, model=since)
    assert len(set(problem.x.tolist())) == 2000
    assert problem.least_squares.least_loss < 1e-12


def test_the_notebooks_data_stay_float32():
    assert ss.problems.curve(0.1).dtype == torch.float32
    assert ss.problems.digits().dtype == torch.float32


@pytest.mark.parametrize(
    "x",
    [
        *[
            np.array([2**53 + 1, 0]),
            np.array([2**64 - 1, 0], np.uint64),
            np.array([2**63 + 1024, 0], np.uint64),
        ],
        *[np.array([-(2**63) + 1, 0]), np.array([2**62 + 256, 0]), [2**63 + 1, 2**63]],
    ],
)
def test_whole_numbers_that_no_float_holds_are_refused(x):
    with pytest.raises(ss.InputError, match="2\\*\\*53") as error:
        fit(x, np.arange(2))
    assert one_line(error)


class Items(Dataset):
    """Items as a person's own `Dataset` gives them."""

    def __init__(self, x, y=None):
        self.pairs = list(zip(x, np.arange(len(x)) if y is None else y, strict=True))

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, i):
        return self.pairs[i]


ITEMS = {
    "Python's floats": [float(v) for v in SECONDS],
    "Python's integers": SECONDS.tolist(),
    "lists with a half": [[2**24 + 1 + i, 0.5] for i in range(2000)],
    "numpy's rows": list(np.stack([SECONDS, SECONDS], 1)),
    "tensors of two kinds": [torch.tensor([2**24 + 1]), *torch.full((1999, 1), 0.5)],
}


@pytest.mark.parametrize("x", ITEMS.values(), ids=ITEMS)
@pytest.mark.parametrize("form", [Items, lambda x: DataLoader(Items(x), batch_size=7)])
def test_items_of_a_dataset_are_read_as_the_same_numbers_in_a_list(x, form):
    problem = ss.Problem(form(x), None, first, w_init=[0.0, 0.0])
    assert problem.dtype == torch.float64
    assert problem.x.tolist() == [np.asarray(v).tolist() for v in x]


class Drawn(Items):
    def __getitem__(self, i):
        x, y = self.pairs[i]
        return x + torch.randn(()), y


class Counted(Items):
    """Of which one target in the middle counts how often it was asked for."""

    asked = 0

    def __getitem__(self, i):
        self.asked += i == 16
        return self.pairs[i][0], self.asked if i == 16 else self.pairs[i][1]


@pytest.mark.parametrize("made", [Drawn, Counted])
@pytest.mark.parametrize("form", [lambda x: x, lambda x: DataLoader(x, batch_size=7)])
def test_items_that_are_others_when_they_are_read_again_are_refused(made, form):
    with pytest.raises(ss.InputError, match=r"item (0|16) is another one each time") as error:
        ss.Problem(form(made(torch.arange(30.0))), None, line, w_init=[0.0, 0.0])
    assert one_line(error)


def test_items_that_are_no_numbers_are_not_numbers_the_second_time_either():
    holes = Items([1.0, float("nan")])
    with pytest.raises(ss.InputError, match="remove or replace them"):
        ss.Problem(holes, None, line, w_init=[0.0, 0.0])


class Ours(DataLoader):
    def __iter__(self):
        return ((2 * x, y) for x, y in super().__iter__())


TEN = Items(torch.arange(10.0))
OWN_LOADERS = {
    "collate_fn": {"collate_fn": lambda items: torch.tensor(items) * 2},
    "collate_fn ": {"collate_fn": lambda items: items, "batch_size": None},
    "sampler": {"sampler": WeightedRandomSampler([1.0] * 10, 4)},
    "sampler ": {"sampler": SubsetRandomSampler(range(3))},
    "sampler  ": {"sampler": SequentialSampler(range(3))},
    "sampler   ": {"sampler": RandomSampler(TEN, replacement=True)},
    "sampler    ": {"sampler": RandomSampler(TEN, num_samples=3)},
    "batch_sampler": {"batch_sampler": [[0, 1], [2, 3]]},
    "batch_sampler ": {"batch_sampler": BatchSampler(SubsetRandomSampler(range(3)), 2, False)},
}


@pytest.mark.parametrize("name", OWN_LOADERS)
def test_what_a_loader_does_of_its_own_is_not_dropped(name):
    for dataset in (TEN, TensorDataset(torch.arange(10.0), torch.arange(10.0))):
        with pytest.raises(ss.InputError, match=f"its own {name.strip()}") as error:
            ss.Problem(DataLoader(dataset, **OWN_LOADERS[name]), None, line, w_init=[0.0, 0.0])
        assert one_line(error)


def test_a_loader_that_hands_out_something_else_is_refused():
    with pytest.raises(ss.InputError, match="its own __iter__"):
        ss.Problem(Ours(TEN), None, line, w_init=[0.0, 0.0])


@pytest.mark.parametrize(
    ("given", "batches"),
    [
        ({"shuffle": True, "batch_size": 4}, "batch_size=4"),
        ({"generator": torch.Generator(), "shuffle": True, "batch_size": 10}, ""),
        ({"shuffle": True, "drop_last": True, "batch_size": 4}, "batch_size=4, drop_last=True"),
        ({"batch_size": None}, ""),
        ({"drop_last": True}, ""),
        ({"sampler": RandomSampler(TEN), "num_workers": 0}, ""),
        ({"batch_sampler": BatchSampler(SequentialSampler(TEN), 3, False)}, "batch_size=3"),
    ],
)
def test_a_loader_of_torchs_own_ways_is_its_dataset(given, batches, caplog):
    """Whose batches are not used, which one line says; of test data there are none."""
    held_out = DataLoader(TEN, batch_size=3)
    problem = ss.Problem(
        DataLoader(TEN, **given), None, line, w_init=[0.0, 0.0], test=held_out
    ).replace(name="other")
    assert problem.x.tolist() == problem.test[0].tolist() == list(range(10))
    note = f"the DataLoader's {batches} is not used: give {batches} to the training"
    assert caplog.messages == ([note] if batches else [])


def test_targets_of_a_dataset_are_so_too_and_narrow_ones_stay_float32():
    wide, narrow = Items(torch.arange(2000.0), SECONDS.tolist()), Items(torch.arange(30.0))
    assert ss.Problem(wide, None, line, w_init=[0.0, 0.0]).y.tolist() == SECONDS.tolist()
    assert ss.Problem(narrow, None, line, w_init=[0.0, 0.0]).dtype == torch.float32


# ---- which values -------------------------------------------------------------------------------

SWAPPED = ">" if np.little_endian else "<"
FORMS = {
    "backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "backwards, a matrix": lambda x: np.stack([x, x])[::-1, ::-1][0][::-1],
    "swapped bytes": lambda x: x.astype(f"{SWAPPED}f8"),
    "swapped bytes, whole": lambda x: (8 * x).astype(f"{SWAPPED}i4") / 8,
    "swapped bytes, integers": lambda x: (8 * x).astype(f"{SWAPPED}i8"),
    "longdouble": lambda x: x.astype(np.longdouble),
    "objects": lambda x: x.astype(object),
    "object column": lambda x: pd.Series(list(x), dtype=object),
    "fractions": lambda x: [Fraction(v) for v in x],
    "decimals": lambda x: [Decimal(v) for v in x],
    "mixed": lambda x: [int(v) if v == int(v) else v for v in x],
    "nullable column": lambda x: pd.Series(x).convert_dtypes(),
    "the other name of int64": lambda x: (8 * x).astype("q"),
    "the other name of uint64": lambda x: (8 * x + 128).astype("Q"),
    "the other name, swapped": lambda x: (8 * x).astype(np.dtype("q").newbyteorder(SWAPPED)),
    "field of a record": lambda x: np.array(
        [(v, 1) for v in x], dtype=[("value", "f8"), ("flag", "i1")]
    )["value"],
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_the_same_numbers_gives_the_same_problem(form):
    x = np.arange(-16, 16) / 8
    problem = fit(form(x), np.arange(32.0))
    assert np.array_equal(problem.x.double().numpy(), np.array([float(v) for v in form(x)]))
    assert ss.train(problem, lr=1e-3, batch_size=5, epochs=1).n_steps[0] == 7


REFUSED = {
    "a longdouble with more digits": np.array([np.longdouble(1) / 3, 0]),
    "a decimal with more digits": [Decimal("0.1"), Decimal(1)],
    "a third": [Fraction(1, 3), Fraction(1)],
    "a huge whole number and a half": [2**53 + 1, 0.5],
    "a table with a huge whole number": pd.DataFrame({"a": [2**53 + 1, 0], "b": [0.5, 1]}),
    "a table of unsigned and others": pd.DataFrame({"a": np.uint64([2**63 + 1, 0]), "b": [-1, 1]}),
    "numpy's own huge whole numbers": [np.uint64(2**63 + 1), np.int64(-1)],
    "huge and narrow columns": [np.array([2**53 + 1, 1]), np.array([0.5, 0.5])],
    "nested": torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged),
    "beyond float64": [10**400, 0],
    "None": [1.0, None],
    "text": np.array([1.0, "2.0"], object),
    "a missing value": pd.Series([1, None], dtype="Int64"),
    "a date": np.array([np.datetime64("2026-01-01"), 1], object),
    "complex objects": np.array([1j, 1], object),
    "not a number": np.array([float("nan"), 1], object),
    "lists": np.array([[1], [2, 3]], object),
}


@pytest.mark.skipif(np.finfo(np.longdouble).nmant == 52, reason="longdouble is float64 here")
def test_longdouble_is_longer_here():
    assert np.longdouble(1) / 3 != float(np.longdouble(1) / 3)


@pytest.mark.parametrize("x", REFUSED.values(), ids=REFUSED)
def test_what_float64_does_not_hold_exactly_is_refused_in_one_line(x):
    if isinstance(x, np.ndarray) and x.dtype == np.float64:
        pytest.skip("longdouble is float64 here")
    with pytest.raises(ss.InputError) as error:
        fit(x, np.arange(2))
    assert one_line(error)


ROWS = [np.ma.array([-9999.0, 1.0], mask=[1, 0]), np.ma.array([2.0, 3.0], mask=[0, 0])]
UNDER_A_MASK = {
    "rows": ROWS,
    "one column": np.ma.array([-9999.0, 1.0], mask=[1, 0]),
    "a tuple in a list": [(ROWS[0][0], 1.0), (2.0, 3.0)],
    "the constant": [np.ma.masked, 1.0],
    "a deque": deque(ROWS),
    "whole numbers": [ROWS[0].astype(int), [1, 2]],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("x", UNDER_A_MASK.values(), ids=UNDER_A_MASK)
def test_what_lies_under_a_mask_is_no_data_however_deep(x):
    given = {"model": first, "w_init": [0.0, 0.0]}
    fine = [[1.0, 2.0], [3.0, 4.0]]
    for make in (
        lambda: fit(x, [0, 1], **given),
        lambda: fit(fine, [0, 1], test=(x, [0, 1]), **given),
        lambda: ss.Problem(Items(x), None, **given),
    ):
        with pytest.raises(ss.InputError, match="masked in places") as error:
            make()
        assert one_line(error)


def test_masks_that_hide_nothing_are_none():
    shown = [np.ma.array([0.5, 1.0], mask=[0, 0]), ROWS[1]]
    problem = fit(shown, [0, 1], model=lambda w, x: x @ w)
    assert problem.x.tolist() == [[0.5, 1.0], [2.0, 3.0]]


# ---- objects whose own methods go wrong ------------------------------------------------------


class Odd:
    """What numpy asks of it raises."""

    def __init__(self, error, of=("__len__", "__getitem__")):
        self.error = error
        names = {name: self._fail for name in of}
        self.__class__ = type("Odd", (Odd,), names)

    def _fail(self, *given, **named):
        raise self.error


class Quits(BaseException):
    """No `Exception`."""


@pytest.mark.parametrize("error", [SystemExit(3), Quits("no"), ValueError("no")])
@pytest.mark.parametrize("of", [("__array__",), ("__len__", "__getitem__"), ("__getitem__",)])
def test_an_object_that_raises_what_it_likes_is_one_line(error, of):
    odd, x = Odd(error, of), np.arange(3.0)
    for a, b in ((odd, x), (x, odd)):
        with pytest.raises(ss.InputError, match="of the data is not an array of numbers") as told:
            ss.Problem(a, b, line, w_init=[0.0, 0.0])
        assert one_line(told)
    with pytest.raises(ss.InputError, match="w_init is not an array"):
        ss.Problem(x, x, line, w_init=odd)


@pytest.mark.parametrize("of", ["__index__", "__repr__"])
def test_a_setting_that_raises_what_it_likes_is_one_line(of):
    with pytest.raises(ss.InputError, match="batch_size must be a whole number"):
        ss.train("curve", lr=1e-4, batch_size=Odd(SystemExit(3), (of,)))


def test_a_ctrl_c_while_data_are_read_is_heard():
    with pytest.raises(KeyboardInterrupt):
        ss.Problem(Odd(KeyboardInterrupt(), ("__array__",)), np.arange(3.0), line)


class Long(Dataset):
    """More items than there can be."""

    def __len__(self):
        return 2**62

    def __getitem__(self, i):
        if i > 1000:
            raise AssertionError("it is read")
        return float(i), float(i)


@pytest.mark.parametrize("x", [Long(), range(2**62), DataLoader(Long(), batch_size=2)])
def test_what_says_that_it_is_longer_than_memory_is_not_read(x):
    y = np.arange(3.0) if isinstance(x, range) else None
    with pytest.raises(ss.InputError, match="4,611,686,018,427,387,904 values") as error:
        ss.Problem(x, y, line, w_init=[0.0, 0.0])
    assert one_line(error)


# ---- what is not numbers ---------------------------------------------------------------------

TEXT, TIMES = ["a", "b", "a"], np.array(["2020-01-01", "2020-01-02", "2020-01-04"], "M8[D]")
OTHERS = {
    "text": (np.array(TEXT), "'a'; number classes"),
    "a list of text": (TEXT, "'a'; number classes"),
    "bytes": (np.array(TEXT, "S"), "b'a'; number classes"),
    "text of any length": (np.array(TEXT, np.dtypes.StringDType()), "'a'; number classes"),
    "objects": (np.array(TEXT, object), "'a'; number classes"),
    "a column": (pd.Series(TEXT), "'a'; number classes"),
    "categories": (pd.Categorical(TEXT), "'a'; number classes"),
    "times": (TIMES, "np.datetime64('2020-01-01'); count from one"),
    "nanoseconds": (pd.Series(pd.to_datetime(TIMES)), "count from one"),
    "a time zone": (pd.Series(pd.to_datetime(TIMES).tz_localize("UTC")), "count from one"),
    "differences": (TIMES - TIMES[0], "count from one"),
    "fields": (np.zeros(3, [("a", int), ("b", float)]), "put its columns side by side"),
    "nothing": ([None] * 3, "None; remove or replace"),
    "sparse": (scipy.sparse.csr_array(np.eye(3)), "is sparse; give its .toarray()"),
    "a sparse matrix": (scipy.sparse.coo_matrix(np.eye(3)), "is sparse; give its .toarray()"),
    "a sparse tensor": (torch.eye(3).to_sparse(), "sparse"),
}


@pytest.mark.parametrize(("given", "words"), OTHERS.values(), ids=OTHERS)
def test_what_is_not_numbers_is_named_with_a_remedy_wherever_it_stands(given, words):
    numbers = np.arange(3.0)
    whole = {"x": numbers, "y": numbers, "w_init": [0.0, 0.0], "test": None}
    for where in ({"x": given}, {"y": given}, {"test": (numbers, given)}, {"w_init": given}):
        with pytest.raises(ss.InputError, match=re.escape(words)) as told:
            ss.Problem(model=line, **(whole | where))
        assert one_line(told)
        assert "The only supported types" not in str(told.value)


def test_the_remedies_are_numbers():
    classes = np.unique(TEXT, return_inverse=True)[1]
    assert ss.Problem(np.arange(3.0), classes, line, w_init=[0.0, 0.0]).y.tolist() == [0, 1, 0]
    days = (TIMES - TIMES[0]) / np.timedelta64(1, "D")
    assert ss.Problem(days, classes, line, w_init=[0.0, 0.0]).x.tolist() == [0, 1, 3]
