"""Settings from environment variables: the base that all processes share, and the settings of a worker.

Each variable is a field: its alias is the name of the variable, its type and bounds are the valid values. The
environment is passed in; nothing else of `workers` reads environment variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from proxygrad.paths import home, models_file
from workers.broker.connection import check_url
from workers.errors import SettingsError
from workers.logs import LogFormat

MAX_SLOTS = 256
MAX_THREADS = 1024
#: Less than a lease (`workers.queue.leases.LEASE_S`) would take jobs from an engine in the middle of a slow
#: step.
MIN_STALL_S = 6.0
MAX_STALL_S = 3600.0
MAX_GRACE_S = 3600.0

Precision = Literal["auto", "float32", "tf32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_DEVICE = r"^(auto|cpu|cuda(:\d+)?)$"


@dataclass(frozen=True)
class Valid:
    """Metadata of a field: what an error message says of valid values beside the type and bounds.

    ``values``: the valid values in words, where the type does not say them. ``unset``: what it means to leave
    the variable unset.
    """

    values: str = ""
    unset: str = ""


def _check_redis_url(url: str | None) -> str | None:
    if url is not None:
        check_url(url)
    return url


def _check_file(path: Path | None) -> Path | None:
    if path is not None and not path.is_file():
        raise ValueError(f"is not usable: there is no file {path}")
    return path


class SharedSettings(BaseModel):
    """The settings that gateway and worker processes share. ``redis_url`` is None where it is not set."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, hide_input_in_errors=True)

    home: Annotated[Path, Field(alias="PROXYGRAD_HOME", description="Data directory.")]
    redis_url: Annotated[
        str | None,
        AfterValidator(_check_redis_url),
        Field(alias="REDIS_URL", description="Redis or Valkey; None: `proxygrad serve` brings its own."),
    ] = None
    store_url: Annotated[
        str, Field(alias="PROXYGRAD_STORE", description="Where artifacts are stored, as a URL.")
    ]
    log_format: Annotated[
        LogFormat, Field(alias="PROXYGRAD_LOG", description="Format of log lines: text or JSON.")
    ] = "text"

    @classmethod
    def variables(cls) -> frozenset[str]:
        """The names of the environment variables."""
        return frozenset(field.alias or name for name, field in cls.model_fields.items())

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Settings from environment variables; an empty one counts as unset. Raises `SettingsError`."""
        texts = {name: environ.get(name, "").strip() for name in cls.variables()}
        given = {name: text for name, text in texts.items() if text}
        try:
            return cls.model_validate({**given, **cls._paths(environ)})
        except ValidationError as error:
            raise _settings_error(cls, error) from None  # pydantic's own text would show secrets

    @classmethod
    def _paths(cls, environ: Mapping[str, str]) -> dict[str, Any]:
        """The values that depend on more than their own variable."""
        directory = home(environ)
        store_url = environ.get("PROXYGRAD_STORE") or (directory / "artifacts").as_uri()
        return {"PROXYGRAD_HOME": directory, "PROXYGRAD_STORE": store_url}


class WorkerSettings(SharedSettings):
    """The settings of a worker process.

    ``models_path`` is None where there is no `models.toml`: only the bundled model is served.
    ``model_memory_mb`` is None where the worker decides, ``keep_days`` and ``keep_gb`` where all is kept.
    """

    models_path: Annotated[
        Path | None,
        AfterValidator(_check_file),
        Field(alias="PROXYGRAD_MODELS", description="The operator's `models.toml`."),
    ] = None
    slots: Annotated[
        int, Field(alias="PROXYGRAD_SLOTS", ge=1, le=MAX_SLOTS, description="Jobs in hand at once.")
    ] = 8
    device: Annotated[
        str,
        Valid("auto, cpu, cuda, cuda:0, cuda:1, …"),
        Field(alias="PROXYGRAD_DEVICE", pattern=_DEVICE, description="Device of the engine."),
    ] = "auto"
    precision: Annotated[
        Precision, Field(alias="PROXYGRAD_PRECISION", description="Precision of gradient steps.")
    ] = "auto"
    model_memory_mb: Annotated[
        int | None,
        Field(alias="PROXYGRAD_MODEL_MEMORY_MB", ge=1, description="Memory for loaded models, 10⁶ bytes."),
    ] = None
    keep_days: Annotated[
        float | None,
        Valid(unset="to keep everything"),
        Field(
            alias="PROXYGRAD_KEEP_DAYS",
            ge=0,
            allow_inf_nan=False,
            description="Age in days at which artifacts are removed.",
        ),
    ] = None
    keep_gb: Annotated[
        float | None,
        Valid(unset="to keep everything"),
        Field(
            alias="PROXYGRAD_KEEP_GB",
            ge=0,
            allow_inf_nan=False,
            description="Size of the store, in 10⁹ bytes, above which the oldest artifacts are removed.",
        ),
    ] = None
    threads: Annotated[
        int | None,
        Field(
            alias="PROXYGRAD_THREADS",
            ge=1,
            le=MAX_THREADS,
            description="Threads of one torch operation on the CPU.",
        ),
    ] = None
    stall_s: Annotated[
        float,
        Field(
            alias="PROXYGRAD_STALL_S",
            ge=MIN_STALL_S,
            le=MAX_STALL_S,
            description="Seconds without progress after which a worker ends.",
        ),
    ] = 60.0
    grace_s: Annotated[
        float,
        Field(
            alias="PROXYGRAD_GRACE_S", ge=0, le=MAX_GRACE_S, description="Seconds from SIGTERM to the end."
        ),
    ] = 25.0

    @classmethod
    def _paths(cls, environ: Mapping[str, str]) -> dict[str, Any]:
        return {**super()._paths(environ), "PROXYGRAD_MODELS": models_file(environ)}


def _settings_error(model: type[SharedSettings], error: ValidationError) -> SettingsError:
    """The first error as one line that names the variable, its value, and the valid ones."""
    first = error.errors(include_url=False)[0]
    variable = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "value_error":  # the validator's own sentence; one of several variables names them
        return SettingsError(f"{variable} {first['ctx']['error']}".strip())
    (field,) = (each for each in model.model_fields.values() if each.alias == variable)
    value, valid = first["input"], _valid(field, out_of_bounds=first["type"] in _BOUND_ERRORS)
    shown = value if first["type"] in _BOUND_ERRORS else repr(value)
    return SettingsError(f"{variable} is {shown}; valid: {valid}")


_BOUND_ERRORS = frozenset(
    {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}
)


def _valid(field: FieldInfo, *, out_of_bounds: bool) -> str:
    """The valid values of a field in words."""
    note = next((each for each in field.metadata if isinstance(each, Valid)), Valid())
    values = note.values or (_bounds(field) if out_of_bounds else _type(field))
    return f"{values}, or unset {note.unset}" if note.unset else values


def _type(field: FieldInfo) -> str:
    kinds = get_args(field.annotation) or (field.annotation,)
    if bool in kinds:
        return "true, false, or unset"
    if int in kinds:
        return "a whole number"
    if float in kinds:
        return "a number of seconds" if (field.alias or "").endswith("_S") else "a number"
    return ", ".join(str(kind) for kind in kinds)  # of a Literal, the values


def _bounds(field: FieldInfo) -> str:
    limits = {name: getattr(each, name) for each in field.metadata for name in _LIMITS if hasattr(each, name)}
    least, above, most = (limits.get(name) for name in _LIMITS)
    if above is not None:
        return f"above {_number(above)}, up to {_number(most)}"
    return f"{_number(least)} or more" if most is None else f"{_number(least)} to {_number(most)}"


_LIMITS = ("ge", "gt", "le")


def _number(value: Any) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"
