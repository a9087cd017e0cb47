"""Small networks that were trained, and planes that they have not seen."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from tomostain.learning.nets import NetSpec, build_generator
from tomostain.learning.ranges import CTRange, RGBRange
from tomostain.learning.stainer import Stainer

COLOURS = np.array([(243, 240, 244), (205, 214, 232), (112, 132, 190), (20, 18, 22)], np.uint8)
GREYS = np.array([0.3, 1.3, 1.5, 2.4], np.float32)
SPECS = {
    "resnet": NetSpec("resnet", {"width": 12, "depth": 2, "norm": "batch"}),
    "unet": NetSpec("unet", {"width": 12, "depth": 3, "norm": "batch"}),
}


def section(seed, shape):
    """CT (y, x) and its stain (y, x, 3): four tissues, of which two are told apart by texture and surroundings only."""
    rng = np.random.default_rng([seed, 5])
    coarse = ndimage.gaussian_filter(rng.standard_normal(shape), 6.0)
    fine = ndimage.gaussian_filter(rng.standard_normal(shape), 1.5)
    label = np.digitize(coarse / coarse.std(), (-0.6, 0.2, 1.1))
    stain = COLOURS[label] + 60.0 * fine[..., None] / np.abs(fine).max()
    ct = ndimage.gaussian_filter(GREYS[label], 0.7) + 0.1 * fine / fine.std() + 0.05 * rng.standard_normal(shape)
    return ct.astype(np.float32), np.clip(stain, 0, 255).astype(np.uint8)


def trained(spec, *, steps=120, patch=48):
    """A stainer whose weights, norms and colours have the spread that training gives."""
    ct, stain = section(0, (240, 240))
    ct_range = CTRange.fit([ct])
    unit, colours = ct_range.to_unit(ct), np.moveaxis(RGBRange.to_unit(stain), -1, 0)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    net = build_generator(spec, 1, 3).train().to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(steps):
        y, x = rng.integers(240 - patch, size=2)
        seen = torch.from_numpy(unit[None, None, y : y + patch, x : x + patch])
        wanted = torch.from_numpy(colours[None, :, y : y + patch, x : x + patch])
        loss = (net(seen) - wanted).abs().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    net = net.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return Stainer(net, spec, ct_range, "giemsa", 5.0)


@pytest.fixture(scope="session", params=list(SPECS))
def model(request):
    return trained(SPECS[request.param])


@pytest.fixture(scope="session")
def plane():
    """CT (1, y, x) of another specimen."""
    return section(1, (205, 239))[0][None]
