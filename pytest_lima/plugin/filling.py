"""What a fixture asks for in full: by the markers, the options and the override points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from pytest_lima.lima.engines import ENGINES
from pytest_lima.plugin.byname import folder_of
from pytest_lima.settings import Settings
from pytest_lima.spec import MachineSpec


class Filler:
    """Fills specs for the fixtures of a test.

    Attributes:
        item: The test that is set up, or runs.
    """

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.item: pytest.Item | None = None
        self._here = config.invocation_params.dir
        self._settings = settings

    def fill(
        self,
        spec: MachineSpec,
        template: str,
        overrides: Mapping[str, Any],
        engines: frozenset[str],
    ) -> MachineSpec:
        """All of a machine; a relative path of an override of `lima_template` starts beside it.

        Args:
            spec: What is asked for; its own paths are absolute.
            template: The value of `lima_template`.
            overrides: The value of `lima_overrides`.
            engines: Those that answer if the options leave it open.
        """
        beside = folder_of("lima_template", self.item) if self.item is not None else None
        folders = [folder for folder in (beside, self._here) if folder is not None]
        chosen = self._settings.engine
        asked = engines if chosen == "auto" else ENGINES[chosen]
        filled = spec.filled(self._settings, template, overrides).located(*folders)
        return replace(filled, engines=asked)
