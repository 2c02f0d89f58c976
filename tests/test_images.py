import errno
import json
import os
import struct
import threading
import zlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cof import images
from cof.errors import DataError
from cof.files import DiskError
from cof.images import load_image, preprocess, to_model_frame, to_rgb

HERE = Path(__file__).resolve()
COPY = HERE.parent / "data" / "images"
GOLDEN = HERE.parents[2] / "shared" / "golden"
MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP
STD = (0.26862954, 0.26130258, 0.27577711)
FILL = (122, 116, 104)


def recorded():
    """(source, recorded model input, pad) of every recorded picture; the second copy may skip."""
    for folder, sources, outputs in (
        (COPY, "source", {"padded": True, "cropped": False}),
        (GOLDEN, "images", {"preprocessed": True, "preprocessed_no_pad": False}),
    ):
        for output, pad in outputs.items():
            for file in sorted((folder / output).glob("*.png")):
                name = f"{folder.name}-{output}-{file.stem}"
                yield pytest.param(folder / sources / file.name, file, pad, id=name)


@pytest.mark.parametrize(("source", "output", "pad"), recorded())
def test_model_frame_is_the_recorded_one_to_the_byte(source, output, pad):
    with Image.open(output) as expected:
        frame = to_model_frame(load_image(source), expected.width, FILL, pad=pad)
        assert frame.tobytes() == expected.convert("RGB").tobytes()


@pytest.mark.parametrize("case", ["p09", "p14", "p19"])
def test_pixel_values_are_the_recorded_ones(case):
    if not GOLDEN.exists():
        pytest.skip("../shared/golden is absent")
    from safetensors.torch import load_file

    cases = {row["id"]: row for row in json.loads((GOLDEN / "cases.json").read_text())}
    pixels = preprocess(load_image(GOLDEN / cases[case]["image"]), 336, MEAN, STD)
    expected = load_file(GOLDEN / "cases" / f"{case}.safetensors")["pixel_values"]
    assert torch.equal(pixels, expected)


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (2, 3)])
def test_tiny_and_long_images(size, pad):
    pixels = preprocess(Image.new("RGB", size, (255, 0, 0)), 28, MEAN, STD, pad=pad)
    assert pixels.shape == (3, 28, 28)
    assert torch.isfinite(pixels).all()


def test_the_cropped_long_edge_is_cut_to_whole_pixels_as_clip_does():
    source = load_image(COPY / "source" / "palette.png").resize((30, 20))
    resized = source.resize((7, 5), Image.Resampling.BICUBIC)  # 5 * 30 / 20 = 7.5
    assert (
        to_model_frame(source, 5, FILL, pad=False).tobytes() == resized.crop((1, 0, 6, 5)).tobytes()
    )


def test_one_pixel_fills_the_frame():
    frame = to_model_frame(Image.new("RGB", (1, 1), (9, 8, 7)), 14, FILL)
    assert frame.getcolors() == [(14 * 14, (9, 8, 7))]


@pytest.mark.parametrize("shape", [(300_000, 1), (1, 300_000), (40_000, 10)])
@pytest.mark.parametrize("pad", [True, False])
def test_extremely_long_images_take_little_memory(shape, pad, monkeypatch):
    """No intermediate picture above the square of EXACT_SIDE."""
    monkeypatch.setattr(images, "EXACT_SIDE", 500)
    source = Image.new("RGB", shape, (1, 2, 3))
    made = []
    new, resize = Image.new, Image.Image.resize

    def watched_new(mode, size, *args):
        made.append(size)
        return new(mode, size, *args)

    def watched_resize(self, size, *args):
        made.append(size)
        return resize(self, size, *args)

    monkeypatch.setattr(Image, "new", watched_new)
    monkeypatch.setattr(Image.Image, "resize", watched_resize)
    frame = to_model_frame(source, 56, FILL, pad=pad)
    assert frame.size == (56, 56)
    assert frame.getpixel((28, 28)) != FILL
    assert max(width * height for width, height in made) <= 500 * 500


def test_shrinking_first_hardly_changes_the_frame(monkeypatch):
    image = load_image(COPY / "source" / "tall.png")
    exact = np.asarray(to_model_frame(image, 56, FILL), dtype=int)
    monkeypatch.setattr(images, "EXACT_SIDE", 500)
    shrunk = np.asarray(to_model_frame(image, 56, FILL), dtype=int)
    assert 0 < np.abs(exact - shrunk).mean() < 2


# --- loading ---


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (20, 10), "black")
    image.paste("white", (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    image.save(tmp_path / "a.png", exif=exif)
    loaded = load_image(tmp_path / "a.png")
    assert loaded.size == (10, 20)
    assert loaded.getpixel((5, 2)) == (255, 255, 255)
    assert loaded.getpixel((5, 17)) == (0, 0, 0)


def test_alpha_is_dropped_and_not_composited():
    image = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    assert to_rgb(image).getpixel((0, 0)) == (10, 20, 30)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F"]
)
def test_every_mode_becomes_rgb(mode):
    assert to_rgb(Image.new(mode, (3, 2))).mode == "RGB"


RAMP = np.linspace(0, 65535, 16).reshape(4, 4)


@pytest.mark.parametrize(
    "array",
    [
        RAMP.astype("<u2"),
        RAMP.astype(">u2"),
        RAMP.astype(np.int32),
        (RAMP / 65535).astype(np.float32),
        (RAMP / 257).astype(np.float32),
        (RAMP - 9999).astype(np.float32),
    ],
    ids=["u2", "u2-big-endian", "i4", "unit-float", "byte-float", "any-float"],
)
def test_deep_greys_are_scaled_and_not_clipped(array):
    loaded = np.asarray(to_rgb(Image.fromarray(array)))
    assert loaded[..., 0].flatten().tolist() == list(range(0, 256, 17))


def test_deep_greys_are_rounded():
    image = Image.fromarray(np.array([[257 * 9 + 129, 65535]], dtype=np.uint16))
    assert [to_rgb(image).getpixel((x, 0))[0] for x in (0, 1)] == [10, 255]


def test_a_16_bit_png_is_read(tmp_path):
    Image.fromarray(RAMP.astype(np.uint16)).save(tmp_path / "deep.png")
    assert np.asarray(load_image(tmp_path / "deep.png"))[..., 1].max() == 255
    assert np.asarray(load_image(tmp_path / "deep.png"))[..., 1].mean() == pytest.approx(127.5)


def png(width, height):
    """A PNG whose header announces a size that its data does not have."""

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def broken_files(folder):
    whole = (COPY / "source" / "tall.png").read_bytes()
    Image.new("RGB", (300, 300), "red").save(folder / "whole.jpg")
    jpeg = (folder / "whole.jpg").read_bytes()
    contents = {
        "truncated.png": whole[: len(whole) // 2],
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "header_only.png": whole[:20],
        "empty.png": b"",
        "text.png": b"this is not an image\n",
        "giga.png": png(50_000, 50_000),
        "giant.png": png(13_000, 13_000),
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    (folder / "folder.png").mkdir()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("truncated.png", "damaged or cut off"),
        ("truncated.jpg", "damaged or cut off"),
        ("header_only.png", "damaged or cut off|not an image"),
        ("empty.png", "is empty"),
        ("text.png", "not an image that Pillow can read"),
        ("giga.png", "is too large .*2500000000 pixels.*scale it down"),
        ("folder.png", "is a folder"),
        ("missing.png", "does not exist"),
        ("nul\0.png", "does not exist|cannot be read"),
        ("long" * 2000, "does not exist|cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_names_the_file(tmp_path, name, said):
    broken_files(tmp_path)
    with pytest.raises(DataError, match=said) as caught:
        load_image(tmp_path / name)
    assert repr(str(tmp_path / name)) in str(caught.value)
    assert "\n" not in str(caught.value)


TROUBLES = {
    "memory": (MemoryError(), MemoryError, "does not fit into memory"),
    "ENOMEM": (OSError(errno.ENOMEM, "Cannot allocate"), MemoryError, "does not fit into memory"),
    "EMFILE": (OSError(errno.EMFILE, "Too many open files"), DiskError, "cannot be opened"),
    "ENFILE": (OSError(errno.ENFILE, "Too many open files"), DiskError, "cannot be opened"),
    "EIO": (OSError(errno.EIO, "Input/output error"), DataError, r"cannot be read \(.*Input/out"),
    "EACCES": (PermissionError(errno.EACCES, "denied"), DataError, "cannot be read"),
    "decoder": (OSError("broken data stream"), DataError, "damaged or cut off"),
    "struct": (struct.error("unpack"), DataError, "damaged or cut off"),
}


@pytest.mark.parametrize("name", TROUBLES)
@pytest.mark.parametrize("place", ["open", "load"])
def test_the_machines_troubles_are_not_the_files(tmp_path, monkeypatch, name, place):
    broken_files(tmp_path)
    error, kind, said = TROUBLES[name]

    def fail(*args, **kwargs):
        raise error

    target = (Image, "open") if place == "open" else (Image.Image, "convert")
    monkeypatch.setattr(*target, fail)
    with pytest.raises(kind, match=said) as caught:
        load_image(tmp_path / "whole.jpg", exif="ignore")
    assert type(caught.value) is kind
    assert "whole.jpg" in str(caught.value)


def test_a_pipe_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe.png' is a pipe, expected a file"):
        load_image(tmp_path / "pipe.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_limit_on_pixels_is_checked_before_decoding(tmp_path):
    broken_files(tmp_path)
    with pytest.raises(DataError, match="13000 x 13000 pixels, the limit is 1000 pixels"):
        load_image(tmp_path / "giant.png", max_pixels=1000)
    assert load_image(tmp_path / "whole.jpg", max_pixels=90_000).size == (300, 300)


@pytest.mark.parametrize("url", ["http://host/a.png", "HTTPS://host/a.png", "ftp://host/a.png"])
def test_urls_are_refused_unless_asked(url):
    with pytest.raises(DataError, match="not fetched unless asked"):
        load_image(url)


def test_only_web_addresses_are_fetched():
    with pytest.raises(DataError, match="only http and https"):
        load_image("file:///a.png", allow_url=True)


@pytest.fixture
def server(tmp_path):
    broken_files(tmp_path)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_urls_are_fetched_when_asked(server, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert load_image(f"{server}/whole.jpg", allow_url=True).size == (300, 300)
    for name, said in (("missing.jpg", "404"), ("text.png", "not an image")):
        with pytest.raises(DataError, match=said):
            load_image(f"{server}/{name}", allow_url=True)
    monkeypatch.setattr(images, "MAX_DOWNLOAD", 100)
    with pytest.raises(DataError, match="larger than 100 bytes"):
        load_image(f"{server}/whole.jpg", allow_url=True)
