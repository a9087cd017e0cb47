"""Time to the first picture, memory of the server, chunks read twice: `tomostain view` in headless Chromium.

python benchmarks/viewing.py FOLDER [SHAPE ...]

Shapes count voxels along z, y, x: 64x192x192 512x2048x2048. CT and colours of each shape are made in FOLDER where they
are not there yet: smooth values with a little noise. Each shape is opened three times, with an empty cache.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from _results import Figure, save
from tomostain import runs
from tomostain.images.geometry import Grid
from tomostain.io.ome_zarr import create_volume

FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox", "--disable-dev-shm-usage"]
ROUNDS = 3
SCROLLED = """async ([first, step, count]) => {
  const frame = () => new Promise((next) => requestAnimationFrame(next));
  const there = Array.from({length: count}, (_, i) => first + i * step);
  for (const z of [...there, ...[...there].reverse()]) {
    viewer.position.value[2] = z;
    viewer.position.changed.dispatch();
    for (let i = 0; i < 4; i++) await frame();
    while (!viewer.isReady()) await frame();
  }
}"""


def main(folder: Path, shapes: list[str]) -> int:
    figures = []
    for shape in shapes:
        z, y, x = (int(n) for n in shape.split("x"))
        ct, stained = volumes(folder, (z, y, x))
        runs_of_it = [measured(ct, stained, depth=z) for _ in range(ROUNDS)]
        first, ready = (sorted(one[i] for one in runs_of_it) for i in (0, 1))
        memory, reads, again = (max(one[i] for one in runs_of_it) for i in (2, 3, 4))
        limit = "3 s" if z * y * x < 2**24 else "10 s"
        opened = f"{first[1]:.1f} s ({first[0]:.1f} to {first[2]:.1f})"
        figures += [
            Figure(
                f"{shape}: first picture on the screen",
                opened,
                target=limit,
            ),
            Figure(f"{shape}: both panels drawn to the last chunk", f"{ready[1]:.1f} s"),
            Figure(f"{shape}: largest memory of the server", f"{memory / 2**20:.0f} MiB", target="300 MiB"),
            Figure(f"{shape}: chunks read, opened and scrolled over 20 planes back and forth", f"{reads}"),
            Figure(f"{shape}: of these, read twice", f"{again}", target="0"),
        ]
    note = "headless Chromium with WebGL in software on the same cores; beside other work"
    save("viewing", figures, note=note)
    return 0


def volumes(folder: Path, shape: tuple[int, int, int]) -> tuple[Path, Path]:
    """CT (uint8) and stained volume of a shape (z, y, x), made shard by shard where they are missing."""
    name = "x".join(map(str, shape))
    ct, stained = folder / f"ct_{name}.ome.zarr", folder / f"stained_{name}.ome.zarr"
    noise = np.random.default_rng(0).integers(0, 3, (64, 512, 512), dtype=np.uint8)
    for path, colours in ((ct, None), (stained, 3)):
        if runs.is_complete(path):
            continue
        inputs = [] if colours is None else [ct, ct]
        with (
            runs.output(path, "stain" if colours else "convert", inputs=inputs),
            create_volume(path, Grid(shape, (5.0,) * 3), colours=colours) as writer,
        ):
            for corner in np.ndindex(*writer.shards(0)):
                window = writer.window(0, corner)
                z, y, x = (np.arange(part.start, part.stop) for part in window)
                smooth = (
                    90
                    + 60 * np.sin(x / 70)[None, None] * np.cos(y / 90)[None, :, None]
                    + 20 * np.sin(z / 40)[:, None, None]
                )
                values = smooth.astype(np.uint8) + noise[: len(z), : len(y), : len(x)]
                writer[window] = np.stack([values, values // 2 + 60, 255 - values], axis=-1) if colours else values
    return ct, stained


def measured(ct: Path, stained: Path, *, depth: int) -> tuple[float, float, int, int, int]:
    """Seconds to the first picture and until all is drawn, the server's memory, chunks read, and those read again."""
    words = [sys.executable, "-m", "tomostain", "view", str(stained), "--ct", str(ct)]
    server = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        address = next(found.group() for line in server.stderr or () if (found := re.search(r"http://\S+", line)))
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            page = browser.new_page(viewport={"width": 1200, "height": 760})
            asked: list[tuple[str, str]] = []
            page.on("requestfinished", lambda one: asked.append((one.url, one.headers.get("range", ""))))
            begin = time.monotonic()
            page.goto(address)
            first = until(begin, lambda: bool(page.evaluate(STARTED)) and shown(page))
            ready = until(begin, lambda: bool(page.evaluate("() => viewer.isReady()")))
            middle = depth // 2 * 5.0
            page.evaluate(SCROLLED, [middle, 5.0, min(20, depth - depth // 2 - 1)])
            chunks = [one for one in asked if "/c/" in one[0] and one[1]]
            peak = psutil.Process(server.pid).memory_info().rss
            peak = max(peak, high_water(server.pid))
            browser.close()
    finally:
        server.terminate()
        server.wait()
    return first, ready, peak, len(chunks), len(chunks) - len(set(chunks))


def high_water(process: int) -> int:
    """Most memory that a process has held, bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found.group(1)) * 1024 if found else 0


STARTED = "() => Boolean(window.viewer && viewer.display.panels.size > 1)"


def shown(page: Page) -> bool:
    """Whether the middle of both panels shows more than the grey of an empty one (32, 32, 32)."""
    for left in (280, 880):
        picture = page.screenshot(clip={"x": left, "y": 400, "width": 40, "height": 40})
        colours = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).reshape(-1, 3)
        if (np.abs(colours.astype(int) - 32).max(axis=1) > 3).mean() < 0.5:
            return False
    return True


def until(begin: float, holds: Callable[[], bool]) -> float:
    """Seconds from ``begin`` until something holds."""
    while not holds():
        if time.monotonic() - begin > 120:
            raise TimeoutError("nothing to be seen after 120 s")
        time.sleep(0.02)
    return time.monotonic() - begin


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:] or ["64x192x192", "512x2048x2048"]))
