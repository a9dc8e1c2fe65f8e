"""How much memory this process may still take: what the machine has, or a bound leaves."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

GROUPS = Path("/sys/fs/cgroup")
OF_GROUPS = Path("/proc/self/cgroup")
# files of a group: the bound, what is taken, and what of that is given back when it is needed
V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free() -> int:
    """Return the bytes that are left for certain: of the machine, of the process, of its group."""
    return max(0, min([of_system(), *_of_process()]))


def of_system() -> int:
    """Return the bytes that the machine and the process's group have; beyond, it may be killed.

    A bound of the process alone is an error that can be said: what it reserved once it may use.
    """
    of_machine: int = psutil.virtual_memory().available
    return max(0, min([of_machine, *_of_groups()]))


def _of_process() -> list[int]:
    """Return what is left of the address space, where it is bounded (`ulimit -v`)."""
    try:
        import resource
    except ImportError:  # Windows
        return []
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    unbounded = most == resource.RLIM_INFINITY
    return [] if unbounded else [most - psutil.Process().memory_info().vms]


def _of_groups() -> list[int]:
    """Return what is left in the process's group and in those around it (containers, Slurm)."""
    found = []
    with suppress(OSError):
        for line in OF_GROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            root, names = (GROUPS / "memory", V1) if controllers else (GROUPS, V2)
            group = root / path.lstrip("/")
            for folder in (group, *group.parents):
                found += _left_in(folder, *names)
                if folder == root:
                    break
    return found


def _left_in(group: Path, bound: str, taken: str, given_back: str) -> list[int]:
    with suppress(OSError, ValueError):  # no such group is seen from here, or it is not bounded
        words = (group / "memory.stat").read_text(encoding="utf-8").split()
        cached = dict(zip(words[::2], words[1::2], strict=False)).get(given_back, "0")
        most, now = (int((group / name).read_text(encoding="utf-8")) for name in (bound, taken))
        return [most - now + int(cached)]
    return []
