"""LPIPS is the published metric: golden values, weights that are checked, and no substitute."""

from __future__ import annotations

import functools
import os
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from tomostain.scoring import lpips as module
from tomostain.scoring.lpips import Lpips, Net, assemble, download, find_weights
from tomostain.steps.lpips_weights import LpipsWeightsRecipe, lpips_weights

NETS: tuple[Net, ...] = ("alex", "squeeze")
GOLDEN: dict[Net, tuple[float, float]] = {"alex": (0.721881, 0.137566), "squeeze": (0.711048, 0.147902)}
"""The authors' example images, d(ref, p0) and d(ref, p1), by the authors' code."""


def _shared() -> Path:
    root = Path(os.environ.get("TOMOSTAIN_SHARED") or Path(__file__).resolve().parents[2].parent / "shared")
    if not (root / "lpips" / "alex.safetensors").is_file():
        pytest.skip(f"NO GENUINE LPIPS WEIGHTS in {root}: set TOMOSTAIN_SHARED to check the golden values")
    return root / "lpips"


def _picture(path: Path) -> Tensor:
    with Image.open(path) as file:
        rgb = np.asarray(file.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(rgb / 127.5 - 1.0).permute(2, 0, 1)[None]


def _untrained(net: Net) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {key: value.clone() for key, value in Lpips(net).state_dict().items()}


def _as_pth(state: dict[str, Tensor], folder: Path) -> tuple[Path, Path]:
    """The state as torchvision and the authors ship it: a backbone with a classifier besides, and the heads."""
    backbone, heads = folder / "backbone.pth", folder / "heads.pth"
    features = {key: value for key, value in state.items() if key.startswith("features.")}
    torch.save({**features, "classifier.1.weight": torch.zeros(3, 3)}, backbone)
    torch.save({key: value for key, value in state.items() if key.startswith("lin")}, heads)
    return backbone, heads


@pytest.mark.parametrize("net", NETS)
def test_golden_values_of_the_authors(net: Net) -> None:
    shared = _shared()
    metric = Lpips.load(net, shared)
    ref, p0, p1 = (_picture(shared / "golden" / f"ex_{name}.png") for name in ("ref", "p0", "p1"))
    assert (metric(ref, p0).item(), metric(ref, p1).item()) == pytest.approx(GOLDEN[net], abs=2e-6)
    everywhere = torch.ones(2, 1, *ref.shape[2:])
    both = metric(torch.cat([ref, ref]), torch.cat([p0, p1]), everywhere)
    assert both.tolist() == pytest.approx(GOLDEN[net], abs=2e-6)


@pytest.mark.parametrize("net", NETS)
def test_weights_are_assembled_from_the_files_that_torchvision_and_the_authors_ship(net: Net, tmp_path: Path) -> None:
    state = _untrained(net)
    made = assemble(*_as_pth(state, tmp_path), tmp_path / "made" / f"{net}.safetensors", net=net)
    loaded = load_file(made)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


@pytest.mark.parametrize("net", NETS)
def test_the_step_makes_genuine_weights_that_load(net: Net, tmp_path: Path) -> None:
    shared = _shared()
    backbone, heads = _as_pth(load_file(shared / f"{net}.safetensors"), tmp_path)
    made = lpips_weights(backbone, heads, tmp_path / "here", recipe=LpipsWeightsRecipe(net=net))
    assert made == tmp_path / "here" / f"{net}.safetensors"
    first, second = torch.rand(2, 1, 3, 40, 40) * 2 - 1
    assert torch.equal(Lpips.load(net, made.parent)(first, second), Lpips.load(net, shared)(first, second))


def test_weights_that_are_not_the_published_ones_are_refused(tmp_path: Path) -> None:
    save_file(_untrained("alex"), tmp_path / "alex.safetensors")
    with pytest.raises(ValueError, match="not the published LPIPS"):
        Lpips.load("alex", tmp_path)
    backbone, heads = _as_pth(_untrained("alex"), tmp_path)
    with pytest.raises(ValueError, match="not the published LPIPS"):
        lpips_weights(backbone, heads, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_or_foreign_files_are_named(tmp_path: Path) -> None:
    weights = tmp_path / "alex.safetensors"
    weights.write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(ValueError, match=r"alex\.safetensors does not hold"):
        Lpips.load("alex", tmp_path)
    save_file({"features.0.weight": torch.zeros(2)}, weights)
    with pytest.raises(ValueError, match=r"alex\.safetensors does not hold"):
        Lpips.load("alex", tmp_path)
    backbone, heads = _as_pth(_untrained("alex"), tmp_path)
    with pytest.raises(ValueError, match=r"backbone\.pth has no features\.0\.weight"):
        assemble(backbone, heads, tmp_path / "squeeze.safetensors", net="squeeze")
    heads.write_bytes(b"not a pickle")
    with pytest.raises(ValueError, match=r"heads\.pth is not a readable"):
        assemble(backbone, heads, tmp_path / "x.safetensors")


def test_missing_weights_name_both_ways_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOMOSTAIN_LPIPS", raising=False)
    with pytest.raises(FileNotFoundError, match=r"--download.*bring the two files.*--metrics ssim psnr"):
        find_weights("alex", tmp_path)


def test_weights_are_looked_for_in_the_declared_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {name: tmp_path / name for name in ("argument", "named", "cache")}
    for place in places.values():
        place.mkdir()
        (place / "alex.safetensors").touch()
    monkeypatch.setattr(module, "user_folder", lambda: places["cache"])
    monkeypatch.setenv("TOMOSTAIN_LPIPS", str(places["named"]))
    assert find_weights("alex", places["argument"]).parent == places["argument"]
    assert find_weights("alex").parent == places["named"]
    (places["named"] / "alex.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="named"):  # a folder that is named is not replaced by another
        find_weights("alex")
    for unset in (lambda: monkeypatch.setenv("TOMOSTAIN_LPIPS", ""), lambda: monkeypatch.delenv("TOMOSTAIN_LPIPS")):
        unset()
        assert find_weights("alex").parent == places["cache"]


def test_the_package_does_not_know_where_it_was_developed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOMOSTAIN_LPIPS", raising=False)
    monkeypatch.setattr(module, "user_folder", lambda: tmp_path / "cache")
    (tmp_path / "shared" / "lpips").mkdir(parents=True)
    (tmp_path / "shared" / "lpips" / "alex.safetensors").touch()
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("TOMOSTAIN_SHARED", str(tmp_path / "shared"))
    with pytest.raises(FileNotFoundError):
        find_weights("alex")


def test_a_download_brings_both_files_and_an_unreachable_address_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    backbone, heads = _as_pth(_untrained("alex"), tmp_path)
    here = tmp_path / "here"
    here.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = f"http://127.0.0.1:{server.server_port}"
        got = download("alex", here, addresses=(f"{at}/{backbone.name}", f"{at}/{heads.name}"))
        assert [file.read_bytes() for file in got] == [backbone.read_bytes(), heads.read_bytes()]
        with pytest.raises(ConnectionError, match=r"nowhere\.pth cannot be downloaded"):
            download("squeeze", here, addresses=(f"{at}/nowhere.pth", f"{at}/{heads.name}"))
        server.shutdown()


def test_nothing_is_downloaded_unasked() -> None:
    with pytest.raises(ValueError, match="--download"):
        lpips_weights()


def test_images_too_small_for_the_network_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 x 32"):
        Lpips("alex")(torch.zeros(1, 3, 31, 64), torch.zeros(1, 3, 31, 64))
    assert Lpips("alex")(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)).item() == 0.0
