"""/docs in a real browser: every operation is opened and sent from the page, as it stands there.

What its content security policy forbids would be told by the browser, and fail.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop import lib_browser
from tests.lib.tetrad import Served

pytestmark = pytest.mark.asyncio(loop_scope="package")

LOADED = "document.querySelectorAll('.opblock').length"
NAMES = "[...document.querySelectorAll('.opblock')].map((one) => one.id)"
OPEN = "{}.querySelector('.opblock-summary-control').click()"
READY = """
((one) => one.querySelector('.execute') && !one.querySelector('.opblock-loading-animation') && (
  one.classList.contains('opblock-get') || one.querySelector('input[type=file]') ||
  one.querySelector('textarea.body-param__text')?.value
))({}) && true
"""
FILE = """
((input) => {{
  if (!input) return;
  const chosen = new DataTransfer();
  chosen.items.add(new File(['RIFF sound'], 'speech.wav', {{ type: 'audio/wav' }}));
  input.files = chosen.files;
  input.dispatchEvent(new Event('change', {{ bubbles: true }}));
}})({}.querySelector('input[type=file]'))
"""
SEND = "{}.querySelector('.execute').click()"
STATUS = "{}.querySelector('.live-responses-table tbody .response-col_status')?.innerText.trim()"
CLICKED = "((link) => link && !link.click())(document.querySelector('a[href=docs]'))"


@pytest.mark.timeout(180)  # a browser on a busy machine
async def test_every_operation_is_answered_from_the_page(served: Served, tmp_path: Path) -> None:
    """Models are filled in, forms hold no invented values, and no other host is asked."""
    answers = {}
    async with lib_browser.page(tmp_path, f"{served.gate.url}/docs") as page:
        assert await page.until(LOADED) == 12
        for name in await page.run(NAMES):
            block = f"document.getElementById('{name}')"
            await page.run(OPEN.format(block))
            await page.until(READY.format(block))
            await page.run(FILE.format(block))
            await page.run(SEND.format(block))
            answers[name] = await page.until(STATUS.format(block))
            await page.run(OPEN.format(block))  # closes it
        assert set(answers.values()) == {"200"}, answers
        assert page.complaints() == []
        assert {url for url in page.asked_for() if not url.startswith(served.gate.url)} == set()
        assert await page.run("document.documentElement.className") == ""


async def test_it_is_dark_where_the_reader_s_system_is(served: Served, tmp_path: Path) -> None:
    async with lib_browser.page(tmp_path, f"{served.gate.url}/docs", dark=True) as page:
        await page.until(LOADED)
        assert await page.run("document.documentElement.className") == "dark-mode"
        ground = await page.run("getComputedStyle(document.body).backgroundColor")
        assert sum(map(int, ground.strip("rgba()").split(",")[:3])) < 200


async def test_the_playground_leads_there(served: Served, tmp_path: Path) -> None:
    async with lib_browser.page(tmp_path, f"{served.gate.url}/") as page:
        await page.until(CLICKED)
        await page.until(LOADED)
        assert page.complaints() == []
