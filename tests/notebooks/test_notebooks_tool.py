"""tools/notebooks.py: the normal form, and what a second run keeps."""

import base64
import io
import json
import os

import nbformat
import pytest
from nbformat import v4
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import kernel_memory
import notebooks


def png(software: str = "Matplotlib", colour: str = "red", size: int = 2) -> str:
    remarks = PngInfo()
    remarks.add_text("Software", software)
    file = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(file, "png", pnginfo=remarks)
    return base64.b64encode(file.getvalue()).decode()


def run(source="x", outputs=(), count=1, **metadata):
    return v4.new_code_cell(source, outputs=list(outputs), execution_count=count, metadata=metadata)


def printed(text, name="stdout"):
    return v4.new_output("stream", name=name, text=text)


def displayed(data, **metadata):
    return v4.new_output("display_data", data=data, metadata=metadata)


def book(*cells, **metadata):
    return v4.new_notebook(cells=list(cells), metadata=metadata)


def normal_cell(*outputs, **metadata):
    return notebooks.normalise(book(run(outputs=outputs, **metadata))).cells[0]


def test_normalising_twice_is_normalising_once():
    once = notebooks.normalise(widget_notebook("b" * 32, "a" * 32))
    text = notebooks.as_text(once)
    again = nbformat.reads(text, as_version=4)
    assert notebooks.as_text(notebooks.normalise(again)) == text
    assert text.endswith("}\n")
    assert list(json.loads(text)) == sorted(json.loads(text))


def test_metadata_keep_one_kernel_and_no_timings():
    cell = run(execution={"iopub.execute_input": "2026-01-01"}, tags=["hide-input"], collapsed=False)
    kernel = {"name": "my-env", "display_name": "Mine", "language": "python"}
    normal = notebooks.normalise(
        book(cell, kernelspec=kernel, language_info={"name": "python", "version": "3.9"})
    )
    assert normal.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert normal.cells[0].metadata == {"tags": ["hide-input"]}


def test_cell_names_are_kept_when_valid_and_unlike():
    cells = [run() for _ in range(4)]
    for cell, name in zip(cells, ["a-1", "a-1", "no spaces", "cell-2"], strict=True):
        cell.id = name
    notebook = book()
    notebook.cells = cells  # not through nbformat's check, which would name them at random
    names = [cell.id for cell in notebooks.normalise(notebook).cells]
    assert names == ["a-1", "cell-1", "cell-2", "cell-3"]


def test_cells_without_names_get_the_same_each_time(tmp_path):
    path = tmp_path / "old.ipynb"
    cell = {"cell_type": "markdown", "metadata": {}, "source": "text"}
    path.write_text(json.dumps({"cells": [cell, cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}))
    assert [cell.id for cell in notebooks.normalise(notebooks.load(path)).cells] == ["cell-0", "cell-1"]


def test_an_older_format_is_refused(tmp_path):
    path = tmp_path / "old.ipynb"
    path.write_text(json.dumps({"worksheets": [], "metadata": {}, "nbformat": 3, "nbformat_minor": 0}))
    with pytest.raises(ValueError, match=r"old\.ipynb has notebook format 3, but only 4 is read"):
        notebooks.load(path)


def test_neighbouring_chunks_of_a_stream_are_joined():
    cell = normal_cell(printed("a"), printed("b\n"), printed("e", "stderr"), printed("c"))
    assert [(output.name, output.text) for output in cell.outputs] == [
        ("stdout", "ab\n"),
        ("stderr", "e"),
        ("stdout", "c"),
    ]


def test_carriage_returns_leave_the_last_state_of_a_line():
    assert normal_cell(printed("1/2\r2/2\ndone")).outputs[0].text == "2/2\ndone"


def test_addresses_are_hidden():
    cell = normal_cell(printed("<A at 0x7f00aa>"), displayed({"text/plain": "<B object at 0x7f00AA12>"}))
    assert cell.outputs[0].text == "<A at 0x...>"
    assert cell.outputs[1].data["text/plain"] == "<B object at 0x...>"


def test_png_remarks_go_and_pixels_stay():
    assert png("one") != png("two")
    first, second = (
        normal_cell(displayed({"image/png": png(name)})).outputs[0].data for name in ("one", "two")
    )
    assert first == second
    assert Image.open(io.BytesIO(base64.b64decode(first["image/png"]))).getpixel((0, 0)) == (255, 0, 0)


def test_what_is_not_a_png_is_refused():
    with pytest.raises(ValueError, match="which is not a PNG"):
        normal_cell(displayed({"image/png": base64.b64encode(b"GIF89a, surely").decode()}))


def test_large_pictures_are_named():
    large = base64.b64encode(bytes(notebooks.IMAGE_LIMIT + 3)).decode()
    problems = notebooks.large_pictures(book(run(outputs=[displayed({"image/gif": large})])))
    assert len(problems) == 1
    assert "cell 0 makes a picture (image/gif) of 100 kB" in problems[0]


def widget_notebook(first: str, second: str, **extra_data):
    """A slider with its layout, and an anywidget when extra data are given."""
    state = {
        second: {"model_name": "LayoutModel", "state": {"width": None}},
        first: {"model_name": "IntSliderModel", "state": {"layout": f"IPY_MODEL_{second}", "value": 3}},
        "e" * 32: {"model_name": "AnyModel", "state": {"_esm": "export default 1", "layout": "IPY_MODEL_f"}},
        "f": {"model_name": "LayoutModel", "state": {}},
    }
    if not extra_data:
        del state["e" * 32], state["f"]
    outputs = [displayed({notebooks.VIEW: {"model_id": first}, "text/plain": "IntSlider(value=3)"})]
    if extra_data:
        outputs.append(
            displayed({notebooks.VIEW: {"model_id": "e" * 32}, "text/plain": "Any()", **extra_data})
        )
    widgets = {notebooks.STATE: {"state": state, "version_major": 2, "version_minor": 0}}
    return book(run(outputs=outputs), widgets=widgets)


def test_widget_models_are_named_in_order_of_appearance():
    one = notebooks.normalise(widget_notebook("a" * 32, "b" * 32))
    other = notebooks.normalise(widget_notebook("d" * 32, "c" * 32))
    other.cells[0].id = one.cells[0].id
    assert notebooks.as_text(one) == notebooks.as_text(other)
    state = one.metadata.widgets[notebooks.STATE]["state"]
    assert one.cells[0].outputs[0].data[notebooks.VIEW]["model_id"] == "0" * 32
    assert state["0" * 32]["state"]["layout"] == "IPY_MODEL_" + "0" * 31 + "1"


def test_an_anywidget_with_html_leaves_no_javascript_behind():
    normal = notebooks.normalise(widget_notebook("a" * 32, "b" * 32, **{"text/html": "<p>figure</p>"}))
    assert normal.cells[0].outputs[1].data == {"text/plain": "Any()", "text/html": "<p>figure</p>"}
    assert len(normal.metadata.widgets[notebooks.STATE]["state"]) == 2
    assert "_esm" not in notebooks.as_text(normal)


def test_an_anywidget_without_html_keeps_its_model():
    normal = notebooks.normalise(widget_notebook("a" * 32, "b" * 32, **{"text/x": ""}))
    assert notebooks.VIEW in normal.cells[0].outputs[1].data
    assert "_esm" in notebooks.as_text(normal)


# -- What a second run keeps --------------------------------------------------------------------------------


def kept(old_text, new_text, **options):
    new, old = book(run(outputs=[printed(new_text)])), book(run(outputs=[printed(old_text)]))
    notebooks.keep_committed(new, old, notebooks.sanitize_rules(), **options)
    return new.cells[0].outputs[0].text == old_text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("took ≈ 3.2 s", "took ≈ 11.75 s"),
        ("ours |   ≈ 1,024 steps/s", "ours | ≈ 998 steps/s"),
        ("<A at 0x...>", "<A at 0x7f00aa>"),
        ("100%|#| 5/5 [00:03<00:00,  1.6it/s]", "100%|#| 5/5 [01:13<00:00,  1.1s/it]"),
    ],
)
def test_what_the_rules_allow_stays_as_committed(old, new):
    assert kept(old, new)
    assert not kept(old, new, fresh=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("took 3.2 s", "took 3.3 s"),
        ("return ≈ 3 of 5", "return ≈ 3 of 6"),
        ("0x7f00aa", "0x7f00ab"),
        ("100%|#| 5/5 [00:03<00:00]", "100%|#| 6/6 [00:03<00:00]"),
    ],
)
def test_nothing_else_does(old, new):
    assert not kept(old, new)


def redrawn(source="x", **metadata):
    """The picture left after a second run that drew another."""
    old = book(run("y"), run(outputs=[displayed({"image/png": "old", "text/plain": "Figure"})], **metadata))
    new = book(
        run(source), run(outputs=[displayed({"image/png": "new", "text/plain": "Figure"})], **metadata)
    )
    notebooks.keep_committed(new, old, notebooks.sanitize_rules())
    return new.cells[1].outputs[0].data["image/png"]


def test_a_picture_stays_only_if_tagged_and_nothing_before_it_changed():
    tag = {"tags": [notebooks.WALL_CLOCK]}
    assert redrawn("y") == "new"
    assert redrawn("y", **tag) == "old"
    assert redrawn("y = 2", **tag) == "new"


# -- Execution ----------------------------------------------------------------------------------------------


def test_a_run_writes_outputs_and_a_second_changes_nothing(tmp_path, capsys):
    path = tmp_path / "a.ipynb"
    timed = "import time\nprint(f'took ≈ {time.perf_counter()} s')"
    nbformat.write(book(run("import os\nprint(os.path.basename(os.getcwd()))", count=None), run(timed)), path)
    peak, _, problems = notebooks.refresh(path, fresh=False)
    first = path.read_bytes()
    assert problems == []
    assert 10_000_000 < peak < kernel_memory.LIMIT
    cells = nbformat.read(path, as_version=4).cells
    assert [cell.execution_count for cell in cells] == [1, 2]
    assert cells[0].outputs[0].text == tmp_path.name + "\n"
    assert notebooks.main([str(path), "--check"]) == 0
    notebooks.refresh(path, fresh=False)
    assert path.read_bytes() == first
    assert os.listdir(tmp_path) == ["a.ipynb"]
    assert capsys.readouterr().out == ""


def test_a_failing_cell_leaves_the_file_alone(tmp_path, capfd):
    path = tmp_path / "a.ipynb"
    nbformat.write(book(run("1 / 0", count=None)), path)
    before = path.read_bytes()
    assert notebooks.main([str(path)]) == 1
    assert path.read_bytes() == before
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_check_names_what_is_not_normal(tmp_path, capsys):
    path = tmp_path / "a.ipynb"
    nbformat.write(book(run(collapsed=True)), path)
    assert notebooks.main([str(path), "--check"]) == 1
    assert f"{path} is not in normal form" in capsys.readouterr().out


def test_what_is_not_a_notebook_is_one_clear_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        notebooks.main([str(tmp_path / "missing.ipynb")])
    assert "missing.ipynb is not a notebook" in capsys.readouterr().err


# -- The plug-in --------------------------------------------------------------------------------------------

pytest_plugins = ["pytester"]


@pytest.mark.parametrize(("limit", "outcome"), [(kernel_memory.LIMIT, "passed"), (1_000_000, "failed")])
def test_a_kernel_over_the_limit_fails_its_cell(pytester, monkeypatch, limit, outcome):
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(kernel_memory.__file__))
    pytester.makeini("[pytest]\nfilterwarnings = error")
    pytester.makeconftest(f"import kernel_memory\nkernel_memory.LIMIT = {limit}")
    nbformat.write(book(run("print(1)", outputs=[printed("1\n")])), pytester.path / "a.ipynb")
    plugins = ["-p", "kernel_memory", "-p", "no:cacheprovider"]
    result = pytester.runpytest_subprocess(*plugins, "--nbval", "--nbval-current-env")
    result.assert_outcomes(**{outcome: 1})
    result.stdout.fnmatch_lines(["* MB peak * s  a.ipynb"])
    if outcome == "failed":
        result.stdout.fnmatch_lines(["*a notebook may need less than 1 MB*"])


def test_peak_memory_is_that_of_the_process():
    assert 5_000_000 < kernel_memory.peak_memory(os.getpid()) < 8_000_000_000
