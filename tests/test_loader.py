"""The loader fills dataclasses from YAML, loses nothing on the way, and refuses in one line."""

import json
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import kvroam.configs
from kvroam.errors import ConfigError
from kvroam.settings import loader
from kvroam.settings.yaml12 import parse


@dataclass(frozen=True)
class Radio:
    hysteresis_db: float = 3.0
    kind: Literal["a3", "policy"] = "a3"
    derived_db: float | None = None

    def __post_init__(self) -> None:
        if self.hysteresis_db < 0:
            raise ValueError(f"hysteresis_db {self.hysteresis_db} is below 0;\n   use 0 or more")
        if self.derived_db is None:
            object.__setattr__(self, "derived_db", 2 * self.hysteresis_db)


@dataclass(frozen=True)
class Scene:
    name: str
    radio: Radio = Radio(hysteresis_db=4.0, derived_db=1.0)


@dataclass(frozen=True)
class Config:
    num_ues: int = 16
    interval_s: float = 0.1
    verbose: bool = False
    label: str = "x"
    limit: int | None = None
    speeds_mps: tuple[float, ...] = (8.0, 20.0)
    span: tuple[int, float] = (1, 2.0)
    bits: Literal[16, 8, 4] = 16
    either: int | str | None = None
    amount: float | int = 1
    switch: Literal[0, 1] = 0
    weights: dict[str, float] = field(default_factory=dict)
    anything: Any = None
    path: Path = Path("runs")
    radio: Radio = Radio()
    spare: Radio | None = None
    scenes: tuple[Scene, ...] = ()
    counted: int = field(default=0, init=False)


def refusal(mapping: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        loader.build(Config, mapping, where="exp.yaml")
    message = str(caught.value)
    assert "\n" not in message and message.startswith("exp.yaml")
    return message


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("interval_s", 1, 1.0),
        ("interval_s", "1e6", 1e6),
        ("interval_s", "1.5e-3", 1.5e-3),
        ("interval_s", 2**53, float(2**53)),
        ("num_ues", 3.0, 3),
        ("verbose", True, True),
        ("limit", None, None),
        ("limit", 5, 5),
        ("speeds_mps", [1, 2.5, 3], (1.0, 2.5, 3.0)),
        ("speeds_mps", [], ()),
        ("span", [2, 3], (2, 3.0)),
        ("bits", 8, 8),
        ("either", "8", "8"),
        ("either", 8, 8),
        ("amount", 8, 8),
        ("amount", 0.5, 0.5),
        ("switch", 1, 1),
        ("weights", {"drift": 2}, {"drift": 2.0}),
        ("anything", {"a": [1]}, {"a": [1]}),
        ("path", "out/a", Path("out/a")),
        ("radio", None, Radio()),
        ("spare", None, None),
        ("spare", {"hysteresis_db": 1}, Radio(hysteresis_db=1.0)),
        ("radio", Radio(hysteresis_db=9.0), Radio(hysteresis_db=9.0)),
        ("scenes", [{"name": "munich"}], (Scene("munich"),)),
    ],
)
def test_a_value_that_fits_is_converted_without_loss(key, given, expected):
    value = getattr(loader.build(Config, {key: given}), key)
    assert value == expected
    assert type(value) is type(expected)
    if isinstance(value, tuple):
        assert [type(v) for v in value] == [type(v) for v in expected]


@pytest.mark.parametrize(
    ("mapping", "fragments"),
    [
        ({"num_ues": "3"}, ["num_ues = '3'", "expected int"]),
        ({"num_ues": True}, ["num_ues = True", "expected int"]),
        ({"num_ues": 3.5}, ["num_ues = 3.5", "expected int"]),
        ({"num_ues": None}, ["num_ues = None", "expected int"]),
        ({"num_ues": float("inf")}, ["num_ues = inf", "expected int"]),
        ({"interval_s": "3"}, ["interval_s = '3'", "expected float"]),
        ({"interval_s": False}, ["interval_s = False", "expected float"]),
        ({"interval_s": 2**53 + 1}, ["interval_s", "expected float"]),
        ({"interval_s": 10**400}, ["interval_s", "expected float"]),
        ({"verbose": 1}, ["verbose = 1", "expected bool"]),
        ({"verbose": "off"}, ["verbose = 'off'", "expected bool"]),
        ({"label": 3}, ["label = 3", "expected str"]),
        ({"limit": "many"}, ["limit = 'many'", "int | None"]),
        ({"speeds_mps": 3}, ["speeds_mps = 3", "tuple[float, ...]"]),
        ({"speeds_mps": "1e6"}, ["speeds_mps = '1e6'", "tuple[float, ...]"]),
        ({"speeds_mps": [1, "fast"]}, ["speeds_mps[1] = 'fast'", "expected float"]),
        ({"span": [1, 2, 3]}, ["span = [1, 2, 3]", "tuple[int, float]"]),
        ({"bits": 5}, ["bits = 5", "16 or 8 or 4"]),
        ({"bits": True}, ["bits = True", "16 or 8 or 4"]),
        ({"switch": True}, ["switch = True", "0 or 1"]),
        ({"either": 1.5}, ["either = 1.5", "int | str | None"]),
        ({"weights": {"drift": "much"}}, ["weights.drift = 'much'", "expected float"]),
        ({"weights": {3: 1.0}}, ["key of weights = 3", "expected str"]),
        ({"radio": {"kind": "a33"}}, ["radio.kind = 'a33'", "'a3' or 'policy'", "did you mean 'a3'"]),
        ({"radio": 3}, ["radio = 3", "section"]),
        ({"radio": {"hysteresis_db": -1}}, ["exp.yaml: radio: hysteresis_db -1.0 is below 0; use 0 or more"]),
        ({"spare": {"hysteresis_db": "x"}}, ["spare.hysteresis_db = 'x'", "expected float"]),
        ({"spare": {"hysteresis_db": -2}}, ["spare: hysteresis_db -2.0 is below 0"]),
        ({"scenes": [{"name": "a"}, {}]}, ["scenes[1].name is missing", "str"]),
        ({"num_uess": 3}, ["unknown key 'num_uess'", "did you mean 'num_ues'"]),
        ({"radio": {"hysteresis": 3}}, ["'radio.hysteresis'", "did you mean 'radio.hysteresis_db'"]),
        ({"hysteresis_db": 3}, ["'hysteresis_db'", "did you mean 'radio.hysteresis_db'"]),
        ({"hysteresis_dbb": 3}, ["did you mean 'radio.hysteresis_db'"]),
        ({"qqqq": 3}, ["unknown key 'qqqq'", "known keys: num_ues, interval_s"]),
        ({"counted": 3}, ["unknown key 'counted'"]),
        ({7: 3}, ["unknown key '7'"]),
        ([1], ["[1]", "section"]),
        ({"label": ["long"] * 99}, ["label = ['long', 'long'", "...", "expected str"]),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_key_value_and_expectation(mapping, fragments):
    message = refusal(mapping)
    for fragment in fragments:
        assert fragment in message


def test_a_partly_given_section_keeps_the_rest_of_its_owners_default():
    built = loader.build(Scene, {"name": "munich", "radio": {"kind": "policy"}})
    assert built.radio == Radio(hysteresis_db=4.0, kind="policy", derived_db=1.0)


def test_a_value_derived_from_a_setting_follows_the_setting():
    built = loader.build(Config, {"radio": {"hysteresis_db": 5}})
    assert built.radio.derived_db == 10.0


def test_an_error_of_another_kind_in_post_init_is_not_disguised_as_a_config_error():
    @dataclass(frozen=True)
    class Broken:
        size: int = 1

        def __post_init__(self) -> None:
            raise ZeroDivisionError("a bug, not a setting")

    with pytest.raises(ZeroDivisionError):
        loader.build(Broken, {})


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_survives_yaml_in_every_notation(value):
    for text in (repr(value), f"{value:.17e}", f"{value:.17E}"):
        assert parse(f"x: {text}", "t") == {"x": value}
        assert loader.build(Config, {"interval_s": yaml.safe_load(text)}).interval_s == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("1e6", 1e6),
        ("1.0e6", 1e6),
        ("-2E-3", -2e-3),
        (".5", 0.5),
        ("010", 10),
        ("0x1f", 31),
        ("0o17", 15),
        ("1_000", 1000),
        ("-7", -7),
        ("1:30", "1:30"),
        ("2026-01-02", "2026-01-02"),
        ("-.inf", float("-inf")),
        ("~", None),
        ("", None),
        ("null", None),
        ("'1e6'", "1e6"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_scalars_are_read_as_yaml_1_2_reads_them(text, expected):
    value = parse(text, "t")
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    ("text", "line", "fragment"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "'a' is given twice"),
        ("r:\n  x: 1\n  x: 2\n", 3, "'x' is given twice"),
        ("a: 1\nb: [1\n", 3, "expected"),
        ("a:\n\tb: 1\n", 2, "cannot start any token"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("a: !!python/object/apply:os.getcwd []\n", 1, "tag"),
        ("a: *nowhere\n", 1, "alias"),
    ],
)
def test_broken_yaml_is_refused_with_its_line(tmp_path, text, line, fragment):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        loader.load(Config, path)
    message = str(caught.value)
    assert f"line {line}:" in message and fragment in message and "\n" not in message


def test_a_merge_key_may_be_overridden_without_counting_as_a_duplicate():
    parsed = parse("base: &b {x: 1, y: 2}\nr: {<<: *b, x: 3}\n", "t")
    assert parsed["r"] == {"x": 3, "y": 2}


def test_load_reads_a_file_and_overrides_win_in_order(tmp_path):
    path = tmp_path / "exp.yaml"
    path.write_text("num_ues: 4\nradio:\n  # all keys left out\nspeeds_mps: [1, 2]\n")
    overrides = ["num_ues=8", "radio.hysteresis_db=1e0", "num_ues = 9", "speeds_mps=[3]", "label='a=b'"]
    built = loader.load(Config, str(path), overrides)
    assert built == Config(num_ues=9, speeds_mps=(3.0,), label="a=b", radio=Radio(hysteresis_db=1.0))


def test_an_override_of_one_section_leaves_its_yaml_alias_alone(tmp_path):
    path = tmp_path / "exp.yaml"
    path.write_text("radio: &r {hysteresis_db: 1}\nspare: *r\n")
    built = loader.load(Config, path, ["spare.hysteresis_db=2"])
    assert built.radio.hysteresis_db == 1.0 and built.spare == Radio(hysteresis_db=2.0)


@pytest.mark.parametrize(
    ("override", "fragment"),
    [
        ("num_ues", "expected key=value"),
        ("=3", "expected key=value"),
        ("a..b=3", "expected key=value"),
        ("radio.=3", "expected key=value"),
        ("num_ues=[1", "override 'num_ues=[1', line 1"),
        ("num_ues.deep=3", "num_ues is 4, not a section"),
        ("radio.hyst=3", "did you mean 'radio.hysteresis_db'"),
        ("num_ues=many", "num_ues = 'many'; expected int"),
    ],
)
def test_a_bad_override_is_refused(tmp_path, override, fragment):
    path = tmp_path / "exp.yaml"
    path.write_text("num_ues: 4\n")
    with pytest.raises(ConfigError) as caught:
        loader.load(Config, path, [override])
    assert fragment in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_cannot_be_used_are_refused_in_one_line(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"label: caf\xe9\n")
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "nul.yaml").write_bytes(b"label: a\x00b\n")
    for name, fragment in {
        "latin.yaml": "not UTF-8",
        "list.yaml": "must be a mapping",
        "nul.yaml": "special characters",
        ".": "cannot be read",
        "absent.yaml": "no such file; shipped names: ",
    }.items():
        with pytest.raises(ConfigError) as caught:
            loader.load(Config, tmp_path / name)
        assert fragment in str(caught.value) and "\n" not in str(caught.value)


def test_an_empty_file_gives_the_defaults(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing is set\n")
    assert loader.load(Config, path) == Config()


def test_a_shipped_name_is_found_from_any_folder_and_a_misspelt_one_lists_the_names(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "handover.yaml").write_text("num_ues: 7\n")
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(loader.resources, "files", lambda _: package)
    monkeypatch.chdir(tmp_path)
    assert loader.shipped() == ("handover",)
    assert loader.load(Config, "handover").num_ues == 7
    with pytest.raises(ConfigError, match=r"hanover: no such file; shipped names: handover; did you mean"):
        loader.load(Config, "hanover")


def test_every_shipped_file_is_a_mapping():
    folder = Path(kvroam.configs.__file__).parent
    assert loader.shipped() == tuple(sorted(path.stem for path in folder.glob("*.yaml")))
    for name in loader.shipped():
        assert loader.read(name), name


def test_to_dict_is_json_and_builds_the_same_object_again():
    config = loader.build(Config, {"scenes": [{"name": "munich"}], "limit": 3, "span": [2, 0.5]})
    plain = json.loads(json.dumps(loader.to_dict(config)))
    assert plain["scenes"] == [
        {"name": "munich", "radio": {"hysteresis_db": 4.0, "kind": "a3", "derived_db": 1.0}}
    ]
    assert "counted" not in plain
    assert loader.build(Config, plain) == config


def test_to_dict_turns_arrays_into_lists():
    numpy = pytest.importorskip("numpy")
    assert loader.to_dict({"a": numpy.arange(3), "b": (numpy.float32(0.5),)}) == {"a": [0, 1, 2], "b": [0.5]}


def test_the_fingerprint_depends_on_values_only():
    assert loader.fingerprint({"a": 1, "b": [2.0]}) == loader.fingerprint({"b": [2], "a": 1.0})
    assert loader.fingerprint(Config()) == loader.fingerprint(Config())
    assert loader.fingerprint(Config()) != loader.fingerprint(Config(num_ues=17))
    # SHA-256 of '{"a":1}', by sha256sum.
    assert loader.fingerprint({"a": 1}) == "015abd7f5cc5"


def test_describe_lists_every_setting_with_its_type_and_default():
    rows = {key: (kind, default) for key, kind, default in loader.describe(Config)}
    assert rows["radio.hysteresis_db"] == ("float", 3.0)
    assert rows["limit"] == ("int | None", None)
    assert rows["speeds_mps"] == ("tuple[float, ...]", (8.0, 20.0))
    assert rows["weights"] == ("dict[str, float]", {})
    assert rows["spare"] == ("Radio | None", None)
    assert "counted" not in rows and "radio" not in rows
    scene = {key: (kind, default) for key, kind, default in loader.describe(Scene)}
    assert scene["name"] == ("str", MISSING)
    assert scene["radio.hysteresis_db"] == ("float", 4.0)


def test_missing_keys_are_the_settings_that_a_mapping_leaves_out():
    everything = loader.to_dict(Config())
    assert loader.missing_keys(Config, everything) == []
    del everything["label"], everything["radio"]["kind"]
    assert loader.missing_keys(Config, everything) == ["label", "radio.kind"]
    del everything["radio"]
    assert loader.missing_keys(Config, everything) == [
        "label",
        "radio.hysteresis_db",
        "radio.kind",
        "radio.derived_db",
    ]


def test_a_file_starts_from_its_base_and_states_what_differs(tmp_path):
    (tmp_path / "town.yaml").write_text("base: handover\nnum_ues: 3\nbackhaul: {capacity_bps: 1.0e+9}\n")
    (tmp_path / "village.yaml").write_text("base: town.yaml\nbackhaul: {hop_s: 0.5}\n")
    found = loader.read(tmp_path / "village.yaml")
    assert found["num_ues"] == 3 and "base" not in found
    assert found["backhaul"] == {**loader.read("handover")["backhaul"], "capacity_bps": 1.0e9, "hop_s": 0.5}


def test_files_based_on_each_other_in_a_circle_are_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ConfigError, match="based on itself"):
        loader.read(tmp_path / "a.yaml")


@pytest.mark.parametrize(("text", "says"), [("base: 3", "must be the name or path"), ("base: nowhere", "no such file")])
def test_a_base_that_is_no_file_is_refused(tmp_path, text, says):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        loader.read(tmp_path / "a.yaml")
