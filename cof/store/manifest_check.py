"""A manifest as it must be to be read: whoever has one from here may rely on its keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic asks for it below Python 3.12

from cof.config.build import check_values
from cof.errors import ConfigError, RunError, cut, shown

LOST = (
    "nothing else says what the records were made with: bring the file back, "
    "or start anew with --overwrite"
)
_STRICT = ConfigDict(strict=True, extra="allow")


@with_config(_STRICT)
class _Dataset(TypedDict):
    questions: str
    images: str
    question_count: Annotated[int, Field(ge=1)]
    image_count: Annotated[int, Field(ge=1)]
    regions: NotRequired[str]


@with_config(_STRICT)
class _Code(TypedDict):
    commit: str | None
    dirty: bool | None


@with_config(_STRICT)
class _Identity(TypedDict):
    weights: str
    dtype: str
    device: str


@with_config(_STRICT)
class _Change(TypedDict):
    """What was different when a run went on; each key in the manifest's form."""

    records: Annotated[int, Field(ge=0)]
    dataset: NotRequired[_Dataset]
    model: NotRequired[dict[str, Any]]
    code: NotRequired[_Code]
    versions: NotRequired[dict[str, str | None]]


@with_config(_STRICT)
class _FailedImages(TypedDict):
    """Images all of whose questions failed, by name; `images` is the dataset's hash then."""

    images: str
    files: dict[str, str]


@with_config(_STRICT)
class _Manifest(TypedDict):
    config_hash: str
    dataset: _Dataset
    model: dict[str, Any]
    code: _Code
    versions: dict[str, str | None]
    identity: NotRequired[_Identity]
    batch_size: NotRequired[Annotated[int, Field(ge=1)]]
    failed_images: NotRequired[_FailedImages]
    resumed: list[_Change]


_ADAPTER: TypeAdapter[_Manifest] = TypeAdapter(_Manifest)


def checked(data: Any, file: Path) -> dict[str, Any]:
    """The content of a manifest, if it is one.

    Raises:
        RunError: the first key that is missing or of another type.
    """
    try:
        check_values(data, "")
        _ADAPTER.validate_python(data)
    except (ConfigError, ValidationError) as error:
        why = explain(error) if isinstance(error, ValidationError) else error
        raise RunError(f"{file}: damaged ({why}); {LOST}") from None
    found: dict[str, Any] = data
    return found


def explain(error: ValidationError) -> str:
    """The first thing that is wrong with some JSON: its key, what is expected, what is there."""
    first = error.errors(include_url=False)[0]
    key = cut(".".join(map(str, first["loc"])))
    if first["type"] == "missing":
        return f"{key} is missing"
    return f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}, not {shown(first['input'])}"


def latest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with what changed when the run went on in its place; empty stays empty."""
    current = dict(manifest)
    for change in manifest.get("resumed", []):
        current |= change
    return current
