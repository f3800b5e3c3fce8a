"""How much memory models may take, from files as Linux has them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="asks torch about GPUs")

from workers.process.device import free_bytes, memory_budget

pytestmark = pytest.mark.engine

GIB = 2**30


def tree(root: Path, **files: str) -> Path:
    """Files at these paths, where ``__`` stands for ``/``; 8 GiB are available."""
    for name, content in {
        "proc__meminfo": "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n",
        **files,
    }.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_what_the_operator_says_counts() -> None:
    assert memory_budget(2000, "cpu") == 2_000_000_000


def test_otherwise_it_is_half_of_what_is_free() -> None:
    assert 0 < memory_budget(None, "cpu") <= free_bytes("cpu") * 0.6


def test_without_cgroups_it_is_what_the_kernel_has_available(tmp_path: Path) -> None:
    assert free_bytes("cpu", tree(tmp_path)) == 8 * GIB


@pytest.mark.parametrize(
    ("group", "files", "free"),
    [
        pytest.param(
            "0::/\n",
            {
                "memory.max": f"{4 * GIB}\n",
                "memory.current": f"{3 * GIB}\n",
                "memory.stat": f"anon {2 * GIB}\ninactive_file {GIB}\n",
            },
            2 * GIB,
            id="version 2, seen from inside",
        ),
        pytest.param(
            "5:cpu,cpuacct:/\n4:memory:/docker/1\n",
            {
                "memory__docker__1__memory.limit_in_bytes": f"{3 * GIB}",
                "memory__docker__1__memory.usage_in_bytes": f"{2 * GIB}",
                "memory__docker__1__memory.stat": f"total_inactive_file {GIB // 2}\n",
            },
            1.5 * GIB,
            id="version 1",
        ),
    ],
)
def test_the_limit_of_a_container(tmp_path: Path, group: str, files: dict[str, str], free: float) -> None:
    """What is used counts, but for files that can be dropped."""
    placed = {f"sys__fs__cgroup__{name}": content for name, content in files.items()}
    assert free_bytes("cpu", tree(tmp_path, proc__self__cgroup=group, **placed)) == free


def test_the_limit_of_an_outer_group_counts_too(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        proc__self__cgroup="0::/service/worker\n",
        **{
            "sys__fs__cgroup__service__memory.max": f"{2 * GIB}",
            "sys__fs__cgroup__service__memory.current": f"{GIB}",
            "sys__fs__cgroup__service__worker__memory.max": "max\n",
            "sys__fs__cgroup__service__worker__memory.current": f"{GIB // 2}",
        },
    )
    assert free_bytes("cpu", root) == GIB


def test_a_group_over_its_limit_leaves_nothing(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        proc__self__cgroup="0::/\n",
        **{"sys__fs__cgroup__memory.max": "100", "sys__fs__cgroup__memory.current": "200"},
    )
    assert free_bytes("cpu", root) == 0


def test_where_there_is_no_proc_it_is_all_there_is(tmp_path: Path) -> None:
    assert free_bytes("cpu", tmp_path) > 2**28


def test_a_gpu_is_asked_itself() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    free, total = torch.cuda.mem_get_info(0)
    assert free_bytes("cuda:0") == pytest.approx(free, rel=0.1)
    assert free_bytes("cuda:0") <= total
