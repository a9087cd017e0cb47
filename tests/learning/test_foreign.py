"""Checkpoints of the program of CycleGAN and Pix2Pix, whose networks are written out here a second time."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from tomostain import runs
from tomostain.learning.foreign import read_generator
from tomostain.learning.nets import NetSpec, build_discriminator, build_generator
from tomostain.learning.stainer import Stainer
from tomostain.pairs.pair import save_pair
from tomostain.scoring.baselines import load_baselines
from tomostain.steps.import_checkpoint import ImportRecipe, import_checkpoint


def norm_of(kind):
    return nn.BatchNorm2d if kind == "batch" else (lambda n: nn.InstanceNorm2d(n, track_running_stats=kind == "old"))


class Block(nn.Module):
    def __init__(self, n, norm, bias, dropout):
        super().__init__()
        drop = [nn.Dropout(0.5)] if dropout else []
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(n, n, kernel_size=3, padding=0, bias=bias),
            norm(n),
            nn.ReLU(True),
            *drop,
            nn.ReflectionPad2d(1),
            nn.Conv2d(n, n, kernel_size=3, padding=0, bias=bias),
            norm(n),
        )

    def forward(self, x):
        return x + self.conv_block(x)


def resnet(inputs, width, blocks, kind, dropout=False, outputs=3):
    """The ResNet generator, as a plain row of layers with that program's names."""
    norm, bias = norm_of(kind), kind != "batch"
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(inputs, width, 7, bias=bias), norm(width), nn.ReLU(True)]
    for n in (width, width * 2):
        layers += [nn.Conv2d(n, n * 2, 3, stride=2, padding=1, bias=bias), norm(n * 2), nn.ReLU(True)]
    layers += [Block(width * 4, norm, bias, dropout) for _ in range(blocks)]
    for n in (width * 4, width * 2):
        up = nn.ConvTranspose2d(n, n // 2, 3, stride=2, padding=1, output_padding=1, bias=bias)
        layers += [up, norm(n // 2), nn.ReLU(True)]
    layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, outputs, 7), nn.Tanh()]
    net = nn.Module()
    net.model = nn.Sequential(*layers)
    net.forward = lambda x: net.model(x)
    return net


class Skip(nn.Module):
    def __init__(self, outer, inner, inputs=None, sub=None, kind="batch", outermost=False):
        super().__init__()
        self.outermost = outermost
        norm, bias = norm_of(kind), kind != "batch"
        down = nn.Conv2d(outer if inputs is None else inputs, inner, 4, stride=2, padding=1, bias=bias)
        if outermost:
            up = nn.ConvTranspose2d(inner * 2, outer, 4, stride=2, padding=1)
            layers = [down, sub, nn.ReLU(True), up, nn.Tanh()]
        elif sub is None:
            up = nn.ConvTranspose2d(inner, outer, 4, stride=2, padding=1, bias=bias)
            layers = [nn.LeakyReLU(0.2, True), down, nn.ReLU(True), up, norm(outer)]
        else:
            up = nn.ConvTranspose2d(inner * 2, outer, 4, stride=2, padding=1, bias=bias)
            layers = [nn.LeakyReLU(0.2, True), down, norm(inner), sub, nn.ReLU(True), up, norm(outer)]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


def unet(inputs, width, levels, kind):
    """The U-Net generator, built from the innermost level outwards."""
    block = Skip(width * 8, width * 8, kind=kind)
    for _ in range(levels - 5):
        block = Skip(width * 8, width * 8, sub=block, kind=kind)
    for outer, inner in ((4, 8), (2, 4), (1, 2)):
        block = Skip(width * outer, width * inner, sub=block, kind=kind)
    net = nn.Module()
    net.model = Skip(3, width, inputs=inputs, sub=block, kind=kind, outermost=True)
    net.forward = lambda x: net.model(x)
    return net


def trained(net):
    """Random weights and statistics, as after some training."""
    torch.manual_seed(3)
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in name else torch.randn_like(tensor) * 0.1)
    return net.eval()


CASES = [
    ("resnet 9 instance", lambda: resnet(1, 4, 9, "instance"), ("reference_resnet", 9, "instance")),
    ("resnet 6 old instance, dropout", lambda: resnet(1, 4, 6, "old", True), ("reference_resnet", 6, "instance")),
    ("resnet 9 batch", lambda: resnet(1, 4, 9, "batch"), ("reference_resnet", 9, "batch")),
    ("unet 128 batch", lambda: unet(1, 2, 7, "batch"), ("reference_unet", 7, "batch")),
    ("unet 256 batch", lambda: unet(1, 2, 8, "batch"), ("reference_unet", 8, "batch")),
    ("unet 32 instance", lambda: unet(1, 2, 5, "instance"), ("reference_unet", 5, "instance")),
]


@pytest.mark.parametrize(("build", "known"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_gives_what_its_own_network_gives(build, known, prefix, tmp_path):
    net = trained(build())
    torch.save({prefix + name: tensor for name, tensor in net.state_dict().items()}, tmp_path / "latest_net_G.pth")
    spec, planes, ours = read_generator(tmp_path / "latest_net_G.pth")
    assert (spec.name, spec.args["depth"], spec.args["norm"], planes) == (*known, 1)
    for module in net.modules():  # the program applies instance norm to the image at hand, whatever it has stored
        if isinstance(module, nn.InstanceNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    image, ours, net = torch.rand(1, 1, 256, 256).double() * 2 - 1, ours.double(), net.double()
    with torch.inference_mode():
        torch.testing.assert_close(ours(image), net(image.clone()), atol=1e-9, rtol=0)
        torch.testing.assert_close(ours(image * 3), net((image * 3).clamp(-1, 1)), atol=1e-9, rtol=0)


def test_three_grey_channels_become_one_plane_and_neighbouring_planes_stay(tmp_path):
    net = trained(resnet(3, 4, 6, "instance"))
    torch.save(net.state_dict(), tmp_path / "g.pth")
    _, planes, ours = read_generator(tmp_path / "g.pth")
    image, ours, net = torch.rand(1, 1, 64, 64).double() * 2 - 1, ours.double(), net.double()
    with torch.inference_mode():  # the sum of three weights was rounded to single precision
        torch.testing.assert_close(ours(image), net(image.repeat(1, 3, 1, 1)), atol=1e-4, rtol=0)
    assert planes == 1
    assert read_generator(tmp_path / "g.pth", repeated=False)[1] == 3


def test_an_imported_stainer_paints_in_ct_values_and_knows_its_specimens(tmp_path, pairs):
    for pair in pairs[:2]:
        save_pair(pair, tmp_path / "pairs" / f"{pair.name}.pair.zarr")
    net = trained(unet(1, 2, 5, "batch"))
    torch.save(net.state_dict(), tmp_path / "g.pth")
    recipe = ImportRecipe(ct_range=(0.0, 2.5), spacing_um=5.0, stain="giemsa", pairs=tmp_path / "pairs")
    out = import_checkpoint(tmp_path / "g.pth", tmp_path / "stainer", recipe=recipe)
    model = Stainer.load(out)
    assert (model.stain, model.um_per_px, model.planes, model.tile_exact) == ("giemsa", 5.0, 1, False)
    assert model.history["specimens"] == ["S00"]
    assert set(load_baselines(out)) == {"colour table", "mean colour"}
    assert runs.read_record(out)["results"]["net"] == "reference_unet"
    ct = np.random.default_rng(0).uniform(-1, 5, (64, 64)).astype(np.float32)
    unit = torch.from_numpy(np.clip(ct / 1.25 - 1, -1, 1))[None, None]
    with torch.inference_mode():
        expected = ((net(unit)[0].permute(1, 2, 0).numpy() + 1) * 127.5).clip(0, 255)
    assert np.abs(model(ct).astype(float) - expected).max() < 0.51


class Harmful:
    def __reduce__(self):
        return (eval, ("open('was_run', 'w')",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: {"weight": torch.zeros(3)}, "holds no generator"),
        (lambda: {}, "no state_dict"),
        (lambda: [1, 2], "no state_dict"),
        (lambda: build_discriminator(NetSpec("patchgan", {"width": 4}), 3).state_dict(), "holds no generator"),
        (lambda: build_generator(NetSpec("resnet", {"width": 4, "depth": 1}), 1, 3).state_dict(), "holds no generator"),
        (lambda: resnet(3, 4, 6, "instance", outputs=1).state_dict(), "not in three colours"),
        (lambda: {**resnet(1, 4, 6, "batch").state_dict(), "more.weight": torch.zeros(2)}, "of another kind"),
        (lambda: {k: v * np.nan for k, v in resnet(1, 4, 6, "instance").state_dict().items()}, "NaN"),
        (Harmful, "weights alone"),
    ],
)
def test_something_else_is_refused_and_no_code_is_run(content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(content(), tmp_path / "g.pth")
    with pytest.raises(ValueError, match=message):
        read_generator(tmp_path / "g.pth")
    assert not (tmp_path / "was_run").exists()


def test_a_damaged_or_missing_file_is_named(tmp_path):
    (tmp_path / "g.pth").write_bytes(pickle.dumps({"a": 1})[:-3])
    with pytest.raises(ValueError, match=r"g\.pth cannot be read"):
        read_generator(tmp_path / "g.pth")
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        read_generator(tmp_path / "none.pth")
    with pytest.raises(ValueError, match="pass --ct-range"):
        import_checkpoint(tmp_path / "g.pth", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "of_rgb", "of_grey"),
    [("reference_resnet", 11_378_179, 11_371_907), ("reference_unet", 54_413_955, 54_411_907)],
)
def test_the_networks_have_as_many_weights_as_published(name, of_rgb, of_grey):
    """With one grey channel in, the first convolution has two channels of weights less: 6,272 and 2,048."""
    with torch.device("meta"):
        counts = [sum(p.numel() for p in build_generator(NetSpec(name), i, 3).parameters()) for i in (3, 1)]
    assert counts == [of_rgb, of_grey]
