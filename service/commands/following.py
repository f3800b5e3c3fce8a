"""A progress bar fed by a job's own progress, seen through the service."""

from __future__ import annotations

from tqdm import tqdm

from proxygrad.errors import ProxyGradError
from service.client import Client, Visualization


class JobFailed(ProxyGradError):
    """The job that was followed has no result."""

    code = "job_failed"


def followed(client: Client, asked: Visualization, label: str) -> Visualization:
    """Show a bar on standard error until `asked` has ended; raises `JobFailed` unless it succeeded."""
    with tqdm(total=asked.progress.steps, desc=label, unit="step", leave=True) as bar:
        for seen in client.follow(asked):
            bar.total = seen.progress.steps
            bar.set_postfix_str(_standing(seen), refresh=False)
            bar.update(seen.progress.step - bar.n)
    if seen.state != "succeeded":
        reason = f": {seen.problem.detail} [{seen.problem.code}]" if seen.problem else ""
        raise JobFailed(f"visualization {seen.id} {seen.state}{reason}")
    return seen


def _standing(seen: Visualization) -> str:
    if seen.state == "queued":
        return "queued" if seen.queue_position is None else f"queued, {seen.queue_position} ahead"
    activation = seen.progress.activation if seen.result is None else seen.result.achieved_activation
    return seen.state if activation is None else f"activation {activation:.4g}"
