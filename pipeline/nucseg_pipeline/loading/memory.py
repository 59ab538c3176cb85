"""How much memory this process can still use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch

CONTROL_GROUPS = {
    "": ("sys/fs/cgroup", "memory.max", "memory.current", ("inactive_file", "active_file")),
    "memory": (
        "sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
}
"""Controller in /proc/self/cgroup (empty in version 2) -> folder, files with limit and usage, reclaimable usage."""


def available_device_memory(device: torch.device) -> int:
    """Free memory of a CUDA device in bytes."""
    return int(torch.cuda.mem_get_info(device)[0])


def available_memory(root: Path = Path("/")) -> int:
    """Memory in bytes that this process can use without swapping or being killed.

    The least of what these leave: the host; every control group that the process is in, as in a container or a Slurm
    job (versions 1 and 2); the limit on the address space (`ulimit -v`). A quarter of the built-in memory on systems
    that do not say.

    Args:
        root: folder that holds `proc` and `sys`.
    """
    bounds = [*_of_host(root), *_of_control_groups(root), *_of_address_space(root)]
    return max(0, min(bounds, default=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4))


def _of_host(root: Path) -> Iterator[int]:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):  # counts the page cache, which can be used too
            yield int(line.split()[1]) * 1024


def _of_control_groups(root: Path) -> Iterator[int]:
    """What is left in each group of the process and in the groups around it.

    A container may see its own group as the top of the tree, under another path than /proc/self/cgroup says: groups
    that are not found are left out.
    """
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in CONTROL_GROUPS:
                folder, limit, usage, reclaimable = CONTROL_GROUPS[controller]
                top = root / folder
                group = top / path.strip("/")
                while group.is_relative_to(top):
                    yield from _of_control_group(group, limit, usage, reclaimable)
                    group = group.parent


def _of_control_group(group: Path, limit: str, usage: str, reclaimable: tuple[str, ...]) -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError):  # a limit of "max" is none
        left = int((group / limit).read_text()) - int((group / usage).read_text())
        statistics = dict(line.split() for line in _lines(group / "memory.stat"))
        yield left + sum(int(statistics.get(name, 0)) for name in reclaimable)


def _of_address_space(root: Path) -> Iterator[int]:
    for line in _lines(root / "proc/self/limits"):
        if line.startswith("Max address space") and line.split()[3] != "unlimited":
            n_pages = int((root / "proc/self/statm").read_text().split()[0])
            yield int(line.split()[3]) - n_pages * os.sysconf("SC_PAGE_SIZE")


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
