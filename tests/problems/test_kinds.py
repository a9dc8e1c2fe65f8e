"""Data as people have them, and models that cannot be batched."""

import logging

import numpy as np
import pytest
import torch
from conftest import one_line
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import sgdstudy as ss

DRAW = np.random.default_rng(0)
X, C = DRAW.normal(size=(30, 8)).astype("f"), DRAW.integers(0, 3, 30)
GIVEN = {"lr": 0.1, "batch_size": 8, "epochs": 2, "order": "sequential"}


def linear():
    torch.manual_seed(0)
    return nn.Linear(8, 3)


class Pairs(Dataset):
    def __init__(self, n=30):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return torch.tensor(X[i]), int(C[i])


class Bare(Pairs):
    def __getitem__(self, i):
        return X[i]


class Dicts(Pairs):
    def __getitem__(self, i):
        return {"x": X[i], "label": int(C[i])}


class HoldsDicts(Pairs):
    def __getitem__(self, i):
        return {"a": X[i, :3], "b": X[i, 3:]}, int(C[i])


class Endless(IterableDataset):
    def __iter__(self):
        return iter([])


TENSORS = TensorDataset(torch.tensor(X), torch.tensor(C))


@pytest.mark.parametrize("given", [TENSORS, Pairs(), DataLoader(TENSORS, 4), DataLoader(Pairs())])
@pytest.mark.parametrize("test", [Pairs(7), (Pairs(7), None), DataLoader(Pairs(7), 4)])
def test_a_dataset_is_its_items(given, test):
    arrays = ss.Problem(X, C, linear(), loss="cross_entropy", test=(X[:7], C[:7]))
    found = ss.Problem(given, None, linear(), loss="cross_entropy", test=test)
    assert found.digest == arrays.digest
    both = [ss.train(problem, **GIVEN) for problem in (arrays, found)]
    assert np.array_equal(both[0].w, both[1].w)
    assert both[0].epochs["test_loss"].equals(both[1].epochs["test_loss"])


class Sparse:
    def toarray(self):
        return X


@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        (TENSORS, C, "give y=None"),
        (Endless(), None, "is a stream"),
        (Bare(), None, "not pairs"),
        (TensorDataset(torch.tensor(X)), None, "not pairs"),
        ({"a": X}, C, r"is a dict; put its arrays side by side.*docs/training\.md"),
        (Dicts(), None, r"they are dicts: put their arrays side by side.*docs/training\.md"),
        (HoldsDicts(), None, r"they are dicts: put their arrays side by side"),
        (Sparse(), C, r"give its \.toarray\(\)"),
    ],
)
def test_what_is_no_data_is_one_line_that_says_what_to_do(x, y, match):
    with pytest.raises(ss.InputError, match=match) as error:
        ss.Problem(x, y, linear(), loss="cross_entropy")
    assert one_line(error)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(20, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.words(x).mean(1))


def test_whole_numbers_reach_embeddings_as_such():
    """As a loop in torch trains them."""
    x = DRAW.integers(0, 20, (30, 5))
    torch.manual_seed(0)
    net = Words()
    problem = ss.Problem(x, C, net, loss="cross_entropy")
    history = ss.train(problem, seeds=range(2), **GIVEN)
    optimizer = torch.optim.SGD(net.parameters(), lr=GIVEN["lr"])
    for _ in range(2):
        for begin in range(0, 30, 8):
            batch = slice(begin, begin + 8)
            optimizer.zero_grad()
            out = net(torch.tensor(x[batch]))
            nn.functional.cross_entropy(out, torch.tensor(C[batch])).backward()
            optimizer.step()
    expected = torch.cat([p.detach().flatten() for p in net.parameters()]).numpy()
    assert np.allclose(history.w, expected, atol=1e-6)
    again = history.module(1)(torch.tensor(x))
    assert torch.allclose(again, net(torch.tensor(x)), atol=1e-5)
    with pytest.raises(ss.InputError, match="the module failed on x"):
        ss.Problem(x + 0.5, C, Words(), loss="cross_entropy")


class Mixed(nn.Module):
    """The recipe of docs/training.md for a dict of inputs."""

    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(20, 6), nn.Linear(6 + 8, 3)

    def forward(self, x):
        word, rest = x[:, 0].long(), x[:, 1:]
        return self.out(torch.cat([self.words(word), rest], 1))


def test_a_dict_of_inputs_is_trained_as_columns_that_the_model_splits():
    """As a loop in torch trains the dict."""
    inputs = {"word": DRAW.integers(0, 20, 30), "rest": X}
    torch.manual_seed(0)
    net = Mixed()
    x = np.column_stack([inputs["word"], inputs["rest"]]).astype("f")
    problem = ss.Problem(x, C, net, loss="cross_entropy")
    history = ss.train(problem, seeds=range(2), **GIVEN)
    optimizer = torch.optim.SGD(net.parameters(), lr=GIVEN["lr"])
    for _ in range(2):
        for begin in range(0, 30, 8):
            batch = {name: torch.tensor(part[begin : begin + 8]) for name, part in inputs.items()}
            optimizer.zero_grad()
            out = net.out(torch.cat([net.words(batch["word"]), batch["rest"]], 1))
            nn.functional.cross_entropy(out, torch.tensor(C[begin : begin + 8])).backward()
            optimizer.step()
    expected = torch.cat([p.detach().flatten() for p in net.parameters()]).numpy()
    assert np.allclose(history.w, expected, atol=1e-6)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.GRU(2, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.rnn(x.reshape(len(x), 4, 2))[0][:, -1])


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        y = self.out(x)
        return y if y.sum().item() > 0 else 2 * y


@pytest.mark.parametrize("kind", [Recurrent, Branching])
def test_what_cannot_be_batched_runs_replica_by_replica_and_says_so(kind, caplog):
    torch.manual_seed(0)
    problem = ss.Problem(X, C, kind(), loss="cross_entropy", init="default")
    given = {**GIVEN, "order": "shuffle"}
    with caplog.at_level(logging.WARNING, "sgdstudy"):
        together = ss.train(problem, seeds=range(3), **given)
    assert sum("one by one" in r.message for r in caplog.records) == 1
    for seed in range(3):
        alone = ss.train(problem, seeds=(seed,), **given)
        assert np.array_equal(alone.w[0], together.w[seed])


def test_a_lazy_module_is_one_line():
    with pytest.raises(ss.InputError, match="call the module once") as error:
        ss.Problem(X, C, nn.LazyLinear(3), loss="cross_entropy")
    assert one_line(error)
