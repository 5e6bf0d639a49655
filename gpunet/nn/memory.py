"""Flat buffers with named views, and a model's parameters and gradients on two of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Self

from gpunet.backend.base import Array, Backend
from gpunet.errors import InputError, shown
from gpunet.nn.layers.base import Layer, Parameter, write
from gpunet.reprs import sizes

ALIGN = 16  # elements: every view of a float32 buffer starts on a 64-byte boundary


class Layout:
    """Where each named array lies in a flat buffer: names in order, each rounded up to ALIGN elements."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = dict(shapes)
        self.places: dict[str, slice] = {}
        self.size = 0
        for name, shape in self.shapes.items():
            count = math.prod(shape)
            self.places[name] = slice(self.size, self.size + count)
            self.size += -(-count // ALIGN) * ALIGN


class Arena:
    """One flat buffer, zeros at first, and a view of it for every name of a layout."""

    def __init__(self, backend: Backend, layout: Layout, dtype: str) -> None:
        self.layout = layout
        self.flat: Array = backend.zeros(layout.size, dtype)
        self.views: dict[str, Array] = {
            name: self.flat[place].reshape(layout.shapes[name]) for name, place in layout.places.items()
        }


Declared = Mapping[str, tuple[Layer, Parameter]]


class Views(Mapping[str, Array]):
    """Views of an arena by name: writing into one changes the model, and so does setting one, which copies.

    A copy is a dictionary of arrays of its own. Raises InputError for a name that is not there, an array of another
    shape, and once the model's parameters have moved; DataError for NaN and infinity.
    """

    def __init__(self, of: Parameters, views: Mapping[str, Array]) -> None:
        self._of, self._views = of, views

    def __getitem__(self, name: str) -> Array:
        if self._of.outdated:
            raise InputError(
                "the model's parameters have moved, since a layer was replaced, frozen or freed, or the model built "
                "again: ask for model.parameters again"
            )
        try:
            return self._views[name]
        except (KeyError, TypeError):
            raise InputError(f"there is no parameter {shown(name)}: expected one of {', '.join(self)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._views

    def __repr__(self) -> str:
        said = [f"{name} {sizes(view)}" for name, view in self._views.items()]
        return f"<Views: {', '.join(said)}>"

    def __setitem__(self, name: str, value: Any) -> None:
        view = self[name]
        if value is not view:  # as it is after `parameters[name] *= 2`
            write(self._of.backend, view, value, name)

    def update(self, *others: Any, **named: Any) -> None:
        """Set several."""
        try:
            given = dict(*others, **named)
        except (TypeError, ValueError) as error:
            raise InputError(f"parameters cannot be set from {shown(others)}: expected a dictionary") from error
        for name in given:
            self[name]  # all names, before anything is set
        for name, value in given.items():
            self[name] = value

    def get(self, name: str, default: Any = None) -> Any:
        """One, or the default where there is none of that name."""
        if name not in self:
            return default
        return self[name]

    def copy(self) -> dict[str, Array]:
        """A dictionary of the views."""
        return dict(self)

    def __ior__(self, others: Any) -> Self:  # type: ignore[misc]
        self.update(others)
        return self

    def __or__(self, others: Mapping[str, Any]) -> dict[str, Any]:
        return {**self, **others}

    def __ror__(self, others: Mapping[str, Any]) -> dict[str, Any]:
        return {**others, **self}

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, ({name: view.copy() for name, view in self.items()},)


class Parameters:
    """Parameters by full name ("0.weight"), views of one arena; gradients likewise.

    The arena lies in three parts: under the L2 term, not under it, not trained. So the optimiser, and the L2 term, each
    see one contiguous range. Raises MemoryFullError where there is no room for it.
    """

    def __init__(self, layers: Sequence[Layer], declared: Declared, backend: Backend, dtype: str) -> None:
        def part(name: str) -> int:
            layer, parameter = declared[name]
            return int(not parameter.decay) if layer.trainable and parameter.trained else 2

        names = sorted(declared, key=part)  # stable: the layers' order inside each part
        shapes = {name: declared[name][1].shape for name in names}
        self.backend, self.outdated = backend, False
        self.trained = [name for name in names if part(name) < 2]
        self._params = Arena(backend, Layout(shapes), dtype)
        self._grads = Arena(backend, Layout({name: shapes[name] for name in self.trained}), dtype)
        self.layout, self.trained_layout = self._params.layout, self._grads.layout
        places, size = self.trained_layout.places, self.trained_layout.size
        self.n_decayed = next((places[name].start for name in self.trained if part(name)), size)
        # The trained parameters and their gradients as flat arrays, and how many stand under the L2 term.
        self.flat = self._params.flat[:size], self._grads.flat, self.n_decayed
        self.whole = self._params.flat  # what is not trained, too
        self._layers, self._declared = layers, declared  # in the layers' order, which is PyTorch's
        self._rounded: Arena | None = None

    @property
    def rounded(self) -> Arena:
        """All parameters in bfloat16, as `round` left them, and as an optimiser has updated them since."""
        if self._rounded is None:
            self._rounded = Arena(self.backend, self.layout, "uint16")
            self.round()
        return self._rounded

    @cached_property
    def trained_rounded(self) -> Array:
        """Of these the trained ones: one array, by which an optimiser sees that it writes there already."""
        return self.rounded.flat[: self.trained_layout.size]

    def round(self) -> None:
        """Have the parameters of now in bfloat16: somebody may have written into them."""
        with self.backend.session():
            self.backend.to_bfloat16(self.whole, self.rounded.flat)

    def rounded_of(self, layer: Layer) -> dict[str, Array]:
        """A layer's parameters in bfloat16, by its own names."""
        return {short: self.rounded.views[name] for short, name in self._names_of(layer).items()}

    def _names_of(self, layer: Layer) -> dict[str, str]:
        """{its own name of a parameter: the full one} of a layer."""
        return {name.rpartition(".")[2]: name for name, (owner, _) in self._declared.items() if owner is layer}

    def attach(self) -> None:
        """Hand the layers their views."""
        for layer in self._layers:
            own = self._names_of(layer)
            layer.attach(
                self.backend,
                {short: self._params.views[n] for short, n in own.items()},
                {short: self._grads.views[n] for short, n in own.items() if n in self._grads.views},
            )

    @property
    def views(self) -> Views:
        """The parameters by name, in the layers' order."""
        return Views(self, {name: self._params.views[name] for name in self._declared})

    @property
    def gradients(self) -> Views:
        """The trained parameters' gradients by name."""
        return Views(self, self._grads.views)
