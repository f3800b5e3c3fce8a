"""What callers give, as what can be sent. Every function raises `BadValue`, which names the value."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from service.client.errors import BadValue

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


def document(fields: Mapping[str, object]) -> dict[str, Any]:
    """The fields of a request as JSON has them; numbers and arrays of NumPy among them."""
    return {name: sendable(name, value) for name, value in fields.items()}


def sendable(name: str, value: Any) -> Any:
    """One value, plain: None, a bool, an int, a finite float, a text, or a list of those."""
    if hasattr(value, "tolist"):  # numbers and arrays of NumPy, and whatever is like them
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(name, value)
    if hasattr(value, "__index__"):
        return operator.index(value)
    if hasattr(value, "__float__"):
        number = float(value)
        if not math.isfinite(number):
            raise BadValue(f"{name}={value!r} is no finite number")
        return number
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | Mapping):
        return [sendable(name, one) for one in value]
    raise BadValue(f"{name}={value!r} cannot be sent; valid: a number, a text, or a list of them")


def units(given: object) -> Any:
    """Units as they are asked for: a text as it is, a range, or numbers."""
    if isinstance(given, str):
        return _text("units", given)
    if isinstance(given, range) and given.step > 0:
        return {"start": given.start, "stop": given.stop, "step": given.step}
    numbers = None if isinstance(given, bytes | bytearray | Mapping) else sendable("units", given)
    if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
        raise BadValue(f'units={given!r} are no units; valid: "all", a range, or a list of whole numbers')
    return numbers


def segment(name: str, value: object) -> str:
    """A part of a path, as of an id."""
    if not isinstance(value, str) or value in ("", ".", ".."):
        raise BadValue(f"{name}={value!r} names nothing; valid: a text")
    return quote(_text(name, value), safe="")


def idempotency_key(text: object) -> str:
    """The value of a header."""
    if not isinstance(text, str) or not _IDEMPOTENCY_KEY.fullmatch(text):
        raise BadValue(
            f"idempotency_key={text!r} cannot be sent; valid: printable ASCII, no space at the ends"
        )
    return text


def wait_s(seconds: float) -> float:
    """Seconds that a request asks the service to wait."""
    found = sendable("wait_s", seconds)
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise BadValue(f"wait_s={seconds!r} is no number of seconds; valid: 0 to 60")
    return found


def several(name: str, values: str | Sequence[str] | None) -> dict[str, list[str]]:
    """A query parameter that may be given several times."""
    if values is None:
        return {}
    found = [values] if isinstance(values, str) else sendable(name, values)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise BadValue(f"{name}={values!r} cannot be looked for; valid: a text or several")
    return {name: [_text(name, one) for one in found]}


def _text(name: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadValue(f"{name}={text!r} is no text that can be sent: {error.reason}") from error
    return text
