"""What ``--set`` and ``--param`` make of a filled template, known before an instance is made.

``limactl create`` applies them after all else, so the same is done here first, by limactl's own
yq: a mistake is told while nothing is there yet, and what we believe of the machine stays true.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pytest_lima.errors import TemplateError
from pytest_lima.lima import disks, engines, hostports, lima_yaml, process, reach
from pytest_lima.lima.keys import Keys
from pytest_lima.lima.limactl import Limactl, complaint
from pytest_lima.lima.template import LAST_FORWARDS_NOTHING, FilledTemplate
from pytest_lima.settings import OPTIONS, Settings
from pytest_lima.spec import MachineSpec

_ASSIGNMENT = re.compile(r"\.?([\w.\[\]-]+)\s*([|+*]?=)\s*([^=].*)", re.DOTALL)
# What decides which images are taken, and how they are started: known before the template is.
_DECIDED = {"vmType": "--lima-vmtype", "arch": "--lima-arch"}


def apply(
    source: str, filled: FilledTemplate, spec: MachineSpec, settings: Settings, limactl: Limactl,
    keys: Keys,
) -> FilledTemplate:  # fmt: skip
    """Tell what a machine is with its ``set`` and ``param``; its text stays for limactl to edit.

    Args:
        source: Where the template is from, for messages.
        filled: The template as it is handed to limactl.
        spec: The machine, with the run's options in it.
        settings: The options, which say where expressions are from.
        limactl: What will apply them.
        keys: Those that it knows.

    Raises:
        TemplateError: An expression or a param that can't be used, or that breaks the machine.
    """
    if not spec.set and not spec.param:
        return filled
    before = lima_yaml.read(source, filled.text)
    expressions = (*spec.set, *_params(source, spec, before))
    done = _evaluate(limactl, filled.text, expressions)
    if not done.ok:
        raise _blamed(filled.text, spec, settings, limactl)
    given = [_given(one, settings) for one in spec.set] + [f"param {key}" for key, _ in spec.param]
    who = f"the template {source}, with {', '.join(given)},"
    after = lima_yaml.read(who, done.stdout)
    if not isinstance(after, dict):
        raise TemplateError(f"{who} is no template", seen=done.stdout,
                            remedy="give assignments, such as .cpus = 2")  # fmt: skip
    keys.check(who, after)
    _check(who, source, before, after, filled)
    return replace(_with_facts(filled, after), edits=_options(spec, before, after))


def _options(
    spec: MachineSpec, before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[str, ...]:
    """Those of ``limactl create`` that make the same of the template."""
    expressions = spec.set
    if after.get("portForwards") != before.get("portForwards"):
        expressions = (*expressions, LAST_FORWARDS_NOTHING)
    # limactl puts them all on one line (pkg/yqutil: Join), of which a comment would hide the rest.
    return (*(f"--set={one}\n" if "#" in one else f"--set={one}" for one in expressions),
            *(f"--param={key}={value}" for key, value in spec.param))  # fmt: skip


def _params(source: str, spec: MachineSpec, before: Mapping[str, Any]) -> list[str]:
    """The expressions that limactl makes of ``--param``."""
    found = before.get("param")
    names = [str(name) for name in found] if isinstance(found, Mapping) else []
    for key, _ in spec.param:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            raise TemplateError(
                f"the template {source} has no param {key!r}",
                seen=f"its params: {', '.join(names) or 'none'}",
                remedy=f"did you mean {near[0]}?" if near else "see `param` in the template",
            )
    return [f".param[{json.dumps(key)}] = {json.dumps(value)}" for key, value in spec.param]


def _evaluate(limactl: Limactl, text: str, expressions: tuple[str, ...]) -> process.Completed:
    return limactl.yq(text, "\n| ".join(expressions))


def _blamed(
    text: str, spec: MachineSpec, settings: Settings, limactl: Limactl
) -> TemplateError:  # fmt: skip
    """The error of the first expression that fails after those before it."""
    for number, expression in enumerate(spec.set, start=1):
        done = _evaluate(limactl, text, spec.set[:number])
        if not done.ok:
            right = _spelled(expression)
            return TemplateError(
                f"{_given(expression, settings)} can't be applied to the template",
                seen=complaint(done),
                remedy=f"write it as {right}"
                if right
                else "write it as for `limactl create --set`, such as .cpus = 2 or "
                '.vmType = "qemu": a key begins with a dot, a text is in double quotes',
            )
    return TemplateError("the expressions can't be applied together", seen=" | ".join(spec.set))


def _given(expression: str, settings: Settings) -> str:
    """The expression, and by whom."""
    if expression not in settings.set:
        return f"set= {expression}"
    option = next(option for option in OPTIONS if option.name == "set")
    places = {"environment": option.env, "ini": f"{option.ini} in the ini file"}
    return f"{places.get(settings.sources.get('set', ''), option.flag)} {expression}"


def _spelled(expression: str) -> str:
    """How what was meant is written for yq, if that can be seen."""
    match = _ASSIGNMENT.fullmatch(expression.strip())
    if match is None or re.search(r"[|()]", match[3]):
        return ""
    try:
        value = json.dumps(lima_yaml.read("it", match[3]), ensure_ascii=False)
    except TemplateError:
        value = json.dumps(match[3], ensure_ascii=False)
    right = f".{match[1].lstrip('.')} {match[2]} {value}"
    return right if right != expression else ""


def _check(
    who: str, source: str, before: Mapping[str, Any], after: Mapping[str, Any],
    filled: FilledTemplate,
) -> None:  # fmt: skip
    for key, flag in _DECIDED.items():
        if after.get(key) != before.get(key):
            raise TemplateError(
                f"{who} has another {key}, which was decided before",
                seen=f"{after.get(key)} in place of {before.get(key)}",
                remedy=f"ask for it with {flag}, or {flag.removeprefix('--lima-')}= in the marker",
            )
    if not isinstance(after.get("images"), list) or not after["images"]:
        raise TemplateError(f"{who} has no images", remedy="leave it some")
    lists = {key: _mappings(after, key) for key in ("provision", "portForwards")}
    reach.refuse(source, {**after, **lists})
    before_ours = _scripts(before)
    for engine in filled.sockets:
        script = engines.provision_script(engine)
        if script in before_ours and script not in _scripts(after):
            raise TemplateError(
                f"{who} has no script any more that provides {engine}",
                remedy="add to provision with +=, or take out the template's own by lima_overrides",
            )


def _scripts(template: Mapping[str, Any]) -> list[object]:
    return [entry.get("script") for entry in _mappings(template, "provision")]


def _with_facts(filled: FilledTemplate, after: Mapping[str, Any]) -> FilledTemplate:
    """As `template.fill` tells them."""
    arch = after.get("arch")
    certificates = after.get("caCerts")
    files = certificates.get("files") if isinstance(certificates, Mapping) else None
    return replace(
        filled,
        provision=tuple(
            (str(entry.get("mode", "system")), str(entry.get("script") or ""))
            for entry in _mappings(after, "provision")
        ),
        images=tuple(
            image for image in _mappings(after, "images") if image.get("arch", arch) == arch
        ),
        proxied=bool(after.get("propagateProxyEnv")),
        certificates=tuple(map(str, files)) if isinstance(files, list) else (),
        disks=disks.names(after),
        ssh_port=hostports.of_ssh(after),
        ports=hostports.of_forwards(after),
    )


def _mappings(after: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = after.get(key)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
