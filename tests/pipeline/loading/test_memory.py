"""The memory that can be used is the least that host, control groups and limits leave."""

import os
from pathlib import Path

import pytest

from nucseg_pipeline.loading.memory import available_memory

MIB = 1 << 20
Files = dict[str, str]

HOST: Files = {"proc/meminfo": f"MemTotal: {64 * 1024} kB\nMemAvailable: {48 * 1024} kB\n"}
UNLIMITED: Files = {"proc/self/limits": "Max address space         unlimited            unlimited            bytes\n"}


def limited(mib: int, used: int) -> Files:
    """`ulimit -v` with so many pages mapped."""
    return {
        "proc/self/limits": f"Max cpu time  unlimited unlimited\nMax address space {mib * MIB} unlimited bytes\n",
        "proc/self/statm": f"{used * MIB // os.sysconf('SC_PAGE_SIZE')} 20 30 4 0 5 0\n",
    }


def version2(limits: dict[str, tuple[str, int, int]], path: str) -> Files:
    """Control groups of version 2: path -> limit, usage and page cache in MiB."""
    files = {"proc/self/cgroup": f"0::{path}\n"}
    for group, (limit, used, cache) in limits.items():
        folder = f"sys/fs/cgroup/{group}".rstrip("/")
        files[f"{folder}/memory.max"] = limit if limit == "max" else str(int(limit) * MIB)
        files[f"{folder}/memory.current"] = str(used * MIB)
        files[f"{folder}/memory.stat"] = f"anon 5\ninactive_file {cache * MIB}\nactive_file 0\n"
    return files


def version1(limits: dict[str, tuple[int, int, int]], path: str) -> Files:
    """The same of version 1, where memory has a tree of its own."""
    files = {"proc/self/cgroup": f"7:cpu,cpuacct:/elsewhere\n4:memory:{path}\n1:name=systemd:/\n"}
    for group, (limit, used, cache) in limits.items():
        folder = f"sys/fs/cgroup/memory/{group}".rstrip("/")
        files[f"{folder}/memory.limit_in_bytes"] = str(limit * MIB)
        files[f"{folder}/memory.usage_in_bytes"] = str(used * MIB)
        files[f"{folder}/memory.stat"] = f"cache 1\ntotal_inactive_file {cache * MIB}\ntotal_active_file {MIB}\n"
    return files


@pytest.mark.parametrize(
    ("files", "mib"),
    [
        (HOST, 48),
        (HOST | UNLIMITED, 48),
        (HOST | limited(30, used=10), 20),
        (HOST | limited(30, used=40), 0),
        (HOST | version2({"slurm/job": ("20", 12, 4)}, "/slurm/job"), 12),
        (HOST | version2({"slurm/job/step": ("max", 12, 0), "slurm": ("16", 13, 0)}, "/slurm/job/step"), 3),
        # in a container: its own group is the top of the tree that it sees
        (HOST | version2({"": ("10", 3, 0)}, "/"), 7),
        (HOST | version1({"": (10, 4, 0)}, "/docker/0123"), 7),
        (HOST | version1({"slurm/uid_1": (1 << 40, 9, 0), "slurm/uid_1/job": (32, 30, 2)}, "/slurm/uid_1/job"), 5),
        (HOST | version2({"job": ("1000", 0, 0)}, "/job") | limited(500, used=0), 48),
    ],
)
def test_available_memory_is_what_the_narrowest_bound_leaves(tmp_path: Path, files: Files, mib: int) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)

    assert available_memory(tmp_path) == mib * MIB


def test_where_nothing_is_known_it_is_a_quarter_of_what_is_built_in(tmp_path: Path) -> None:
    assert available_memory(tmp_path) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def test_on_this_machine_it_is_some_but_not_more_than_is_built_in() -> None:
    assert 0 < available_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
