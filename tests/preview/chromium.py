"""Tests the live view of `eddy denoise --preview` in a headless Chromium, and takes a screenshot.

Needs `pip install playwright==1.65.2`, Chromium (Debian's `chromium`) and numpy with scikit-image (for a photograph).
Run it as `python3 tests/preview/chromium.py target/release/eddy [docs/preview.jpg]`.
"""

import re
import subprocess
import sys
import threading
import time

import numpy as np
from playwright.sync_api import sync_playwright
from skimage import data, transform

WIDTH, HEIGHT, SIGMA = 640, 480, 25


def feed(pipe):
    """A photograph that stands still and drifts by turns, with noise, as y4m."""
    photograph = data.astronaut()
    photograph = (255 * transform.resize(photograph, (600, 760), order=3)).astype(np.float32)
    random = np.random.default_rng(0)
    noise = [random.normal(0, SIGMA, (HEIGHT, WIDTH, 3)).astype(np.float32) for _ in range(8)]
    try:
        pipe.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F10:1 Ip C444 XCOLORRANGE=FULL\n".encode())
        for i in range(10**6):
            shift = abs(i // 2 % 120 - 60)
            clean = photograph[shift : shift + HEIGHT, shift : shift + WIDTH]
            r, g, b = np.moveaxis(np.clip(clean + noise[i % 8], 0, 255), 2, 0)
            y = 0.299 * r + 0.587 * g + 0.114 * b
            planes = [y, 128 + (b - y) / 1.772, 128 + (r - y) / 1.402]
            pipe.write(b"FRAME\n" + b"".join(np.clip(np.round(p), 0, 255).astype(np.uint8).tobytes() for p in planes))
            time.sleep(0.05)
    except (BrokenPipeError, ValueError):
        pass


def roughness(page, left, right):
    """How much neighboring pixels differ in a vertical strip of the canvas: noise, mostly."""
    return page.evaluate(
        """([left, right]) => {
            const canvas = document.getElementById('frame');
            const x = Math.round(left * canvas.width), width = Math.round((right - left) * canvas.width);
            const { data } = canvas.getContext('2d').getImageData(x, 0, width, canvas.height);
            let sum = 0, count = 0;
            for (let i = 4; i < data.length; i += 4, count++) sum += Math.abs(data[i + 1] - data[i - 3]);
            return sum / count;
        }""",
        [left, right],
    )


def start(binary, *options):
    """A run, and the address of its live view."""
    command = [binary, "denoise", "-", "-o", "-", "--preview=127.0.0.1:0", *options]
    run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    threading.Thread(target=feed, args=(run.stdin,), daemon=True).start()
    return run, re.search(rb"http://\S+", run.stderr.readline()).group().decode()


def main(binary, screenshot=None):
    run, url = start(binary, "--fps", "10")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 900, "height": 860})
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(url)

        def until(what, condition, seconds=30):
            end = time.time() + seconds
            while not condition():
                assert time.time() < end, f"{what}: {page.inner_text('main')}"
                page.wait_for_timeout(100)
            print(f"ok: {what}")

        text = lambda id: page.inner_text(f"#{id}")
        until("a frame is shown", lambda: text("message") == "" and "fps" in text("rate"))
        until("the noise is estimated", lambda: abs(float(re.search(r"[\d.]+", text("noise") or "0").group()) - SIGMA) < 8)
        until("the rate is kept", lambda: abs(float(text("rate").split()[0]) - 10) < 1)
        before, after = roughness(page, 0.05, 0.45), roughness(page, 0.55, 0.95)
        assert after < before / 2, f"after the divider there is as much noise as before it: {before} {after}"
        print(f"ok: noise ends at the divider: {before:.1f} before, {after:.1f} after")

        box = page.locator("#view").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 100, steps=5)
        page.mouse.up()
        page.wait_for_timeout(300)
        assert roughness(page, 0.55, 0.85) > 0.7 * before, "the divider was dragged and nothing changed"
        assert page.get_attribute("#divider", "aria-valuenow") == "90"
        page.focus("#divider")
        page.keyboard.press("Home")
        page.wait_for_timeout(300)
        assert roughness(page, 0.05, 0.45) < before / 2, "the divider does not respond to the keyboard"
        print("ok: the divider is moved by pointer and keyboard")
        for _ in range(25):
            page.keyboard.press("ArrowRight")

        page.uncheck("#auto")
        page.fill("#sigma", "50")
        until("sigma is the given one", lambda: text("noise") == "sigma 50.0")
        page.check("#auto")
        until("and estimated again", lambda: text("noise") != "sigma 50.0")
        page.check("#temporal")
        until("previous frames are used", lambda: page.evaluate("lastStatus.temporal"))
        page.wait_for_timeout(3000)
        if screenshot:
            page.screenshot(path=screenshot, type="jpeg", quality=88)
        page.uncheck("#temporal")
        until("and not any more", lambda: not page.evaluate("lastStatus.temporal"))
        run.kill()
        until("the end of the run is reported", lambda: "has ended" in text("message"))

        # Without a target rate, the number of steps is the requested one.
        run, url = start(binary)
        page.goto(url)
        until("another run is shown", lambda: text("message") == "" and "1 step" in text("network"))
        page.select_option("#steps", "2")
        until("two steps are taken", lambda: "2 steps" in text("network"))
        run.kill()
        problems = [problem for problem in problems if "ERR_CONNECTION" not in problem and "ERR_EMPTY" not in problem]
        assert not problems, problems
        browser.close()
    print("ok: the live view in Chromium")


if __name__ == "__main__":
    main(*sys.argv[1:])
