import json

import pytest

from kvroam.benchmarks import peers, throughput


def test_a_rate_counts_the_calls_that_fit_into_the_time():
    calls = []
    found = throughput.rate(lambda: calls.append(1), 0.02, turns=2)
    assert found > 0 and len(calls) > 2


def test_the_table_names_every_part_it_was_asked_for(capsys, tmp_path):
    throughput.command(["--parts", "api", "core", "--seconds", "0.02", "--json", str(tmp_path / "t.json")])
    written = json.loads((tmp_path / "t.json").read_text())
    assert {r["part"] for r in written["rows"]} == {"api", "core"}
    assert all(r["value"] > 0 for r in written["rows"])
    assert {"machine", "versions"} < set(written)
    assert "PettingZoo parallel, 16 UEs" in capsys.readouterr().out


def test_the_scaling_part_draws_its_times(tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "SIZES", (2, 4))
    throughput.command(["--parts", "scaling", "--seconds", "0.02", "--plot", str(tmp_path / "scaling.png")])
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_a_scored_step_under_a_lossy_policy_degrades_caches_and_the_profile_names_functions():
    per_s, degraded, profile = throughput.scored_worker("token-aware", 2, 60, profile=True)
    assert per_s > 0 and degraded > 0
    assert "%" in profile and ":" in profile


@pytest.mark.parametrize(("arguments", "says"), [
    (["--parts", "fast"], "part 'fast' does not exist"),
    (["--seconds", "0"], "--seconds must be above 0"),
    (["--parts", "api", "--plot", "x.png"], "--plot draws the part scaling"),
])
def test_wrong_arguments_are_refused_by_name(arguments, says):
    with pytest.raises(ValueError, match=says):
        throughput.command(arguments)


def test_a_peer_that_cannot_run_is_left_out_with_its_reason(capsys, monkeypatch):
    monkeypatch.setattr(peers, "PEERS", (("broken", "case", 3, 1, "raise SystemExit('no such luck')"),))
    monkeypatch.setattr(peers.venv, "create", lambda *_, **__: None)
    monkeypatch.setattr(peers, "_run", lambda command: ("", "" if "pip" in command else "no such luck"))
    assert peers.rows(0.01) == []
    assert "broken: case is left out: no such luck" in capsys.readouterr().err


def test_a_peer_counts_environments_and_agents(monkeypatch):
    monkeypatch.setattr(peers, "PEERS", (("fine", "case", 3, 4, ""),))
    monkeypatch.setattr(peers.venv, "create", lambda *_, **__: None)
    monkeypatch.setattr(peers, "_run", lambda command: ("10.0\n", ""))
    assert [(r["value"], r["unit"]) for r in peers.rows(0.01)] == [(40.0, "steps/s"), (120.0, "agent-steps/s")]
