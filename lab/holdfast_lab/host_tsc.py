# SPDX-License-Identifier: Apache-2.0
"""The frequency of this machine's time-stamp counter.

TCG hands the host's counter to the lab as it is. On a busy machine the lab's kernel calibrates it
wrongly against emulated timers (its clock then ran three times too fast in our tests, and nested
guests drowned in timer ticks), so the lab is told the frequency instead.
"""

from __future__ import annotations

import ctypes
import mmap
import time

# rdtsc; shl rdx, 32; or rax, rdx; ret
_READ_TSC = bytes.fromhex("0f3148c1e2204809d0c3")
_SAMPLE_SECONDS = 0.05


def host_tsc_khz() -> int:
    """Measures the counter against the monotonic clock; takes a twentieth of a second."""
    with mmap.mmap(-1, mmap.PAGESIZE,
                   prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(_READ_TSC)
        start = ctypes.c_char.from_buffer(page)
        read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(start))
        first_ticks, first_ns = read(), time.monotonic_ns()
        time.sleep(_SAMPLE_SECONDS)
        ticks, ns = read() - first_ticks, time.monotonic_ns() - first_ns
        del read, start  # the mapping cannot be closed while they point into it
    return ticks * 1_000_000 // ns
