import sys
import types
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.data import decode as decode_module
from fer_lightning.data.decode import convert, decode

GREY = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def exactly(data: bytes) -> NDArray[np.uint8]:
    return decode(data, size=48, exact=True)


def reason(data: bytes, *, exact: bool = True) -> str:
    with pytest.raises(FERError) as caught:
        decode(data, size=48, exact=exact)
    return str(caught.value)


LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "BMP": {},
    "GIF": {},
    "TIFF": {},
    "PPM": {},
    "WEBP": {"lossless": True},
    "JPEG2000": {},
}


@pytest.mark.parametrize(("form", "options"), LOSSLESS.items())
def test_lossless_files_keep_every_grey_level(form: str, options: dict[str, Any]) -> None:
    found = exactly(encode(Image.fromarray(GREY), form, **options))
    assert found.dtype == np.uint8
    assert np.array_equal(found, GREY)


def test_avif_is_decoded_where_pillow_can() -> None:
    pytest.importorskip("PIL._avif")
    data = encode(Image.fromarray(GREY), "AVIF", quality=100)
    assert abs(exactly(data).astype(int) - GREY).max() <= 4


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "PNG"])
def test_first_frame_is_used(form: str) -> None:
    options: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
    first, second = Image.fromarray(GREY), Image.fromarray(255 - GREY)
    data = encode(first, form, save_all=True, append_images=[second], **options)
    assert np.array_equal(exactly(data), GREY)


def test_plugin_for_heif_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def register() -> None:
        def accept(start: bytes) -> bool:
            return start[4:12] == b"ftypheic"

        Image.register_open("HEIF", lambda file, _: Image.open(BytesIO(file.read()[24:])), accept)

    plugin = types.ModuleType("pillow_heif")
    plugin.register_heif_opener = register  # type: ignore[attr-defined]
    plugin.__spec__ = ModuleSpec("pillow_heif", None)
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    decode_module.formats.cache_clear()
    try:
        data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + encode(Image.fromarray(GREY))
        assert np.array_equal(exactly(data), GREY)
    finally:
        Image.OPEN.pop("HEIF", None)
        Image.ID.remove("HEIF")
        decode_module.formats.cache_clear()


def test_sixteen_bit_pgm_is_scaled() -> None:
    levels = (GREY.astype(">u2") * 257).tobytes()
    assert np.array_equal(exactly(b"P5 48 48 65535\n" + levels), GREY)


def test_jpeg_is_decoded_as_by_pillow() -> None:
    data = encode(Image.fromarray(GREY), "JPEG")
    assert np.array_equal(exactly(data), np.asarray(Image.open(BytesIO(data))))


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    assert np.array_equal(exactly(encode(Image.fromarray(GREY.astype(np.uint16) * 257))), GREY)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "CMYK"])
def test_grey_image_of_another_mode_keeps_its_levels(mode: str) -> None:
    if mode == "CMYK":  # three equal inks: the complement of grey
        image = Image.merge("CMYK", [Image.fromarray(255 - GREY)] * 3 + [Image.new("L", (48, 48))])
        assert np.array_equal(np.asarray(convert(image)), GREY)
    else:
        assert np.array_equal(exactly(encode(Image.fromarray(GREY).convert(mode))), GREY)


def test_one_bit_image_becomes_black_and_white() -> None:
    found = exactly(encode(Image.fromarray(GREY > 127)))
    assert np.array_equal(found, np.where(GREY > 127, 255, 0))


def test_colours_become_luma() -> None:
    assert exactly(encode(Image.new("RGB", (48, 48), (255, 0, 0))))[0, 0] == 76


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_become_white(mode: str) -> None:
    image = Image.new("RGBA", (48, 48), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 24, 48))
    found = exactly(encode(image.convert(mode)))
    assert (found[:, :24] == 0).all()
    assert (found[:, 24:] == 255).all()


@pytest.mark.parametrize("transparency", [3, b"\xff\xff\xff\x00"])
def test_transparent_palette_colour_becomes_white(transparency: int | bytes) -> None:
    image = Image.new("P", (48, 48), 3)
    image.putpalette([0, 0, 0] * 4)
    assert (exactly(encode(image, transparency=transparency)) == 255).all()


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    stored = Image.fromarray(np.rot90(GREY))
    assert np.array_equal(exactly(encode(stored, exif=exif)), GREY)


def test_broken_exif_keeps_the_stored_orientation() -> None:
    data = encode(Image.fromarray(GREY), "PNG", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x09\x00garbage")
    assert np.array_equal(exactly(data), GREY)


def test_whole_image_is_resized_to_the_square() -> None:
    stripes = np.repeat(np.array([[0, 255]], np.uint8), 100, axis=1)
    found = decode(encode(Image.fromarray(np.repeat(stripes, 30, axis=0))), size=48, exact=False)
    assert found.shape == (48, 48)
    assert found[:, :20].max() <= 8
    assert found[:, 28:].min() >= 247


def test_downscaling_is_antialiased() -> None:
    checkers = (np.indices((960, 960)).sum(axis=0) % 2 * 255).astype(np.uint8)
    found = decode(encode(Image.fromarray(checkers)), size=48, exact=False)
    assert abs(found.astype(int) - 127).max() <= 3


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "0 bytes"),
        (
            b"hello, I am a text",
            "not an image (expected JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF, JPEG 2000 or PPM)",
        ),
        (
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
            "HEIC is not decoded here; pip install pillow-heif, or save it as JPEG",
        ),
        (
            encode(Image.fromarray(GREY.astype(np.float32)), "TIFF"),
            "pixels of floating-point numbers, whose range is unknown; save it with 8 or 16 bits",
        ),
        (encode(Image.fromarray(GREY), "GIF")[:900], "truncated image"),
        (encode(Image.fromarray(GREY), "JPEG")[:700], "truncated image"),
        (encode(Image.fromarray(GREY))[:700], "truncated image"),
        (encode(Image.fromarray(GREY), "BMP")[:1700], "truncated image"),
        (encode(Image.fromarray(GREY), "JPEG")[:4], "truncated or damaged image"),
        (encode(Image.new("L", (100, 90))), "100x90 pixels, expected 48x48"),
    ],
)
def test_bad_file_error_is_the_reason_alone(data: bytes, expected: str) -> None:
    assert reason(data) == expected


@pytest.mark.parametrize("form", ["JPEG", *LOSSLESS])
def test_truncated_files_raise_only_fererror(form: str) -> None:
    data = encode(Image.fromarray(GREY), form)
    for length in range(0, len(data) // 2, 37):
        assert reason(data[:length])


def test_damaged_files_raise_only_fererror() -> None:
    random = np.random.default_rng(1)
    for form in ("JPEG", *LOSSLESS):
        data = np.frombuffer(encode(Image.fromarray(GREY), form), np.uint8)
        for _ in range(60):
            broken = data.copy()
            broken[random.integers(0, len(data), 8)] = random.integers(0, 256, 8)
            try:
                assert decode(broken.tobytes(), size=48, exact=False).shape == (48, 48)
            except FERError:
                continue


@pytest.mark.parametrize("side", [9_000, 20_000])  # Pillow alone would warn at the first, refuse the second
def test_image_bomb_is_refused_before_decoding(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    header = encode(Image.new("1", (8, 8)), "BMP")
    bomb = header[:18] + side.to_bytes(4, "little") * 2 + header[26:]
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("decoded"))
    assert reason(bomb, exact=False).startswith("more than 64,000,000 pixels")


def test_long_thin_image_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    thin = encode(Image.new("1", (70_000, 1)))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("decoded"))
    assert reason(thin, exact=False) == "a side of more than 65,535 pixels (70000x1)"


def test_photograph_of_100_megapixels_is_decoded_where_it_is_allowed() -> None:
    data = encode(Image.new("1", (11_600, 8_700), 1))
    assert reason(data, exact=False).startswith("more than 64,000,000 pixels (11600x8700)")
    found = decode(data, size=48, exact=False, max_pixels=decode_module.MAX_PHOTO_PIXELS)
    assert (found == 255).all()


def test_threads_suppress_warnings_and_restore_the_filters() -> None:
    side = 7_999  # below our limit; above Pillow's, were that lowered
    noisy = encode(Image.new("1", (side, 1)), "PNG")
    before = list(warnings.filters)
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(8) as pool:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", side - 1)  # now opening it warns, and warnings are errors
        with pytest.raises(Image.DecompressionBombWarning):
            Image.open(BytesIO(noisy))
        found = list(pool.map(lambda _: decode(noisy, size=8, exact=False).shape, range(200)))
    assert found == [(8, 8)] * 200
    assert warnings.filters == before
    assert decode_module._no_warnings._inside == 0
