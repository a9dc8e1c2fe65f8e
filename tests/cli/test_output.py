"""Standard output that is closed, full or of another encoding; texts of people on a terminal."""

import contextlib
import functools
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import programs
from test_cli import call, project  # noqa: F401

import sgdstudy as ss
from sgdstudy.cli import terminal
from sgdstudy.cli.catalogue import texts
from sgdstudy.cli.commands import COMMANDS
from sgdstudy.course.check import Report
from sgdstudy.language import catalogue, languages, number, speaking
from sgdstudy.studies import output
from sgdstudy.studies.scripts import find_scripts
from sgdstudy.text import plainly, power, written

SCRIPT = '''"""{question}"""
import torch

import sgdstudy as ss


def arms(o):
    x = torch.linspace(-1, 1, 20)
    problem = ss.Problem(x, 2 * x, lambda w, x: w[0] * x, w_init=[0.0])
    for name in {names}:
        yield name, ss.Arm(problem, lr=0.1, batch_size=5, epochs=2)


def claims(o, runs):
    yield ss.Claim("two [/] – ∞", list(runs)[0], 2, 2, 0, "arithmetic", always=True)


def answer(o, runs, claims):
    return "An [answer] – “quoted”, ±∞."


STUDY = ss.study(__name__)
if __name__ == "__main__":
    STUDY.main()
'''
QUESTION = "Does [bold]it[/oops] print – with ∞, é and :smile:?"
NAMES = ["[red]x[/red]", "back\\slash [/]", "two ∞ – ½"]
LONG = ["x" * 3_000_000, "word " * 600_000, "a\n" * 1_000_000]
ENCODINGS = ["utf-8", "cp1252", "cp850", "ascii", "utf-16", "koi8-r"]


class Broken(io.RawIOBase):
    """A file that cannot be written, by some error."""

    def __init__(self, number):
        self.number, self.file = number, os.open(os.devnull, os.O_WRONLY)

    def writable(self):
        return True

    def fileno(self):
        return self.file

    def write(self, data):
        raise OSError(self.number, os.strerror(self.number))


@pytest.fixture
def printing(tmp_path, monkeypatch, store):
    """A project whose names and texts are full of marks."""
    folder = tmp_path / "experiments"
    folder.mkdir()
    text = SCRIPT.format(question=QUESTION, names=NAMES)
    (folder / "printing.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hardened(raw, encoding="utf-8"):
    return output._hardened(io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_text_is_written_in_any_encoding(encoding):
    output.harden()  # knows our way with what an encoding lacks
    raw = io.BytesIO()
    raw.fileno = lambda: 1
    stream = output._hardened(io.TextIOWrapper(raw, encoding=encoding))
    stream.write("– ∞ ± “é” … ━│┃╇ ☃ \udcff 日本\n")
    stream.writelines(["10⁻¹²", " 5·10¹¹\n"])
    stream.flush()
    found = raw.getvalue().decode(encoding)
    assert found.endswith("\n")
    if encoding == "ascii":
        assert found == ('- inf +- "e" ... -||+ \\u2603 \\udcff \\u65e5\\u672c\n10^-12 5*10^11\n')


def test_the_question_of_input_is_written_in_any_encoding():
    """It is encoded as the stream says, and written past it."""
    output.harden()
    raw = io.BytesIO()
    raw.fileno = lambda: 1
    stream = output._hardened(io.TextIOWrapper(raw, encoding="cp850"))
    asked = "« où ? » λ ≤ 10⁻⁷".encode(stream.encoding, stream.errors)
    assert asked.decode("cp850") == "« où ? » lambda <= 10^-7"


@functools.cache
def every_text():
    """What the program says, in every language, and what fills it in."""
    return [*_every_text()]


def _every_text():
    for text, found in texts().items():
        yield from (text, found.many)
    for name in languages():
        for forms in catalogue(name).texts.values():
            yield from forms
        with speaking(name):
            for value in (1.3e43, -1.29e-7, 40_000, 0.5, float("inf"), float("nan")):
                yield from (number(value), written(value), power(value))


@pytest.mark.slow
@pytest.mark.parametrize("encoding", [*ENCODINGS, "latin-1", "cp437"])
def test_every_text_is_readable_in_any_encoding(encoding):
    """In plain spelling: nothing is a "?" or an escape, no letter is lost, only accents."""
    raw = io.BytesIO()
    raw.fileno = lambda: 1
    stream = output._hardened(io.TextIOWrapper(raw, encoding=encoding, newline="\n"))
    everything = [text.replace("\n", " ") for text in every_text()]
    stream.write("\n".join(everything))
    stream.flush()
    shown = raw.getvalue().decode(encoding).split("\n")
    assert len(shown) == len(everything) > 1000
    for text, plain in zip(everything, shown, strict=True):
        assert plain.count("?") == text.count("?"), text
        assert plain.count("\\") == text.count("\\"), text
        assert plain == text or encoding not in ("utf-8", "utf-16")
        kept = [c for c in text if c.isascii() and c.isalnum()]
        assert not Counter(kept) - Counter(plain), text


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("‖∇L(w)‖ ≤ Σᵢ (nᵢ/d) ‖∇Lᵢ(w)‖", "ascii", "||grad L(w)|| <= sum_i (n_i/d) ||grad L_i(w)||"),
        ("tr(Σ) / ‖g‖², tr(HΣ) / gᵀHg", "cp1252", "tr(Sigma) / ||g||^2, tr(H Sigma) / g^T Hg"),
        ("wᵢ₊₁ = wᵢ − η gᵢ / √vᵢ", "cp850", "w_(i+1) = w_i - eta g_i / sqrt v_i"),
        ("(2 + 2β)/λ, μ × 4, ±φᵢ", "latin-1", "(2 + 2 beta)/lambda, mu × 4, ±phi_i"),
        ("x², 10⁻¹², n₁, …, n_m", "cp1252", "x^2, 10^-12, n_1, …, n_m"),
        ("« À quoi bon ? » œuvre : 1½", "ascii", '"A quoi bon ?" oeuvre : 1 1/2'),
        ("« À quoi bon ? » – œuvre", "cp1252", "« À quoi bon ? » – œuvre"),
        ("café, cafe\u0301, µs", "ascii", "cafe, cafe, us"),
    ],
)
def test_formulas_are_spelled_as_a_program_has_them(text, encoding, shown):
    assert plainly(text, encoding) == shown


@pytest.mark.parametrize("encoding", ["cp1252", "cp850", "ascii"])
def test_what_a_script_of_ones_own_prints_of_ours_fits_its_output(encoding):
    """Such a script has Python's own standard output, which dies of what its encoding lacks."""
    report = Report(faults=("‖∇L‖ ≤ 10⁻⁷",), exercise="ex4")
    never = ss.summary(pd.Series([1.0, float("inf"), float("inf")]))
    assert "∞" in str(never)
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    with contextlib.redirect_stdout(stream):
        print(report)
        print(never)
    stream.flush()
    shown = raw.getvalue().decode(encoding)
    assert shown.startswith("||grad L|| <= 10^-7\nmedian inf")


@pytest.mark.parametrize("number", [5, 9, 28, 32, 122])  # EIO, EBADF, ENOSPC, EPIPE, EDQUOT
def test_what_cannot_be_written_is_lost_and_noted(monkeypatch, number):
    monkeypatch.setattr(output, "_lost", [])
    monkeypatch.setattr(output, "_lead_nowhere", lambda number: None)
    stream = hardened(Broken(number))
    for _ in range(3):
        stream.write("line\n" * 10_000)
    stream.flush()
    assert [getattr(error, "errno", None) for error in output._lost] == [number]
    assert output.is_cut() is (number == 32)
    assert bool(output.lost()) is (number != 32)


def closes():
    sys.stdout.close()


def takes_away():
    sys.stdout = None


def detaches():
    sys.stdout.detach()


def closes_what_is_below():
    sys.stdout.buffer.close()


def puts_a_closed_file_there():
    sys.stdout = io.StringIO()
    sys.stdout.close()


def puts_a_number_there():
    sys.stdout = 3


def takes_write_away():
    sys.stdout.write = None


def puts_half_a_file_there():
    sys.stdout = SimpleNamespace(write=sys.stdout.write)


TAKEN = [closes, takes_away, detaches, closes_what_is_below, puts_a_closed_file_there]
TAKEN += [puts_a_number_there, takes_write_away, puts_half_a_file_there]


@pytest.mark.parametrize("how", TAKEN)
def test_lines_are_shown_after_a_script_took_the_output_away(monkeypatch, how):
    with tempfile.TemporaryFile() as file:
        own = io.TextIOWrapper(io.FileIO(file.fileno(), "w", closefd=False), encoding="utf-8")
        monkeypatch.setattr(sys, "__stdout__", own)
        monkeypatch.setattr(sys, "stdout", own)
        monkeypatch.setattr(sys, "__stderr__", None)  # pytest's stays as it is
        monkeypatch.setattr(output, "_ours", {})
        output.harden()
        output.called(how)
        print("the end")
        assert output.lost() == ""
        file.seek(0)
        assert file.read() == b"the end\n"


class Tee:
    """As people write one: what a file needs, and nothing else."""

    def __init__(self, *streams):
        self.streams = streams

    def write(self, text):
        for stream in self.streams:
            stream.write(text)

    def flush(self):
        for stream in self.streams:
            stream.flush()


class Full(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


FAILING = {
    "full": (Full, "(No space left on device)"),
    "bytes": (io.BytesIO, "TypeError: a bytes-like object is required"),
    "tee": (lambda: Tee(sys.stdout, 3), "AttributeError: 'int' object has no attribute 'write'"),
}


@pytest.mark.parametrize("kind", FAILING)
def test_a_stream_of_a_scripts_own_that_fails_loses_lines_and_says_so(
    printing, monkeypatch, capsys, kind
):
    make, why = FAILING[kind]
    monkeypatch.setattr(output, "_lost", [])
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "made_by_test", make, raising=False)
    script = printing / "experiments" / "printing.py"
    text = script.read_text(encoding="utf-8")
    script.write_text(f"{text}\nimport sys\nsys.stdout = sys.made_by_test()\n", encoding="utf-8")
    assert call("list") == 1
    shown = capsys.readouterr()
    assert "what was to be printed is lost" in shown.err
    assert why in shown.err
    assert ("Does [bold]it" in shown.out) is (kind == "tee")


def test_a_tee_of_a_scripts_own_is_written_to(printing, monkeypatch, capsys):
    """Also where it stands before the command begins; and it is there again at the end."""
    kept = io.StringIO()
    tee = Tee(sys.stdout, kept)
    monkeypatch.setattr(sys, "stdout", tee)
    assert call("list") == 0
    assert sys.stdout is tee
    assert "Does [bold]it" in kept.getvalue()
    assert capsys.readouterr().out == kept.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["sys.stdout = 3", "sys.stdout = open('/dev/full', 'w')"])
def test_a_script_that_is_a_program_may_set_its_output(printing, how):
    path = printing / "experiments" / "printing.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("import torch", f"import sys; {how}\nimport torch"), "utf-8")
    words = [sys.executable, str(path)]
    made = subprocess.run(words, capture_output=True, timeout=300, encoding="utf-8")
    lost = "full" in how
    assert made.returncode == int(lost)
    assert ("An [answer]" in made.stdout) is not lost
    assert made.stderr.count("\n") == int(lost)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["sys.stdout.close(); sys.stderr.close()", "sys.stdout = None"])
def test_a_study_whose_script_takes_the_output_away_says_how_it_ended(printing, store, how):
    path = printing / "experiments" / "printing.py"
    text = path.read_text(encoding="utf-8")
    text = text.replace("(o, runs):\n", f"(o, runs):\n    import sys; {how}\n")
    path.write_text(text, encoding="utf-8")
    words = [sys.executable, str(path)]
    made = subprocess.run(words, capture_output=True, timeout=300, encoding="utf-8")
    assert (made.returncode, made.stderr) == (0, "")
    assert "An [answer]" in made.stdout


@pytest.mark.parametrize("text", LONG, ids=["a word", "words", "lines"])
def test_a_text_of_any_length_is_shown_in_seconds_as_far_as_a_person_may_read(capsys, text):
    started = time.perf_counter()
    terminal.show_paragraphs(text)
    claim = ss.Claim("long", "arm", text, text, always=True)
    terminal.print_claims([SimpleNamespace(study="long", claims=[claim])])
    assert time.perf_counter() - started < 10
    shown = capsys.readouterr().out
    seen = "see answer.md" in shown
    assert seen
    n_shown = len(shown)
    assert 20_000 < n_shown < 60_000


@pytest.mark.slow
@pytest.mark.parametrize("python", [[], ["-OO"], ["-W", "error"]], ids=" ".join)
def test_list_and_help_print_on_any_terminal(printing, python):
    commands, dashes = (["list"], ["run", "printing", "--help"], ["--help"]), ("–", "-")
    given = {"encodings": ("cp1252", "ascii"), "env": {"COLUMNS": "200"}}
    shown = programs(*commands, python=python, **given)
    assert [(code, error) for code, _, error in shown] == [(0, "")] * 6
    for dash, (listed, options, helped) in zip(dashes, (shown[:3], shown[3:]), strict=True):
        assert f"Does [bold]it[/oops] print {dash} with inf" in listed[1]
        assert "--first-seed" in options[1]
        assert "List the studies and their questions." in helped[1]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp850", "C"])
def test_every_command_speaks_plainly_in_any_encoding(encoding):
    """`--help` of all of them and of all scripts; "C": a locale that knows ASCII, and no UTF-8."""
    given = {"encodings": (encoding,), "env": {"COLUMNS": "200"}}
    if encoding == "C":
        given = {"encodings": (None,), "coded": "ascii", "env": {"COLUMNS": "200"}}
        given["env"] |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    helps = [[name, "--help"] for name in COMMANDS]
    helps += [["run", name, "--help"] for name in find_scripts()]
    each = [["--help"], ["list"], ["nonsense"], *helps]
    commands = [[*words, "--lang", lang] for lang in languages() for words in each]
    for words, (code, out, error) in zip(commands, programs(*commands, **given), strict=True):
        assert code == (2 if words[0] == "nonsense" else 0), (words, error)
        assert bool(error) is bool(code)
        assert not re.search(r"\\[xu]|Error|[^\w\s)\"`']\?", out + error), words


@pytest.mark.slow
@pytest.mark.parametrize(
    ("jobs", "redirected", "code", "says"),
    [
        (1, ">/dev/full", 1, b"No space left on device"),
        (2, ">/dev/full 2>/dev/full", 1, b""),
        (1, ">&-", 0, b""),
        (2, "<&- >&- 2>&-", 0, b""),
        (1, "| head -1 > /dev/null; exit ${PIPESTATUS[0]}", 1, b""),
    ],
)
def test_a_study_runs_to_its_end_whatever_becomes_of_its_lines(
    printing, store, jobs, redirected, code, says
):
    words = f"{sys.executable} -W error -m sgdstudy run printing --jobs {jobs} {redirected}"
    made = subprocess.run(["bash", "-c", words], capture_output=True, timeout=300)
    assert made.returncode == code
    assert made.stdout == b""
    assert says in made.stderr
    assert b"Traceback" not in made.stderr
    assert made.stderr.count(b"\n") == bool(says)
    assert ss.load_runs("printing", store=store).status.tolist() == ["FINISHED"] * len(NAMES)


@pytest.mark.parametrize("columns", [1, 20, 80])
def test_help_has_no_line_of_one_letter(printing, capsys, monkeypatch, columns):
    """As it was seen: a page of 50,000 signs, and with one column none for minutes."""
    monkeypatch.setenv("COLUMNS", str(columns))
    assert call("sweep", "--help") == 0
    shown = capsys.readouterr().out
    assert "logspace(first," in shown
    assert os.environ["COLUMNS"] == str(columns)


HELPS = [["--help"], ["list", "--help"], ["run", "printing", "--help"], ["--version"], ["list"]]


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
@pytest.mark.parametrize("number", [28, 32])  # ENOSPC, EPIPE
def test_the_exit_code_tells_that_lines_are_lost(printing, monkeypatch, capsys, words, number):
    """As it was seen: `sgdstudy list --help > /dev/full` ended with 0."""

    class Failing(io.StringIO):
        def write(self, text):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(output, "_lost", [])
    monkeypatch.setattr(sys, "stdout", Failing())
    assert call(*words) == 1
    assert capsys.readouterr().err.count("\n") == (number == 28)


@pytest.mark.parametrize("words", [["help"], ["help", "run"], ["--version"], ["version"]])
def test_help_and_version_are_found_under_what_people_type(printing, capsys, words):
    assert call(*words) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("0." if "version" in words[0] else "usage: sgdstudy")


@pytest.mark.slow
def test_brackets_in_names_and_answers_are_printed_as_they_are(printing, store, capsys):
    assert call("run", "printing") == 0
    out = capsys.readouterr().out
    for text in (QUESTION, *NAMES, "two [/] – ∞", "An [answer] – “quoted”, ±∞."):
        assert text in out


def claims_of(*names, **changes):
    given = {"always": True} | changes
    claims = [
        ss.Claim("median of the losses", "mini-batch, lr=0.1", 0.1234, 0.1235, 0.01, "x", **given),
        ss.Claim("steps until it stops", "full batch", 100, 130, 5, "theory", **given),
    ]
    return [SimpleNamespace(study=name, claims=claims) for name in names]


TABLES = {
    "claims": lambda: terminal.print_claims(claims_of("one_study")),
    "claims of several": lambda: terminal.print_claims(claims_of("one_study", "another")),
    "claims with guesses": lambda: terminal.print_claims(claims_of("one_study", guess=0.5)),
    "rows": lambda: terminal.print_rows(
        pd.DataFrame({"lr": [1e-4], "batch_size": [10], "status": ["FINISHED"]} | FIGURES)
    ),
}
FIGURES = {name: [0.25] for name in ("full_loss", "test_accuracy", "stop_epoch", "full_grad_norm")}


@pytest.mark.parametrize("width", [20, 40, 62, 80, 110])
@pytest.mark.parametrize("table", TABLES)
def test_no_word_of_a_table_is_broken_on_a_narrow_terminal(monkeypatch, capsys, table, width):
    """As it was seen: on 20 and 40 columns letters stood one below another."""
    made = terminal.console
    TABLES[table]()
    words = {*re.findall(r"\w[\w.,=-]+\w", capsys.readouterr().out)}

    def narrow():
        screen = made()
        screen.width = width
        return screen

    monkeypatch.setattr(terminal, "console", narrow)
    TABLES[table]()
    shown = capsys.readouterr().out
    assert all(len(line) <= width for line in shown.splitlines())
    assert words
    assert not words - {*re.findall(r"\w[\w.,=-]+\w", shown)}


@pytest.mark.parametrize("text", ["\x1b[2J", "a\x07b", "\u202ereversed", "\x9b31m", "a\rb", "\x00"])
def test_nothing_in_a_text_acts_on_the_terminal(capsys, text):
    terminal.say(f"1 {text}")
    terminal.show("2 ", terminal.bold(text), text)
    terminal.show_paragraphs(f"3 {text}")
    terminal.print_rows(pd.DataFrame({f"4 {text}": [f"5 {text}"]}))
    terminal.PlainWarnings().emit(
        __import__("logging").LogRecord("x", 30, "", 0, "6 %s", (text,), None)
    )
    out, error = capsys.readouterr()
    shown = out + error
    assert all(f"{number} " in shown for number in range(1, 7))
    assert not [c for c in shown if not c.isprintable() and c != "\n"]


@pytest.mark.parametrize("error", [EOFError(), RuntimeError("lost sys.stdin"), OSError("closed")])
def test_prune_without_a_terminal_says_which_option_answers(
    project,  # noqa: F811
    store,
    capsys,
    monkeypatch,
    error,
):
    def nobody(question):
        raise error

    call("run", "cli_tiny", "--store", store)
    monkeypatch.setattr("builtins.input", nobody)
    capsys.readouterr()
    assert call("prune", "--keep", "0", "--store", store) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--yes" in said


@pytest.mark.parametrize(
    "words", [["list"], ["run", "x"], ["prune", "--keep", "1"], ["export", "x"]]
)
def test_a_current_folder_that_is_gone_is_said_in_one_line(tmp_path, monkeypatch, capsys, words):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert call(*words) == 2
    assert capsys.readouterr().err == (
        "error: the current folder is gone; change to one that is there\n"
    )
