"""What a wheel holds beside the folder gpunet: cli/ and datasets/ as gpunet.cli and gpunet.datasets.

An editable install needs none of that: gpunet/__init__.py finds the two beside it, and copies would hide the checkout.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Beside(BuildHookInterface):
    """Hatchling's hook: what `force-include` in pyproject.toml would do for editable installs too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel of that version, "standard" or "editable", is built."""
        if version != "editable":
            build_data["force_include"] |= {name: f"gpunet/{name}" for name in ("cli", "datasets")}
