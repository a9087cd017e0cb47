"""What ends, hangs or swells the process that decodes is an error, and the next file is read as if nothing was."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tomostain.io.contained import client, worker
from tomostain.io.contained.client import DecodeError, look, read

BROKEN = {
    "crash": ("os.kill(os.getpid(), 11)", "crashes the decoder"),
    "exit": ("os._exit(3)", "crashes the decoder"),
    "hang": ("\nwhile True: pass", "does not end"),
    "swell": ("__import__('numpy').empty(5 * 2**28, 'u1')", "far more memory than its pixels"),
    "shout": ("print('x' * 10000); raise ZeroDivisionError('oh')", "ZeroDivisionError: oh"),
}


@pytest.fixture
def process(tmp_path, monkeypatch):
    """A decoding process that knows, beside the real decoders, five that misbehave."""
    for name, (code, _) in BROKEN.items():
        body = "\n".join("        " + line for line in code.splitlines())
        (tmp_path / f"broken_{name}.py").write_text(
            f"import os\nclass Broken:\n    def __init__(self, path):\n{body}\n"
        )
    kinds = {name: f"broken_{name}:Broken" for name in BROKEN}
    (tmp_path / "serve.py").write_text(
        "import os, sys\nfrom tomostain.io.contained import limits, worker\nlimits.PROCESSOR_S = 1.0\n"
        f"worker.KINDS.update({kinds!r})\nout = os.fdopen(os.dup(1), 'wb')\nos.dup2(2, 1)\n"
        "worker.serve(sys.stdin.buffer, out)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    real = subprocess.Popen
    monkeypatch.setattr(client.subprocess, "Popen", lambda words, **rest: real([*words[:-1], "serve"], **rest))
    client._PROCESS.stop()
    yield tmp_path
    client._PROCESS.stop()


@pytest.fixture
def png(tmp_path, rng):
    values = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "p.png")
    return str(tmp_path / "p.png"), values


@pytest.mark.skipif(sys.platform != "linux", reason="memory and processor time are limited on Linux")
@pytest.mark.parametrize("name", BROKEN)
def test_misbehaviour_is_an_error_and_the_next_file_is_read(process, png, name):
    path, values = png
    np.testing.assert_array_equal(read("picture", path, 0, (3, 9, 4, 40)), values[3:9, 4:40])
    with pytest.raises(DecodeError, match=BROKEN[name][1]):
        look(name, path)
    np.testing.assert_array_equal(read("picture", path, 0, (0, 30, 0, 40)), values)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux")
def test_what_a_decoder_may_need_beside_its_window_is_allowed(process, png):
    (process / "broken_swell.py").write_text(
        "class Broken:\n    def __init__(self, path):\n        __import__('numpy').empty(3 * 2**28, 'u1')\n"
    )
    with pytest.raises(DecodeError, match="AttributeError"):
        look("swell", png[0])


def test_the_decoding_process_stays_small(png):
    """It imports nothing of the package but the decoders, so that it is up at once."""
    code = "import sys, tomostain.io.contained.worker; print({'zarr', 'scipy', 'torch'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


def test_a_file_that_changes_is_opened_again(tmp_path):
    path = tmp_path / "p.png"
    for shade in (10, 200):
        Image.new("RGB", (4, 4), (shade,) * 3).save(path)
        os.utime(path, ns=(shade, shade))
        assert read("picture", str(path), 0, (0, 4, 0, 4)).max() == shade


def test_every_exception_becomes_a_message(tmp_path):
    header, values = worker.OpenFiles(limit=lambda size: None).reply(
        {"op": "open", "kind": "tiff", "path": str(tmp_path / "none.tif")}
    )
    assert values is None
    assert header["error"].startswith("FileNotFoundError")
