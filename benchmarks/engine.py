"""The built-in engine beside ImageMagick, OpenCV's filters, Pillow and libvips doing comparable work.

Everything is measured in one run, interleaved, from pixels in memory to pixels in memory; peers may use all cores. Run
it as `python -m benchmarks.engine [large]`: large is every recipe on a large picture, where ImageMagick takes minutes.
"""

import io
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyvips
from PIL import Image, ImageFilter, ImageOps

from benchmarks import report
from generation.engine import ingest
from generation.engine.recipes import Look
from generation.engine.render import render
from generation.engine.sketch import sketches

ROOT = Path(__file__).parents[1]
CATALOGUE: dict[str, dict[str, Any]] = {
    entry["slug"]: entry["recipe"] for entry in json.loads((ROOT / "generation/presets.json").read_text())
}
SIZES = {"2 MP": (1632, 1224), "12 MP": (4000, 3000)}
PAINTED = ("oil_painting", "watercolor", "anime_cel", "comic_ink", "pop_art")
Work = Callable[[], object]


def main(parts: list[str]) -> None:
    photo = Image.open(ROOT / "generation/tests/photos/forest.jpg").convert("RGB")
    pictures = {name: np.asarray(photo.resize(size, Image.Resampling.LANCZOS)) for name, size in SIZES.items()}
    if parts == ["large"]:
        report.write("Engine: recipes, 12 MP", recipes_beside_peers("12 MP", pictures))
        return
    report.write("Engine: recipes, 2 MP", recipes_beside_peers("2 MP", pictures))
    report.write("Engine: enhance beside libvips and OpenCV", enhance_beside_peers(pictures))
    report.write("Engine: photos in", photos_in(pictures["12 MP"]))
    report.write("Engine: threads and sketches", threads_and_sketches(pictures))


# -- Measuring ---------------------------------------------------------------------------------------------


def measured(rounds: int, **works: Work) -> dict[str, tuple[float, float]]:
    """Do every work in turn, `rounds` times; the median wall and CPU milliseconds of each."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            seen[name].append(((time.perf_counter() - wall) * 1000, (time.process_time() - cpu) * 1000))
    return {
        name: (statistics.median(wall for wall, _ in pairs), statistics.median(cpu for _, cpu in pairs))
        for name, pairs in seen.items()
    }


def peak_megabytes(slug: str, picture: np.ndarray) -> float:
    """How much a new process that holds the picture grows while it renders."""
    script = (
        "import json, re, sys; import numpy as np; from generation.engine.render import render\n"
        "recipe = json.loads(sys.argv[1]); picture = np.load(sys.argv[2])\n"
        "render(picture[:700, :700], recipe)\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1]) / 1024\n"
        "before = peak(); render(picture, recipe); print(peak() - before)"
    )
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, picture)
        call = [sys.executable, "-c", script, json.dumps(CATALOGUE[slug]), file.name]
        return float(subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


# -- Each recipe beside its peers --------------------------------------------------------------------------


def recipes_beside_peers(size: str, pictures: dict[str, np.ndarray]) -> str:
    picture = pictures[size]
    magick = Magick({size: picture})
    rows = []
    for slug, recipe in CATALOGUE.items():
        ours = partial(render, picture, recipe, seed=1)
        found = measured(3, ours=ours, **opencv_peer(slug, picture))
        wall = found.pop("ours")[0]
        seconds = magick.seconds(slug, size)
        row: list[object] = [slug, f"{wall:.0f}", f"{wall / seconds / 1000:.3f}" if seconds else "–"]
        row += [" ".join(f"{wall / theirs:.2f} ({name})" for name, (theirs, _) in found.items()) or "–"]
        # A large picture says more about memory, and a process for each takes its time.
        row += [f"{peak_megabytes(slug, picture):.0f}"] * (size == "12 MP")
        rows.append(row)
        print(*row, file=sys.stderr, flush=True)
    columns = ["recipe", "ms", "÷ IM", "÷ OpenCV", *["grows by MB"] * (size == "12 MP")]
    return (
        "Medians of wall time of three, of ImageMagick one. ImageMagick does for each op the nearest of its own, OpenCV"
        " one ready-made filter of similar purpose; all may use all cores. Growth includes the result.\n\n"
        + report.table(columns, rows)
    )


def opencv_peer(slug: str, picture: np.ndarray) -> dict[str, Work]:
    if slug == "express_enhance":
        return {"detailEnhance": lambda: cv2.detailEnhance(picture)}
    if slug == "pencil_sketch":
        return {"pencilSketch": lambda: cv2.pencilSketch(picture)}
    if slug in PAINTED:
        return {"stylization": lambda: cv2.stylization(picture)}
    if slug == "soft_skin_portrait":
        return {"edgePreservingFilter": lambda: cv2.edgePreservingFilter(picture)}
    return {}


class Magick:
    """ImageMagick, with its limits lifted and its input ready in its own cache format."""

    POLICY = '<policymap><policy domain="resource" name="memory" value="8GiB"/></policymap>'

    def __init__(self, pictures: dict[str, np.ndarray]) -> None:
        self.program = shutil.which("convert")
        self.folder = Path(tempfile.mkdtemp(prefix="magick"))
        (self.folder / "policy.xml").write_text(self.POLICY)
        self.environment = os.environ | {"MAGICK_CONFIGURE_PATH": str(self.folder)}
        self.shapes = {}
        for name, picture in pictures.items():
            self.shapes[name] = picture.shape[1], picture.shape[0]
            Image.fromarray(picture).save(self.folder / f"{name}.ppm")
            if self.program:
                self.call(str(self.folder / f"{name}.ppm"), str(self.folder / f"{name}.mpc"))

    def call(self, *arguments: str) -> None:
        subprocess.run([str(self.program), *arguments], env=self.environment, check=True, capture_output=True)

    def seconds(self, slug: str, size: str) -> float:
        """Time of the recipe's ops; 0 without ImageMagick."""
        return self.timed(size, self.operators(slug, *self.shapes[size]))

    def timed(self, size: str, operators: Sequence[str]) -> float:
        """Seconds that operators take, less those of opening the picture."""
        if not self.program:
            return 0.0
        source = str(self.folder / f"{size}.mpc")
        started = time.perf_counter()
        self.call(source, "null:")
        opened = time.perf_counter()
        self.call(source, *operators, "null:")
        return max(0.001, time.perf_counter() - opened - (opened - started))

    def operators(self, slug: str, width: int, height: int) -> list[str]:
        side, whole = max(width, height), f"{width}x{height}!"

        def soft(fraction: float) -> str:
            # On an eighth of the size, as an engineer would do it; a plain -blur takes many times as long.
            return f"( +clone -scale 12.5% -blur 0x{fraction * side / 8:.1f} -resize {whole} )"

        def against(fraction: float, amount: float) -> str:
            mixture = f"-define compose:args=0,-{amount},{1 + amount},0 -compose Mathematics -composite"
            return f"{soft(fraction)} {mixture}"

        shade = f"( -size 128x128 radial-gradient:white-gray30 -resize {whole} )"
        light = f"{shade} -compose Multiply -composite"
        paint = f"-paint {max(2, 0.0025 * side):.0f}"
        table = dict.fromkeys(("vignette", "fog", "light_leak", "sun_glow", "stage_lights", "sky_tint"), light) | {
            "auto_levels": "-auto-level -auto-gamma",
            "dehaze": against(0.045, 0.4),
            "local_tone": against(0.02, 0.4),
            "sharpen": f"-unsharp 0x{0.0007 * side:.2f}+0.6",
            "vibrance": "-modulate 100,120",
            "saturation": "-modulate 100,120",
            "temperature": "-color-matrix '1.1 0 0 0 1 0 0 0 0.9'",
            "hue_pull": "-modulate 100,100,98",
            "hue_shift": "-modulate 100,100,98",
            "split_tone": "-fill #ffb070 -tint 30",
            "bw": "-colorspace Gray -colorspace sRGB",
            "bloom": f"{soft(0.02)} -compose Screen -composite",
            "orton": f"{soft(0.02)} -compose Screen -composite",
            "gradient_map": "-colorspace Gray ( -size 1x256 gradient:navy-gold ) -clut",
            "smooth": "-selective-blur 0x2+10%",
            "focus": f"{soft(0.008)} {shade} -composite",
            "flatten": paint,
            "brush": paint,
            "watercolour": paint,
            "posterize": "-posterize 6",
            "ink": f"( +clone -colorspace Gray -edge {max(1, side // 900)} -negate ) -compose Multiply -composite",
            "pencil": f"-charcoal {0.001 * side:.1f}",
            "halftone": "-ordered-dither h8x8a",
            "grain": "-attenuate 0.1 +noise Gaussian",
            "paper": "-attenuate 0.1 +noise Gaussian",
            "rain": "( +clone +noise Random -motion-blur 0x8+78 ) -compose Screen -composite",
            "edge_glow": "( +clone -edge 2 ) -compose Screen -composite",
            "relief": "( +clone -colorspace Gray -shade 120x45 ) -compose Overlay -composite",
            "chroma_shift": "-channel R -roll +2+0 +channel",
        }
        # What is left are curves of one kind or another.
        words = (table.get(step["op"], "-sigmoidal-contrast 3x50%") for step in CATALOGUE[slug]["steps"])
        return shlex.split(" ".join(words))


# -- Express Enhance beside the same pipeline in libvips ------------------------------------------------------


def enhance_beside_peers(pictures: dict[str, np.ndarray]) -> str:
    magick, rows = Magick(pictures), []
    for size, picture in pictures.items():
        found = measured(
            5,
            ours=partial(render, picture, CATALOGUE["express_enhance"], seed=1),
            libvips=partial(enhance_by_vips, picture),
            detailEnhance=partial(cv2.detailEnhance, picture),
            Pillow=partial(enhance_by_pillow, Image.fromarray(picture)),
        )
        ours, side = found["ours"][0], max(picture.shape)
        rows += [[size, name, f"{wall:.0f}", f"{cpu:.0f}", f"{ours / wall:.2f}"] for name, (wall, cpu) in found.items()]
        plain = f"-auto-level -unsharp 0x{0.006 * side:.1f}+0.4 -unsharp 0x{0.0007 * side:.1f}+0.6".split()
        if seconds := magick.timed(size, plain):
            rows.append([size, "ImageMagick", f"{seconds * 1000:.0f}", "", f"{ours / seconds / 1000:.2f}"])
    return (
        "libvips does the same steps, streamed, with a matrix instead of the colour table; Pillow stretches"
        " contrast and sharpens once, ImageMagick twice.\n\n"
        + report.table(["size", "by", "wall ms", "CPU ms", "ours ÷ it"], rows)
    )


def enhance_by_pillow(image: Image.Image) -> Image.Image:
    return ImageOps.autocontrast(image, cutoff=1).filter(ImageFilter.UnsharpMask(9, 40, 3))


def enhance_by_vips(rgb: np.ndarray) -> np.ndarray:
    """Express Enhance's steps in libvips: maps on a small copy, then one streamed pass."""
    picture = pyvips.Image.new_from_array(rgb).cast("float") * (1 / 255)
    scale = max(rgb.shape) / 640
    small = picture.resize(1 / scale, kernel="linear").copy_memory()

    def luma(image: pyvips.Image) -> pyvips.Image:
        return image.recomb([[0.299, 0.587, 0.114]])

    def guided(guide: pyvips.Image, target: pyvips.Image, radius: float, edge: float) -> list[pyvips.Image]:
        def mean(image: pyvips.Image) -> pyvips.Image:
            return image.gaussblur(radius, precision="approximate")

        centre, aim = mean(guide), mean(target)
        slope = (mean(guide * target) - centre * aim) / (mean(guide * guide) - centre * centre + edge)
        maps = [mean(slope), mean(aim - slope * centre)]
        return [stretched(one) for one in maps]

    def stretched(plane: pyvips.Image) -> pyvips.Image:
        across, down = rgb.shape[1] / plane.width, rgb.shape[0] / plane.height
        return plane.copy_memory().resize(across, vscale=down, kernel="linear").crop(0, 0, rgb.shape[1], rgb.shape[0])

    darkest = small.bandrank([], index=0) if small.bands == 1 else small[0].bandrank([small[1], small[2]], index=0)
    haze = darkest.rank(13, 13, 0)
    air = 0.9
    through = 1 - haze * (0.8 / air)
    slope, offset = guided(luma(small), through, 0.02 * 640, 1e-3)
    clear = slope * luma(picture) + offset
    clear = (clear < 0.2).ifthenelse(0.2, clear)
    picture = (picture - air) / clear + air
    slope, offset = guided(luma(small), luma(small), 0.01 * 640, 0.012)
    tone = luma(picture)
    base = slope * tone + offset
    picture = picture * ((tone - base) * 0.4 * base + 1 + (1 - base) * base * 0.2)
    stats = small.stats()
    picture = (picture - stats(0, 0)[0] * 0.9) ** 0.95
    picture = picture.recomb([[1.1, -0.05, -0.05], [-0.05, 1.1, -0.05], [-0.05, -0.05, 1.1]])
    tone = luma(picture)
    picture = picture + (tone - tone.gaussblur(0.0007 * max(rgb.shape))) * 0.6
    return (picture * 255).cast("uchar").numpy()


# -- Photos in, threads, sketches --------------------------------------------------------------------------


def photos_in(picture: np.ndarray) -> str:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(out, "JPEG", quality=90, exif=exif)
    data = out.getvalue()
    rows = []
    for side in (320, 1536, 2048):
        found = measured(
            7,
            ours=partial(ingest.decode, data, ingest.Limits(), max_side=side),
            libvips=partial(shrunk_by_vips, data, side),
            Pillow=partial(shrunk_by_pillow, data, side),
        )
        ours = found["ours"][1]
        rows += [[side, name, f"{wall:.0f}", f"{cpu:.0f}", f"{ours / cpu:.2f}"] for name, (wall, cpu) in found.items()]
    return "A 12 MP JPEG lying on its side, to upright pixels in sRGB.\n\n" + report.table(
        ["long side", "by", "wall ms", "CPU ms", "ours ÷ it (CPU)"], rows
    )


def shrunk_by_vips(data: bytes, side: int) -> bytes:
    return bytes(pyvips.Image.thumbnail_buffer(data, side, height=side).write_to_memory())


def shrunk_by_pillow(data: bytes, side: int) -> Image.Image:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    image.thumbnail((side, side))
    return image


def threads_and_sketches(pictures: dict[str, np.ndarray]) -> str:
    picture = pictures["2 MP"]
    recipe = CATALOGUE["express_enhance"]

    def renders(count: int, at_once: int) -> list[object]:
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(lambda _: render(picture, recipe, seed=1), range(count)))

    found = measured(
        5,
        four_at_once=lambda: renders(4, 4),
        two_after_two=lambda: [renders(2, 2) for _ in range(2)],
        sixteen_at_once=lambda: renders(16, 16),
        sixteen_one_by_one=lambda: renders(16, 1),
    )
    four = found["four_at_once"][0] / found["two_after_two"][0]
    sixteen = found["sixteen_at_once"][0] / found["sixteen_one_by_one"][0]

    out = io.BytesIO()
    Image.fromarray(pictures["12 MP"]).save(out, "JPEG", quality=90)
    data = out.getvalue()
    looks = {slug: Look(recipe, 1.0) for slug, recipe in CATALOGUE.items()}

    def cards(slugs: Sequence[str]) -> None:
        for sketch in sketches(data, [looks[slug] for slug in slugs]):
            ingest.encode(sketch, "WEBP", quality=80)

    sketched = measured(
        5,
        twelve=partial(cards, list(CATALOGUE)[:12]),
        painted=partial(cards, PAINTED),
        all=partial(cards, list(CATALOGUE)),
    )
    stalls = {slug: longest_stall(picture, CATALOGUE[slug]) for slug in ("express_enhance", "oil_painting", "pop_art")}
    rows = [
        ["four renders at once ÷ two after two (2 MP)", f"{four:.2f}"],
        ["sixteen at once ÷ sixteen one by one", f"{sixteen:.2f}"],
        *([f"longest stall of another thread during {slug}", f"{stall:.0f} ms"] for slug, stall in stalls.items()),
        ["12 sketches of a 12 MP photo, decoding and encoding included", f"{sketched['twelve'][0]:.0f} ms"],
        [f"{len(PAINTED)} painted sketches of it", f"{sketched['painted'][0]:.0f} ms"],
        [f"all {len(CATALOGUE)} sketches of it", f"{sketched['all'][0]:.0f} ms"],
    ]
    return report.table(["measured", "value"], rows)


def longest_stall(picture: np.ndarray, recipe: dict[str, Any]) -> float:
    """The longest that a thread which only wants to tick waits for the interpreter, in milliseconds."""
    done, longest = threading.Event(), 0.0

    def tick() -> None:
        nonlocal longest
        last = time.perf_counter()
        while not done.is_set():
            time.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last - 0.001), now

    thread = threading.Thread(target=tick)
    thread.start()
    for _ in range(3):
        render(picture, recipe, seed=1, parallel=False)
    done.set()
    thread.join()
    return longest * 1000


if __name__ == "__main__":
    main(sys.argv[1:])
