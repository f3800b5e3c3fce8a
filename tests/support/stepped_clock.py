"""A Valkey whose clock can be set: a library loaded before the C library shifts the time that it reads."""

from __future__ import annotations

import shutil
import stat
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from service.stack.valkey import EmbeddedValkey, find_binary
from tests.support.eventually import until
from workers.broker.connection import connect

_SHIM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *shift_us;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("CLOCK_SHIFT");
  int file = path ? open(path, O_RDONLY) : -1;
  if (file >= 0) shift_us = mmap(NULL, sizeof *shift_us, PROT_READ, MAP_SHARED, file, 0);
  unsetenv("LD_PRELOAD");
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  long status = syscall(SYS_clock_gettime, clock, now);
  if (status == 0 && shift_us && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t ns = now->tv_nsec + (*shift_us % 1000000) * 1000;
    now->tv_sec += *shift_us / 1000000;
    if (ns < 0) { ns += 1000000000; now->tv_sec -= 1; }
    if (ns >= 1000000000) { ns -= 1000000000; now->tv_sec += 1; }
    now->tv_nsec = ns;
  }
  return (int)status;
}

int gettimeofday(struct timeval *now, void *zone) {
  struct timespec precise;
  clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *out) {
  struct timespec precise;
  clock_gettime(CLOCK_REALTIME, &precise);
  if (out) *out = precise.tv_sec;
  return precise.tv_sec;
}
"""


class SteppedClock:
    """The clock of servers started with ``binary``: the machine's, and ``ahead_s`` seconds more."""

    def __init__(self, folder: Path) -> None:
        self.server: Redis | None = None
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler is installed as `cc`: the clock of Valkey cannot be set")
        folder.mkdir(parents=True, exist_ok=True)
        source, library, self._shift = (folder / name for name in ("clock.c", "clock.so", "shift"))
        source.write_text(_SHIM)
        subprocess.run(
            [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True, timeout=60
        )
        self._shift.write_bytes(bytes(8))
        self.binary = folder / "valkey-server"
        self.binary.write_text(
            f'#!/bin/sh\nexec env CLOCK_SHIFT={self._shift} LD_PRELOAD={library} {find_binary()} "$@"\n'
        )
        self.binary.chmod(self.binary.stat().st_mode | stat.S_IXUSR)

    @property
    def ahead_s(self) -> float:
        """How far the clock is ahead of the machine's."""
        return float(struct.unpack("<q", self._shift.read_bytes())[0]) / 1e6

    def set(self, ahead_s: float) -> None:
        """Set it; below 0: it is behind. Returns once the server has seen it."""
        with self._shift.open("r+b") as file:
            file.write(struct.pack("<q", round(ahead_s * 1e6)))
        if self.server is not None:
            until(lambda: abs(self._seen_s() - time.time() - ahead_s) < 0.5)

    def _seen_s(self) -> float:
        assert self.server is not None
        seconds, micros = self.server.eval("return redis.call('TIME')", 0)
        return int(seconds) + int(micros) / 1e6

    def step(self, seconds: float) -> None:
        """Set it forward, or back."""
        self.set(self.ahead_s + seconds)


@contextmanager
def stepped_valkey(folder: Path) -> Iterator[tuple[EmbeddedValkey, SteppedClock]]:
    """A server with such a clock. Skips the test where there is no C compiler."""
    clock = SteppedClock(folder / "clock")
    with EmbeddedValkey(folder / "data", binary=clock.binary) as server, connect(server.url) as client:
        client.config_set("hz", 500)
        clock.server = client
        yield server, clock
