"""The commands as they are typed: an address, a page behind it, Ctrl-C, and what is said at the end."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import numpy as np

from tomostain.registration.landmarks import read_landmarks


def start(*words, **environment):
    """A command that serves, and the address it prints."""
    command = [sys.executable, "-m", "tomostain", *map(str, words)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    for line in process.stderr:
        if found := re.search(r"http://127\.0\.0\.1:\d+/v/\S+/", line):
            return process, found.group()
    raise AssertionError(f"no address; it ended with {process.wait()}")


def ended(process):
    """What a command printed after its address, when it was interrupted; `communicate` would drop lines read ahead."""
    process.send_signal(signal.SIGINT)
    with process:
        err, out = process.stderr.read(), process.stdout.read()
    return process.returncode, out, err


def test_landmarks_are_saved_through_the_page_and_the_next_command_is_printed(specimen, tmp_path):
    points = tmp_path / "points.csv"
    words = ("landmarks", specimen / "ct.ome.zarr", specimen / "slide.tif", points)
    process, address = start(*words, SSH_CONNECTION="10.0.0.9 50000 10.0.0.1 22")
    facts = json.loads(urllib.request.urlopen(f"{address}facts", timeout=240).read())
    assert facts["slide"]["shape"] == [120, 160]
    assert facts["slide"]["pixel_um"] == [2.5, 2.5]
    sent = [{"name": f"p{i}", "slide_px": [i * 9.0, i * i], "volume_um": [3.0, i, 2 * i]} for i in range(5)]
    request = urllib.request.Request(f"{address}save", data=json.dumps({"points": sent}).encode(), method="POST")
    assert json.loads(urllib.request.urlopen(request, timeout=240).read())["saved"] == 5
    code, out, err = ended(process)
    assert code == 0
    assert out.strip() == str(points)
    assert re.search(r"ssh -N -L (\d+):127\.0\.0\.1:\1 \S+@10\.0\.0\.1", err)
    assert f"--landmarks {points}" in err
    assert np.allclose(read_landmarks(points).slide_px[:, 1], np.arange(5.0) ** 2)
    assert not points.with_name("points.csv.unfinished").exists()
