"""The plugin's tests run over the fake limactl in tests/fake."""

from __future__ import annotations

import importlib.util
from pathlib import Path

# By its path: with import mode importlib there is no package to import it from.
_SPEC = importlib.util.spec_from_file_location(
    "fake_lima_fixtures", Path(__file__).parents[1] / "fake" / "fixtures.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)

fake_lima = _MODULE.fake_lima
