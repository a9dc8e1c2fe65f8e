"""The code of a run: its script and helpers, their repository, and the package's own version.

A run is of the same code as another if the texts of its script, of the helpers that it imports and
of this package are the same, and the version of torch; commits tell a person where to look.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from sgdstudy.language import say, to_say
from sgdstudy.tracking.code_lines import of_code

CODE, PACKAGE = "sgdstudy.code", "sgdstudy.package"  # tags: hashes of their texts
COMMIT = "mlflow.source.git.commit"
SAME = ("sgdstudy.version", PACKAGE, CODE, "sgdstudy.torch")
DIFF = "uncommitted.diff"
LONGEST_FILE = 1_000_000  # bytes of one that is kept; of a longer one only the hash
LONGEST_DIFF = 200_000
GIT_SECONDS = 10.0
log = logging.getLogger("sgdstudy")
# whatever the user's settings of git are
STATUS = ("status", "--porcelain=v2", "-z", "--untracked-files=no", "--ignore-submodules=none")
WORDS = (
    *("--no-ext-diff", "--no-textconv", "--text", "--no-color", "--no-relative"),
    *("--submodule=short", "--ignore-submodules=none"),
)
# of the status: the path of one, which may have moved
SUBMODULE = re.compile(r"(?:1 \S+ S\S* (?:\S+ ){5}|2 \S+ S\S* (?:\S+ ){6})(.+)", re.DOTALL)
OF_ANOTHER = re.compile(r"(?:dubious ownership in repository at |unsafe repository \()'(.+)'")
SETTINGS = (
    *("-c", "core.fsmonitor=false", "-c", "core.ignoreStat=false", "-c", "core.splitIndex=false"),
    *("-c", "diff.orderFile=/dev/null"),
)


@dataclass(frozen=True)
class Code:
    """What ran.

    Attributes:
        tags: versions, hashes, commit.
        files: script and what lies in its folder of its helpers, by name, as they were when the run
            began. Others are in the hash: a repository's modules are many, and may hold secrets.
        diff: what is not committed of the Python files of the script's repository.
    """

    tags: Mapping[str, str]
    files: Mapping[str, bytes] = field(default_factory=dict)
    diff: str = ""

    @classmethod
    def of(cls, script: str | Path | None = None, files: Mapping[str, Path] | None = None) -> Code:
        """Read the code of a script; None: the program that runs, or the current folder.

        Args:
            script: its path.
            files: script and helpers by name; None: the script alone.
        """
        path = _program() if script is None else Path(script)
        if files is None:
            files = {} if path is None or not path.is_file() else {path.name: path}
        texts = {name: path.read_bytes() for name, path in files.items()}
        home = Path() if path is None else path.resolve().parent
        kept = {name for name, place in files.items() if place in (path, home / name)}
        tags = dict(package_tags())
        if texts:
            tags[CODE] = _hash(texts)
        commit, changed, diff = _asked_git(path, [*files.values()])
        if commit:
            tags |= {COMMIT: commit, "sgdstudy.git_changed": changed}
        return cls(tags, {name: texts[name] for name in texts if name in kept}, diff)

    @property
    def same(self) -> dict[str, str]:
        """The tags that another run of the same code has too."""
        return {name: self.tags[name] for name in SAME if name in self.tags}

    def by_hash(self) -> Code:
        """Return the same for runs that keep no copy, as another run of theirs does."""
        return replace(self, files={}, diff="")

    @property
    def copies(self) -> dict[str, bytes]:
        """The files that are kept, by the artifact's name."""
        return {
            name.replace("/", ".").encode(errors="replace").decode(): text
            for name, text in self.files.items()
            if len(text) <= LONGEST_FILE
        }

    def artifacts(self) -> dict[str, Callable[[Path], object]]:
        """Return what writes copies and diff, by the artifact's name."""
        texts = self.copies | ({DIFF: self.diff.encode(errors="replace")} if self.diff else {})
        return {
            name: functools.partial(Path.write_bytes, data=data) for name, data in texts.items()
        }


@functools.cache
def package_tags() -> dict[str, str]:
    """Return which version of this package runs, by number and by text, and of torch."""
    folder = Path(__file__).parents[1]
    texts = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py")}
    return {
        "sgdstudy.version": importlib.metadata.version("sgdstudy"),
        PACKAGE: _hash({name: path.read_bytes() for name, path in texts.items()}),
        "sgdstudy.torch": importlib.metadata.version("torch"),
    }


def _hash(texts: Mapping[str, bytes]) -> str:
    """Return a fingerprint of files, by name and content."""
    found = hashlib.sha256()
    for name in sorted(texts):
        found.update(os.fsencode(name) + b"\0" + hashlib.sha256(texts[name]).digest())
    return found.hexdigest()[:16]


def _program() -> Path | None:
    """Return the script that this process was started with; None: it is none of the user's."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    path = Path(file).absolute() if file else None
    installed = path is not None and path.is_relative_to(sys.prefix)
    return path if path is not None and path.suffix == ".py" and not installed else None


def _asked_git(script: Path | None, files: list[Path]) -> tuple[str, str, str]:
    """Return the commit of a script's repository, whether anything was changed since, and what."""
    folder = Path() if script is None else script.parent
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return "", "", ""
    top = _top(folder)
    status, diff = _told(folder, folder if top is None else top)
    found = [status]
    paths = [path.absolute() for path in files]
    names = [str(path) for path in paths if top is None or path.resolve().is_relative_to(top)]
    if names:  # git refuses all where one lies in another place
        found.append(_git(folder, "ls-files", "--others", "--", *names))
    changed = "true" if any(found) else "unknown" if None in found else "false"
    if len(diff) > LONGEST_DIFF:
        diff = f"{diff[:LONGEST_DIFF]}\n... cut: {len(diff):,} characters in all\n"
    return commit.strip(), changed, of_code(diff)


def _told(folder: Path, top: Path) -> tuple[str | None, str]:
    """Return what git tells of a repository that is changed, None where it fails, and how.

    It is told by a copy of its index, in which no file is one to overlook, as somebody may have
    made it one (`update-index --assume-unchanged`, `--skip-worktree`). Those of a sparse checkout
    that are not there stay out.
    """
    marked = dict[str, list[str]]()
    for line in (_git(top, "ls-files", "-v", "-z") or "").split("\0"):
        if line[:1].islower():
            marked.setdefault("--no-assume-unchanged", []).append(line[2:])
        if line[:1] in ("S", "s") and os.path.lexists(top / line[2:]):
            marked.setdefault("--no-skip-worktree", []).append(line[2:])
    if not marked:
        status = _git(folder, *STATUS)
        return status, _diff(folder, status)
    place = (_git(top, "rev-parse", "--git-path", "index") or "").removesuffix("\n")
    try:
        with tempfile.TemporaryDirectory(prefix="sgdstudy-") as copy:
            # with its time, by which git tells files that were changed right after it
            index = Path(copy) / "index"
            shutil.copy2(top / place, index)
            for mark, paths in marked.items():
                said = "".join(f"{path}\0" for path in paths)
                if _git(top, "update-index", mark, "-z", "--stdin", index=index, said=said) is None:
                    return None, ""
            status = _git(folder, *STATUS, index=index)
            return status, _diff(folder, status, index=index)
    except OSError:
        return None, ""


def _diff(folder: Path, status: str | None, place: str = "", index: Path | None = None) -> str:
    """Return what the Python files of a repository, and of its submodules, differ from its commit.

    Args:
        folder: one of it.
        status: what of it is changed, as git tells it.
        place: the repository's own, in the one that it is a submodule of.
        index: see `_told`.
    """
    if not status:
        return ""
    changed = [found[1] for found in map(SUBMODULE.match, status.split("\0")) if found]
    names = [f"--src-prefix=a/{place}", f"--dst-prefix=b/{place}"]
    paths = [":(top)*.py", *(f":(top,literal){path}" for path in changed)]
    diffs = [_git(folder, "diff", "HEAD", *WORDS, *names, "--", *paths, index=index)]
    top = _top(folder)
    for inner, path in [] if top is None else [(top / path, path) for path in changed]:
        if (inner / ".git").exists():  # else git would tell of the outer one
            told = _git(inner, *STATUS)
            diffs.append(None if told is None else _diff(inner, told, f"{place}{path}/"))
    return "".join("... git does not tell it\n" if diff is None else diff for diff in diffs)


def _top(folder: Path) -> Path | None:
    """Return the folder that holds a folder's repository."""
    told = (_git(folder, "rev-parse", "--show-toplevel") or "").removesuffix("\n")
    return Path(told).resolve() if told else None


def _git(folder: Path, *words: str, index: Path | None = None, said: str = "") -> str | None:
    """Ask git in a folder, whatever repository the environment names; nothing of it is written.

    Args:
        folder: of the repository.
        words: what is asked.
        index: another one than the repository's own.
        said: its standard input.

    Returns:
        What it says; None where it fails, or takes too long.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {} if index is None else {"GIT_INDEX_FILE": str(index)}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", *SETTINGS, *words],
            cwd=folder,
            env=environment,
            input=said.encode(errors="surrogateescape"),
            capture_output=True,
            timeout=GIT_SECONDS,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        for repository in OF_ANOTHER.findall((error.stderr or b"").decode(errors="replace")):
            _say_of_another(repository)
        return None
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="surrogateescape")


@functools.cache
def _say_of_another(repository: str) -> None:
    """Say once that git refuses a repository, since it is another user's."""
    text = to_say(
        "git tells no commit of {folder}, which belongs to another user; if you trust it: git "
        "config --global --add safe.directory {quoted}"
    )
    log.warning("%s", say(text, folder=repository, quoted=shlex.quote(repository)))
