"""When is a guest ready? Not when Lima says so, but when all of this was seen to hold.

SSH with the pinned key, cloud-init's result without errors, every provision script run with
success, Lima's boot marker of this boot, a clock within a second, engines that answer. The
one owner of tenacity.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pytest_lima import realtime
from pytest_lima.errors import ConnectionLostError, LimaError, ProvisionError, ReadyTimeoutError
from pytest_lima.guest import answers
from pytest_lima.guest.commands import run
from pytest_lima.guest.ssh import Connection, NotYetError
from pytest_lima.lima import evidence

T = TypeVar("T")

_INTERVAL = 0.2
_LINES_SHOWN = 12
_COMMAND_TIMEOUT = 60.0
_OUTPUT_LOG = "/var/log/cloud-init-output.log"

# cloud-init writes result.json as its very last act (doc: reference/... "result.json").
# Images without cloud-init have Lima's marker alone.
_RESULT = """\
if [ -e /run/cloud-init/result.json ]; then cat /run/cloud-init/result.json
elif [ -e /run/lima-boot-done ] && [ ! -d /run/cloud-init ]; then echo '{"v1": {"errors": []}}'
fi
"""
_AFTERWARDS = f"""\
cat /run/lima-boot-done 2>/dev/null || true; echo ---
cat /run/cloud-init/status.json 2>/dev/null || echo '{{}}'; echo ---
sudo -n tail -c 200000 {_OUTPUT_LOG} 2>/dev/null || true
"""
# boot.sh of Lima logs "LIMA <time>| Executing <script>" and "… WARNING: Failed to execute
# <script>", and goes on.
# cloud-init's first words of the stage that runs it, at each boot: the log is on the disk and
# has those of earlier boots.
_STAGE = " running 'modules:final' at "
_EXECUTING = re.compile(r"LIMA \S+\| Executing (\S+)")
_FAILED = re.compile(r"LIMA \S+\| WARNING: Failed to execute (\S+)")
_SCRIPT_INDEX = re.compile(r"/provision\.(\w+)/(\d{8})$")


@dataclass(frozen=True)
class Waiting:
    """How to wait within a boot.

    Attributes:
        deadline: On ``realtime.monotonic``'s clock, for the whole boot.
        alive: Raises when the VM's processes are gone; called before each attempt.
        tick: Called between attempts.
    """

    deadline: float
    alive: Callable[[], None]
    tick: Callable[[], None]

    def until(self, what: str, attempt: Callable[[], T | None], interval: float = _INTERVAL) -> T:
        """Call ``attempt`` until it returns something, every ``interval`` seconds.

        ``NotYetError`` and ``NotAnsweringError`` count as "not yet".

        Raises:
            ReadyTimeoutError: The deadline passed; it says what was awaited and seen last.
        """
        import tenacity

        begun = realtime.monotonic()
        last: list[str] = []

        def once() -> T | None:
            self.alive()
            try:
                return attempt()
            except (NotYetError, answers.NotAnsweringError) as error:
                last[:] = [error.seen or error.what]
                return None
            except ConnectionLostError:
                self.alive()  # if the VM has died, that is the reason
                raise

        retrying: tenacity.Retrying = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda result: result is None),
            wait=tenacity.wait_fixed(interval),
            # Its own clock and sleep are the ones that a test may have replaced.
            stop=lambda state: realtime.monotonic() + state.upcoming_sleep >= self.deadline,
            sleep=realtime.sleep,
            before_sleep=lambda _: self.tick(),
        )
        try:
            # retry_if_result lets None through to a retry only, never out.
            return retrying(once)  # type: ignore[return-value]
        except tenacity.RetryError:
            pass
        raise ReadyTimeoutError(
            f"the VM is not ready: no {what} within {realtime.monotonic() - begun:.0f} s",
            seen="; ".join(last) or "nothing that helps",
            remedy="raise --lima-timeout or --lima-timeout-factor if it only is slow",
        )


def await_provisioned(
    connection: Connection, waiting: Waiting, provision: Sequence[tuple[str, str]], log: Path
) -> None:
    """Wait for cloud-init's end and raise what went wrong in it.

    Args:
        connection: To the guest.
        waiting: The boot's limits.
        provision: Mode and script of each provision entry, to name the one that failed.
        log: Where to keep the guest's cloud-init output if it failed.

    Raises:
        ProvisionError: A module or a provision script failed.
        ReadyTimeoutError: It didn't end.
    """

    def finished() -> str | None:
        return run(connection, _RESULT, timeout=_COMMAND_TIMEOUT).stdout.strip() or None

    result = _json(waiting.until("end of cloud-init", finished))
    done, status, output = run(connection, _AFTERWARDS, timeout=_COMMAND_TIMEOUT).stdout.split(
        "---\n", 2
    )
    errors = [*_texts(result.get("errors")), *_recoverable(_json(status))]
    this_boot = output[output.rfind(_STAGE) + 1 :]
    failed = _FAILED.findall(this_boot)
    if failed or errors or not done.strip():
        written = evidence.write(log, output)
        raise _provision_error(failed, errors, this_boot, provision, written)


def cloud_init_status(connection: Connection) -> dict[str, Any]:
    """What ``cloud-init status --format=json`` says now.

    Raises:
        LimaError: The guest has no cloud-init, or it can't be read.
    """
    result = run(connection, "cloud-init status --format=json", check=False)
    try:
        status = json.loads(result.stdout)
    except ValueError:
        status = None
    if isinstance(status, dict):
        return status
    raise LimaError(
        "cloud-init's status can't be read",
        ran=result.command,
        seen=result.stderr or result.stdout,
        remedy="take an image with cloud-init",
    )


def await_engines(waiting: Waiting, paths: Mapping[str, Path]) -> None:
    """Wait until every engine has answered over its forwarded socket.

    Raises:
        ReadyTimeoutError: One didn't.
    """
    for engine, path in paths.items():
        waiting.until(f"answer from {engine}", lambda e=engine, p=path: answers.ping(e, p))  # type: ignore[misc]


def _json(text: str) -> dict[str, Any]:
    """The ``v1`` part of one of cloud-init's files."""
    try:
        part = json.loads(text or "{}").get("v1", {})
    except (ValueError, AttributeError, RecursionError):
        problem = text[:200]
    else:
        if isinstance(part, dict):
            return part
        problem = text[:200]
    raise ProvisionError("cloud-init's result can't be read", seen=problem)


def _recoverable(status: Mapping[str, Any]) -> list[str]:
    stages = [stage for stage in status.values() if isinstance(stage, Mapping)]
    levels = [stage.get("recoverable_errors") or {} for stage in stages]
    if not all(isinstance(level, Mapping) for level in levels):
        raise ProvisionError("cloud-init's result can't be read", seen=str(levels))
    found = [pair for level in levels for pair in level.items() if pair[0] != "DEPRECATED"]
    return [f"{name}: {text}" for name, texts in found for text in _texts(texts)]


def _texts(value: object) -> list[str]:
    """A list of errors, or whatever stands in its place."""
    return [str(one) for one in (value if isinstance(value, list) else [value] if value else [])]


def _provision_error(
    failed: Sequence[str],
    errors: Sequence[str],
    output: str,
    provision: Sequence[tuple[str, str]],
    log: Path | str,
) -> ProvisionError:
    if failed:
        return ProvisionError(
            f"a provision script failed: {_describe(failed[0], provision)}",
            seen=_lines_of(failed[0], output),
            remedy="mend the script; the VM was not handed to any test",
            log=log,
        )
    if errors:
        return ProvisionError(
            "cloud-init failed", seen="\n".join(errors),
            remedy="mend the template or the image", log=log,
        )  # fmt: skip
    return ProvisionError(
        "cloud-init ended without running Lima's boot scripts",
        seen="/run/lima-boot-done is missing",
        remedy="take an image whose cloud-init reads the NoCloud datasource",
        log=log,
    )


def _describe(path: str, provision: Sequence[tuple[str, str]]) -> str:
    """``provision.system/00000003`` with the line that tells a reader which one it is."""
    match = _SCRIPT_INDEX.search(path)
    if match is None or int(match[2]) >= len(provision):
        return path
    lines = provision[int(match[2])][1].splitlines()
    telling = next((line for line in lines if line.strip() and not line.startswith("#!")), "")
    return f"provision.{match[1]}/{match[2]} ({telling.strip()[:60]})"


def _lines_of(script: str, output: str) -> str:
    """What the log has between a script's beginning and its failure, the last lines of it."""
    kept: list[str] = []
    for line in output.splitlines():
        begun = _EXECUTING.search(line)
        if begun:
            kept = []
        elif (ended := _FAILED.search(line)) and ended[1] == script:
            break
        else:
            kept.append(line)
    return "\n".join(kept[-_LINES_SHOWN:]) or "it printed nothing"
