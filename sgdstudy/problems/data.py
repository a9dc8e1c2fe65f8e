"""What people give as data, as tensors of a kind that a run can use."""

from __future__ import annotations

import hashlib
import logging
import mmap
import numbers
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
    default_convert,
)

from sgdstudy.errors import InputError, quoted, reason
from sgdstudy.language import say, to_say

log = logging.getLogger("sgdstudy")
DTYPES = {"float32": torch.float32, "float64": torch.float64}
WHOLE = {getattr(torch, f"{u}int{bits}") for u in ("", "u") for bits in (8, 16, 32, 64)}
READABLE = {*DTYPES.values(), *WHOLE, torch.bool}
CHECKED_AT_ONCE = 4_000_000  # values; a check holds a mark for each
COPIED = 2**28  # bytes; larger data, and maps of files, stay where they are
READ_AGAIN = 2**20  # bytes of each array that a look whether it changed reads
READ_OF_MAPS = 2**26  # bytes of data left where they are that a digest reads
LEAST_VALUE = 8  # bytes of a value in a list, at the least
READ_TWICE = 16  # items of a Dataset, evenly spread: whether they are the same then
REMEDIES: dict[tuple[type, ...], str] = {  # of what is not a number
    (str, bytes): "number classes, as np.unique(values, return_inverse=True)[1], and read numbers, "
    "as np.asarray(values, float)",
    (date, timedelta, np.datetime64, np.timedelta64): "count from one of them, as "
    "(values - values[0]) / np.timedelta64(1, 's')",
    (np.void,): "put its columns side by side, as np.column_stack",
    (object,): "remove or replace what is not a number",
}
STRETCHES = 64  # of an array, evenly spread, that a look at a part of it reads


@dataclass(frozen=True)
class Held:
    """A tensor that a problem has taken over; whether it stayed where it lay."""

    tensor: torch.Tensor
    stayed: bool


def pair(test: Any) -> tuple[Any, Any]:
    """Return test data as x and y; of a Dataset or a DataLoader y is None, as of the data."""
    if isinstance(test, (Dataset, DataLoader)):
        return test, None
    if not isinstance(test, (tuple, list)) or len(test) != 2:
        raise InputError(f"test is a pair (x, y), a Dataset or None, not {quoted(test)}")
    return test[0], test[1]


def samples(x: Any, y: Any, loss: Any, what: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and targets, copied, of the same dtype; classes are whole numbers.

    The dtype is float64 where x is, or where x or y hold a value that float32 does not hold
    exactly; else float32. Maps of files and data of more than `COPIED` bytes are not copied.
    """
    for name, values in (("x", x), ("y", y)):
        if isinstance(values, nn.Module):
            raise InputError(f"{name} of {what} is a module: the order is Problem(x, y, model)")
    x, y = _of_dataset(x, y, what)
    given = {"x": x, "y": y}
    x, y = (as_tensor(values, f"{name} of {what}") for name, values in given.items())
    if x.dim() == 0 or x.numel() == 0:
        shape = tuple(x.shape)
        raise InputError(f"x of {what} has shape {shape}; expected (d,) or (d, n), not empty")
    if y.dim() == 0 or len(x) != len(y):
        shapes = f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}"
        raise InputError(f"{what}: {shapes}; expected the same number of samples")
    classes = loss == "cross_entropy"
    if classes and (y.is_floating_point() or y.dim() != 1 or int(y.to(torch.int64).min()) < 0):
        raise InputError(f"{what}: cross_entropy needs y (d,) of integer classes 0, 1, ...")
    dtype = _least_dtype([x] if classes else [x, y])
    wanted = {"x": dtype, "y": torch.int64 if classes else dtype}
    found = []
    for (name, values), tensor in zip(given.items(), (x, y), strict=True):
        if not holds(wanted[name], tensor):
            raise InputError(
                f"{name} of {what} holds whole numbers beyond 2**53, which float64 does not hold; "
                f"subtract the least of them, or divide"
            )
        found.append(_owned(tensor.to(wanted[name]), tensor, values))
    return found[0], found[1]


def _of_dataset(x: Any, y: Any, what: str) -> tuple[Any, Any]:
    """Return the items of a Dataset of pairs, or of a DataLoader's, read once; others as they are.

    Raises:
        InputError: its items are no pairs of numbers, it cannot be read by index, its items differ
            when they are read again, a DataLoader changes or chooses them, or x is of a kind that
            has to be turned into an array.
    """
    if isinstance(x, Mapping):
        raise InputError(
            f"x of {what} is a dict; put its arrays side by side, as np.column_stack, and split "
            f"them in the model (docs/training.md)"
        )
    if isinstance(x, DataLoader):
        _require_plain(x, what)
        x = x.dataset
    if not isinstance(x, Dataset):
        return x, y
    if y is not None or isinstance(x, IterableDataset):
        raise InputError(
            f"x of {what} is a Dataset, which holds the targets: give y=None; what can only be "
            f"iterated is a stream, see ss.Problem(stream=...)"
        )
    if isinstance(x, TensorDataset) and len(x.tensors) == 2:
        return x.tensors
    try:
        _require_few(x)
        items = [x[i] for i in range(len(x))]  # type: ignore[arg-type]
        if any(isinstance(part, Mapping) for item in items[:1] for part in (item, *item)):
            raise TypeError("they are dicts: put their arrays side by side, see docs/training.md")
        inputs, targets = (_together(part) for part in zip(*items, strict=True))
        for i in range(0, len(items), -(-len(items) // READ_TWICE)):
            if not _alike(items[i], x[i], what):
                raise InputError(
                    f"x of {what} is a Dataset whose item {i} is another one each time it is read, "
                    f"as where it draws or counts; give what it is to be as arrays"
                )
    except (KeyboardInterrupt, InputError):
        raise
    except BaseException as error:  # whatever its own methods raise
        raise InputError(
            f"x of {what} is a Dataset whose items are not pairs (x, y) of numbers of one shape "
            f"({reason(error)})"
        ) from error
    return inputs, targets


def _require_plain(loader: DataLoader[Any], what: str) -> None:
    """Refuse a DataLoader that hands out anything but all items of its dataset, as they are."""
    own, dataset = [], loader.dataset
    if loader.collate_fn not in (default_collate, default_convert):
        own.append("collate_fn")
    batches = loader.batch_sampler
    for name, sampler in (("sampler", loader.sampler), ("batch_sampler", batches)):
        if type(sampler) is BatchSampler:
            sampler = sampler.sampler
        if not (sampler is None or _takes_all(sampler, dataset)):
            own.append(name)
    if type(loader).__iter__ is not DataLoader.__iter__:
        own.append("__iter__")
    if own and not isinstance(dataset, IterableDataset):
        raise InputError(
            f"x of {what} is a DataLoader with its own {own[0]}, which is not called: its Dataset "
            f"is read item by item; give arrays, and order=... and batch_size=... to the training"
        )


def note_batches(x: Any) -> None:
    """Say in one line that batches of a size which a DataLoader was given are not used."""
    batches = x.batch_sampler if isinstance(x, DataLoader) else None
    if isinstance(batches, BatchSampler) and 1 < batches.batch_size < len(x.dataset):
        size, also = batches.batch_size, ", drop_last=True" * batches.drop_last
        text = to_say("the DataLoader's {given} is not used: give {given} to the training")
        log.warning("%s", say(text, given=f"batch_size={size}{also}"))


def _takes_all(sampler: Any, dataset: Any) -> bool:
    """Whether a sampler is one that torch takes of its own: each item once an epoch."""
    if getattr(sampler, "data_source", None) is not dataset:
        return False
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    return type(sampler) is SequentialSampler


def _alike(item: Any, again: Any, what: str) -> bool:
    """Whether two pairs hold the same numbers; NaN is NaN."""
    for name, one, two in zip("xy", item, again, strict=True):
        a, b = (as_tensor(v, f"{name} of {what}", False).numpy(force=True) for v in (one, two))
        if not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            return False
    return True


def _require_few(values: Any) -> None:
    """Refuse more values than memory could hold, before they are asked for."""
    if isinstance(values, (np.ndarray, torch.Tensor)) or not hasattr(values, "__len__"):
        return
    if (n := len(values)) * LEAST_VALUE > psutil.virtual_memory().total:
        raise InputError(f"{quoted(values)} says that it holds {n:,} values: memory has no room")


def _together(items: tuple[Any, ...]) -> Any:
    """Return items of a Dataset as one tensor where they are tensors of a kind, else as a list."""
    kinds = {v.dtype if isinstance(v, torch.Tensor) else None for v in items}
    return torch.stack(items) if len(kinds) == 1 and None not in kinds else list(items)


def _least_dtype(tensors: list[torch.Tensor]) -> torch.dtype:
    """Return float32 where it holds all the values, and x, the first, is not float64 already."""
    if tensors[0].dtype == torch.float64:
        return torch.float64
    narrow = all(holds(torch.float32, tensor) for tensor in tensors)
    return torch.float32 if narrow else torch.float64


def holds(dtype: torch.dtype, tensor: torch.Tensor) -> bool:
    """Whether a dtype holds every value of a tensor exactly."""
    if tensor.dtype in (dtype, torch.bool):
        return True
    if dtype == torch.int64:
        # beyond 2**62 a float may not fit
        return not tensor.is_floating_point() or all(
            bool(((block == block.trunc()) & (block.abs() < 2**62)).all())
            for block in _blocks(tensor)
        )
    if tensor.is_floating_point():
        return dtype == torch.float64 or all(
            torch.equal(block.to(dtype).to(block.dtype), block) for block in _blocks(tensor)
        )
    return all(_hold_whole(dtype, block) for block in _blocks(tensor))


def _hold_whole(dtype: torch.dtype, given: torch.Tensor) -> bool:
    """Whether a dtype holds whole numbers."""
    block, exact = given.to(torch.int64), 2**24 if dtype == torch.float32 else 2**53
    if given.dtype == torch.uint64:  # from 2**63 on they turn negative; their halves do not
        beyond = block < 0
        if bool((block[beyond] & 1).any()):
            return False
        block = torch.where(beyond, (block >> 1) & (2**63 - 1), block)
    if int(block.min()) >= -exact and int(block.max()) <= exact:
        return True
    lowest = block & -block  # the last bit that is set
    digits = block // torch.where(lowest == 0, 1, lowest)
    return int(digits.min()) >= -exact and int(digits.max()) <= exact


def _owned(tensor: torch.Tensor, read: torch.Tensor, given: Any) -> torch.Tensor:
    """Return a tensor that the caller does not write into, where it fits into memory twice."""
    if tensor is not read or isinstance(given, Held) or stays(tensor, given):
        return tensor
    return tensor.clone()


def stays(tensor: torch.Tensor, given: Any) -> bool:
    """Whether data are used where they lie: they are a map of a file, or large."""
    if isinstance(given, Held):
        return given.stayed
    if tensor.numel() * tensor.element_size() > COPIED:
        return True
    while isinstance(given, np.ndarray):
        if isinstance(given, np.memmap):
            return True
        given = given.base
    return isinstance(given, mmap.mmap)


def digest(tensors: Any, most: int | None = None) -> str:
    """Return a fingerprint of tensors, `(16 characters)`.

    Args:
        tensors: one or several.
        most: bytes of each that are read, in stretches spread evenly over it; None: all of it.
    """
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        for part in _stretches(tensor.detach(), most):
            sha.update(part.cpu().contiguous().numpy().data)
    return sha.hexdigest()[:16]


def _stretches(tensor: torch.Tensor, most: int | None) -> list[torch.Tensor]:
    """Return the tensor, or some rows of it that take about `most` bytes."""
    size = tensor.numel() * tensor.element_size()
    if most is None or size <= most:
        return [tensor]
    rows = max(1, len(tensor) * most // size // STRETCHES)
    starts = np.linspace(0, len(tensor) - rows, STRETCHES).astype(int)
    return [tensor[start : start + rows] for start in np.unique(starts)]


def as_tensor(values: Any, what: str, finite: bool = True) -> torch.Tensor:
    """Return an array or tensor of numbers as a tensor, which may share the array's memory.

    Raises:
        InputError: no numbers, complex or half ones, or (where asked) any that are not finite;
            numbers that float64 does not hold exactly.
    """
    if isinstance(values, Held):
        return values.tensor
    try:
        if hasattr(values, "toarray"):
            raise InputError(f"{what} is sparse; give its .toarray()")
        _require_few(values)
        if _is_masked(values):
            raise InputError(f"{what} is masked in places; remove or replace them")
        if not isinstance(values, torch.Tensor):
            values = _for_torch(_array(values), what)
        with warnings.catch_warnings():  # arrays that are read only, as memory maps: we only read
            warnings.simplefilter("ignore", UserWarning)
            tensor = torch.as_tensor(values).detach()
    except (KeyboardInterrupt, InputError, MemoryError):
        raise
    except BaseException as error:  # whatever an object's own methods raise
        raise InputError(f"{what} is not an array of numbers ({reason(error)})") from None
    dense = tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_nested)
    dense &= not is_of_its_own(tensor)
    if tensor.dtype not in READABLE or not dense:
        kind = "" if dense else " that is sparse, nested, or has no data of its own"
        raise InputError(
            f"{what} is a tensor of {tensor.dtype}{kind}; expected float32, float64 or integers"
        )
    if finite:
        _refuse_holes(tensor, what, "remove or replace them")
    return tensor


def is_of_its_own(tensor: torch.Tensor) -> bool:
    """Whether a tensor is of a class that does operations its own way, as `FakeTensor`."""
    return type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__


def _is_masked(values: Any) -> bool:
    """Whether a value lies under a mask, however deep in lists, which numpy reads as data."""
    if hasattr(values, "__array__"):
        return bool(np.ma.is_masked(values))
    if isinstance(values, (str, bytes, bytearray, memoryview, Mapping)):
        return False
    nested = values if hasattr(values, "__getitem__") else ()
    return any(_is_masked(v) for v in nested if type(v) not in (float, int, bool))


def _array(values: Any) -> np.ndarray:
    """Return an array; one of objects where numpy would round whole numbers beside floats.

    That is in lists, and in tables whose columns are of several kinds.
    """
    array = np.asarray(values)
    rounds = not isinstance(values, np.ndarray) and array.dtype == float and array.size
    if not rounds or np.abs(array).max() < 2**53:
        return array
    # a table as an array is rounded first, whatever is asked for
    return np.array(values.astype(object) if hasattr(values, "astype") else values, object)


def _for_torch(array: np.ndarray, what: str) -> np.ndarray:
    """Return an array as torch reads it, with the very values of any that holds numbers."""
    if array.dtype.kind == "O":
        return _of_objects(array, what)
    if array.size and (array.dtype.kind in "USTmM" or array.dtype.names):
        raise _no_number(array.flat[0], what)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        with np.errstate(over="ignore"):
            narrow = array.astype(float)
        _refuse_rounding(array[(narrow != array) & ~np.isnan(array)].ravel(), what)
        return narrow
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    kind, size = native.dtype.kind, native.dtype.itemsize
    if kind in "iu":  # C has several types of one size, of which torch knows one
        native = native.view(f"{kind}{size}")
    odd = any(stride < 0 or stride % size for stride in native.strides)
    return native.copy() if odd else native


def _of_objects(array: np.ndarray, what: str) -> np.ndarray:
    """Return a column of Python's numbers as integers or float64, which hold each exactly."""
    values = array.ravel().tolist()
    # numpy's own compare with a float as floats, rounded
    values = [value.item() if isinstance(value, np.integer) else value for value in values]
    for value in values:
        if not isinstance(value, (numbers.Real, Decimal, np.bool_)):
            raise _no_number(value, what)
    if all(isinstance(value, (numbers.Integral, np.bool_)) for value in values):
        try:
            return np.array([int(value) for value in values], np.int64).reshape(array.shape)
        except OverflowError:
            pass  # float64 may hold it
    try:
        found = [float(value) for value in values]
    except OverflowError as error:
        raise InputError(f"{what} holds numbers beyond float64 ({reason(error)})") from None
    pairs = zip(values, found, strict=True)
    _refuse_rounding([v for v, f in pairs if v != f and not np.isnan(f)], what)
    return np.array(found, float).reshape(array.shape)


def _no_number(value: Any, what: str) -> InputError:
    """Build the error for a value of an array that is not a number."""
    remedy = next(words for kinds, words in REMEDIES.items() if isinstance(value, kinds))
    shown = quoted(value.item() if isinstance(value, (np.str_, np.bytes_)) else value)
    return InputError(f"{what} is not an array of numbers: it holds {shown}; {remedy}")


def _refuse_rounding(rounded: Any, what: str) -> None:
    if len(rounded):
        raise InputError(
            f"{what} holds {quoted(rounded[0])}, which float64 does not hold exactly; round "
            f"them yourself, as np.asarray(values, float)"
        )


def _blocks(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tensor.split(CHECKED_AT_ONCE) if tensor.dim() else (tensor,)


def _refuse_holes(tensor: torch.Tensor, what: str, remedy: str) -> None:
    if not tensor.is_floating_point():
        return
    bad = sum(block.numel() - int(torch.isfinite(block).sum()) for block in _blocks(tensor))
    if bad:
        raise InputError(f"{what} holds {bad} values that are not finite; {remedy}")


def cast(tensor: torch.Tensor, dtype: torch.dtype, what: str) -> torch.Tensor:
    """Return the tensor in another dtype, rounded to it, where that holds numbers so large."""
    if tensor.dtype == dtype:
        return tensor
    cast = tensor.to(dtype)
    _refuse_holes(cast, f"{what} in {str(dtype).removeprefix('torch.')}", "scale it down")
    return cast


def vector(values: Any, what: str, dtype: torch.dtype) -> torch.Tensor:
    """Return parameters `(p,)`, a copy, rounded to the dtype."""
    tensor = as_tensor(values, what)
    if tensor.dim() != 1 or len(tensor) == 0:
        raise InputError(f"{what} has shape {tuple(tensor.shape)}; expected (p,), as [0.0, 0.0]")
    return cast(tensor, dtype, what).clone()
