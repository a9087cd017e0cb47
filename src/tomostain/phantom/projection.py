"""Parallel-beam projection and filtered back-projection through the Fourier plane, in numpy and scipy alone.

Central slice theorem with a Kaiser-Bessel non-uniform FFT (Fessler and Sutton 2003; Matej, Fessler and Kazantsev 2004):
one sparse matrix takes the padded FFT of an image to polar lines, and its transpose takes them back. Two real slices
travel as the real and imaginary part of one complex image.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import fft, sparse

from tomostain.phantom.fields import Float32, Float64

Complex = npt.NDArray[np.complex64]

_TAPS = 4
_BETA = float(np.pi * np.sqrt((_TAPS / 2) ** 2 * 1.5**2 - 0.8))
"""Kaiser-Bessel shape for a twofold padded grid (Beatty et al. 2005): error below 1e-3 with four taps."""


class Projector:
    """Geometry of ``angles`` projections over 180 degrees of a ``size`` x ``size`` image, one pixel per detector pixel.

    The axis of rotation passes through the middle of the image and of detector pixel ``detector // 2``.
    """

    def __init__(self, size: int, angles: int) -> None:
        if size < 2 or angles < 1:
            raise ValueError(f"a projection needs 2 pixels and 1 angle at least, not {size} and {angles}")
        self.size, self.angles = size, angles
        self.detector = 2 * fft.next_fast_len(int(np.ceil(size / np.sqrt(2.0))) + 4)
        self._padded = fft.next_fast_len(2 * size)
        theta = np.arange(angles) * (np.pi / angles)
        steps = np.arange(self.detector) - self.detector // 2
        self.frequency: Float64 = fft.ifftshift(steps) / self.detector
        line_y, line_x = np.sin(theta)[:, None] * self.frequency, np.cos(theta)[:, None] * self.frequency
        self._matrix = _gridding(line_y.ravel() * self._padded, line_x.ravel() * self._padded, self._padded)
        half = (size - 1) / 2 - size // 2
        inside = self.frequency > -0.5
        self._phase = (np.exp(2j * np.pi * half * (line_y + line_x)) * inside).astype(np.complex64)
        self._window = _deapodisation(size, self._padded)
        places = np.minimum(np.arange(2 * self.detector), 2 * self.detector - np.arange(2 * self.detector))
        with np.errstate(divide="ignore"):
            kernel = np.where(places % 2 == 1, -1 / (np.pi * places.astype(np.float64)) ** 2, 0.0)
        kernel[0] = 0.25
        frequency = fft.fftfreq(2 * self.detector)
        self._ramp = (fft.fft(kernel).real * (0.5 + 0.5 * np.cos(2 * np.pi * frequency))).astype(np.float32)

    @property
    def places_px(self) -> Float64:
        """Distance of the detector's pixels from the axis: (detector,) px."""
        return np.arange(self.detector, dtype=np.float64) - self.detector // 2

    def project(self, image: Complex, transfer: Float64 | Complex | None = None) -> Complex:
        """Line integrals of a complex image (size, size): (angles, detector), in units of image value x pixel.

        ``transfer`` (detector,) multiplies the lines' spectrum, in the order of ``frequency``: a blur or a shift.
        """
        grid = np.zeros((self._padded, self._padded), dtype=np.complex64)
        self._spread(grid, image * self._window)
        spectrum = self._apply(self._matrix, fft.fft2(grid, overwrite_x=True))
        lines = spectrum.reshape(self.angles, self.detector) * self._phase
        if transfer is not None:
            lines *= transfer.astype(np.complex64)
        sinogram: Complex = fft.fftshift(fft.ifft(lines, axis=1, overwrite_x=True), axes=1)
        return sinogram

    def reconstruct(self, sinogram: Complex) -> Complex:
        """Filtered back-projection, Hann-windowed ramp: (angles, detector) -> (size, size) image values."""
        wide = fft.fft(sinogram, n=2 * self.detector, axis=1)
        wide *= self._ramp
        filtered = fft.ifft(wide, axis=1, overwrite_x=True)[:, : self.detector]
        lines = fft.fft(fft.ifftshift(filtered, axes=1), axis=1, overwrite_x=True)
        lines *= self._phase.conj()
        grid = self._apply(self._matrix.T, lines).reshape(self._padded, self._padded)
        whole = fft.ifft2(grid, norm="forward", overwrite_x=True)
        image = np.empty((self.size, self.size), dtype=np.complex64)
        self._gather(image, whole)
        image *= self._window * np.float32(np.pi / (self.angles * self.detector))
        return image

    def _quadrants(self) -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
        """Where parts of the image lie on the padded grid, whose origin is the image's middle."""
        half, rest = self.size // 2, self.size - self.size // 2
        cuts = [(slice(half, None), slice(0, rest)), (slice(0, half), slice(self._padded - half, None))]
        return [((y[0], x[0]), (y[1], x[1])) for y in cuts for x in cuts]

    def _spread(self, grid: Complex, image: Complex) -> None:
        for part, place in self._quadrants():
            grid[place] = image[part]

    def _gather(self, image: Complex, grid: Complex) -> None:
        for part, place in self._quadrants():
            image[part] = grid[place]

    @staticmethod
    def _apply(matrix: sparse.csr_array | sparse.csc_array, values: Complex) -> Complex:
        pairs = np.ascontiguousarray(values).reshape(-1).view(np.float32).reshape(-1, 2)
        found: Complex = np.ascontiguousarray(matrix @ pairs).view(np.complex64).reshape(-1)
        return found


@lru_cache(maxsize=2)
def projector(size: int, angles: int) -> Projector:
    """The projector of a size, kept: its matrix takes longer to make than a slice to scan."""
    return Projector(size, angles)


def _gridding(rows: Float64, columns: Float64, padded: int) -> sparse.csr_array:
    """Kaiser-Bessel weights from a periodic (padded, padded) grid to points: CSR (points, padded^2) float32."""
    index_y, weight_y = _kernel(rows, padded)
    index_x, weight_x = _kernel(columns, padded)
    index = (index_y[:, :, None] * padded + index_x[:, None, :]).reshape(-1).astype(np.int32)
    weight = (weight_y[:, :, None] * weight_x[:, None, :]).reshape(-1)
    pointer = np.arange(0, len(index) + 1, _TAPS * _TAPS, dtype=np.int32)
    return sparse.csr_array((weight, index, pointer), shape=(len(rows), padded * padded))


def _kernel(places: Float64, padded: int) -> tuple[npt.NDArray[np.int32], Float32]:
    first = np.floor(places).astype(np.int64) - (_TAPS // 2 - 1)
    index = first[:, None] + np.arange(_TAPS)
    away = places[:, None] - index
    weight = np.i0(_BETA * np.sqrt(np.maximum(1 - (2 * away / _TAPS) ** 2, 0.0))) / np.i0(_BETA)
    weight[np.abs(away) > _TAPS / 2] = 0.0
    return (index % padded).astype(np.int32), weight.astype(np.float32)


def _deapodisation(size: int, padded: int) -> Float32:
    """One over the Fourier transform of the gridding kernel, over the image: (size, size)."""
    places = (np.arange(size) - size // 2) / padded
    root = np.sqrt(_BETA**2 - (np.pi * _TAPS * places) ** 2)
    along = root * np.i0(_BETA) / (_TAPS * np.sinh(root))
    window: Float32 = (along[:, None] * along[None, :]).astype(np.float32)
    return window
