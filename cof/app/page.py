"""The page itself: Gradio's components, and what each of them calls. Nothing else knows Gradio."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
from starlette.middleware import Middleware

from cof.app import desk as desks
from cof.app.asking import HIGHEST, LOWEST, STEP
from cof.app.browse import FILTERS, Browser
from cof.app.guard import LOOPBACK, Guard, names_address
from cof.app.looks import CSS, DRAW
from cof.app.text import safe
from cof.app.uploads import Bounds
from cof.errors import AnswerError, CofError
from cof.refine import highlight

if TYPE_CHECKING:
    from PIL.Image import Image

    from cof.app.desk import Desk

KEPT = 3600
"""Seconds that a visitor's pictures and answers, and uploaded files, are kept."""

SESSIONS = 20
"""Visitors whose state is kept at a time."""

WAITING = 20
"""Calls that may wait for the model; further ones are refused."""

MODEL: Mapping[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
"""Of whatever runs the model: one at a time."""

QUICK: Mapping[str, Any] = {"concurrency_limit": None, "show_progress": "hidden"}
"""Of whatever does not: it waits for nobody."""

AT_ONCE: Mapping[str, Any] = {"queue": False, "show_progress": "hidden"}
"""Of sliders over what is computed; outside the queue an error would not be shown."""

TITLE = "CoF: coarse to fine"


def build(desk: Desk, first: Image | None = None) -> gr.Blocks:
    """The page.

    Args:
        desk: what it calls.
        first: the picture that it opens with, RGB; None opens it empty.
    """
    with _Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=(KEPT, KEPT), fill_width=True
    ) as page:
        gr.Markdown(f"### {TITLE} <small>{safe(desk.asks)}</small>")
        with gr.Tabs() as tabs:
            with gr.Tab("Ask", id="ask"):
                file, question, opened = _ask_tab(desk)
            if desk.browsers:
                with gr.Tab("Browse a run", id="browse"):
                    _browse_tab(desk, page, [*opened, file, question, tabs])
        if first is not None:
            _on(page.load, functools.partial(desk.show, first), [], opened, QUICK)
    return page


class _Blocks(gr.Blocks):
    """Blocks that download nothing, and whose sliders take any number that is typed."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *more: Any) -> list[Any]:
        """What the components make of what the browser sent.

        Raises:
            Error: a file is named by an address, which Gradio would download.
        """
        if names_address(inputs):
            raise gr.Error("this page fetches nothing from the net", print_exception=False)
        held = list(map(within, block_fn.inputs, inputs))
        return await super().preprocess_data(block_fn, held, *more)


def within(block: Any, value: Any) -> Any:
    """What was typed beside a slider: beyond an end it is that end, and nothing is where it began.

    Args:
        block: any component; values of one that is no slider stay as they are.
        value: of the browser.
    """
    if not isinstance(block, gr.Slider):
        return value
    return min(max(block.value if value is None else value, block.minimum), block.maximum)


def start(page: gr.Blocks, host: str, port: int | None, bounds: Bounds, browser: bool) -> str:
    """Serve the page from a thread; `page.block_thread()` waits until it is interrupted.

    Args:
        page: of `build`.
        host: address to listen on; 127.0.0.1 is this machine alone.
        port: None takes a free one from 7860 on.
        bounds: of uploads.
        browser: also open a browser.
    Returns: its address.
    """
    page.queue(max_size=WAITING)
    options = launch_options(host, port, bounds)
    _, address, _ = page.launch(**options, inbrowser=browser, prevent_thread_lock=True, quiet=True)
    return str(address)


def launch_options(host: str, port: int | None, bounds: Bounds) -> dict[str, Any]:
    """What `launch` is told: no share, no file of the disk but uploads, nothing from the net."""
    hosts = LOOPBACK if host in LOOPBACK else ()
    fonts: dict[str, Any] = {
        "font": ("system-ui", "sans-serif"),
        "font_mono": ("ui-monospace", "monospace"),
    }
    return {
        "server_name": host,
        "server_port": port,
        "share": False,
        "allowed_paths": [],
        "max_file_size": bounds.bytes,
        "state_session_capacity": SESSIONS,
        "footer_links": [],
        "enable_monitoring": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "run_history": False,
        "app_kwargs": {"middleware": [Middleware(Guard, hosts=hosts)]},
        "theme": gr.themes.Default(**fonts),
        "css": CSS,
    }


def _ask_tab(desk: Desk) -> tuple[Any, Any, list[Any]]:
    """The first tab; returns file, question, and what a new picture changes."""
    picture, asked, attended = (gr.State(None, time_to_live=KEPT) for _ in range(3))
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            file = gr.File(label="Picture", file_types=["image"], height=120, elem_id="file")
            remark = gr.HTML()
            question = gr.Textbox(label="Question", max_lines=6, elem_id="question")
            ask = gr.Button("Ask", variant="primary", elem_id="do-ask")
            how = "x0, y0, x1, y1 as fractions of the picture, or draw; with Shift, one more"
            boxes = gr.Textbox(label="Boxes", info=how, elem_id="boxes")
            use = gr.Button("Answer with these boxes", elem_id="do-use")
            alpha = desk.cof.settings.boxes.expand
            expand = gr.Slider(0.5, 4, alpha, step=0.1, label="α: box expansion", elem_id="expand")
        with gr.Column(scale=3):
            panels = gr.HTML(js_on_load=DRAW, elem_id="panels")
            weight = _weight(desk.cof.settings.refine)
            said = gr.HTML(elem_id="answers")
            attend, layer, maps = _attention(desk.cof.model.layers)
    result = [asked, panels, boxes, said, maps]
    opened = [picture, panels, remark, boxes, asked, said, maps]
    given = [picture, question, expand, weight]
    for event in (file.upload, file.clear):
        _on(event, desk.open, [file], opened, QUICK)
    model = {**MODEL, "show_progress_on": said}  # an error hides none of the fields to mend
    for event in (ask.click, question.submit):
        _on(event, desk.ask, given, result, model)
    for event in (use.click, boxes.submit):
        _on(event, desk.ask, [*given, boxes], result, model)
    drawn = _on(panels.draw, _drawn, [boxes], [boxes], QUICK)
    _on(drawn.success, _if_asked(desk), [*given, boxes], result, model)
    latest = {**model, "trigger_mode": "always_last"}
    _on(expand.change, _again(desk), [picture, asked, expand, weight], result, latest)
    _on(weight.change, desks.at_weight, [asked, weight], [said], AT_ONCE)
    _on(attend.click, desk.attend, [asked, weight, layer], [attended, maps], MODEL)
    _on(layer.change, desks.at_layer, [attended, layer], [maps], AT_ONCE)
    return file, question, opened


def _weight(stage: Any) -> gr.Slider:
    """The λ slider, dead where the fine stage has no λ."""
    own = getattr(stage, "weight", None)
    plain = isinstance(stage, highlight.Config) and stage.perturb == 1
    return gr.Slider(
        LOWEST,
        HIGHEST,
        1.0 if own is None else own,
        step=STEP,
        label="λ: weight of the highlight" + ("; 1 is the plain model" if plain else ""),
        interactive=own is not None,
        elem_id="weight",
    )


def _attention(layers: int) -> tuple[Any, Any, Any]:
    """Button, slider and place of the attention maps."""
    with gr.Accordion("Attention: where the answer's first token looks", open=False):
        attend = gr.Button("Measure at this λ", elem_id="do-attend")
        label = f"Layer, 1 to {layers}; 0 is the mean of all"
        layer = gr.Slider(0, layers, 0, step=1, label=label, elem_id="layer")
        maps = gr.HTML(elem_id="maps")
    return attend, layer, maps


def _drawn(boxes: str, event: gr.EventData) -> str:
    others = boxes if getattr(event, "joins", False) is True else ""
    return desks.box_of(getattr(event, "box", None), others)


def _if_asked(desk: Desk) -> Callable[..., Any]:
    """Answer with a box that was drawn, where there is a question; else it waits for one."""

    def call(picture: Any, question: str, *others: Any) -> Any:
        if question.strip():
            return desk.ask(picture, question, *others)
        gr.Info("Write a question, then choose 'Answer with these boxes'.")
        return (gr.skip(),) * 5

    return call


def _again(desk: Desk) -> Callable[..., Any]:
    """Answer with another α, where something was asked."""
    return lambda *given: desk.again(*given) or (gr.skip(),) * 5


def _browse_tab(desk: Desk, page: gr.Blocks, asks: Sequence[Any]) -> None:
    """The second tab; `asks` are the components of the first that a question is taken to."""
    names = list(desk.browsers)
    entry = gr.State(None, time_to_live=KEPT)
    with gr.Row():
        name = gr.Dropdown(names, value=names[0], label="Run", elem_id="run", scale=2)
        choices = _choices(desk.browsers[names[0]])
        kind = gr.Radio(choices, value="all", label="Questions", elem_id="kind", scale=12)
        number = gr.Number(1, label="Number", precision=0, elem_id="number", min_width=80)
        total = gr.Textbox(label="Of", interactive=False, elem_id="total", min_width=80)
    with gr.Row():
        before, after = gr.Button("Previous"), gr.Button("Next")
        take = gr.Button("Ask this one", variant="primary")
    shown = gr.HTML(elem_id="entry")
    given, out = [name, kind, number], [number, total, shown, entry]

    def switched(run: str, kind: str) -> tuple[Any, ...]:
        return gr.update(choices=_choices(desk.browsers[run])), *desk.turn(run, kind, 1)

    def taken(entry: Any) -> tuple[Any, ...]:
        if entry is None or entry.image is None:
            raise AnswerError("this question has no picture to ask about")
        question = entry.result.question.text
        return *desk.show(entry.image), None, question, gr.update(selected="ask")

    for event in (name.change, kind.change):
        _on(event, switched, [name, kind], [kind, *out], QUICK)
    for event, step in ((number.submit, 0), (page.load, 0), (before.click, -1), (after.click, 1)):
        _on(event, functools.partial(desk.turn, step=step), given, out, QUICK)
    _on(take.click, taken, [entry], asks, QUICK)


def _choices(browser: Browser) -> list[tuple[str, str]]:
    """The filters with their counts."""
    return [(f"{kind} ({browser.counts[kind]})", kind) for kind in FILTERS]


def _on(
    event: Any, call: Callable[..., Any], given: Sequence[Any], out: Sequence[Any], how: Any
) -> Any:
    """Bind an event; it is no address for others to call."""
    return event(_told(call), [*given], [*out], api_visibility="private", **how)


def _told(call: Callable[..., Any]) -> Callable[..., Any]:
    """Show an error that the visitor can mend as a message on the page."""

    @functools.wraps(call)
    def told(*given: Any) -> Any:
        try:
            return call(*given)
        except CofError as error:
            raise gr.Error(safe(str(error)), print_exception=False) from None
        except Exception as error:
            raise gr.Error("This broke inside; the terminal of cof app says where.") from error

    return told
