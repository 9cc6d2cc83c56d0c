"""A VM whose provisioning failed is never handed out."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lima import LimaFactory, ProvisionError, StartError
from pytest_lima.lima.host import native_arch


@pytest.mark.lima
def test_a_failed_script_is_named_with_its_last_words(lima_factory: LimaFactory) -> None:
    script = "#!/bin/sh\necho the disk is made of cheese >&2\nexit 3\n"
    with pytest.raises(ProvisionError) as caught:
        lima_factory(provision=["#!/bin/sh\nexit 0\n", script])
    message = str(caught.value)
    assert "cheese" in message
    assert len(message.splitlines()) <= 5
    assert caught.value.log is not None
    assert "cheese" in Path(caught.value.log).read_text()


@pytest.mark.parametrize(("image", "seen"), [("missing", "disk.qcow2"), ("garbage", "qemu-img")])
def test_a_broken_image(lima_factory: LimaFactory, tmp_path: Path, image: str, seen: str) -> None:
    disk, template = tmp_path / "disk.qcow2", tmp_path / "broken.yaml"
    if image == "garbage":
        # A qcow2 header that promises what isn't there.
        disk.write_bytes(b"QFI\xfb" + b"\0\0\0\3" + b"\xff" * 504)
    template.write_text(
        f"images: [{{location: {disk}, arch: {native_arch()}}}]\ncontainerd: {{user: false}}\n"
    )
    with pytest.raises(StartError) as caught:
        lima_factory(template=str(template))
    assert seen in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 5
