import csv
import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tomostain.learning.checkpoint import FOLDER, checkpoints, load_checkpoint
from tomostain.learning.recipe import TrainRecipe
from tomostain.learning.state import ImagePool
from tomostain.learning.training import fit, learning_rate
from tomostain.scoring.baselines import fit_baselines
from tomostain.scoring.metrics import psnr

TINY = TrainRecipe(
    method="paired_cyclegan",
    weights=("paired_ct=10", "structure=1", "squared=120", "texture=30"),
    lr=2e-4,
    tone=True,
    width=8,
    depth=1,
    discriminator_width=8,
    discriminator_depth=1,
    patch_px=32,
    steps=24,
    pool=3,
    log_every=4,
    cycle_every=2,
)


class Killed(Exception):
    """What a kill looks like from inside."""


def digest(folder):
    return {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in ("weights.safetensors", "stainer.json")}


def lines(folder):
    with (folder / "curves.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.endswith("s_per_step")} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def undisturbed(pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    fit(pairs[:4], out, TINY, held=pairs[4:])
    return out


def test_same_seed_same_machine_same_bytes(pairs, undisturbed, tmp_path):
    torch.rand(7)  # what the process drew before is nothing to the training
    fit(pairs[:4], tmp_path, TINY, held=pairs[4:])
    assert digest(tmp_path) == digest(undisturbed)
    assert lines(tmp_path) == lines(undisturbed)


def test_another_seed_gives_another_stainer(pairs, undisturbed, tmp_path):
    fit(pairs[:4], tmp_path, replace(TINY, seed=1), held=pairs[4:])
    assert digest(tmp_path)["weights.safetensors"] != digest(undisturbed)["weights.safetensors"]


@pytest.mark.parametrize(("every", "killed_after"), [(5, 8), (7, 20), (1, 12)])
def test_resumed_equals_uninterrupted(pairs, undisturbed, tmp_path, every, killed_after):
    def watch(step, values):
        if step >= killed_after:
            raise Killed

    recipe = replace(TINY, checkpoint_every=every)
    with pytest.raises(Killed):
        fit(pairs[:4], tmp_path, recipe, held=pairs[4:], watch=watch)
    assert checkpoints(tmp_path / FOLDER)
    assert not (tmp_path / "stainer.json").exists()
    fit(pairs[:4], tmp_path, replace(recipe, resume=True), held=pairs[4:])
    assert digest(tmp_path) == digest(undisturbed)
    assert lines(tmp_path) == lines(undisturbed)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import synthetic_pair
from tomostain.learning.recipe import TrainRecipe
from tomostain.learning.training import fit

pairs = [synthetic_pair(seed, specimen=f"S{seed // 2:02d}") for seed in range(6)]
recipe = TrainRecipe(
    method="paired_cyclegan", weights=("paired_ct=10", "structure=1", "squared=120", "texture=30"), lr=2e-4, tone=True,
    width=8, depth=1, discriminator_width=8, discriminator_depth=1,
    patch_px=32, steps=24, pool=3, log_every=4, cycle_every=2,
    checkpoint_every=2, resume=sys.argv[3] == "resume",
)
fit(pairs[:4], Path(sys.argv[2]), recipe, held=pairs[4:])
"""


def test_killed_and_resumed_in_another_process_gives_the_same_bytes(undisturbed, tmp_path):
    script, out = tmp_path / "script.py", tmp_path / "out"
    out.mkdir()
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(Path(__file__).parent), str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen([*command, "begin"], env=environment, stderr=subprocess.PIPE)
    until = time.monotonic() + 120
    while len(checkpoints(out / FOLDER)) < 2 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()
    assert not (out / "stainer.json").exists()
    subprocess.run([*command, "resume"], env=environment, check=True, timeout=200, capture_output=True)
    assert digest(out) == digest(undisturbed)
    assert lines(out) == lines(undisturbed)


def test_a_damaged_newest_checkpoint_leaves_the_one_before(pairs, tmp_path):
    fit(pairs[:4], tmp_path, replace(TINY, checkpoint_every=10))
    kept = checkpoints(tmp_path / FOLDER)
    assert [path.name for path in kept] == ["step-00000020", "step-00000024"]
    state = kept[1] / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    about, _, _ = load_checkpoint(tmp_path / FOLDER)
    assert about["step"] == 20
    (kept[0] / "about.json").write_text("{")
    with pytest.raises(ValueError, match="no whole checkpoint"):
        load_checkpoint(tmp_path / FOLDER)


def test_resuming_with_other_settings_or_pairs_is_refused(pairs, undisturbed, tmp_path):
    with pytest.raises(ValueError, match=r"lr was 0\.0002, is 0\.001"):
        fit(pairs[:4], undisturbed, replace(TINY, resume=True, lr=1e-3))
    with pytest.raises(ValueError, match="other pairs"):
        fit(pairs[:3], undisturbed, replace(TINY, resume=True))
    with pytest.raises(ValueError, match="no whole checkpoint"):
        fit(pairs[:4], tmp_path, replace(TINY, resume=True))


def test_a_loss_that_is_not_finite_stops_the_training_and_keeps_the_checkpoint(pairs, tmp_path, monkeypatch):
    (tmp_path / "bad_losses.py").write_text(
        "calls = []\ndef bad(t):\n    calls.append(1)\n"
        "    return t.fake_stain.mean() * (float('nan') if len(calls) > 9 else 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe = replace(TINY, weights=("bad_losses:bad=1",), checkpoint_every=3)
    with pytest.raises(ValueError, match=r"bad_losses:bad became nan in step 10.*--lr"):
        fit(pairs[:4], tmp_path / "out", recipe)
    about, shared, _ = load_checkpoint(tmp_path / "out" / FOLDER)
    assert about["step"] == 9
    assert all(torch.isfinite(tensor).all() for tensor in shared.values())


def test_the_curves_tell_every_loss_and_the_scores_on_held_out_specimens(undisturbed):
    rows = lines(undisturbed)
    assert [int(row["step"]) for row in rows] == [4, 8, 12, 16, 20, 24]
    for name in (
        "adversarial",
        "paired",
        "paired_ct",
        "cycle",
        "cycle_stain",
        "greyscale",
        "structure",
        "stain_discriminator",
    ):
        assert all(np.isfinite(float(row[name])) for row in rows)
    assert float(rows[-1]["paired_ct"]) < float(rows[0]["paired_ct"])
    assert float(rows[-1]["lr"]) < 0.2 * float(rows[0]["lr"])
    assert 0 < float(rows[-1]["val_ssim"]) < 1
    assert rows[0]["val_psnr"] == ""


def test_samples_show_ct_virtual_and_true_side_by_side(undisturbed):
    picture = np.asarray(Image.open(undisturbed / "samples" / "step_000024.png"))
    assert picture.shape == (2 * 32, 3 * 32, 3)  # two held-out pairs
    ct = picture[:, :32].astype(int)
    assert (ct[..., 0] == ct[..., 2]).all()
    assert np.ptp(ct) > 100
    assert (picture[:, 64:].astype(int) != ct).any()


@pytest.mark.parametrize("method", ["pix2pix", "cyclegan", "paired_cyclegan"])
def test_every_method_trains_and_moves_its_networks(pairs, tmp_path, method):
    seen = []
    recipe = replace(TINY, method=method, weights=(), tone=False, steps=4, log_every=1, net="unet", depth=2)
    recipe = replace(recipe, checkpoint_every=1, cycle_every=1)
    stainer = fit(pairs[:4], tmp_path, recipe, watch=lambda step, values: seen.append(values))
    assert stainer.history["method"] == method
    before, after = (load_file(path / "state.safetensors") for path in checkpoints(tmp_path / FOLDER))
    networks = {name.split(".")[0] for name in after} - {"generators", "discriminators", "averaged"}
    expected = {"stain_generator", "stain_discriminator"} | (
        set() if method == "pix2pix" else {"ct_generator", "ct_discriminator"}
    )
    assert networks == expected
    for network in networks:
        assert any(not torch.equal(before[k], after[k]) for k in after if k.startswith(f"{network}."))
    assert all(np.isfinite(list(values.values())).all() for values in seen)


def test_a_slab_of_planes_is_learnt_from(make_pair, tmp_path):
    slabs = [make_pair(i, specimen=f"S{i}", planes=3) for i in range(2)]
    stainer = fit(slabs, tmp_path, replace(TINY, steps=3))
    assert stainer.planes == 3
    assert stainer(slabs[0].ct).shape == slabs[0].stain.shape


def test_the_learning_rate_falls_to_zero_after_the_last_step():
    recipe = TrainRecipe(steps=100, decay_from=0.6, lr=1e-3)
    assert learning_rate(recipe, 0) == learning_rate(recipe, 60) == 1e-3
    assert learning_rate(recipe, 80) == pytest.approx(5e-4)
    assert learning_rate(recipe, 99) == pytest.approx(2.5e-5)
    assert learning_rate(replace(recipe, decay_from=1.0), 99) == 1e-3


def test_the_pool_gives_new_images_until_full_then_old_ones_half_the_time(rng):
    pool = ImagePool(10)
    for i in range(10):
        assert float(pool.exchange(torch.full((1, 1, 2, 2), float(i)), rng).mean()) == i
    given = [float(pool.exchange(torch.full((1, 1, 2, 2), float(i)), rng).mean()) for i in range(10, 410)]
    new = sum(g == i for i, g in enumerate(given, start=10))
    assert 160 < new < 240
    assert len(pool.images) == 10
    assert float(ImagePool(0).exchange(torch.ones(1, 1, 2, 2), rng).mean()) == 1


def test_two_processes_learn_what_one_with_twice_the_batch_does(make_pair, tmp_path):
    whole = [make_pair(i, specimen=f"S{i}", masked=False) for i in range(3)]
    # of the adversarial losses a batch's is the mean of its patches'; of pixelwise ones only where all weigh the same
    # and batch norm is left out, because each process takes its own batch's statistics
    pixelwise = ("paired", "squared", "paired_ct", "cycle", "cycle_stain", "greyscale", "structure", "texture")
    recipe = replace(TINY, steps=3, batch=1, pool=0, device="cpu", threads=1, norm="pixel")
    recipe = replace(recipe, clip=0.0, weights=tuple(f"{name}=0" for name in pixelwise))
    born = fit(whole, tmp_path / "born", replace(recipe, steps=1, lr=1e-12))
    one = fit(whole, tmp_path / "one", replace(recipe, batch=2))
    two = fit(whole, tmp_path / "two", replace(recipe, devices=2))
    alone = fit(whole, tmp_path / "alone", recipe)
    start, joined, apart, single = (
        torch.cat([p.flatten() for p in s.net.parameters()]) for s in (born, one, two, alone)
    )
    learnt = (joined - start).abs().mean()
    assert (joined - apart).abs().mean() < 0.01 * learnt
    assert (joined - single).abs().mean() > 0.1 * learnt


def test_the_paired_cyclegan_beats_the_colour_table_where_colour_needs_context(make_pair, tmp_path):
    learnt = [make_pair(i, specimen=f"S{i}", shape=(128, 144), noise=0.3) for i in range(6)]
    unseen = [make_pair(i, specimen="T", shape=(128, 144), noise=0.3) for i in range(50, 53)]
    recipe = replace(TINY, width=12, depth=3, steps=160, patch_px=64, cycle_every=4, lr=1e-3)
    stainer = fit(learnt, tmp_path, recipe)
    table = fit_baselines(learnt, stainer.ct_range)["colour table"]

    def score(stain_generator):
        images = [torch.from_numpy(np.stack([stain_generator(p.ct), p.stain])).permute(0, 3, 1, 2) for p in unseen]
        masks = [torch.from_numpy(p.weight) for p in unseen]
        return np.mean(
            [psnr(i[:1], i[1:], data_range=255.0, mask=m).item() for i, m in zip(images, masks, strict=True)]
        )

    assert score(stainer) > score(table) + 2.0


def test_hinge_and_varied_discriminators_train(pairs, tmp_path):
    recipe = replace(
        TINY, method="pix2pix", net="unet", weights=("adversarial_bce=0", "adversarial_hinge=1"), tone=False, steps=4
    )
    seen = []
    stainer = fit(
        pairs[:2],
        tmp_path,
        replace(recipe, discriminator_augment=True, log_every=1),
        watch=lambda step, values: seen.append(values),
    )
    assert stainer.history["losses"] == {"paired": 100.0, "adversarial_hinge": 1.0}
    assert all(np.isfinite(values["stain_discriminator"]) for values in seen)
    assert 0.5 < seen[0]["stain_discriminator"] < 4.0  # 2 for a discriminator that says 0
