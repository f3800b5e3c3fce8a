"""What was sent and answered: one row for each operation, and every fault."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Book:
    """Counts answers by operation and status; keeps what was wrong."""

    answers: dict[str, Counter[int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        """How many requests were answered."""
        return sum(sum(counts.values()) for counts in self.answers.values())

    def note(self, operation: str, status: int) -> None:
        """One answer."""
        self.answers.setdefault(operation, Counter())[status] += 1

    def fault(self, said: str) -> None:
        """Something wrong; the same is kept once."""
        if said not in self.faults:
            self.faults.append(said)

    def table(self) -> str:
        """A row for each operation, in Markdown."""
        lines = ["| operation | cases | answers |", "|---|---:|---|"]
        for operation, counts in sorted(self.answers.items()):
            statuses = ", ".join(f"{status}: {count}" for status, count in sorted(counts.items()))
            lines.append(f"| `{operation}` | {sum(counts.values())} | {statuses} |")
        return "\n".join([*lines, f"| all {len(self.answers)} operations | {self.cases} | |"])
