"""The mails of a run as files that a person can open: `mail/0007-Slot-missed.txt`, one per message that the app published.

Promise: a message is written once, under the next free number, whole or not at all, whatever ended the run before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

IDENTITY = "Message: "
LONGEST = 60


class Mailbox:
    """The files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        files = list(folder.glob("[0-9]*.txt"))
        self._known = {line.removeprefix(IDENTITY) for file in files for line in _head(file) if line.startswith(IDENTITY)}
        self._number = max((int(file.name.partition("-")[0]) for file in files), default=0)

    def keep(self, published: Iterable[Mapping[str, Any]], *, time: str) -> list[Path]:
        """Write the messages that are not there yet, dated `time`; returns their files."""
        return [self._write(message, time=time) for message in published if message["id"] not in self._known]

    def _write(self, message: Mapping[str, Any], *, time: str) -> Path:
        subject = message["subject"] or "Message"
        words = re.sub(r"[^A-Za-z0-9]+", "-", subject).strip("-")[:LONGEST].rstrip("-")
        file = self.folder / f"{self._number + 1:04d}-{words or 'Message'}.txt"
        addresses = ", ".join(message["mails"]) or "nobody is subscribed; see alert_email in settings.toml"
        head = f"Subject: {subject}\nDate: {time}\nTo: {addresses}\n{IDENTITY}{message['id']}\n\n"
        partial = file.with_suffix(".part")
        partial.write_text(f"{head}{message['message'].rstrip()}\n", encoding="utf-8")
        partial.replace(file)
        self._number += 1
        self._known.add(message["id"])
        return file


def _head(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0].splitlines()
