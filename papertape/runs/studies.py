"""What a run works on: the study of its request, and the models that it may name.

Promise: settings are checked as `settings.toml` is, and are for daily bars whatever the app trades on, as the bars of a run are; an upload
is read by the process that reads strangers' files, and the same request on the same file gives the same study. Failure: `RunRefusedError`,
`SettingsError`, `UploadError`, `ResearchError`, `RunStoreError`, one line each.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from papertape.research.policies import policy_called
from papertape.research.study import Study, StudyOptions, study
from papertape.runs.bars import UploadReader, cleaned
from papertape.runs.store import RunStore
from schema.runs.request import RUN_ID, RunRequest, UploadedBars
from trading_env.data.market import table_within
from trading_env.errors import PapertapeError
from trading_env.simulation.policy import Policy, PolicyError, make_policy

REMEMBERED = 3  # studies of one process
REMARKS = "remarks.json"


class RunRefusedError(PapertapeError, ValueError):
    """What a request asks for cannot be done; the message names the value and what is allowed."""


class Studies:
    """Makes studies, and keeps the last few: a service answers the next request on the same bars without reading them again.

    `settings`: the file that requests differ from; None: the research settings. `ahead`: keep a reader waiting for the next upload.
    """

    def __init__(self, *, settings: Path | None, scratch: Path, ahead: bool = False) -> None:
        self._settings, self._scratch, self._ahead = settings, scratch, ahead
        self._made: OrderedDict[str, Study] = OrderedDict()
        self._reader: UploadReader | None = UploadReader() if ahead else None

    def of(self, request: RunRequest, store: RunStore) -> Study:
        bars, universe = request.bars, dict(request.settings.get("universe", {}))
        symbols = _names(universe.pop("symbols", ()))
        if (timeframe := request.settings.get("training", {}).get("timeframe", "1Day")) != "1Day":
            raise RunRefusedError(f'settings: training.timeframe must be "1Day", was {timeframe!r}: the bars of a run are daily')
        changes: dict[str, Any] = {section: values for section, values in request.settings.items() if section != "universe"}
        changes |= {"universe": universe} if universe else {}
        options: dict[str, Any] = {"base": self._settings, "changes": changes, "symbols": symbols}
        said: list[str] = []
        if isinstance(bars, UploadedBars):
            folder, said = self._upload(bars, store)
            actions = folder / "actions.parquet"
            given = {"actions": actions} if actions.exists() and not bars.adjusted else {"adjusted": bars.adjusted}
            options |= {"bars": folder / "bars.parquet", **given}
        identity = json.dumps([str(self._settings), changes, symbols, str(options.get("bars")), str(options.get("actions"))], default=str)
        if identity not in self._made:
            made = study(StudyOptions(**options))
            notes = made.notes if not said else (*made.notes[:1], *said)
            self._made[identity] = Study(**{**vars(made), "notes": notes, "arguments": ""})
            while len(self._made) > REMEMBERED:
                self._made.popitem(last=False)
        self._made.move_to_end(identity)
        return self._made[identity]

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def look(self, bars: UploadedBars, store: RunStore) -> dict[str, Any]:
        """What the reader says of an upload; one that can be used as it is need not be read again by this process."""
        file = store.upload(bars.name, scratch=self._scratch)
        with tempfile.TemporaryDirectory(dir=self._scratch) as made:
            out = Path(made) / "bars"
            answer = self._ready().read(file, columns=bars.columns, forms=bars.numbers, adjusted=bars.adjusted, out=out)
            kept = self._folder(file, bars, columns=answer["columns"])
            if answer["problem"] is None and not kept.exists():
                self._keep(out, kept, answer)
        return answer

    def _upload(self, bars: UploadedBars, store: RunStore) -> tuple[Path, list[str]]:
        """The folder of an upload's cleaned bars, read once per process, mapping and content; and what the reader remarked."""
        file = store.upload(bars.name, scratch=self._scratch)
        kept = self._folder(file, bars, columns=bars.columns)
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=self._scratch) as made:
                out = Path(made) / "bars"
                answer = cleaned(file, columns=bars.columns, forms=bars.numbers, adjusted=bars.adjusted, out=out, reader=self._ready())
                self._keep(out, kept, answer)
        remarks: list[str] = json.loads((kept / REMARKS).read_text(encoding="utf-8"))
        return kept, remarks

    def _keep(self, out: Path, kept: Path, answer: Mapping[str, Any]) -> None:
        (out / REMARKS).write_text(json.dumps(answer["remarks"]), encoding="utf-8")
        out.rename(kept)

    def _folder(self, file: Path, bars: UploadedBars, *, columns: Mapping[str, str]) -> Path:
        content = hashlib.sha256()
        with file.open("rb") as opened:
            while part := opened.read(1 << 20):
                content.update(part)
        content.update(json.dumps([bars.name, dict(columns), dict(bars.numbers), bars.adjusted], sort_keys=True).encode())
        return self._scratch / f"upload-{content.hexdigest()[:24]}"

    def _ready(self) -> UploadReader:
        """A reader that is ready; the next is made behind it."""
        ready, self._reader = self._reader or UploadReader(), UploadReader() if self._ahead else None
        return ready


def _names(symbols: Any) -> tuple[str, ...]:
    if not isinstance(symbols, (list, tuple)) or not all(isinstance(name, str) for name in symbols):
        raise RunRefusedError(f"settings: universe.symbols must be a list of names, was {symbols!r}")
    return tuple(symbols)


def model_of(word: str, *, study: Study, store: RunStore, scratch: Path, within: ExitStack) -> Policy:
    """What a request calls `policy`; the files of a run's model are there until `within` ends."""
    kind, _, name = word.partition(":")
    table: Mapping[str, Any] = {"sessions": study.market.sessions, "feature_hash": table_within(study.market).hash}
    if kind == "run":
        if not RUN_ID.fullmatch(name):
            raise RunRefusedError(f"policy: run:{name} is no run's id")
        store.request(name)  # one that nobody asked for is no run
        folder = within.enter_context(store.workspace(name))
        if not (folder / "run.json").is_file():
            raise RunRefusedError(f"policy: run {name} has trained nothing yet")
        return policy_called(str(folder), **table)
    if kind == "package":
        return policy_called(str(store.package(name, scratch=scratch)), **table)
    try:
        return make_policy(word)
    except PolicyError as error:
        raise RunRefusedError(f"policy: {error}; or run:<its id>, or package:<its model.tar.gz>") from error
