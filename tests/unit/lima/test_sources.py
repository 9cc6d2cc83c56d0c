from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lima.lima import sources

LIMAS = ["default", "docker", "ubuntu-24.04", "ubuntu-lts", "experimental/wsl2"]
REFUSED = [
    ".lima.yaml", "my vm.yaml", "-x.yaml", "x-.yaml", "100%.yaml", "%zz.yaml", "a#b.yaml", "ü.yaml",
    "a__b.yaml", "a..b.yaml", "a+b.yaml", "a:b.yaml", "x" * 90 + ".yaml", "-", "tab\t.yaml", ".x",
]  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("by", ["path", "URL"])
def test_a_file_whose_name_limactl_refuses_has_another(tmp_path: Path, name: str, by: str) -> None:
    file = tmp_path / name
    file.write_text("base: base.yaml")
    (tmp_path / "base.yaml").write_text("cpus: 3")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/x.sh").write_text("echo x")
    with sources.readable(str(file) if by == "path" else f"file://{file}") as found:
        given = Path(found.name)
        assert given.read_text() == "base: base.yaml"
        assert given.stem.replace("-", "").isalnum()
        # Neighbours are found from there.
        assert (given.parent / "base.yaml").read_text() == "cpus: 3"
        assert (given.parent / "scripts/x.sh").read_text() == "echo x"
        # And told of as where they are.
        assert found.told(f"{given}: {given.parent}/base.yaml") == f"{file}: {tmp_path}/base.yaml"
    assert not given.parent.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [name, "base.yaml", "scripts"]
    )


@pytest.mark.parametrize(
    "name", ["vm.yaml", "lima.yml", "lima", "lima.txt", "VM.YAML", "ubuntu-24.04.yaml", "a_b.c-d",
             "my vm.qcow2", "100%.img.xz"],
)  # fmt: skip
def test_all_else_is_given_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    with sources.readable(str(tmp_path / name)) as found:
        assert found == sources.Readable(str(tmp_path / name))
        assert found.told("x") == "x"


@pytest.mark.parametrize(
    "source",
    ["template:my vm", "https://x.invalid/.lima.yaml", "github:x", "", "-", "no such.yaml"],
)
def test_what_is_no_file_is_given_as_it_is(source: str) -> None:
    with sources.readable(source) as found:
        assert found.name == source


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".lima.yaml").write_text("x")
    with sources.readable(".lima.yaml") as found:
        assert Path(found.name).read_text() == "x"
        assert found.path == tmp_path / ".lima.yaml"


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        ("ubuntu-lts", "there is no file ubuntu-lts in {}; did you mean template:ubuntu-lts?"),
        ("dcoker", "there is no file dcoker in {}; did you mean template:docker?"),
        ("xyzzy", "there is no file xyzzy in {}"),
        ("./VM.yml", "there is no file VM.yml in {}; did you mean {}/vm.yaml?"),
        ("no/vm.yaml", "there is no file vm.yaml in {}/no"),
        ("file:///no/such.yaml", "there is no file such.yaml in /no"),
        ("template:dokcer", "did you mean template:docker?"),
        ("template://ubuntu-lst", "did you mean template:ubuntu-lts"),
        ("template:xyzzy", "see `limactl create --list-templates`"),
        ("template:docker", "see `limactl create --list-templates`, or check the file"),
        ("vm.yaml", "see `limactl create --list-templates`, or check the file"),
        ("https://x.invalid/y", "see `limactl create --list-templates`, or check the file"),
    ],
)
def test_what_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, remedy: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vm.yaml").write_text("x")
    found = sources.remedy(source, LIMAS)
    expected = remedy.replace("{}", str(tmp_path))
    assert found == expected or found.startswith(expected + " or template:")
    assert "template:xyzzy" not in sources.remedy(source, [])
