"""SFTP into the guest's root."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paramiko
from paramiko import SFTP_OK, SFTPAttributes, SFTPServer

if TYPE_CHECKING:
    from fakelima.machine import Machine


class GuestFiles(paramiko.SFTPServerInterface):
    """The guest's files; a relative path begins at the login user's home."""

    def __init__(self, server: paramiko.ServerInterface, machine: Machine) -> None:
        super().__init__(server)
        self._machine = machine

    def canonicalize(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(self._machine.home, path))

    def list_folder(self, path: str) -> Any:
        def attributes() -> list[SFTPAttributes]:
            return [SFTPAttributes.from_stat(entry.lstat(), entry.name)
                    for entry in self._real(path).iterdir()]  # fmt: skip

        return _tried(attributes)

    def stat(self, path: str) -> Any:
        return _tried(lambda: SFTPAttributes.from_stat(self._real(path).stat()))

    def lstat(self, path: str) -> Any:
        return _tried(lambda: SFTPAttributes.from_stat(self._real(path).lstat()))

    def open(self, path: str, flags: int, attr: SFTPAttributes) -> Any:
        def opened() -> paramiko.SFTPHandle:
            mode = 0o666 if attr.st_mode is None else attr.st_mode
            fd = os.open(self._real(path), flags, mode)
            kind = "r+b" if flags & os.O_RDWR else "wb" if flags & os.O_WRONLY else "rb"
            handle = paramiko.SFTPHandle(flags)
            file = os.fdopen(fd, kind)
            handle.readfile = handle.writefile = file  # type: ignore[attr-defined]
            return handle

        return _tried(opened)

    def remove(self, path: str) -> Any:
        return _done(lambda: self._real(path).unlink())

    def rename(self, oldpath: str, newpath: str) -> Any:
        return _done(lambda: self._real(oldpath).rename(self._real(newpath)))

    def posix_rename(self, oldpath: str, newpath: str) -> Any:
        return _done(lambda: self._real(oldpath).replace(self._real(newpath)))

    def mkdir(self, path: str, attr: SFTPAttributes) -> Any:
        return _done(lambda: self._real(path).mkdir())

    def rmdir(self, path: str) -> Any:
        return _done(lambda: self._real(path).rmdir())

    def chattr(self, path: str, attr: SFTPAttributes) -> Any:
        return _done(lambda: SFTPServer.set_file_attr(str(self._real(path)), attr))

    def _real(self, path: str) -> Path:
        return self._machine.path(self.canonicalize(path))


def _tried(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except OSError as error:
        return SFTPServer.convert_errno(error.errno or 0)


def _done(call: Callable[[], Any]) -> Any:
    return _tried(lambda: (call(), SFTP_OK)[1])
