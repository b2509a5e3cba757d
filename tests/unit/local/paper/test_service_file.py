"""The files that start a paper run with the computer."""

from __future__ import annotations

import configparser
import plistlib
import subprocess
import sys
from pathlib import Path

from local.aws.emulator import ROOT
from local.paper.service_file import ServiceKind, service_file

FOLDER = Path("/home/me/my runs/paper")


def test_systemd_starts_it_again_after_a_failure_and_lets_it_save_its_state() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(service_file(ServiceKind.SYSTEMD, folder=FOLDER, python="/opt/python"))
    service = unit["Service"]
    assert service["ExecStart"] == '/opt/python -m papertape paper --folder "/home/me/my runs/paper"'
    assert (service["Restart"], service["KillMode"], service["WorkingDirectory"]) == ("on-failure", "mixed", str(ROOT))
    assert "143" in service["SuccessExitStatus"]


def test_launchd_gets_a_property_list() -> None:
    made = plistlib.loads(service_file(ServiceKind.LAUNCHD, folder=FOLDER, python="/opt/python").encode())
    assert made["ProgramArguments"] == ["/opt/python", "-m", "papertape", "paper", "--folder", str(FOLDER)]
    assert (made["RunAtLoad"], made["KeepAlive"], made["WorkingDirectory"]) == (True, {"SuccessfulExit": False}, str(ROOT))


def test_the_command_prints_the_file_and_starts_nothing() -> None:
    command = [sys.executable, "-c", "from local.commands import app; app()", "paper", "--service", "systemd", "--folder", str(FOLDER)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == service_file(ServiceKind.SYSTEMD, folder=FOLDER)
