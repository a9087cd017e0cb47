"""A small specimen, and a browser where the machine has one."""

import os
import shutil
from contextlib import contextmanager

import pytest

from viewing.known import write_specimen


@pytest.fixture(scope="module")
def specimen(tmp_path_factory):
    return write_specimen(tmp_path_factory.mktemp("specimen"))


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium that draws WebGL in software; tests that need it are skipped, loudly, where it is not."""
    playwright = pytest.importorskip("playwright.sync_api", reason="NO PLAYWRIGHT: pip install playwright")
    found = os.environ.get("TOMOSTAIN_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("NO CHROMIUM: apt-get install chromium, or set TOMOSTAIN_CHROMIUM")
    options = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox", "--disable-dev-shm-usage"]
    with playwright.sync_playwright() as driver:
        try:
            chromium = driver.chromium.launch(executable_path=found, args=options, timeout=120_000)
        except playwright.Error as error:
            pytest.skip(f"CHROMIUM DOES NOT START: {str(error).splitlines()[0]}")
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def make_page(browser):
    """Opens an empty page of its own; what its scripts complain about is in ``page.faults``."""

    @contextmanager
    def opened():
        context = browser.new_context(viewport={"width": 1000, "height": 640})
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        yield page
        context.close()

    return opened
