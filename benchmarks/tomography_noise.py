"""Is the phantom's fast tomography a true one? One slice, against brute force with the same physics.

The reference projects by summing rotated images and back-projects by interpolation (scikit-image's radon and iradon),
through the same photon statistics and gain errors. Printed: noise power by frequency, rings, streaks between two
titanium pins, attenuation, time; a picture is written where asked for.

    python benchmarks/tomography_noise.py [--size 192] [--out noise.png]
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from skimage.transform import iradon, radon

from _results import Figure, save
from tomostain.images.geometry import Grid
from tomostain.phantom.attenuation import attenuation
from tomostain.phantom.tissues import Tissue
from tomostain.phantom.tomography import Tomograph, TomographyRecipe

Image = npt.NDArray[np.float64]

VOXEL_UM = 40.0
CLEAN = TomographyRecipe(photons=0, gain_error=0, phase_contrast=0, psf_sigma_px=0)


def pins(size: int) -> npt.NDArray[np.uint8]:
    """Fine labels (4, 2y, 2x): two titanium pins and a disc of bone in resin."""
    y, x = ((np.mgrid[: 2 * size, : 2 * size] + 0.5) / (2 * size)) - 0.5
    labels = np.full((4, 2 * size, 2 * size), Tissue.RESIN, dtype=np.uint8)
    labels[:, np.hypot(y, x + 0.25) < 0.09] = Tissue.METAL
    labels[:, np.hypot(y, x - 0.25) < 0.09] = Tissue.METAL
    labels[:, np.hypot(y - 0.27, x) < 0.13] = Tissue.LAMELLAR
    return labels


def brute_force(labels: npt.NDArray[np.uint8], recipe: TomographyRecipe, seed: int) -> Image:
    """The first slice by rotation and interpolation: (y, x) 1/cm."""
    table = attenuation("Ti", recipe.energy_kev)
    fine = table[labels[:2]].mean(axis=0) - table[Tissue.RESIN]
    size = fine.shape[0] // 2
    image = fine.reshape(size, 2, size, 2).mean(axis=(1, 3)).astype(np.float64)
    wide = int(np.ceil(size * np.sqrt(2.0))) + 4
    wide += 1 - wide % 2
    around = (wide - size) // 2
    image = np.pad(image, (around, wide - size - around))
    angles = recipe.projections or max(180, size)
    theta = np.arange(angles) * 180.0 / angles
    places = np.arange(wide) - wide // 2
    cm = VOXEL_UM * 1e-4
    radius = size / np.sqrt(2.0)
    chord = 2 * np.sqrt(np.maximum(radius**2 - places**2, 0.0))[:, None] * float(table[Tissue.RESIN]) * cm
    passed = np.exp(-(radon(image, theta, circle=True) * cm + chord))
    generator = np.random.default_rng(seed)
    passed *= 1 + recipe.gain_error * generator.standard_normal(wide)[:, None]
    if recipe.photons:
        passed = np.maximum(generator.poisson(recipe.photons * passed), 0.5) / recipe.photons
    lines = -np.log(passed) - chord
    back = iradon(lines, theta, filter_name="hann", interpolation="cubic", circle=True)
    image = np.asarray(back, dtype=np.float64)[around : around + size, around : around + size]
    return image / cm + float(table[Tissue.RESIN])


def fast(labels: npt.NDArray[np.uint8], recipe: TomographyRecipe, seed: int) -> Image:
    """The first slice by the phantom's tomograph: (y, x) 1/cm."""
    size = labels.shape[1] // 2
    scanner = Tomograph(recipe, Grid((2, size, size), (VOXEL_UM,) * 3), seed, "Ti")
    return np.asarray(scanner.scan(labels, 0)[0], dtype=np.float64)


def power(noise: Image, bins: int = 8) -> Image:
    """Radial noise power spectrum in equal bins up to the Nyquist frequency: (bins,) (1/cm)^2."""
    window = np.outer(np.hanning(len(noise)), np.hanning(len(noise)))
    spectrum = np.abs(np.fft.fft2(noise * window)) ** 2 / (window**2).sum()
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(len(noise)), np.fft.fftfreq(len(noise))))
    index = (frequency * 2 * bins).astype(int)
    return np.array([spectrum[index == k].mean() for k in range(bins)])


def main() -> None:
    """Print the agreement, and draw both slices."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--size", type=int, default=192, help="pixels across the slice")
    asked.add_argument("--out", type=Path, default=None, help="picture to write")
    chosen = asked.parse_args()
    size = chosen.size
    labels = pins(size)
    resin = np.full_like(labels, Tissue.RESIN)
    noisy = dataclasses.replace(CLEAN, photons=3e3)
    ringed = dataclasses.replace(CLEAN, gain_error=0.01)
    both = (("fast", fast), ("brute", brute_force))

    found: dict[str, dict[str, Image]] = {name: {} for name, _ in both}
    seconds = {}
    for name, scan in both:
        began = time.perf_counter()
        found[name]["clean"] = scan(labels, CLEAN, 0)
        seconds[name] = time.perf_counter() - began
        flat = scan(resin, CLEAN, 0)
        repeats = range(4)
        found[name]["power"] = np.mean([power(scan(resin, noisy, seed) - flat) for seed in repeats], axis=0)
        found[name]["streak"] = np.mean([(scan(labels, noisy, s) - found[name]["clean"]) ** 2 for s in repeats], axis=0)
        found[name]["ring"] = np.mean([(scan(resin, ringed, s) - flat) ** 2 for s in range(12)], axis=0)
        found[name]["noisy"] = scan(labels, dataclasses.replace(noisy, gain_error=0.01), 0)

    first, second = found["fast"], found["brute"]
    table = attenuation("Ti", 38.0)
    y, x = ((np.mgrid[:size, :size] + 0.5) / size) - 0.5
    print(f"slice of {size} px, {max(180, size)} projections")
    print(f"first slice, matrices included: {seconds['fast']:.2f} s against {seconds['brute']:.2f} s")
    for tissue, core in (
        (Tissue.METAL, np.hypot(y, x + 0.25) < 0.07),
        (Tissue.LAMELLAR, np.hypot(y - 0.27, x) < 0.1),
        (Tissue.RESIN, np.hypot(y + 0.3, x) < 0.1),
    ):
        values = first["clean"][core].mean(), second["clean"][core].mean()
        print(f"{tissue.name:9s} true {table[tissue]:7.3f}  fast {values[0]:7.3f}  brute force {values[1]:7.3f} 1/cm")
    print("noise power, fast / brute force, 8 bins to Nyquist:", np.round(first["power"] / second["power"], 2))
    print("(the reference's back-projection interpolates, which takes noise away near Nyquist)")
    between, beside = (np.abs(y) < 0.05) & (np.abs(x) < 0.1), (np.abs(y + 0.35) < 0.05) & (np.abs(x) < 0.1)
    for name in found:
        streak = np.sqrt(found[name]["streak"][between].mean() / found[name]["streak"][beside].mean())
        print(f"streak: noise between the pins / beside them, {name}: {streak:.2f}")
    radius = np.hypot(y, x) * size
    for low, high in ((2, 8), (8, 24), (24, size / 2)):
        here = (radius >= low) & (radius < high)
        ring = [np.sqrt(found[name]["ring"][here].mean()) for name in found]
        print(f"rings at {low:3.0f}-{high:3.0f} px from the axis: fast {ring[0]:.4f}, brute force {ring[1]:.4f} 1/cm")
    save(
        "tomography_noise", [Figure("one slice", f"{seconds['fast']:.2f} s", ratio=seconds["brute"] / seconds["fast"])]
    )
    if chosen.out:
        _draw(chosen.out, [first["noisy"], second["noisy"]], [first["power"], second["power"]])


def _draw(path: Path, slices: list[Image], spectra: list[Image]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 4))
    for axis, image, title in zip(axes, slices, ("Fourier, as the phantom", "brute force"), strict=False):
        axis.imshow(image, cmap="gray", vmin=-0.5, vmax=3)
        axis.set_title(title)
        axis.axis("off")
    middle = (np.arange(len(spectra[0])) + 0.5) / (2 * len(spectra[0]))
    for values, title in zip(spectra, ("Fourier", "brute force"), strict=True):
        axes[2].plot(middle, values, label=title)
    axes[2].set(xlabel="frequency, 1/px", ylabel="noise power, 1/cm²", title="noise")
    axes[2].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
