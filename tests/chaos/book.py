"""What was asked, what the service said to it, and when: one account for each id, kept by several threads."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.plan import Question


@dataclass
class Account:
    """One id. Times are seconds since 1970.

    ``told`` is the end that its caller was told of. ``end`` is the first that was seen, as the record had it:
    it was written between its ``finished_at`` and ``end_seen_at``.
    """

    job_id: str
    questions: list[Question] = field(default_factory=list)
    acknowledged: list[float] = field(default_factory=list)
    forgotten: int = 0
    canceled_at: float | None = None
    cancel_state: str = ""
    told: str = ""
    end: dict[str, str] | None = None
    end_seen_at: float | None = None
    image_sha256: str = ""
    damaged: bool = False

    @property
    def kinds(self) -> set[str]:
        return {question.kind for question in self.questions}


class Book:
    """All accounts. Safe to share between threads."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.refusals: Counter[str] = Counter()
        self.answers: list[tuple[float, str]] = []  # when a caller was given an id, and which caller
        self.flaws: list[str] = []
        self.to_mend: list[Account] = []
        self.bundles: dict[int, list[str]] = {}  # ids of each, the last one that which ended
        self._lock = threading.Lock()

    def acknowledge(self, question: Question, job_id: str, now: float) -> None:
        """The service has given an id."""
        with self._lock:
            account = self.accounts.setdefault(job_id, Account(job_id))
            if question not in account.questions:
                account.questions.append(question)
            account.acknowledged.append(now)
            self.answers.append((now, question.caller))

    def refuse(self, code: str) -> None:
        """It has not; the caller tries again."""
        with self._lock:
            self.refusals[code] += 1

    def forget(self, job_id: str) -> None:
        """It knows nothing of an id that it gave."""
        with self._lock:
            self.accounts[job_id].forgotten += 1

    def cancel(self, job_id: str, state: str, now: float) -> None:
        """It has taken note that nobody wants the job."""
        with self._lock:
            account = self.accounts[job_id]
            account.canceled_at, account.cancel_state = now, state

    def tell(self, job_id: str, state: str) -> None:
        """Its caller knows how it ended, and will not look again."""
        with self._lock:
            self.accounts[job_id].told = state

    def succeeded(self) -> list[Account]:
        """Those whose caller knows that they have, and whose files nobody has damaged."""
        with self._lock:
            accounts = self.accounts.values()
            return [
                account
                for account in accounts
                if account.told == "succeeded" and account.end is not None and not account.damaged
            ]

    def damage(self, account: Account) -> None:
        """Its files are damaged; its caller has to ask again."""
        with self._lock:
            account.damaged, account.end = True, None
            self.to_mend.append(account)

    def take_damaged(self, caller: str) -> list[Account]:
        """Those to be mended by that caller."""
        with self._lock:
            mine = [each for each in self.to_mend if each.questions[0].caller == caller]
            self.to_mend = [each for each in self.to_mend if each not in mine]
            return mine

    def complain(self, flaw: str) -> None:
        """Something that must not be, whatever happens."""
        with self._lock:
            self.flaws.append(flaw)

    def open_ids(self) -> list[str]:
        """Those whose end was not seen."""
        with self._lock:
            return [job_id for job_id, account in self.accounts.items() if account.end is None]

    def first_answer_after(self, at: float, callers: tuple[str, ...]) -> float | None:
        """When one of these callers was next given an id."""
        with self._lock:
            return min(
                (when for when, caller in self.answers if when > at and caller in callers), default=None
            )
