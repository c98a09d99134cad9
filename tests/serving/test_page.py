"""The page of the server in a browser: what a user types and moves changes what is shown."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from spacy.language import Language

from gliner_pipe.serve import _listening
from gliner_pipe.serving.app import create_app

TEXT = "Ada met Charles in London 🙂 and Ann."


@pytest.fixture
def url(nlp: Language) -> Iterator[str]:
    nlp.get_pipe("gliner").threshold = 0.3  # type: ignore[attr-defined]
    server = uvicorn.Server(uvicorn.Config(create_app({"one": nlp}), log_level="warning"))
    with _listening("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def answered(page: Any, act: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Do something and return the request that it leads to, and its answer, when the page shows it."""
    with page.expect_response("**/predict") as waiting:
        act()
    found = waiting.value.json()["predictions"][0]
    page.wait_for_function(
        "number => document.querySelectorAll('#found mark').length === number", arg=len(found["entities"])
    )
    marks = page.locator("#found mark").evaluate_all("marks => marks.map(mark => mark.title)")
    assert sorted(marks) == sorted(f"{one['label']} {one['score']:.2f}" for one in found["entities"])
    return waiting.value.request.post_data_json, found


def test_text_labels_and_thresholds_change_what_is_shown(browser: Any, url: str) -> None:
    page = browser.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(url) else faults.append(request.url))
    answered(page, lambda: page.goto(url))

    asked, found = answered(page, lambda: page.get_by_label("Text", exact=True).fill(TEXT))
    assert (asked["texts"], asked["labels"]) == ([TEXT], ["person", "city"])
    assert [[one["start"], one["end"]] for one in found["entities"]]
    shown = page.locator("#found .text").evaluate(
        "node => { const copy = node.cloneNode(true); copy.querySelectorAll('small').forEach(one => one.remove()); return copy.textContent; }"
    )
    assert shown == TEXT

    page.get_by_label("New label").fill("river <b>")
    asked, _ = answered(page, lambda: page.keyboard.press("Enter"))
    assert asked["labels"] == ["person", "city", "river <b>"]
    assert page.locator(".label b").all_inner_texts() == ["person", "city", "river <b>"]

    all_of_them = page.get_by_label("Threshold of all labels")
    all_of_them.focus()
    _, many = answered(page, lambda: page.keyboard.press("Home"))
    asked, none = answered(page, lambda: page.keyboard.press("End"))
    assert asked["threshold"] == 0.95
    assert len(many["entities"]) > len(none["entities"]) == 0
    asked, few = answered(page, lambda: page.get_by_label("Threshold of person").fill("0.05"))
    assert asked["labels"][0] == {"label": "person", "threshold": 0.05}
    assert {one["label"] for one in few["entities"]} == {"person"}

    answered(page, lambda: page.get_by_label("Remove person").click())
    page.get_by_label("Text", exact=True).focus()
    answered(page, lambda: page.keyboard.press("Control+Enter"))
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert faults == []
