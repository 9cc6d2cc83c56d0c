from __future__ import annotations

from pytest_lima.lima.merging import merge, take_out, without_nulls


def test_mappings_merge_and_all_else_is_replaced() -> None:
    base = {"a": {"x": 1, "y": [1]}, "b": 1, "c": {"z": 1}}
    assert merge(base, {"a": {"y": [2]}, "b": {"k": 2}, "c": 3, "d": {}}) == {
        "a": {"x": 1, "y": [2]}, "b": {"k": 2}, "c": 3, "d": {},
    }  # fmt: skip
    assert base == {"a": {"x": 1, "y": [1]}, "b": 1, "c": {"z": 1}}


def test_null_changes_nothing_however_deep() -> None:
    assert merge({"a": {"x": 1}, "b": 2}, {"a": {"x": None, "y": None}, "b": None}) == {
        "a": {"x": 1}, "b": 2,
    }  # fmt: skip
    assert merge({}, {"a": {"b": {"c": None}}, "d": [{"e": None, "f": 1}]}) == {
        "a": {"b": {}}, "d": [{"f": 1}],
    }  # fmt: skip


def test_null_says_nothing_but_among_texts() -> None:
    value = {"a": None, "b": {"c": None, "d": 0, "e": False, "f": ""}, "g": [None, {"h": None}],
             "env": {"i": None}, "hostResolver": {"hosts": {"j": None}}, "param": None}  # fmt: skip
    assert without_nulls(value) == {
        "b": {"d": 0, "e": False, "f": ""}, "g": [None, {}], "env": {"i": ""},
        "hostResolver": {"hosts": {"j": ""}},
    }  # fmt: skip


def test_what_is_null_is_taken_out() -> None:
    base = {"a": 1, "b": {"c": 1, "d": 2}, "e": {"f": 1}}
    assert take_out(base, {"a": None, "b": {"c": None}, "e": {"f": 2}, "g": None}) == {
        "b": {"d": 2}, "e": {"f": 1},
    }  # fmt: skip
    assert take_out(base, {}) == base
