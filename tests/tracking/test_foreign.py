"""Rows that another program wrote, in any form: exact, or named and left out; others are read."""

import datetime
import decimal
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import sgdstudy as ss
from sgdstudy.history.rows import AXIS, Rows
from sgdstudy.tracking import parquet
from sgdstudy.tracking.export import export
from sgdstudy.tracking.foreign import require_numbers
from sgdstudy.tracking.invocation import Invocation
from sgdstudy.tracking.pack import pack
from sgdstudy.tracking.sink import RunSink
from sgdstudy.tracking.store import open_store

NOON = datetime.datetime(2026, 1, 1, 12)
KEYS = {"seed": pa.array([0, 0, 1]), "step": pa.array([0, 1, 0])}
NUMBERS = {"x": pa.array([1.0, 2.0, 3.0])}
ALL, NONE = [1.0, 2.0, 3.0], [np.nan] * 3


def with_x(values, kind=None, **more):
    return pa.table({**KEYS, **more, "x": values if kind is None else pa.array(values, kind)})


def keyed(name, values, kind=None):
    return pa.table({**KEYS, **NUMBERS, name: pa.array(values, kind)})


READ = {  # what is read of it: x, beside the numbers of a run of ours
    "plain": (with_x(ALL), ALL),
    "dictionary of numbers": (with_x(pa.array([1.0, 2.0, 3.0]).dictionary_encode()), ALL),
    "dictionary of seeds": (keyed("seed", [0, 0, 1]), ALL),
    "float16": (with_x(pa.array(np.array(ALL, np.float16))), ALL),
    "uint8": (with_x([1, 2, 3], pa.uint8()), ALL),
    "missing whole numbers": (with_x([1, None, 3], pa.int8()), [1, np.nan, 3]),
    "truth values": (with_x([True, False, True]), [1, 0, 1]),
    "missing truth values": (with_x([True, None, False]), [1, np.nan, 0]),
    "nothing": (with_x(pa.nulls(3)), NONE),
    "missing floats": (with_x([1.0, None, 3.0]), [1, np.nan, 3]),
    "no seed": (pa.table({"step": KEYS["step"], **NUMBERS}), [1, 3, 2]),
    "no step": (pa.table({"seed": KEYS["seed"], **NUMBERS}), ALL),
    "neither": (pa.table(NUMBERS), ALL),
    "seeds as floats": (keyed("seed", [0.0, 0.0, 1.0]), ALL),
    "steps as floats": (keyed("step", [0.0, 1.0, 0.0]), ALL),
    "negative seeds": (keyed("seed", [-2, -2, -1]), ALL),
    "another name": (pa.table({**KEYS, "X": NUMBERS["x"]}), NONE),
    "no name": (with_x(ALL, **{"": pa.array([1, 2, 3])}), ALL),
    "a name with a point": (with_x(ALL, **{"x.y": pa.array([1, 2, 3])}), ALL),
    "texts of its own": (with_x(ALL, phase=pa.array(["warm", None, "cold"])), ALL),
    "dictionary of texts of its own": (
        with_x(ALL, phase=pa.array(["warm", None, "cold"]).dictionary_encode()),
        ALL,
    ),
    "truth values of its own": (with_x(ALL, warm=pa.array([True, False, True])), ALL),
    "more rows": (pa.concat_tables([with_x(ALL)] * 2), [1, 1, 2, 2, 3, 3]),
    "no rows": (with_x(ALL).slice(0, 0), []),
    "many columns": (with_x(ALL, **{f"c{n}": pa.array([1, 2, 3]) for n in range(150)}), ALL),
}
NO_UTF8 = pa.Array.from_buffers(pa.string(), 3, pa.array([b"caf\xe9", b"b", b"c"]).buffers())
WIDE = pa.DictionaryArray.from_arrays([0] * 20_000, ["z" * 100_000])  # 2 GB, of 100 kB in a file
COUNTED = pa.proxy_memory_pool(pa.default_memory_pool())  # it outlives what is taken from it
LEFT = {  # the column x, or whichever is named, is left out
    "texts where others have numbers": with_x(["a", "b", None]),
    "long texts": with_x(["a", "b", None], pa.large_string()),
    "views of texts": with_x(["a", "b", None], pa.string_view()),
    "dictionary": with_x(pa.array(["a", None, "a"]).dictionary_encode()),
    "struct": with_x([{"a": 1}, {"a": 2}, None]),
    "struct, and a name like its field": with_x([{"b": 1}] * 3, **{"x.b": pa.array([1, 2, 3])}),
    "list": with_x([[1.0], [2.0, 3.0], None]),
    "list of one length": with_x([[1.0, 2.0]] * 3, pa.list_(pa.float64(), 2)),
    "map": with_x([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
    "timestamp": with_x([NOON, None, NOON]),
    "timestamp of a zone": with_x([NOON] * 3, pa.timestamp("ns", "Europe/Paris")),
    "date": with_x([NOON.date()] * 3),
    "time": with_x([NOON.time()] * 3),
    "duration": with_x([datetime.timedelta(1)] * 3),
    "decimal": with_x([decimal.Decimal("1.5")] * 3),
    "bytes": with_x([b"a", b"\xff", None]),
    "uuid": with_x([b"0" * 16] * 3, pa.uuid()),
    "missing whole numbers that are no floats": with_x([2**53 + 1, None, 1]),
    "texts that are not UTF-8": with_x(["a"] * 3, t=NO_UTF8),
    "texts that are not UTF-8, as a dictionary": with_x(["a"] * 3, t=NO_UTF8.dictionary_encode()),
    "our labels": with_x(["a"] * 3, arm=pa.array(["b", "c", "d"]), run_id=pa.array([1, 2, 3])),
}
REFUSED = {  # all its rows are
    "seeds as texts": keyed("seed", ["0", "0", "1"]),
    "missing seeds": keyed("seed", [0, None, 1]),
    "half seeds": keyed("seed", [0.5, 1.0, 2.0]),
    "seeds that are no numbers": keyed("seed", [np.nan, 1.0, 2.0]),
    "large seeds": keyed("seed", [2**64 - 1, 0, 0], pa.uint64()),
    "steps as times": keyed("step", [NOON] * 3),
    "missing steps": keyed("step", [0, None, 1]),
    "a name twice": pa.Table.from_arrays(
        [*KEYS.values(), *NUMBERS.values(), *NUMBERS.values()], ["seed", "step", "x", "x"]
    ),
    "text": b"seed,step,x\n0,0,1\n",
    "empty": b"",
    "only a beginning": b"PAR1",
}
FORMS = {name: form for name, (form, _) in READ.items()} | LEFT | REFUSED


def put(form, kind, path):
    """Write a form to a file; of epochs its steps are epochs."""
    if isinstance(form, bytes):
        path.write_bytes(form)
        return
    names = ["epoch" if kind == "epochs" and n == "step" else n for n in form.column_names]
    pq.write_table(form.rename_columns(names), path)


@pytest.fixture(scope="module")
def shared(empty_store, tmp_path_factory):
    """A study with one run of ours, and one of another program for every form."""
    folder = tmp_path_factory.mktemp("foreign")
    shutil.copytree(empty_store, folder / "mlruns")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "SGDSTUDY_PREFIX"):
            patch.delenv(name, raising=False)
        opened = open_store(str(folder / "mlruns"))
        with Invocation.start(opened, "both").run("ours", "", {}) as run:
            sink = RunSink(run)
            for kind, axis in AXIS.items():
                values = {"seed": [0] * 3, axis: [0, 1, 2], "x": [0.0, 1.0, 2.0]}
                sink.write(kind, Rows.of(pa.RecordBatch.from_pydict(values), axis))
            sink.end()
        for name, form in FORMS.items():
            run = opened.client.create_run(opened.experiment("both"), run_name=name).info
            for kind in ("steps", "epochs"):
                put(form, kind, folder / f"{kind}.parquet")
                opened.client.log_artifact(run.run_id, str(folder / f"{kind}.parquet"))
            opened.client.set_terminated(run.run_id)
    return str(folder / "mlruns")


@pytest.fixture
def both(shared, no_server):
    return shared


def exported(to, name, store, tmp_path, arms):
    export("both", tmp_path, to, store=store, invocation="all", arms=arms)
    read = {"csv": pyarrow.csv.read_csv, "parquet": pq.read_table}[to]
    return read(tmp_path / f"{name}.{to}").to_pandas()


def steps(store, tmp_path, arms):
    return ss.load_steps("both", store=store, invocation="all", arms=arms)


def epochs(store, tmp_path, arms):
    return ss.load_epochs("both", store=store, invocation="all", arms=arms)


READERS = {
    **{"steps": steps, "steps in parts": steps, "epochs": epochs},
    "csv": lambda *given: exported("csv", "steps", *given),
    "parquet": lambda *given: exported("parquet", "steps", *given),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("form", FORMS)
def test_rows_of_another_program_are_exact_or_named(
    both, tmp_path, caplog, monkeypatch, form, reader
):
    """As it was seen: a dictionary, a time or a list in one run ended all readers of its study."""
    if reader == "steps in parts":
        monkeypatch.setattr(parquet, "LONGEST_GROUP", 0)
    rows = READERS[reader](both, tmp_path, ["ours", form])
    assert rows.x[rows.arm == "ours"].tolist() == [0.0, 1.0, 2.0]
    expected = READ[form][1] if form in READ else NONE if form in LEFT else []
    assert rows.x[rows.arm == form].tolist() == pytest.approx(expected, nan_ok=True)
    assert len(rows) == 3 + len(expected)
    said = [line for line in caplog.messages if "left out" in line]
    assert bool(said) == (form not in READ)
    assert all(f"of {form} (" in line and "\n" not in line for line in said)


@pytest.mark.parametrize("form", READ)
def test_rows_of_another_program_are_chosen_as_others_are(both, form):
    given = {"store": both, "invocation": "all", "arms": ["ours", form]}
    every = ss.load_steps("both", **given)
    chosen = ss.load_steps("both", seeds=0, steps=slice(0, 2), **given)
    if {"seed", "step"} <= set(FORMS[form].column_names):
        wanted = every[(every.seed == 0) & (every.step < 2)].reset_index(drop=True)
        pd.testing.assert_frame_equal(chosen, wanted, check_dtype=False)
    else:
        assert chosen.arm.unique().tolist() == ["ours"]


def test_every_reader_of_a_study_goes_on(both, tmp_path):
    rows = ss.load_steps("both", store=both, invocation="all")
    assert set(rows.arm.unique()) == {"ours", *READ, *LEFT} - {"no rows"}
    assert rows.phase.dropna().tolist() == ["warm", "cold"] * 2
    for to in ("csv", "parquet"):
        assert len(exported(to, "steps", both, tmp_path / to, None)) == len(rows)
    assert len(pack(open_store(both), ["both"], tmp_path / "packed.zip", "all")) == 1 + len(FORMS)


@pytest.mark.parametrize("form", [form for form in FORMS if form not in READ])
def test_what_is_no_number_is_not_compared_with(tmp_path, form):
    put(FORMS[form], "steps", tmp_path / "steps.parquet")
    with pytest.raises((ValueError, pa.ArrowException, ss.SgdstudyError)):
        require_numbers(tmp_path / "steps.parquet", "step")


BIG = 2**60 + 1
INEXACT = {  # whole numbers of two runs, of which a float would round some
    "no such column": (pa.array([BIG, BIG + 1]), None),
    "floats": (pa.array([BIG, -BIG]), pa.array([0.5, 2.0])),
    "unsigned": (pa.array([2**63 + 5, 1], pa.uint64()), pa.array([-1, BIG])),
    "dictionary": (pa.array([BIG, 1]).dictionary_encode(), None),
}


def theirs(opened, study, tmp_path, *tables, **how):
    """Add runs of another program to a study."""
    for number, table in enumerate(tables):
        run = opened.client.create_run(opened.experiment(study), run_name=f"run {number}").info
        pq.write_table(table, tmp_path / "steps.parquet", **how)
        opened.client.log_artifact(run.run_id, str(tmp_path / "steps.parquet"))
        opened.client.set_terminated(run.run_id)


@pytest.mark.slow
@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("case", INEXACT)
def test_whole_numbers_that_no_float_holds_are_not_rounded(store, tmp_path, case, statistics):
    """As it was seen: one run without the column made floats of it, and two seeds became one."""
    values = INEXACT[case]
    tables = [
        pa.table({"seed": [0, 0], "step": [0, 1], **({} if column is None else {"n": column})})
        for column in values
    ]
    theirs(open_store(store), "odd", tmp_path, *tables, write_statistics=statistics)
    expected = [x for column in values for x in ([None] * 2 if column is None else column)]
    expected = [x.as_py() if isinstance(x, pa.Scalar) else x for x in expected]
    given = {"store": store, "invocation": "all"}
    rows = ss.load_steps("odd", **given)
    assert [None if pd.isna(n) else n for n in rows.n] == expected
    export("odd", tmp_path / "out", "parquet", **given)
    read = pq.read_table(tmp_path / "out" / "steps.parquet")["n"]
    numbers = read.type == pa.int64()  # else text, as there is no kind of number for all
    assert numbers == (None in expected)
    assert [
        x if numbers else float(x) if "." in x else int(x) for x in read.to_pylist()
    ] == expected
    export("odd", tmp_path / "out", "csv", **given)
    lines = (tmp_path / "out" / "steps.csv").read_text().splitlines()[1:]
    told = [line.replace('"', "").split(",")[2] for line in lines]
    assert told == ["" if x is None else str(x).removesuffix(".0") for x in expected]


@pytest.mark.parametrize("columns", [["step"], None])
def test_texts_that_would_fill_the_memory_are_named_and_not_read(store, tmp_path, caplog, columns):
    """As it was seen: 100 kB of file took gigabytes, and all other runs of the study were lost."""
    whole = {"seed": pa.array([0] * len(WIDE)), "step": pa.array(range(len(WIDE)))}
    theirs(open_store(store), "odd", tmp_path, pa.table({**whole, "t": WIDE}), store_schema=False)
    usual = pa.default_memory_pool()
    pa.set_memory_pool(COUNTED)
    try:
        rows = ss.load_steps("odd", store=store, invocation="all", columns=columns)
    finally:
        pa.set_memory_pool(usual)
    assert len(rows) == len(WIDE)
    assert "t" not in rows
    assert 0 < COUNTED.max_memory() < 10_000_000
    assert [line for line in caplog.messages if "t (string)" in line] == (
        [] if columns else caplog.messages
    )


def test_a_long_list_of_columns_is_cut_and_in_one_line(store, tmp_path, caplog):
    table = pa.table({"step": [0], **{f"a\n\x1b[31m{n}": [NOON] for n in range(500)}})
    theirs(open_store(store), "odd", tmp_path, table)
    ss.load_steps("odd", store=store, invocation="all", columns=["step"])
    assert not caplog.messages
    ss.load_steps("odd", store=store, invocation="all")
    (line,) = caplog.messages
    assert line.isprintable()
    assert len(line) < 600
    assert "(500 in all)" in line


def test_a_file_that_cannot_be_used_says_what_it_has_to_be(store, tmp_path, caplog):
    theirs(open_store(store), "odd", tmp_path, pa.table({"seed": [True], "step": [0]}))
    assert not len(ss.load_steps("odd", store=store, invocation="all"))
    assert "damaged" not in caplog.text
    assert "it has to be a Parquet file, seed and step whole numbers in it" in caplog.text
