"""Slides as scanners and microscopes write them, strictly read by tifffile, OpenSlide, pylibCZIrw and Pillow alone."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import tifffile
from PIL import Image, ImageCms, ImageOps
from pylibCZIrw import czi

from fuzz.formats.common import PIXEL_UM, colours, slide
from fuzz.formats.tiffs import _OWN, OME, no_warnings, png_bomb, whole_page
from fuzz.judge import Format, Look, look
from fuzz.mutations import Target
from icc import wide_profile


def write_tiled(path: Path, compression: str, **settings: Any) -> Path:
    per_cm = 10_000 / PIXEL_UM
    with tifffile.TiffWriter(path) as out:
        for scale in (1, 2):
            out.write(
                colours()[::scale, ::scale],
                photometric="rgb",
                tile=(128, 128),
                compression=compression,
                resolution=(per_cm / scale, per_cm / scale),
                resolutionunit="CENTIMETER",
                subfiletype=int(scale > 1),
                software=False,
                metadata=None,
                **settings,
            )
    return path


def write_strips(folder: Path) -> Path:
    per_inch = 25_400 / PIXEL_UM
    tifffile.imwrite(
        folder / "scan.tif",
        colours(),
        photometric="rgb",
        rowsperstrip=40,
        resolution=(per_inch, per_inch),
        resolutionunit="INCH",
        software=False,
        metadata=None,
    )
    return folder / "scan.tif"


def write_svs(folder: Path) -> Path:
    about = "Aperio Image Library v12.0.15\n331x293 [0,0 331x293] (128x128) JPEG/RGB Q=70|AppMag = 5|MPP = 2.0"
    return write_tiled(folder / "scan.svs", "jpeg", description=about)


def strict_slide(path: Path) -> Look:
    with no_warnings(), tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        unit = {2: 25_400.0, 3: 10_000.0}[int(page.tags["ResolutionUnit"].value)]
        y, x = (unit * den / num for num, den in (page.tags.valueof(tag) for tag in ("YResolution", "XResolution")))
        values = whole_page(tiff, page)
    if values.dtype != np.uint8 or values.ndim != 3:
        raise ValueError("not RGB")
    return look(values[..., :3], (y, x))


def write_turned(folder: Path) -> Path:
    """Stored turned, in a wide gamut: an orientation tag and a colour profile."""
    tags = [(274, "H", 1, 6, True)]
    return write_tiled(folder / "slide.tif", "zlib", extratags=tags, iccprofile=wide_profile())


def strict_turned(path: Path) -> Look:
    flat = strict_slide(path)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        stored = Image.fromarray(np.ascontiguousarray(whole_page(tiff, page)[..., :3]))
        stored.getexif()[274] = int(page.tags.valueof(274, default=1))
        profile = ImageCms.ImageCmsProfile(io.BytesIO(page.iccprofile))
    intent = ImageCms.Intent(ImageCms.getDefaultIntent(profile))
    seen = ImageOps.exif_transpose(stored)
    srgb = ImageCms.profileToProfile(seen, profile, ImageCms.createProfile("sRGB"), intent, "RGB")
    edges = flat["spacing_um"]
    return look(np.asarray(srgb), edges[::-1] if stored.size != seen.size else edges)


def write_planes(folder: Path) -> Path:
    with tifffile.TiffWriter(folder / "slide.ome.tif", ome=True) as out:
        about = {"axes": "CYX", "PhysicalSizeX": PIXEL_UM, "PhysicalSizeY": PIXEL_UM}
        names = {"Channel": {"Name": ["Red", "Green", "Blue"]}}
        settings: dict[str, Any] = {"photometric": "minisblack", "tile": (128, 128), "compression": "zlib"}
        planes = np.ascontiguousarray(np.moveaxis(colours(), -1, 0))
        out.write(planes, subifds=1, metadata=about | names, **settings)
        out.write(planes[:, ::2, ::2], subfiletype=1, metadata=None, **settings)
    return folder / "slide.ome.tif"


def strict_planes(path: Path) -> Look:
    with no_warnings(), tifffile.TiffFile(path, _multifile=False) as tiff:
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
        if [one["Name"] for one in pixels["Channel"]] != ["Red", "Green", "Blue"]:
            raise ValueError("other names")
        if pixels["TiffData"] != {"IFD": 0, "PlaneCount": 3} or pixels["SizeC"] != 3:
            raise ValueError("other planes")
        edges = [pixels[f"PhysicalSize{axis}"] for axis in "YX"]
        planes = [whole_page(tiff, tiff.pages[i]) for i in range(3)]
    return look(np.stack(planes, axis=-1), edges)


def write_picture(path: Path, **settings: Any) -> Path:
    Image.fromarray(colours()).save(path, **settings)
    return path


def strict_picture(path: Path) -> Look:
    with Image.open(path) as check:
        if check.format == "PNG":
            check.verify()
    with Image.open(path) as picture:
        return look(np.asarray(picture.convert("RGB")), (PIXEL_UM, PIXEL_UM))


def write_ome(folder: Path) -> Path:
    with tifffile.TiffWriter(folder / "slide.ome.tif", ome=True) as out:
        about = {"axes": "YXS", "PhysicalSizeX": PIXEL_UM, "PhysicalSizeY": PIXEL_UM}
        settings: dict[str, Any] = {"photometric": "rgb", "tile": (128, 128), "compression": "zlib"}
        out.write(colours(), subifds=1, metadata=about, **settings)
        out.write(colours()[::2, ::2], subfiletype=1, metadata=None, **settings)
    return folder / "slide.ome.tif"


def strict_ome(path: Path) -> Look:
    with no_warnings(), tifffile.TiffFile(path, _multifile=False) as tiff:
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
        if pixels["SizeX"] != tiff.pages[0].imagewidth or pixels["SizeY"] != tiff.pages[0].imagelength:
            raise ValueError("another size")
        if {pixels.get(f"PhysicalSize{name}Unit", "\u00b5m") for name in "XY"} != {"\u00b5m"}:
            raise ValueError("other units")
        values = whole_page(tiff, tiff.pages[0])
    return look(values[..., :3], (pixels["PhysicalSizeY"], pixels["PhysicalSizeX"]))


def write_philips(folder: Path) -> Path:
    """As far as OpenSlide looks at what Philips scanners write."""
    level = (
        '<DataObject ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" '
        'Element="0x0030" PMSVR="IDoubleArray">&quot;{0}&quot; &quot;{0}&quot;</Attribute></DataObject>'
    )
    image = (
        '<Attribute Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003" PMSVR="IDataObjectArray"><Array>'
        '<DataObject ObjectType="DPScannedImage"><Attribute Name="PIM_DP_IMAGE_TYPE" Group="0x301D" Element="0x1004" '
        'PMSVR="IString">WSI</Attribute><Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" '
        'PMSVR="IDoubleArray">&quot;0.002&quot; &quot;0.002&quot;</Attribute>'
        '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" Group="0x1001" '
        'Element="0x8B01" PMSVR="IDataObjectArray"><Array>' + level.format(0.002) + level.format(0.004) + "</Array>"
        "</Attribute></DataObject></Array></Attribute>"
    )
    described = f'<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">{image}</DataObject>'
    settings: dict[str, Any] = {"photometric": "rgb", "tile": (128, 128), "software": "Philips DP v1.0"}
    padded = np.pad(colours(), ((0, 91), (0, 53), (0, 0)))
    with tifffile.TiffWriter(folder / "slide.tiff") as out:
        out.write(padded, description=described, metadata=None, **settings)
        out.write(padded[::2, ::2], description="level=1", subfiletype=1, metadata=None, **settings)
    return folder / "slide.tiff"


def strict_openslide(path: Path) -> Look:
    with openslide.OpenSlide(path) as other:
        values = np.asarray(other.read_region((0, 0), 0, other.dimensions))
        edges = [float(other.properties[f"openslide.mpp-{axis}"]) for axis in "yx"]
    if (values[..., 3] != 255).any():
        raise ValueError("parts of it are not there")
    return look(values[..., :3], edges)


def write_czi(folder: Path) -> Path:
    with czi.create_czi(str(folder / "slide.czi")) as out:
        values = np.ascontiguousarray(colours()[..., ::-1])
        out.write(np.ascontiguousarray(values[:, :200]), location=(0, 0))
        out.write(np.ascontiguousarray(values[:, 200:]), location=(200, 0))
        out.write_metadata(document_name="s", scale_x=PIXEL_UM * 1e-6, scale_y=PIXEL_UM * 1e-6)
    return folder / "slide.czi"


def strict_czi(path: Path) -> Look:
    with czi.open_czi(str(path)) as other:
        if other.get_channel_pixel_type(0) != "Bgr24":
            raise ValueError("not RGB")
        box = other.total_bounding_rectangle
        values = np.asarray(other.read(pixel_type="Bgr24", background_pixel=(1.0, 1.0, 1.0)))
        scaling = other.metadata["ImageDocument"]["Metadata"]["Scaling"]["Items"]["Distance"]
    edges = {item["@Id"]: 1e6 * float(item["Value"]) for item in scaling}
    if values.shape[:2] != (box.h, box.w):
        raise ValueError("another size")
    return look(values[..., ::-1], (edges["Y"], edges["X"]))


def jpeg_tile_bomb(t: Target) -> None:
    """A tile's JPEG says that it is 65500 x 65500 px large, which takes 12 GB."""
    t.exact = True
    raw = bytearray(t.path.read_bytes())
    found = [match.start() for match in re.finditer(rb"\xff\xc0\0\x11\x08", bytes(raw))]
    struct.pack_into(">HH", raw, t.pick(found[:6]) + 5, 65500, t.pick((65500, 128)))
    t.path.write_bytes(raw)


_JPEG = {**_OWN, "jpeg-tile-bomb": jpeg_tile_bomb}

SLIDES = {
    "slide-tiff-deflate": Format(lambda folder: write_tiled(folder / "slide.tif", "zlib"), slide(), strict_slide, _OWN),
    "slide-tiff-jpeg": Format(lambda folder: write_tiled(folder / "slide.tif", "jpeg"), slide(), strict_slide, _JPEG),
    "slide-tiff-strips": Format(write_strips, slide(), strict_slide, _OWN),
    "slide-svs": Format(write_svs, slide(PIXEL_UM), strict_slide, _JPEG),
    "slide-ome": Format(write_ome, slide(), strict_ome, OME),
    "slide-turned": Format(write_turned, slide(), strict_turned, _OWN),
    "slide-planes": Format(write_planes, slide(), strict_planes, OME),
    "slide-philips": Format(write_philips, slide(), strict_openslide, _OWN),
    "slide-czi": Format(write_czi, slide(), strict_czi),
    "slide-png": Format(
        lambda folder: write_picture(folder / "slide.png"), slide(PIXEL_UM), strict_picture, {"png-bomb": png_bomb}
    ),
    "slide-jpeg": Format(
        lambda folder: write_picture(folder / "slide.jpg", quality=90), slide(PIXEL_UM), strict_picture
    ),
}
