"""What a computer needs to start `papertape paper` by itself: a unit of systemd or a property list of launchd, for one user."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from xml.sax.saxutils import escape

from local.aws.emulator import ROOT

STOP_SECONDS = 60


class ServiceKind(StrEnum):
    """Who starts and ends the process."""

    SYSTEMD = "systemd"
    LAUNCHD = "launchd"


def service_file(kind: ServiceKind, *, folder: Path, python: str = sys.executable, root: Path = ROOT) -> str:
    """The file's text; its first lines say where it goes and how it is started."""
    command = [python, "-m", "papertape", "paper", "--folder", str(folder)]
    return _systemd(command, root) if kind is ServiceKind.SYSTEMD else _launchd(command, root, folder)


def _systemd(command: list[str], root: Path) -> str:
    shown = " ".join(f'"{part}"' if " " in part else part for part in command)
    return f"""\
# ~/.config/systemd/user/papertape.service; run `make paper` once in a terminal first, it asks for the keys. Then:
#   systemctl --user enable --now papertape; loginctl enable-linger; journalctl --user -u papertape
[Unit]
Description=Papertape on an Alpaca paper account
After=network-online.target

[Service]
WorkingDirectory={root}
Environment=PYTHONHASHSEED=0
ExecStart={shown}
Restart=on-failure
RestartSec=30
KillMode=mixed
TimeoutStopSec={STOP_SECONDS}
SuccessExitStatus=130 143

[Install]
WantedBy=default.target
"""


def _launchd(command: list[str], root: Path, folder: Path) -> str:
    arguments = "\n".join(f"    <string>{escape(part)}</string>" for part in command)
    log = escape(str(folder / "service.log"))
    return f"""\
<?xml version="1.0" encoding="UTF-8"?>
<!-- ~/Library/LaunchAgents/papertape.plist; run `make paper` once in a terminal first, it asks for the keys. Then:
     launchctl load ~/Library/LaunchAgents/papertape.plist -->
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key><string>papertape</string>
  <key>WorkingDirectory</key><string>{escape(str(root))}</string>
  <key>EnvironmentVariables</key><dict><key>PYTHONHASHSEED</key><string>0</string></dict>
  <key>ProgramArguments</key>
  <array>
{arguments}
  </array>
  <key>RunAtLoad</key><true/>
  <key>KeepAlive</key><dict><key>SuccessfulExit</key><false/></dict>
  <key>ThrottleInterval</key><integer>30</integer>
  <key>ExitTimeOut</key><integer>{STOP_SECONDS}</integer>
  <key>StandardOutPath</key><string>{log}</string>
  <key>StandardErrorPath</key><string>{log}</string>
</dict>
</plist>
"""
