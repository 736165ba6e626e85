"""Sessions as users make them: bursty gaps, traces in BurstGPT's format, presets of served models."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kvroam.envs.sim.params import ServingConfig, SessionConfig
from kvroam.envs.sim.streams import SESSION_OFFSET, SESSIONS, gamma, uniform
from kvroam.envs.sim.workload import read_trace
from kvroam.errors import ConfigError

from .sim_bench import Bench

HEADER = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
ROWS = ["5,ChatGPT,472,18,490,Conversation log", "45,GPT-4,1087,3,1090,Conversation log",
        "60.5,GPT-4,5,0,5,API log", "61,ChatGPT,1360,7,1367,API log", "100,ChatGPT,10,11,21,Conversation log"]


def write(folder, rows, header=HEADER):
    """A trace file of these lines."""
    path = folder / "trace.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("shape", [0.2, 0.35, 0.999, 1.0, 1.3, 4.0])
def test_gamma_draws_follow_the_distribution_of_scipy(shape):
    draws = np.array([gamma(np.uint64(12345), 3, 1, k, shape) for k in range(4000)])
    assert stats.kstest(draws, "gamma", args=(shape,)).pvalue > 1e-3
    assert len(np.unique(draws)) > 3990


def test_pauses_have_the_mean_and_the_burstiness_of_the_configuration(city, phy):
    bench = Bench(city, phy, ues=40, serving=dict(decode_tokens_per_s=1e3), radio=dict(max_air_s=0.0),
                  sessions=dict(think_s=0.5, think_shape=0.35, answer_tokens=(1.0, 0.0)))
    pauses, ended = [], np.full(40, np.nan)
    for u in range(40):
        bench.put(u, streaming=True)
        bench.ue[u]["answer_left"] = 1.0
    for _ in range(400):
        bench.step()
        for answer in bench.sim.state.answer[0, :bench.sim.state.world["answers"][0]]:
            pauses.append(answer["time_s"] - 1e-3 - ended[answer["ue"]])
            ended[answer["ue"]] = answer["time_s"]
    pauses = np.array(pauses)[np.isfinite(pauses)]
    # What is longer than the episode is cut off, so the far tail is missing.
    assert len(pauses) > 1000
    assert pauses.mean() == pytest.approx(0.5, rel=0.15)
    assert pauses.std() / pauses.mean() == pytest.approx(0.35**-0.5, rel=0.15)


def test_a_trace_is_its_answered_requests(tmp_path):
    trace = read_trace(write(tmp_path, ROWS))
    assert trace.response_tokens.tolist() == [18.0, 3.0, 7.0, 11.0]
    assert trace.gap_s.tolist() == [95 / 3, 40.0, 16.0, 39.0]


def test_columns_may_stand_in_any_order(tmp_path):
    turned = [",".join(reversed(row.split(","))) for row in ROWS]
    path = write(tmp_path, turned, ",".join(reversed(HEADER.split(","))))
    assert np.array_equal(read_trace(path), read_trace(write(tmp_path, ROWS)))


def test_further_columns_are_ignored_and_only_those_that_are_read_are_needed(tmp_path):
    expected = read_trace(write(tmp_path, ROWS))
    wider = [f"s{i},{row},{i}.5,," for i, row in enumerate(ROWS)]
    assert np.array_equal(read_trace(write(tmp_path, wider, f"Session ID,{HEADER},Elapsed time,,")), expected)
    narrow = [",".join(row.split(",")[k] for k in (3, 0)) for row in ROWS]
    assert np.array_equal(read_trace(write(tmp_path, narrow, "Response tokens,Timestamp")), expected)


def test_what_stands_in_a_column_that_is_not_read_does_not_matter(tmp_path):
    spoilt = [",".join([*row.split(",")[:1], "", "many", row.split(",")[3], "-1", ""]) for row in ROWS]
    assert np.array_equal(read_trace(write(tmp_path, spoilt)), read_trace(write(tmp_path, ROWS)))


@pytest.mark.parametrize(("rows", "line", "column"), [
    (["5,M,1,2,3,L", "4,M,1,2,3,L"], 3, "Timestamp"), (["5,M,1,2,3,L", "nan,M,1,2,3,L"], 3, "Timestamp"),
    (["5,M,1,inf,3,L"], 2, "Response tokens"), (["-5,M,1,2,3,L"], 2, "Timestamp"),
    (["5,M,1,-2,3,L"], 2, "Response tokens"), (["5,M,1,two,3,L"], 2, "Response tokens"),
    (["5,M,1,,3,L"], 2, "Response tokens")])
def test_a_bad_value_is_refused_with_file_line_and_column(tmp_path, rows, line, column):
    with pytest.raises(ConfigError, match=rf"trace\.csv, line {line}, column '{column}'"):
        read_trace(write(tmp_path, rows))


@pytest.mark.parametrize(("rows", "header", "words"), [
    ([], HEADER, "at least 2"), (ROWS[:1], HEADER, "at least 2"), (["5,M,1,2,3,L"] * 3, HEADER, "different times"),
    (ROWS, HEADER.replace("Response tokens", "Answer"), "line 1: column 'Response tokens' occurs 0 times"),
    (ROWS, HEADER.replace("Timestamp", "Time"), "line 1: column 'Timestamp' occurs 0 times"),
    (ROWS, HEADER.replace("Model", "Timestamp"), "'Timestamp' occurs 2 times"),
    ([ROWS[0], "", ROWS[1]], HEADER, "line 3: the line is empty"),
    ([ROWS[0], "45,GPT-4,1087"], HEADER, "line 3: 3 values for 6 columns"), (ROWS, "", "needed once")])
def test_a_bad_file_is_refused_with_what_is_wrong(tmp_path, rows, header, words):
    with pytest.raises(ConfigError, match=words):
        read_trace(write(tmp_path, rows, header))


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.csv"):
        read_trace(tmp_path / "nowhere.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00" * 9)
    with pytest.raises(ConfigError, match=r"binary\.csv"):
        read_trace(tmp_path / "binary.csv")


def test_sessions_follow_the_trace_from_an_offset_of_their_own(city, phy, tmp_path):
    generator = np.random.default_rng(0)
    tokens, gaps = generator.integers(1, 9, 50), generator.integers(1, 30, 50)
    rows = [f"{t},M,1,{n},1,L" for t, n in zip(np.cumsum(gaps), tokens, strict=True)]
    path, think_s = write(tmp_path, rows), 0.2
    bench = Bench(city, phy, ues=5, sessions=dict(trace=str(path), think_s=think_s))
    gap_s = read_trace(path).gap_s
    gap_s *= think_s / gap_s.mean()
    answers = {u: [] for u in range(5)}
    for u in range(5):
        bench.put(u, streaming=True)
        bench.ue[u]["answer_left"] = 1.0
    for _ in range(150):
        bench.step()
        for answer in bench.sim.state.answer[0, :bench.sim.state.world["answers"][0]]:
            answers[int(answer["ue"])].append((answer["time_s"], answer["tokens"]))
    offsets = [int(uniform(bench.sim.state.keys[0, SESSIONS], u, SESSION_OFFSET, 0) * 50) for u in range(5)]
    assert len(set(offsets)) > 2
    for u, offset in enumerate(offsets):
        row, now = offset, 1 / 25.0
        assert len(answers[u]) > 10
        for time_s, count in answers[u]:
            row = (row + 1) % 50
            now += gap_s[row] + tokens[row] / 25.0
            assert count == pytest.approx(tokens[row]) and time_s == pytest.approx(now, rel=1e-9)


def test_contexts_stay_within_the_script_whatever_the_trace_says(city, phy, tmp_path):
    path = write(tmp_path, [f"{t},M,1,100000,1,L" for t in range(5)])
    bench = Bench(city, phy, ues=4, serving=dict(decode_tokens_per_s=2e4), radio=dict(max_air_s=0.0),
                  sessions=dict(trace=str(path), think_s=0.05, script_tokens=960, prompt_tokens=(500.0, 1.0)))
    bench.ue["pause_left_s"] = 0.01
    for _ in range(60):
        bench.step()
        assert (bench.ue["context"] <= 8.0 * 960 + 1e-6).all()
    assert len(bench.events) > 10


@pytest.mark.parametrize(("preset", "bytes_per_token"), [
    ("qwen2.5-7b", 57_344), ("llama-3-8b", 131_072), ("qwen3-14b", 163_840), ("qwen3-32b", 256 * 1024)])
def test_presets_have_the_published_cache_size(preset, bytes_per_token):
    assert ServingConfig(preset).kv_bits_per_token(16) / 8 == bytes_per_token


def test_explicit_keys_override_the_preset_and_the_default_is_qwen3_14b():
    assert ServingConfig(preset="qwen3-14b", gpu="a100") == ServingConfig()
    mixed = ServingConfig(preset="qwen3-32b", layers=2, prefill_overhead_s=0.0)
    assert (mixed.layers, mixed.prefill_overhead_s, mixed.kv_heads) == (2, 0.0, 8)
    # p(L) of arXiv 2603.28018 is that of 7.6e9 parameters, and grows with them.
    assert mixed.prefill_s_per_token == pytest.approx(9.4267e-5 * 32.8 / 7.6, rel=2e-3)


@pytest.mark.parametrize(("name", "value"), [
    ("think_shape", 0.0), ("prompt_tokens", (-1.0, 0.5)), ("prompt_tokens", (1.0, -0.5))])
def test_an_impossible_session_is_refused(name, value):
    with pytest.raises(ValueError, match=name):
        SessionConfig(**{name: value})


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="llama-3-8b"):
        ServingConfig(preset="gpt")  # type: ignore[arg-type]
