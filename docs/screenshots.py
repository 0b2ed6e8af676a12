"""Takes the documentation's pictures of the preview page: `make screenshots SOURCE=...`.

It needs Chromium and a dataset folder, a converted file, or a page that `lewm-data preview` made. The pictures in
docs/images show a simulated SO-101.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

import lewm_data
from lewm_data.format.schema import camera_name

MAX_BYTES = 300_000
_MARGIN = 16

DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 1000}}


def main() -> None:
    """Takes all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="dataset folder, converted file, or page")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "images")
    options = parser.parse_args()
    executable = next(
        (found for found in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if found), None
    )
    if executable is None:
        sys.exit("This needs Chromium: apt-get install chromium")
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = make_page(options.source, Path(folder))
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        take(
            browser,
            page,
            options.output / "preview-desktop.png",
            DESKTOP,
            start="body",
            end="#detail-0",
        )
        take(browser, page, options.output / "preview-window.png", DESKTOP, start="#windows", end=".coverage figure")
        browser.close()


def make_page(source: str, folder: Path) -> Path:
    """Makes the page of a source; converts a dataset first, with all of its cameras. A page is taken as it is."""
    file = Path(source)
    if file.suffix == ".html":
        return file.absolute()
    if not file.is_file():
        file = folder / f"{Path(source).name}.h5"
        dataset = lewm_data.inspect(source).inspection.dataset
        if dataset is None:
            sys.exit(f"{source} cannot be read.")
        lewm_data.convert(source, file, camera=camera_name(dataset.cameras[0]), cameras="all")
    return lewm_data.preview(file, folder / "preview.html").path


def take(browser: Browser, page_file: Path, output: Path, options: dict[str, Any], *, start: str, end: str) -> None:
    """Takes a picture of the page's full width, from the top of one element to the bottom of another."""
    context = browser.new_context(**options)
    page = context.new_page()
    page.goto(page_file.as_uri())
    page.locator("#slider-0").fill("8")
    width = options["viewport"]["width"]
    page.set_viewport_size({"width": width, "height": int(page.evaluate("document.documentElement.scrollHeight"))})
    page.evaluate("window.scrollTo(0, 0); document.activeElement.blur()")
    page.wait_for_timeout(1000)
    top, bottom = (
        page.evaluate("([what, side]) => document.querySelector(what).getBoundingClientRect()[side] + scrollY", place)
        for place in ([start, "top"], [end, "bottom"])
    )
    clip = {"x": 0, "y": top, "width": width, "height": bottom + _MARGIN - top}
    picture = Image.open(io.BytesIO(page.screenshot(clip=clip, full_page=True))).convert("RGB")
    context.close()
    data = next(data for colors in (256, 128, 64) if len(data := png(picture, colors)) <= MAX_BYTES or colors == 64)
    output.write_bytes(data)
    print(f"{output}: {picture.width}x{picture.height}, {len(data) / 1000:.0f} kB")


def png(picture: Image.Image, colors: int) -> bytes:
    """Encodes a picture with a palette."""
    file = io.BytesIO()
    # maximum coverage keeps the color of small, rare details
    picture.quantize(colors, Image.Quantize.MAXCOVERAGE, kmeans=1).save(file, "PNG", optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    main()
