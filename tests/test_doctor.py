import json

from test_cli import run

from switchsafe.doctor import REFUSED, RIGHT, WRONG, check_template, probe_processor, trl_templates

NOT_CARRIED = {"idefics3", "llava_next", "smolvlm"}  # vision models, whose templates take content blocks only


def test_every_real_template_is_right_or_refused_with_a_reason(processor):
    probe = probe_processor(processor)
    verdicts = [check_template(name, template, probe) for name, template in trl_templates().items()]
    assert len(verdicts) >= 40
    assert not [(v.name, v.wrong) for v in verdicts if v.verdict == WRONG]
    refused = {v.name.removesuffix("_training") for v in verdicts if v.verdict == REFUSED}
    assert refused == NOT_CARRIED
    assert all(reason for v in verdicts for reason in v.refused.values())
    with_tools = {v.name for v in verdicts if v.right >= 16}
    assert {"qwen3", "llama3_1", "gptoss"} <= with_tools
    gemma = next(v for v in verdicts if v.name == "gemma")
    assert gemma.verdict == RIGHT
    assert "System role not supported" in next(iter(gemma.refused.values()))


def test_a_template_that_hides_or_moves_something_is_wrong_or_refused(processor):
    probe = probe_processor(processor)
    drops = "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}"
    # Carries the token, but writes something else when the first line is as long as a token.
    peeks = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}{% if m['content'].split()[0]|length == 16 %}!{% endif %}\n{% endfor %}"
    assert check_template("drops", drops, probe).verdict in (REFUSED, RIGHT)  # then the user turn carries it
    assert check_template("peeks", peeks, probe).verdict == WRONG


def test_the_command_prints_the_table(tiny_folder, tmp_path):
    good, bad = tmp_path / "good.jinja", tmp_path / "bad.jinja"
    good.write_text("{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}")
    bad.write_text("nothing")
    result = run("doctor", "templates", "--model", tiny_folder, "--template", good, "--template", bad, "--json")
    assert result.returncode == 0
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert rows["good"]["verdict"] == RIGHT
    assert rows["bad"]["verdict"] == REFUSED
