"""The child process that opens mutated files: a line of JSON in, a line out; what kills it, its parent counts."""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import resource
import shutil
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.judge import WINDOW_BYTES, Format, Look, Verdict, judged, snapshot
from fuzz.mutations import MUTATIONS, NotHere, Target

ALLOWED_BYTES = 2**30 + WINDOW_BYTES
"""Address space a case may take beyond what the process has already: 1 GiB above the window."""


class Bench:
    """The folders a worker works in, and the valid files it mutates."""

    def __init__(self, table: str, folder: Path) -> None:
        module, _, name = table.partition(":")
        self.formats: dict[str, Format] = getattr(importlib.import_module(module), name)
        self.folder = folder
        self.originals: dict[str, tuple[Path, Look]] = {}
        for below in ("empty", "tmp"):
            (folder / below).mkdir(exist_ok=True)
        tempfile.tempdir = str(folder / "tmp")
        os.chdir(folder / "empty")

    def prepare(self, name: str) -> tuple[Path, Look]:
        """The valid file of a format, and what others' code sees in it; ours must see the same."""
        if name not in self.originals:
            home = self.folder / "valid" / name
            home.mkdir(parents=True)
            form = self.formats[name]
            path = form.write(home)
            original = form.strict(path)
            verdict = judged(form, path, original, exact=True, before_strict=lambda: None)
            if verdict.kind != "valid":
                raise AssertionError(f"{name}: the unmutated file is not read as it is: {verdict}")
            self.originals[name] = (path.relative_to(home), original)
        return self.originals[name]

    def run(self, name: str, mutation: str, seed: int, before_strict: Any) -> Verdict:
        """Mutate a copy of the valid file and judge what ours makes of it."""
        relative, original = self.prepare(name)
        case = self.folder / "case"
        shutil.rmtree(case, ignore_errors=True)
        shutil.copytree(self.folder / "valid" / name, case / "inside", symlinks=True)
        form = self.formats[name]
        rng = np.random.default_rng([zlib.crc32(name.encode()), zlib.crc32(mutation.encode()), seed])
        target = Target(case / "inside" / relative, case / "inside", tuple(original.get("shape", ())), rng)
        change = form.own.get(mutation) or MUTATIONS[mutation]
        try:
            change(target)
        except NotHere as reason:
            return Verdict("skipped", str(reason))
        watched = (case, self.folder / "empty", self.folder / "tmp")
        before = snapshot(*watched)
        with _limited():
            verdict = judged(
                form, target.path, original, exact=target.exact and not form.endless, before_strict=before_strict
            )
        changed = {name for name, about in snapshot(*watched).items() if before.get(name) != about} | (
            before.keys() - snapshot(*watched).keys()
        )
        if changed:
            return Verdict("wrote", f"{sorted(changed)[:3]} changed while reading")
        return verdict


class _limited:
    """No more address space than ALLOWED_BYTES above what is taken now."""

    def __enter__(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + ALLOWED_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        Path("/proc/self/clear_refs").write_text("5")

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _resident_kib(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def main(table: str, folder: Path) -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    bench = Bench(table, folder)

    def say(**reply: Any) -> None:
        replies.write(json.dumps(reply) + "\n")
        replies.flush()

    for line in sys.stdin:
        asked = json.loads(line)
        if "mutation" not in asked:
            bench.prepare(asked["format"])
            say(ready=True)
            continue
        begun = _resident_kib("VmRSS")
        verdict = bench.run(
            asked["format"], asked["mutation"], asked["seed"], before_strict=lambda: say(phase="strict")
        )
        say(kind=verdict.kind, detail=verdict.detail, mib=max(0, _resident_kib("VmHWM") - begun) / 1024)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
