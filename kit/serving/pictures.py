"""Screens of the running application, for the paper's Figure 19 and for the tests: a real server, a
real headless Chromium, a real upload.

The published figure shows the three pages and one result. Where there is no Chromium, :func:`take`
gives no pictures but a reason, and :func:`contents` tells, from the same application run without a
browser, what the pages say; a drawing of the screens is not offered.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kit import paths
from kit.errors import KitError
from kit.serving import text as serving_text

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

SCRIPT = paths.ROOT / "kit" / "app.py"
BROWSERS, DRIVERS = ("chromium", "chromium-browser", "google-chrome"), ("chromedriver",)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-proxy-server",
    "--force-device-scale-factor=1",
)
WIDTH, HEIGHT = 1100, 900
PATIENCE = 90
MAIN = "[data-testid=stMain]"


class ApplicationFailed(KitError):
    """The application did not start, or a page did not show what it should."""


class Pictures(NamedTuple):
    """PNG files in the order Home, About Dataset, Disease Recognition, result; or none, and the
    reason.
    """

    files: list
    reason: str = ""


def take(model_folder: Path | str, image_path: Path | str, folder: Path | str) -> Pictures:
    """Start the application, walk through its pages, predict one image, and save a picture of each
    screen.

    Parameters
    ----------
    model_folder : path-like
        What :func:`kit.serving.classifier.save_model` wrote.
    image_path : path-like
        The image to upload.
    folder : path-like
        Where the pictures go: ``home.png``, ``about.png``, ``recognition.png``, ``result.png``.

    Returns
    -------
    Pictures

    Raises
    ------
    ApplicationFailed
        If there is a browser, but the application does not do what it should.
    """
    why = missing()
    if why:
        return Pictures([], why)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with server(model_folder) as address, browser() as driver:
        driver.get(address)
        files = []
        for page, name in zip(serving_text.PAGES, ("home", "about", "recognition"), strict=True):
            go_to(driver, page)
            files.append(picture(driver, folder / f"{name}.png"))
        upload(driver, image_path)
        press(driver, "Predict")
        wait_for(driver, "Predicted class")
        wait_for(driver, "bright regions spoke")
        return Pictures([*files, picture(driver, folder / "result.png")])


def missing() -> str:
    """What stands in the way of taking pictures; empty if nothing does."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed (it is in the dev group of pyproject.toml)"
    found = [any(map(shutil.which, names)) for names in (BROWSERS, DRIVERS)]
    return (
        ""
        if all(found)
        else "there is no Chromium with its driver (apt-get install -y chromium chromium-driver)"
    )


@contextlib.contextmanager
def server(model_folder: Path | str | None = None, **environment: str) -> Iterator[str]:
    """The application on a free port of this machine: gives its address, and ends it afterwards.

    Parameters
    ----------
    model_folder : path-like, optional
        Which model it uses; None lets it search.
    **environment : str
        More environment variables.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = {"KIT_MODEL": str(model_folder)} if model_folder else {}
    command = [sys.executable, "-m", "streamlit", "run", str(SCRIPT), "--server.port", str(port)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            cwd=paths.ROOT,
            env={**os.environ, **model, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_until_up(process, f"http://127.0.0.1:{port}/_stcore/health", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_up(process, address: str, log) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), direct.open(address, timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    log.seek(0)
    raise ApplicationFailed(
        f"The application did not start within {PATIENCE} s: "
        f"{log.read().decode(errors='replace').strip()[-300:] or 'it said nothing'}"
    )


@contextlib.contextmanager
def browser() -> Iterator["Chrome"]:
    """A headless Chromium with a profile of its own, which is deleted afterwards."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = next(filter(None, map(shutil.which, BROWSERS)))
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={WIDTH},{HEIGHT}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(
            options=options, service=Service(next(filter(None, map(shutil.which, DRIVERS))))
        )
        try:
            yield driver
        finally:
            driver.quit()


def text(driver: "Chrome", where: str = MAIN) -> str:
    """What the page says, without the sidebar, or only in what the CSS selector `where` finds
    first.
    """
    return driver.execute_script(
        "const m = document.querySelector(arguments[0]); return m ? m.innerText : ''", where
    )


def _idle(driver) -> bool:
    return driver.execute_script(
        "const a = document.querySelector('[data-testid=stApp]');"
        "return !!a && a.dataset.testScriptState === 'notRunning' && "
        "!document.querySelector('[data-testid=stSkeleton], [data-stale=true]')"
    )


def wait_for(driver: "Chrome", words: str, where: str = MAIN) -> None:
    """Wait until the page says `words` and has settled; `where` is the CSS selector of the part to
    look in.

    Raises
    ------
    ApplicationFailed
    """
    deadline = time.monotonic() + PATIENCE
    while not (words in text(driver, where) and _idle(driver)):
        if time.monotonic() > deadline:
            raise ApplicationFailed(
                f"The application did not show {words!r} within {PATIENCE} s; it shows: "
                f"{' '.join(text(driver).split())[:300]}"
            )
        time.sleep(0.1)


def go_to(driver: "Chrome", page: str) -> None:
    """Choose a page in the sidebar's box and wait for its heading."""
    wait_for(driver, "Research use only")
    box = driver.find_element("css selector", "[data-testid=stSidebar] [data-testid=stSelectbox]")
    if (
        page not in box.text
        and box.find_element("css selector", "input").get_attribute("value") != page
    ):
        box.find_element("css selector", "input").click()
        deadline = time.monotonic() + PATIENCE
        while (
            not (
                options := [
                    o
                    for o in driver.find_elements("css selector", "[role=option]")
                    if o.text == page
                ]
            )
            and time.monotonic() < deadline
        ):
            time.sleep(0.1)
        if not options:
            raise ApplicationFailed(f"The sidebar does not offer the page {page!r}.")
        options[0].click()
    heading = {"Home": serving_text.TITLE}.get(page, page)
    wait_for(driver, heading, "[data-testid=stMain] h2")


def upload(driver: "Chrome", path: Path | str, number: int = 0) -> None:
    """Give a file to the page's uploader `number`."""
    deadline = time.monotonic() + PATIENCE
    while (
        len(
            found := driver.find_elements(
                "css selector", "[data-testid=stFileUploader] input[type=file]"
            )
        )
        <= number
    ):
        if time.monotonic() > deadline:
            raise ApplicationFailed(
                "The application shows no place to upload; it shows: "
                f"{' '.join(text(driver).split())[:300]}"
            )
        time.sleep(0.1)
    found[number].send_keys(str(Path(path).resolve()))


def press(driver: "Chrome", label: str) -> None:
    """Press the button `label` as soon as it is there."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        buttons = [
            b for b in driver.find_elements("css selector", "button") if b.text.strip() == label
        ]
        if buttons and _idle(driver):
            driver.execute_script("arguments[0].click()", buttons[0])
            return
        time.sleep(0.1)
    raise ApplicationFailed(
        f"The application shows no button {label!r}; it shows: "
        f"{' '.join(text(driver).split())[:300]}"
    )


def picture(driver: "Chrome", path: Path) -> Path:
    """Save the whole page, as high as its content, as PNG."""
    driver.set_window_size(WIDTH, HEIGHT)
    height = (
        driver.execute_script(
            "const m = document.querySelector('[data-testid=stMain]'); return m.scrollHeight"
        )
        + 20
    )
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": WIDTH, "height": max(HEIGHT, height), "deviceScaleFactor": 1, "mobile": False},
    )
    time.sleep(0.7)
    driver.save_screenshot(str(path))
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    return path


def contents(model_folder: Path | str, image_path: Path | str) -> dict:
    """What the pages say when the application runs without a browser: page, or "Result" -> lines of
    text. The prediction is a real one.

    Raises
    ------
    ApplicationFailed
        If a page ends in an exception.
    """
    from streamlit.testing.v1 import AppTest

    before = os.environ.get("KIT_MODEL")
    os.environ["KIT_MODEL"] = str(model_folder)
    try:
        app, said = AppTest.from_file(str(SCRIPT), default_timeout=PATIENCE).run(), {}
        for page in serving_text.PAGES:
            app.sidebar.selectbox[0].set_value(page)
            said[page] = _lines(app.run())
        app.file_uploader[0].upload(Path(image_path).name, Path(image_path).read_bytes()).run()
        app.button[0].click()
        said["Result"] = _lines(app.run())
        return said
    finally:
        os.environ.pop("KIT_MODEL") if before is None else os.environ.__setitem__(
            "KIT_MODEL", before
        )


def _lines(app) -> list[str]:
    if app.exception:
        raise ApplicationFailed(f"The application failed: {app.exception[0].value}")
    kinds = {"header", "subheader", "markdown", "success", "warning", "info", "error", "caption"}
    return [element.value for element in app.main if element.type in kinds]
