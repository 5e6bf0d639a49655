"""msgspec's structs, which files are held against; type checkers see them whether it is installed or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar, dataclass_transform

    T = TypeVar("T")

    def field(*, default_factory: Callable[[], T]) -> T:
        """A default that is made anew for each."""

    def convert(value: Any, type: type[T]) -> T:  # noqa: A002
        """What JSON gave as the type; msgspec.ValidationError where it is none."""

    class Meta:
        """Bounds of a field's values, in its annotation."""

        def __init__(self, **bounds: float) -> None: ...

    @dataclass_transform(field_specifiers=(field,))
    class Struct:
        """A class of typed fields, which `convert` makes."""

        def __init_subclass__(cls, *, omit_defaults: bool = False, forbid_unknown_fields: bool = False) -> None: ...
else:
    from gpunet.extras import need

    need("a result", "msgspec")
    from msgspec import Meta, Struct, convert, field

__all__ = ["Meta", "Struct", "convert", "field"]
