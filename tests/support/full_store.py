"""A full disk without one: a library loaded before the C library refuses writes below a folder."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

_SHIM = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static volatile char *full;
static const char *folder;

__attribute__((constructor)) static void begin(void) {
  const char *flag = getenv("FULL_STORE_FLAG");
  int file = flag ? open(flag, O_RDONLY) : -1;
  folder = getenv("FULL_STORE_FOLDER");
  if (file >= 0 && folder) full = mmap(NULL, 1, PROT_READ, MAP_SHARED, file, 0);
}

static int refused(int file) {
  char name[40], path[PATH_MAX];
  if (!full || !*full) return 0;
  snprintf(name, sizeof name, "/proc/self/fd/%d", file);
  long length = readlink(name, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  if (strncmp(path, folder, strlen(folder))) return 0;
  errno = ENOSPC;
  return 1;
}

ssize_t write(int file, const void *data, size_t size) {
  return refused(file) ? -1 : syscall(SYS_write, file, data, size);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t at) {
  return refused(file) ? -1 : syscall(SYS_pwrite64, file, data, size, at);
}

ssize_t pwrite64(int file, const void *data, size_t size, off_t at) {
  return refused(file) ? -1 : syscall(SYS_pwrite64, file, data, size, at);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
  return refused(file) ? -1 : syscall(SYS_writev, file, parts, count);
}
"""


class FullStore:
    """Processes that start with ``environ`` find ``folder`` without room while ``set(True)`` holds."""

    def __init__(self, home: Path, folder: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        source, library, self._flag = (home / name for name in ("store.c", "store.so", "full"))
        source.write_text(_SHIM)
        compiler = shutil.which("cc")
        assert compiler is not None, "no C compiler is installed as `cc`"
        subprocess.run(
            [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True, timeout=60
        )
        self.set(False)
        self.environ: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "FULL_STORE_FLAG": str(self._flag),
            "FULL_STORE_FOLDER": str(folder),
        }

    def set(self, full: bool) -> None:
        """Fill the disk, or make room."""
        if self._flag.exists():
            with self._flag.open("r+b") as file:
                file.write(bytes([full]))
        else:
            self._flag.write_bytes(bytes([full]))
