"""How many cores this process may use, and what they can do."""

import os
from math import ceil
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
CPUINFO = Path("/proc/cpuinfo")
BYTE_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "asimddp"})  # Intel, AMD; ARM


def usable_cores(cgroup: Path = CGROUP) -> int:
    """At least 1: what the scheduler may choose from, or less where a container's share of time is less.

    A thread more than the share gains nothing, and all of them stand still when it is used up.
    """
    cores = len(os.sched_getaffinity(0))
    share = _share(cgroup)
    return cores if share is None else max(1, min(cores, ceil(share)))


def sums_byte_products(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the CPU adds up products of bytes exactly. Older ones do it in 16 bits, where they overflow
    (ONNX Runtime's guide to quantization), so that int8 gives other numbers on them."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").lower().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith(("flags", "features"))), "")
    return not BYTE_PRODUCTS.isdisjoint(flags.split())


def _share(cgroup: Path) -> float | None:
    """Cores' worth of time that the control group grants (``docker run --cpus``); None: no limit."""
    for files in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):  # version 2, 1
        try:
            quota, period = " ".join((cgroup / name).read_text() for name in files).split()
            return int(quota) / int(period) if int(quota) > 0 else None
        except (OSError, ValueError, ZeroDivisionError):  # no such version, or "max"
            continue
    return None
