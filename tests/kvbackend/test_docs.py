"""The examples in docs/kvbackend.md are true, and its table says what the sweep wrote."""

import csv
import doctest
import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_examples_run_and_give_what_they_show():
    text = (DOCS / "kvbackend.md").read_text(encoding="utf-8").replace("```", "")
    test = doctest.DocTestParser().get_doctest(text, {}, "kvbackend.md", None, 0)
    assert len(test.examples) > 15
    failures = []
    runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    runner.run(test, out=failures.append)
    assert not failures, "".join(failures)


def test_table_is_that_of_the_sweep():
    with (DOCS / "sweep.csv").open(encoding="utf-8", newline="") as file:
        points = {(r["scorer"], r["keep"], r["precision"]): r for r in csv.DictReader(file)}
    text = (DOCS / "kvbackend.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| (\S+) \| (\S+) \| (\S+)" + r" \| ([\d.]+)" * 5 + r" \|$", text, re.MULTILINE)
    assert len(lines) > 8
    for scorer, keep, precision, kilobytes, *shown in lines:
        point = points[scorer, keep, precision]
        assert float(kilobytes) == round(float(point["bytes"]) / 1000, 1)
        expected = [round(float(point[name]), 3) for name in ("kl", "top1", "recall_hot", "recall_cold")]
        assert [float(x) for x in shown] == expected
