"""Who runs what, and where: the process a run lives in, and the machine."""

from __future__ import annotations

import getpass
import os
import platform
import re
from collections.abc import Container
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from sgdstudy.tracking.durable import sync_all

STARTS = "starts"  # a file: a boot id a line
PID = re.compile("[1-9][0-9]{0,8}", re.ASCII)


@dataclass(frozen=True)
class Process:
    """A process, told apart from those of other machines and of other starts of this one.

    Attributes:
        host: the machine's name.
        boot_id: differs from one start of the machine to the next; "" where it is not known.
        pid: number of the process, and the container's name space that it counts in.
    """

    host: str
    boot_id: str
    pid: str

    def is_gone(self, starts: Container[str] | None = None) -> bool:
        """Whether it surely does not run any more; False for one that cannot be seen from here.

        Args:
            starts: earlier starts of this machine, see `starts_in`; None: no machine but this one
                goes by its name.
        """
        me = here()
        if self.host != me.host or not self.boot_id:
            return False
        if self.boot_id != me.boot_id:
            return starts is None or self.boot_id in starts
        number, _, space = self.pid.partition("@")
        if space != me.pid.partition("@")[2] or not PID.fullmatch(number):
            return False  # of another name space, or no process's
        return not psutil.pid_exists(int(number))


def here() -> Process:
    """Return the process that asks."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = Path("/proc/self/ns/pid")
    return Process(
        host=platform.node(),
        boot_id=boot.read_text(encoding="utf-8").strip() if boot.exists() else "",
        pid=f"{os.getpid()}@{os.readlink(space) if space.exists() else ''}",
    )


def note_start(folder: Path) -> None:
    """Note in a folder of this machine's own that it was started; see `starts_in`."""
    boot_id = here().boot_id
    if boot_id and boot_id not in starts_in(folder):
        with open(folder / STARTS, "a", encoding="utf-8") as file:
            file.write(f"{boot_id}\n")
        sync_all([folder / STARTS, folder])


def starts_in(folder: Path) -> set[str]:
    """Return the starts of this machine that were noted in a folder.

    Another machine may have its name, or be a copy of it: what it started since is not noted here.
    """
    try:
        return set((folder / STARTS).read_text(encoding="utf-8", errors="replace").splitlines())
    except FileNotFoundError:
        return set()


def hardware() -> str:
    """Return what the last bits of a result may depend on: system and processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor()
    return " ".join(filter(None, [platform.system(), platform.machine(), model]))


def process_tags() -> dict[str, str]:
    """Return where a run lives, so that it can be told when its process is gone."""
    if os.environ.get("SGDSTUDY_HOST_TAGS", "on").lower() in ("off", "0", "false"):
        return {}
    return {f"sgdstudy.{name}": value for name, value in asdict(here()).items()}


def user() -> str:
    """Return who runs this: whose runs `latest` and `prune` mean."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container without a user entry
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"
