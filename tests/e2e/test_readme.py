"""The README's example works as it is printed there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Run

_README = Path(__file__).parents[2] / "README.md"


def test_the_example_of_the_readme(a_run: Callable[..., Run], tmp_path: Path) -> None:
    [example] = re.findall(
        r"^test_vm\.py\n\n```python\n(.*?)^```$", _README.read_text(), re.DOTALL | re.MULTILINE
    )
    (tmp_path / "test_vm.py").write_text(example)
    run = a_run("test_vm.py", f"--rootdir={tmp_path}")
    status, output = run.finish(tmp_path)
    assert status == 0
    assert "1 passed" in output
    run.assert_nothing_left()
