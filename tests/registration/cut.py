"""A specimen of blobs and a slide cut from it, with the truth: made in a second, so that tests need no phantom."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tomostain.images.geometry import Grid, Placement
from tomostain.images.image import Slide, Volume

COLOURS = np.asarray([[238, 238, 240], [196, 172, 214], [70, 95, 190], [12, 12, 14]], dtype=np.float64)
VALUES = np.asarray([0.25, 0.32, 1.3, 2.6])
VOXEL_UM, PIXEL_UM = 5.0, 2.5


@dataclass(frozen=True)
class Cut:
    """CT, slide and the placement that is true."""

    ct: Volume
    slide: Slide
    truth: Placement


def specimen(seed, shape=(60, 120, 120)):
    """Labels (z, y, x): soft tissue in which bone, fat and one metal pin lie."""
    rng = np.random.default_rng(seed)
    noise = [ndimage.gaussian_filter(rng.standard_normal(shape), 6.0) for _ in range(2)]
    labels = np.ones(shape, dtype=np.uint8)
    labels[noise[1] > np.quantile(noise[1], 0.85)] = 0
    labels[noise[0] > np.quantile(noise[0], 0.6)] = 2
    y, x = np.indices(shape[1:])
    labels[:, (y - 0.7 * shape[1]) ** 2 + (x - 0.3 * shape[2]) ** 2 < (0.1 * shape[1]) ** 2] = 3
    return labels


def truth(shape, *, tilt_deg=7.0, turn_deg=130.0, mirrored=True, depth=0.55, bend_um=15.0, thickness_um=10.0):
    """A tilted, turned, shrunk and bent placement in a volume of this shape."""
    extent = np.asarray(shape) * VOXEL_UM
    tilt, turn = np.deg2rad([tilt_deg, turn_deg])
    lean = np.asarray([[np.cos(tilt), 0.0, -np.sin(tilt)], [0.0, 1.0, 0.0], [np.sin(tilt), 0.0, np.cos(tilt)]])
    down = lean @ [0.0, np.cos(turn), np.sin(turn)]
    right = lean @ [0.0, -np.sin(turn), np.cos(turn)] * (-1 if mirrored else 1)
    steps = [PIXEL_UM / 0.94, PIXEL_UM / 0.96]
    pixels = tuple(round(0.8 * extent[1] / step) for step in steps)
    centre = extent * [depth, 0.5, 0.5]
    corner = centre - (pixels[0] - 1) / 2 * steps[0] * down - (pixels[1] - 1) / 2 * steps[1] * right
    rows, columns = np.indices((6, 6)) / 5
    bend = np.stack([np.sin(3 * columns), np.cos(2.5 * rows)], axis=-1) * bend_um
    return Placement(
        slide_shape=pixels,
        corner_um=tuple(corner),
        step_y_um=tuple(steps[0] * down),
        step_x_um=tuple(steps[1] * right),
        thickness_um=thickness_um,
        lattice_px=(max(pixels) - 1) / 5,
        displacement_um=bend.astype(np.float32),
    )


def cut(seed=0, shape=(60, 120, 120), **how):
    """Cut a slide out of a specimen; light is lost all through its thickness (Beer-Lambert)."""
    labels, placement = specimen(seed, shape), truth(shape, **how)
    rng = np.random.default_rng(seed + 1000)
    grid = Grid(shape, (VOXEL_UM,) * 3)
    ct = ndimage.gaussian_filter(VALUES[labels], 0.7) + 0.05 * rng.standard_normal(shape)
    pixels = np.stack(np.indices(placement.slide_shape), axis=-1).astype(np.float64)
    middle, normal = placement.slide_to_volume_um(pixels), np.cross(placement.step_y_um, placement.step_x_um)
    half = (placement.thickness_um - 10.0) / 2
    depths = np.linspace(-half, half, 1 + 2 * round(half / VOXEL_UM))
    light = np.zeros((*placement.slide_shape, 3))
    for depth in depths:
        at = np.round(grid.index_of(middle + depth * normal / np.linalg.norm(normal))).astype(int)
        inside = np.all((at >= 0) & (at < shape), axis=-1)
        at = np.where(inside[..., None], at, 0)
        light += np.log(COLOURS[np.where(inside, labels[at[..., 0], at[..., 1], at[..., 2]], 0)]) / len(depths)
    rgb = np.exp(light) + rng.normal(0, 6, light.shape)
    rgb = np.clip(ndimage.gaussian_filter(rgb, (0.7, 0.7, 0)), 0, 255).astype(np.uint8)
    slide = Slide(rgb, Grid(rgb.shape[:2], (PIXEL_UM, PIXEL_UM)), name="slide.tif")
    return Cut(Volume(ct.astype(np.float32), grid, name="ct"), slide, placement)


def distance_um(made, true):
    """Distances between two placements of one slide at 20 x 20 pixels, um."""
    axes = [np.linspace(0.02, 0.98, 20) * (n - 1) for n in true.slide_shape]
    px = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return np.linalg.norm(made.slide_to_volume_um(px) - true.slide_to_volume_um(px), axis=-1)
