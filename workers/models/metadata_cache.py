"""What was found out about models, kept between starts, so that a start need not load them all again."""

from __future__ import annotations

import logging
import secrets
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from proxygrad.paths import make_private
from proxygrad.spec import ModelInfo

_log = logging.getLogger(__name__)


class ModelMetadata(BaseModel):
    """A model as it was found: what it depends on, what it offers, and what memory it takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: dict[str, JsonValue]
    info: ModelInfo
    size_bytes: int


class MetadataCache:
    """A folder of notes, one a model, which several workers may share; without a folder, none are kept."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def read(self, name: str, fingerprint: dict[str, JsonValue]) -> ModelMetadata | None:
        """The note of that model, if it depends on the same now; a file that is damaged counts as none."""
        if self._folder is None:
            return None
        try:
            note = ModelMetadata.model_validate_json((self._folder / f"{name}.json").read_bytes())
        except (OSError, ValidationError):
            return None
        return note if note.fingerprint == fingerprint else None

    def write(self, name: str, note: ModelMetadata) -> None:
        """Keep a note in the place of an earlier one. Where that cannot be done, the next start is slower."""
        if self._folder is None:
            return
        whole = self._folder / f"{name}.json"
        part = self._folder / f"{name}.json.{secrets.token_hex(4)}"
        try:
            make_private(self._folder)
            part.write_text(note.model_dump_json())
            part.replace(whole)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            _log.warning("what was found out about model %s is not kept: %s", name, error)
